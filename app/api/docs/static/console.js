// Sends the call that a form describes, and shows the answer below it.

// What was typed or came back, by name, until the page is left. Nothing is stored.
const known = { token: document.getElementById("development-token")?.value };
const kept = ["token", "secret_id", "client_id", "client_secret"];
const ready = new WeakSet();

// Prepare the form and move the focus into it.
export function open(form) {
  if (!ready.has(form)) {
    ready.add(form);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      send(form);
    });
  }
  for (const input of form.querySelectorAll("input")) {
    if (kept.includes(input.name)) input.value ||= known[input.name] ?? "";
  }
  form.querySelector("input, textarea, button").focus();
}

async function send(form) {
  const place = form.querySelector("[role=status]");
  const button = form.querySelector("[type=submit]");
  button.disabled = true;
  place.textContent = "Sending …";
  try {
    const response = await fetch(...call(form));
    show(place, response, await response.text());
  } catch (error) {
    place.textContent = `No answer: ${error.message}`;
  } finally {
    button.disabled = false;
  }
}

// Return the arguments of `fetch` for what the form says.
function call(form) {
  const values = { path: {}, query: {}, header: {}, bearer: {}, username: {}, password: {} };
  for (const input of form.querySelectorAll("input")) {
    if (kept.includes(input.name)) known[input.name] = input.value;
    if (input.value) values[input.dataset.place][input.name] = input.value;
  }
  const headers = new Headers(values.header);
  const { token } = values.bearer;
  if (token) headers.set("Authorization", `Bearer ${token}`);
  const { client_id: id = "", client_secret: secret = "" } = { ...values.username, ...values.password };
  if (form.elements.client_secret) headers.set("Authorization", `Basic ${btoa(`${id}:${secret}`)}`);
  const body = form.elements.body?.value;
  if (body !== undefined) headers.set("Content-Type", "application/json");
  const path = form.dataset.path.replace(/\{(\w+)\}/g, (_, name) =>
    encodeURIComponent(values.path[name] ?? ""),
  );
  const query = new URLSearchParams(values.query);
  return [
    query.size ? `${path}?${query}` : path,
    // with Basic, the browser would show a dialog of its own on 401
    { method: form.dataset.method, headers, body, credentials: form.elements.client_secret ? "omit" : "same-origin" },
  ];
}

function show(place, response, text) {
  place.textContent = `${response.status} ${response.statusText}`;
  const answer = document.createElement("pre");
  answer.textContent = text;
  try {
    const value = JSON.parse(text);
    answer.textContent = JSON.stringify(value, null, 2);
    for (const name of kept) if (typeof value[name] === "string") known[name] = value[name];
  } catch {
    // not JSON: shown as it came
  }
  if (text) place.append(answer);
}
