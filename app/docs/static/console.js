// Sends the call that a form describes, and shows the response below it.

// What was typed or came back, by name, until the page is left. Nothing is stored.
const given = { token: document.getElementById("development-token")?.value ?? "" };
const known = { ...given };
const kept = ["token", "secret_id", "client_id", "client_secret"];
// Where a field says which credential is meant. A filter of a list does not.
const filled = ["path", "bearer", "username", "password"];
const ready = new WeakSet();
let root;

// Prepare the form and move the focus into it. Calls are relative to the address of the service.
export function open(form, service) {
  root = service;
  if (!ready.has(form)) {
    ready.add(form);
    form.addEventListener("input", ({ target }) => remember(target));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      submit(form);
    });
  }
  fill(form);
  form.querySelector("input, select, textarea, button").focus();
}

function isKept(input) {
  return kept.includes(input.name) && filled.includes(input.dataset.location);
}

function remember(input) {
  if (!isKept(input)) return;
  input.dataset.edited = input.value;
  known[input.name] = input.value || (given[input.name] ?? "");
}

// Fill in what is known, where the reader has not typed something else.
function fill(form) {
  for (const input of form.querySelectorAll("input")) {
    if (isKept(input) && !input.dataset.edited) input.value = known[input.name] ?? "";
  }
}

function submit(form) {
  let call;
  try {
    call = read(form);
  } catch (error) {
    form.querySelector("[role=status]").textContent = `Not sent: ${error.message}`;
    return;
  }
  if (call.method === "DELETE" && !confirm(`Send DELETE ${call.url.pathname}${call.url.search}?`)) {
    return;
  }
  send(form, call);
}

async function send(form, call) {
  const output = form.querySelector("[role=status]");
  const buttons = form.querySelectorAll("button");
  for (const button of buttons) button.disabled = true;
  output.textContent = "Sending …";
  setCookies(call, "");
  try {
    const response = await fetch(call.url, call);
    show(form, call, response, await response.text());
  } catch (error) {
    output.textContent = `No response: ${error.message}`;
  } finally {
    setCookies(call, "; max-age=0");
    for (const button of buttons) button.disabled = false;
  }
}

// Set the call's cookies for its path alone, or remove them.
function setCookies({ cookies, url }, age) {
  for (const [name, value] of Object.entries(cookies)) {
    document.cookie = `${name}=${value}; path=${url.pathname}; samesite=strict${age}`;
  }
}

// Return what the form says: the options of `fetch`, with the URL and the cookies.
function read(form) {
  const values = { path: {}, query: {}, header: {}, cookie: {}, bearer: {}, username: {}, password: {} };
  for (const input of form.querySelectorAll("input, select")) {
    if (input.value) values[input.dataset.location][input.name] = input.value;
  }
  for (const [name, value] of Object.entries(values.cookie)) {
    if (!navigator.cookieEnabled) throw new Error("the browser does not allow cookies");
    if (/[\s;,"\\]/.test(value)) throw new Error(`${name} cannot be sent as a cookie`);
  }
  const headers = new Headers(values.header);
  if (values.bearer.token) headers.set("Authorization", `Bearer ${values.bearer.token}`);
  const isBasic = "client_secret" in form.elements;
  if (isBasic) {
    headers.set("Authorization", basic(values.username.client_id, values.password.client_secret));
  }
  const body = form.elements.body?.value;
  if (body !== undefined) headers.set("Content-Type", "application/json");
  // below the address of the service, because a proxy may add a path prefix
  const path = form.dataset.path.slice(1).replace(/\{(\w+)\}/g, (_, name) =>
    encodeURIComponent(values.path[name]),
  );
  const url = new URL(path, root);
  url.search = new URLSearchParams(values.query);
  return {
    url,
    method: form.dataset.method,
    headers,
    body,
    cookies: values.cookie,
    // with Basic, the browser would show a dialog of its own on 401
    credentials: isBasic ? "omit" : "same-origin",
  };
}

// RFC 7617, in UTF-8
function basic(id, secret) {
  const bytes = new TextEncoder().encode(`${id}:${secret}`);
  return `Basic ${btoa(String.fromCharCode(...bytes))}`;
}

function show(form, call, response, text) {
  const output = form.querySelector("[role=status]");
  output.textContent = `${response.status} ${response.statusText}`;
  const headers = [...response.headers].map(([name, value]) => `${name}: ${value}`);
  output.append(block("headers", headers.join("\n")));
  if (text) output.append(block("body", readable(text)));
  const next = /<([^>]*)>; rel="next"/.exec(response.headers.get("Link"))?.[1];
  if (next !== undefined) output.append(follow(form, { ...call, url: new URL(next, response.url) }));
}

function block(name, text) {
  const element = document.createElement("pre");
  element.className = name;
  element.textContent = text;
  return element;
}

// Return JSON with indentation, and fill in what it says in the other forms. Other text stays.
function readable(text) {
  try {
    const value = JSON.parse(text);
    for (const name of kept) if (typeof value[name] === "string") known[name] = value[name];
    document.querySelectorAll(".console").forEach(fill);
    return JSON.stringify(value, null, 2);
  } catch {
    return text;
  }
}

function follow(form, call) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Follow the Link";
  button.addEventListener("click", () => send(form, call));
  return button;
}
