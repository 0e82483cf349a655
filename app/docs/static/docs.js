// The page works without this: it adds copy buttons, remembers the language, shows where the reader
// is, and fetches the console when somebody asks for it.

const announcement = document.querySelector(".announcement");

function announce(text) {
  announcement.textContent = "";
  // a screen reader speaks only what has changed
  requestAnimationFrame(() => (announcement.textContent = text));
}

// Samples use the address in the reader's browser, whichever proxy is in front of the service.
const service = new URL(".", document.baseURI).href.slice(0, -1);
for (const element of document.querySelectorAll("[data-origin]")) {
  element.textContent = service;
}

// With `make run`, a copy has the development token in place of its ellipsis.
const token = document.getElementById("development-token")?.value ?? "eyJ…";

async function copy(button, text) {
  try {
    await navigator.clipboard.writeText(text.replace("eyJ…", token));
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
  button.addEventListener("click", () => copy(button, figure.querySelector("code").textContent));
  figure.append(button);
}

for (const button of document.querySelectorAll("button[data-copy]")) {
  button.hidden = false;
  button.addEventListener("click", () => copy(button, button.dataset.copy));
}

// The chosen language is kept for the next visit, if the browser allows it.
const languages = document.querySelector(".languages");

function stored() {
  try {
    return localStorage.getItem("language");
  } catch {
    return null;
  }
}

function store(language) {
  try {
    localStorage.setItem("language", language);
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
  store(target.value);
  if (heading) scrollBy(0, heading.getBoundingClientRect().top - top);
});
const chosen = languages?.querySelector(`[value="${CSS.escape(stored() ?? "")}"]`);
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

// The console comes when it is asked for.
for (const button of document.querySelectorAll("button.try")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const form = document.getElementById(button.getAttribute("aria-controls"));
    let open;
    try {
      ({ open } = await import(new URL(document.body.dataset.console, document.baseURI)));
    } catch {
      announce("The console cannot be fetched");
      button.dataset.result = "✗";
      return;
    }
    form.hidden = !form.hidden;
    button.setAttribute("aria-expanded", !form.hidden);
    if (!form.hidden) open(form);
  });
}
