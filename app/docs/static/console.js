// Sends the call that a form describes, and shows the answer below it.

// What was typed or came back, by name, until the page is left. Nothing is stored.
const given = { token: document.getElementById("development-token")?.value ?? "" };
const known = { ...given };
const kept = ["token", "secret_id", "client_id", "client_secret"];
const ready = new WeakSet();

// Prepare the form and move the focus into it.
export function open(form) {
  if (!ready.has(form)) {
    ready.add(form);
    form.addEventListener("input", ({ target }) => remember(target));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      send(form);
    });
  }
  fill(form);
  form.querySelector("input, textarea, button").focus();
}

function remember(input) {
  if (!kept.includes(input.name)) return;
  input.dataset.edited = input.value;
  known[input.name] = input.value || (given[input.name] ?? "");
}

// Fill in what is known, where the reader has not typed something else.
function fill(form) {
  for (const input of form.querySelectorAll("input")) {
    if (kept.includes(input.name) && !input.dataset.edited) input.value = known[input.name] ?? "";
  }
}

async function send(form) {
  const output = form.querySelector("[role=status]");
  const button = form.querySelector("[type=submit]");
  let request;
  try {
    request = call(form);
  } catch (error) {
    output.textContent = `Not sent: ${error.message}`;
    return;
  }
  button.disabled = true;
  output.textContent = "Sending …";
  try {
    const response = await fetch(...request);
    show(output, response, await response.text());
  } catch (error) {
    output.textContent = `No answer: ${error.message}`;
  } finally {
    button.disabled = false;
  }
}

// Return the arguments of `fetch` for what the form says.
function call(form) {
  const values = { path: {}, query: {}, header: {}, bearer: {}, username: {}, password: {} };
  for (const input of form.querySelectorAll("input")) {
    if (input.value) values[input.dataset.location][input.name] = input.value;
  }
  const headers = new Headers(values.header);
  if (values.bearer.token) headers.set("Authorization", `Bearer ${values.bearer.token}`);
  const isBasic = "client_secret" in form.elements;
  if (isBasic) {
    headers.set("Authorization", basic(values.username.client_id, values.password.client_secret));
  }
  const body = form.elements.body?.value;
  if (body !== undefined) headers.set("Content-Type", "application/json");
  // relative to the page, because a proxy may add a path prefix
  const path = `.${form.dataset.path}`.replace(/\{(\w+)\}/g, (_, name) =>
    encodeURIComponent(values.path[name]),
  );
  const query = new URLSearchParams(values.query);
  return [
    query.size ? `${path}?${query}` : path,
    {
      method: form.dataset.method,
      headers,
      body,
      // with Basic, the browser would show a dialog of its own on 401
      credentials: isBasic ? "omit" : "same-origin",
    },
  ];
}

// RFC 7617, in UTF-8
function basic(id, secret) {
  const bytes = new TextEncoder().encode(`${id}:${secret}`);
  return `Basic ${btoa(String.fromCharCode(...bytes))}`;
}

function show(output, response, text) {
  output.textContent = `${response.status} ${response.statusText}`;
  if (!text) return;
  const answer = document.createElement("pre");
  answer.textContent = text;
  try {
    const value = JSON.parse(text);
    answer.textContent = JSON.stringify(value, null, 2);
    for (const name of kept) if (typeof value[name] === "string") known[name] = value[name];
    document.querySelectorAll(".console").forEach(fill);
  } catch {
    // not JSON: shown as it came
  }
  output.append(answer);
}
