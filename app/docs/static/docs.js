// The page works without this: it adds copy buttons, remembers the language, shows where the reader
// is, and fetches the search and the console when somebody asks for them.

const announcement = document.querySelector(".announcement");

function announce(text) {
  announcement.textContent = "";
  // a screen reader speaks only what has changed
  requestAnimationFrame(() => (announcement.textContent = text));
}

function fromHere(path) {
  return new URL(path, document.baseURI).href;
}

// Samples use the address in the reader's browser, whichever proxy is in front of the service.
const service = fromHere(document.body.dataset.root).slice(0, -1);
const origins = document.querySelectorAll("[data-origin]");
const written = origins[0]?.textContent ?? service;
for (const element of origins) element.textContent = service;

// With `make run`, a copy has the development token in place of its ellipsis.
const token = document.getElementById("development-token")?.value ?? "eyJ…";

function withToken(text) {
  return text.replace("eyJ…", token);
}

async function copy(button, text) {
  try {
    // Safari forgets the click while it waits for a text, but not while it waits for an item.
    const blob = Promise.resolve(text).then((each) => new Blob([each], { type: "text/plain" }));
    await navigator.clipboard.write([new ClipboardItem({ "text/plain": blob })]);
    announce("Copied");
    button.dataset.result = "✓";
  } catch {
    announce("Not copied: the browser does not allow it");
    button.dataset.result = "✗";
  }
  setTimeout(() => delete button.dataset.result, 2000);
}

for (const figure of document.querySelectorAll("figure.code")) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Copy";
  button.setAttribute("aria-label", `Copy: ${figure.querySelector("figcaption").textContent}`);
  button.addEventListener("click", () => {
    copy(button, withToken(figure.querySelector("code").textContent));
  });
  figure.append(button);
}

for (const button of document.querySelectorAll("button[data-copy]")) {
  button.hidden = false;
  button.addEventListener("click", () => copy(button, withToken(button.dataset.copy)));
}

const copyPage = document.getElementById("copy-page");
if (copyPage) {
  copyPage.hidden = false;
  copyPage.addEventListener("click", () => copy(copyPage, markdown()));
}

async function markdown() {
  const response = await fetch(document.querySelector("link[type='text/markdown']").href);
  if (!response.ok) throw new Error(response.status);
  return (await response.text()).replaceAll(written, service);
}

// What the reader chose is kept for the next visit, if the browser allows it.
const languages = document.querySelector(".languages");

function stored(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

function store(name, value) {
  try {
    localStorage.setItem(name, value);
  } catch {
    // it is not kept
  }
}

// Another language makes the samples above longer or shorter; the reader stays where they were.
const headings = [...document.querySelectorAll("main :is(h2, h3, h4, h5)")];
let heading;
let top;

function noteHeading() {
  const tops = headings.map((each) => each.getBoundingClientRect().top);
  const seen = tops.findIndex((each) => each > 0 && each < innerHeight);
  const passed = tops.findLastIndex((each) => each <= 0);
  heading = headings[seen >= 0 ? seen : passed];
  top = heading?.getBoundingClientRect().top;
}

languages?.addEventListener("pointerdown", noteHeading);
languages?.addEventListener("keydown", noteHeading);
languages?.addEventListener("change", ({ target }) => {
  store("language", target.value);
  if (heading) scrollBy(0, heading.getBoundingClientRect().top - top);
});
const chosen = languages?.querySelector(`[value="${CSS.escape(stored("language") ?? "")}"]`);
if (chosen) chosen.checked = true;

// The contents show where the reader is.
const contents = document.getElementById("contents");
const links = new Map();
for (const link of contents.querySelectorAll("a[href^='#']")) {
  links.set(link.hash.slice(1), link);
}
const targets = [...links.keys()].map((id) => document.getElementById(id));

function showPlace() {
  const line = innerHeight / 4;
  const passed = targets.filter((target) => target.getBoundingClientRect().top < line);
  const current = links.get(passed.at(-1)?.id);
  for (const link of links.values()) {
    if (link === current) link.setAttribute("aria-current", "location");
    else link.removeAttribute("aria-current");
  }
  if (current && contents.scrollHeight > contents.clientHeight) {
    contents.scrollTop = current.offsetTop - contents.clientHeight / 2;
  }
}

let waiting = false;
addEventListener(
  "scroll",
  () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      showPlace();
    });
  },
  { passive: true },
);
showPlace();

contents.addEventListener("click", ({ target }) => {
  if (target.closest("a") && contents.matches(":popover-open")) contents.hidePopover();
});

// A link may lead to a member that is folded away. Browsers unfold it, but not all of them.
function unfold() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const folded = target?.closest("details:not([open])");
  if (!folded) return;
  for (let each = folded; each; each = each.parentElement.closest("details")) each.open = true;
  target.scrollIntoView();
}

addEventListener("hashchange", unfold);
unfold();

// The search and the console come when they are asked for.
async function fetched(button, name, address) {
  try {
    return await import(fromHere(address));
  } catch {
    announce(`The ${name} cannot be fetched`);
    button.dataset.result = "✗";
    return null;
  }
}

const searchButton = document.querySelector("button.search");
if (/Mac|iPhone|iPad/.test(navigator.platform)) {
  searchButton.querySelector("kbd").textContent = "⌘ K";
}
searchButton.hidden = false;
searchButton.addEventListener("click", openSearch);

async function openSearch() {
  const search = await fetched(searchButton, "search", document.body.dataset.search);
  await search?.open(`${service}/`, { usesSlash, keepSlash: (on) => store("slash", on ? "on" : "off") });
}

function usesSlash() {
  return stored("slash") !== "off";
}

addEventListener("keydown", (event) => {
  const isTyping = event.target.closest?.("input, textarea, select, [contenteditable]");
  const isSlash = event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey && !event.altKey;
  const isCombination = event.key.toLowerCase() === "k" && (event.ctrlKey || event.metaKey);
  if (!isCombination && !(isSlash && usesSlash())) return;
  event.preventDefault();
  openSearch();
});

for (const button of document.querySelectorAll("button.try")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const form = document.getElementById(button.getAttribute("aria-controls"));
    const console = await fetched(button, "console", document.body.dataset.console);
    if (!console) return;
    form.hidden = !form.hidden;
    button.setAttribute("aria-expanded", !form.hidden);
    if (!form.hidden) console.open(form, `${service}/`);
  });
}
