// The page works without this: it adds copy buttons, remembers the language, shows where the reader
// is, and fetches the console when somebody asks for it.

const announcement = document.querySelector(".announcement");

function announce(text) {
  announcement.textContent = "";
  // a screen reader speaks only what has changed
  requestAnimationFrame(() => (announcement.textContent = text));
}

// Samples use the address in the reader's browser, whichever proxy is in front of the service.
for (const place of document.querySelectorAll("[data-origin]")) {
  place.textContent = location.origin;
}

// With `make run`, a copy has the development token in place of its ellipsis.
const token = document.getElementById("development-token")?.value ?? "eyJ…";

async function copy(button, text) {
  try {
    await navigator.clipboard.writeText(text.replace("eyJ…", token));
    announce("Copied");
    button.dataset.copied = "";
    setTimeout(() => delete button.dataset.copied, 2000);
  } catch {
    announce("Not copied: the browser does not allow it");
  }
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

// The chosen language is kept for the next visit.
const radios = [...document.querySelectorAll("input[name=language]")];
const stored = radios.find((radio) => radio.value === localStorage.getItem("language"));
if (stored) stored.checked = true;
for (const radio of radios) {
  radio.addEventListener("change", () => localStorage.setItem("language", radio.value));
}

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
    const { open } = await import(document.body.dataset.console);
    form.hidden = !form.hidden;
    button.setAttribute("aria-expanded", !form.hidden);
    if (!form.hidden) open(form);
  });
}
