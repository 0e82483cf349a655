"use strict";

const development = document.getElementById("development-token");

const ui = SwaggerUIBundle({
  dom_id: "#swagger-ui",
  url: "/openapi.json",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  syntaxHighlight: { theme: "tomorrow-night" },
  validatorUrl: null,
  requestInterceptor(request) {
    // otherwise the browser shows its own password dialog on a 401
    if (new URL(request.url, location).pathname === "/verify") request.credentials = "omit";
    return request;
  },
  onComplete() {
    if (development) development.disabled = false;
  },
});

development?.addEventListener("click", () => {
  ui.preauthorizeApiKey("bearerAuth", development.dataset.token);
  document.querySelector(".development [role=status]").textContent =
    "Authorized. Open a call and press Try it out.";
});

// Swagger UI handles every link within the page itself, and does not move the focus.
for (const link of document.querySelectorAll("a[href^='#']")) {
  link.addEventListener("click", (event) => event.stopPropagation());
}

// Samples use the address in the reader's browser, whichever proxy is in front of the service.
for (const place of document.querySelectorAll("[data-origin]")) {
  place.textContent = location.origin;
}

// Choosing a language for one sample chooses it for all of them.
function choose(language) {
  for (const tab of document.querySelectorAll(".samples [role=tab]")) {
    const chosen = tab.dataset.language === language;
    tab.setAttribute("aria-selected", chosen);
    tab.tabIndex = chosen ? 0 : -1;
    document.getElementById(tab.getAttribute("aria-controls")).hidden = !chosen;
  }
}

function chooseAndStay(tab) {
  const top = tab.getBoundingClientRect().top;
  choose(tab.dataset.language);
  tab.focus({ preventScroll: true });
  // the samples above are longer or shorter now
  window.scrollBy(0, tab.getBoundingClientRect().top - top);
}

for (const list of document.querySelectorAll(".samples [role=tablist]")) {
  const tabs = [...list.querySelectorAll("[role=tab]")];
  list.addEventListener("click", ({ target }) => {
    if (tabs.includes(target)) chooseAndStay(target);
  });
  // the keys that the ARIA Authoring Practices give tabs
  list.addEventListener("keydown", (event) => {
    const at = tabs.indexOf(event.target);
    const next = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: tabs.length - 1 }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    chooseAndStay(tabs.at(next % tabs.length));
  });
}
