// Finds headings, calls, fields and errors in a list that the browser fetches once.

const MAX_SHOWN = 30;

let dialog;
let input;
let list;
let entries;
let root;

// Show the search. Addresses in the list are relative to that of the service.
export async function open(service, slash) {
  root = service;
  dialog ??= make(slash);
  if (!dialog.open) dialog.showModal();
  input.select();
  if (!entries) await load();
  show();
}

async function load() {
  try {
    const response = await fetch(new URL("docs/search.json", root));
    if (!response.ok) throw new Error(response.status);
    entries = (await response.json()).map(([kind, title, place, description, address]) => ({
      kind,
      title,
      place,
      address,
      // what is found there, from the best to the weakest
      texts: [title, place, description].map((text) => text.toLowerCase()),
    }));
  } catch {
    dialog.querySelector("p").textContent = "The search cannot be fetched";
  }
}

function make({ usesSlash, keepSlash }) {
  const made = document.createElement("dialog");
  made.className = "finder";
  made.setAttribute("aria-label", "Search");
  made.innerHTML = `
    <input type="text" inputmode="search" role="combobox" aria-label="Search headings, calls, fields and errors"
      aria-controls="found" aria-expanded="false" aria-autocomplete="list" autocomplete="off"
      spellcheck="false" placeholder="Search headings, calls, fields and errors">
    <div id="found" role="listbox" aria-label="Results"></div>
    <p role="status"></p>
    <label><input type="checkbox"> The key <kbd>/</kbd> opens the search</label>`;
  input = made.querySelector("[role=combobox]");
  list = made.querySelector("[role=listbox]");
  const slash = made.querySelector("[type=checkbox]");
  slash.checked = usesSlash();
  slash.addEventListener("change", () => keepSlash(slash.checked));
  input.addEventListener("input", show);
  input.addEventListener("keydown", move);
  list.addEventListener("click", ({ target }) => go(target.closest("[role=option]")));
  made.addEventListener("click", ({ target }) => {
    if (target === made) made.close(); // the backdrop
  });
  document.body.append(made);
  return made;
}

function found(words) {
  return entries
    .map((entry) => ({ entry, score: score(entry, words) }))
    .filter((each) => each.score > 0)
    .sort((a, b) => b.score - a.score) // entries of one score stay in their order
    .slice(0, MAX_SHOWN)
    .map((each) => each.entry);
}

// Every word must be somewhere; the title counts most, and most of all at the start of a word.
function score({ texts }, words) {
  let total = 0;
  for (const word of words) {
    const index = texts.findIndex((text) => text.includes(word));
    if (index < 0) return 0;
    const text = texts[index];
    const isStart = text.split(/[^\p{L}\p{N}]+/u).some((each) => each.startsWith(word));
    total += [8, 3, 1][index] * (text === word ? 4 : isStart ? 2 : 1);
  }
  return total;
}

function show() {
  if (!entries) return;
  const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
  const shown = words.length ? found(words) : [];
  list.replaceChildren(...shown.map(option));
  input.setAttribute("aria-expanded", shown.length > 0);
  choose(list.firstElementChild);
  const more = shown.length === MAX_SHOWN ? "The best " : "";
  dialog.querySelector("p").textContent = words.length
    ? `${more}${shown.length} result${shown.length === 1 ? "" : "s"}`
    : "";
}

function option({ kind, title, place, address }, index) {
  const element = document.createElement("div");
  element.role = "option";
  element.id = `found-${index}`;
  element.dataset.address = address;
  for (const [name, text] of [["kind", kind], ["found", title], ["place", place]]) {
    const part = document.createElement("span");
    part.className = name;
    part.textContent = text;
    element.append(part, " ");
  }
  return element;
}

function choose(element) {
  list.querySelector("[aria-selected=true]")?.setAttribute("aria-selected", "false");
  if (element) {
    element.setAttribute("aria-selected", "true");
    input.setAttribute("aria-activedescendant", element.id);
    element.scrollIntoView({ block: "nearest" });
  } else {
    input.removeAttribute("aria-activedescendant");
  }
}

function move(event) {
  const chosen = list.querySelector("[aria-selected=true]");
  if (event.key === "ArrowDown") choose(chosen?.nextElementSibling ?? list.firstElementChild);
  else if (event.key === "ArrowUp") choose(chosen?.previousElementSibling ?? list.lastElementChild);
  else if (event.key === "Enter") go(chosen);
  else return;
  event.preventDefault();
}

function go(element) {
  if (!element) return;
  dialog.close();
  location.assign(new URL(element.dataset.address, root));
}
