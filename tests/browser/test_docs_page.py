"""The page at /docs in a real Chromium, as a reader uses it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.helpers import basic, caller, is_live, require, time_in
from tests.make_run import running
from tests.server import ROOT, free_port

CHROMIUM = Path("/usr/bin/chromium")

LANGUAGES = ("curl", "Python", "JavaScript", "Go")
PHONE = {"width": 390, "height": 844}

_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_REPORT_VIOLATIONS = """
addEventListener("securitypolicyviolation", (event) =>
  console.error(`${event.violatedDirective} forbids ${event.blockedURI}`));
"""


@pytest.fixture(scope="module")
def browser():
    require(CHROMIUM, install="apt-get install chromium")
    expect.set_options(timeout=15_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    """A page that must log no error and load nothing from other hosts."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(15_000)
    errors, hosts = [], set()
    page.add_init_script(_REPORT_VIOLATIONS)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on(
        "console",
        lambda line: errors.append(line.text) if line.type in {"error", "warning"} else None,
    )
    page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    yield page
    own = urlsplit(page.url).netloc
    page.close()
    assert errors == []
    assert hosts - {""} == {own}  # a data: URL has no host


def open_docs(page, server):
    page.goto(f"http://127.0.0.1:{server.port}/docs")
    expect(page.locator(".opblock").first).to_be_visible()


def authorize(page, scheme, **values):
    page.locator(".scheme-container .authorize").click()
    dialog = page.locator(".auth-container").filter(has_text=scheme)
    for name, value in values.items():
        dialog.locator(f"#auth-{name}").fill(value)
    dialog.get_by_role("button", name="Apply credentials").click()
    expect(dialog.get_by_text("Logout")).to_be_visible()
    page.locator(".close-modal").click()


def authorize_bearer(page, token):
    authorize(page, "bearerAuth", **{"bearer-value": token})


def authorize_basic(page, issued):
    pair = {"basic-username": issued["client_id"], "basic-password": issued["client_secret"]}
    authorize(page, "basicAuth", **pair)


def log_out_of_basic(page):
    page.locator(".scheme-container .authorize").click()
    dialog = page.locator(".auth-container").filter(has_text="basicAuth")
    dialog.get_by_text("Logout").click()
    page.locator(".close-modal").click()


def find_call(page, name):
    return page.locator(f".opblock[id$='-{name}']")


def execute(call):
    """Press Execute, wait for a 200, and return the body that the page shows."""
    call.get_by_role("button", name="Execute").click()
    answer = call.locator(".live-responses-table .response").first
    expect(answer.locator(".response-col_status")).to_contain_text("200")
    return json.loads(answer.locator("code.language-json").text_content())


def try_out(page, name, body=None, **parameters):
    call = find_call(page, name)
    call.locator(".opblock-summary-control").click()
    call.get_by_role("button", name="Try it out").click()
    for parameter, value in parameters.items():
        call.locator(f"tr[data-param-name='{parameter}'] input").fill(value)
    if body is not None:
        call.locator("textarea.body-param__text").fill(json.dumps(body))
    return execute(call)


def test_a_reader_can_go_from_a_token_to_a_verified_credential(page, server, issuer):
    open_docs(page, server)
    authorize_bearer(page, issuer.sign())
    issued = try_out(page, "issueCredential", {"name": "CRM backend"})
    assert issued["client_secret"].startswith("lv_cs_")
    (listed,) = try_out(page, "listCredentials")
    assert listed["secret_id"] == issued["secret_id"]
    authorize_basic(page, issued)
    verified = try_out(page, "verify")
    assert verified["client_id"] == issued["client_id"]
    assert verified["name"] == "CRM backend"


def test_after_a_rotation_on_the_page_both_client_secrets_verify(page, server, issuer):
    open_docs(page, server)
    authorize_bearer(page, issuer.sign())
    issued = try_out(page, "issueCredential", {"name": "CRM backend"})
    rotated = try_out(page, "rotateCredential", secret_id=issued["secret_id"])
    assert rotated["client_secret"] != issued["client_secret"]
    authorize_basic(page, issued)
    assert try_out(page, "verify")["secret_id"] == issued["secret_id"]
    log_out_of_basic(page)
    authorize_basic(page, rotated)
    assert execute(find_call(page, "verify"))["secret_id"] == issued["secret_id"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_samples_work_as_the_guide_says(page, server, issuer, tmp_path, language):
    run = {"curl": run_shell, "Python": run_python, "JavaScript": run_node, "Go": run_go}[language]
    open_docs(page, server)

    def follow(step, **variables):
        sample = page.locator(f"#{step}-{language}").text_content()
        return json.loads(run(sample, tmp_path, {"TOKEN": issuer.sign()} | variables))

    def verify(credential):
        return follow(
            "verify",
            CLIENT_ID=credential["client_id"],
            CLIENT_SECRET=credential["client_secret"],
        )

    assert follow("token") == []
    issued = follow("issue")
    assert verify(issued)["secret_id"] == issued["secret_id"]
    rotated = follow("rotate", SECRET_ID=issued["secret_id"])
    assert verify(rotated) == verify(issued)


@pytest.fixture
def recipe(page, server):
    """Return a function that reads the sample of a recipe."""
    open_docs(page, server)
    return lambda name: page.locator(f"#{name}-sample").text_content()


@pytest.fixture
def token(issuer):
    return {"TOKEN": issuer.sign()}


def test_the_recipe_for_an_expiry_and_its_warning_work(recipe, token, member, server, caplog):
    issued = json.loads(output(["sh", "-c", recipe("expire")], token))
    (secret,) = member.get(f"/secrets/{issued['secret_id']}").json["secrets"]
    assert secret["expires_at"] is not None
    pair = basic(issued["client_id"], issued["client_secret"])
    answer = server.request("GET", "/verify", **pair)
    exact = {"X-LeadVibe-Secret-Expires-At": answer.headers["x-leadvibe-secret-expires-at"]}
    caplog.clear()
    warn(recipe("warn"), exact)
    assert caplog.messages == []
    warn(recipe("warn"), {"X-LeadVibe-Secret-Expires-At": time_in(days=3, minutes=1)})
    warn(recipe("warn"), {"X-LeadVibe-Secret-Expires-At": "none"})
    assert caplog.messages == ["the client secret expires in 3 days"]


def warn(sample, headers):
    imports = "import logging\nfrom datetime import UTC, datetime, timedelta\n"
    exec(imports + sample, {"answer": SimpleNamespace(headers=headers)})  # noqa: S102  our own page


def test_the_recipe_for_a_pause_works(recipe, token, issued, rows):
    output(["sh", "-c", recipe("pause")], token | {"SECRET_ID": issued.secret_id})
    assert not is_live(rows, issued.client_secret)


def test_the_recipe_that_finishes_a_rotation_works(recipe, token, issued, service, rows):
    rotated = service.rotate(caller(), issued.secret_id, overlap_seconds=3600)
    variables = {"SECRET_ID": issued.secret_id, "HINT": issued.client_secret[-4:]}
    output(["sh", "-c", recipe("finish")], token | variables)
    assert not is_live(rows, issued.client_secret)
    assert is_live(rows, rotated.client_secret)


def test_the_recipe_for_a_retry_gives_the_same_answer(recipe, token, rows):
    twice = recipe("retry") + "\necho\n" + recipe("retry").partition("\n")[2]
    first, again = filter(None, output(["sh", "-c", twice], token).splitlines())
    assert first == again
    assert rows.count("credentials") == 1


def test_the_recipe_for_a_siem_streams_events(recipe, token, issued, service):
    following = subprocess.Popen(
        [sys.executable, "-c", recipe("siem")],
        env=os.environ | token,
        stdout=subprocess.PIPE,
        text=True,
    )
    with following:
        assert json.loads(following.stdout.readline())["event"] == "issued"
        service.revoke(caller(), issued.secret_id)
        assert json.loads(following.stdout.readline())["event"] == "revoked"
        following.kill()


def run_shell(sample, _, variables):
    return output(["sh", "-c", sample], variables)


def run_python(sample, _, variables):
    return output([sys.executable, "-c", sample], variables)


def run_node(sample, _, variables):
    require("node", install="apt-get install nodejs")
    return output(["node", "--input-type=module", "--eval", sample], variables)


def run_go(sample, directory, variables):
    require("go", install="apt-get install golang-go")
    (directory / "main.go").write_text(sample)
    return output(["go", "run", str(directory / "main.go")], variables)


def output(command, variables):
    return subprocess.check_output(command, env=os.environ | variables, text=True)


def test_the_development_token_authorizes_with_one_click(page, var):
    port = str(free_port())
    with running(var, PORT=port):
        page.goto(f"http://127.0.0.1:{port}/docs")
        page.get_by_role("button", name="Authorize with the development token").click()
        expect(page.get_by_role("status")).to_contain_text("Authorized")
        assert try_out(page, "issueCredential")["unit_id"] == "unit_demo"


def test_production_does_not_mention_development(page, server):
    open_docs(page, server)
    assert "development" not in page.content()
    assert "export TOKEN='eyJ…'" in page.content()


def test_samples_use_the_host_name_that_the_reader_used(page, server):
    page.goto(f"http://localhost:{server.port}/docs")
    expect(page.locator("#verify-curl")).to_contain_text(f"http://localhost:{server.port}/verify")


def test_the_first_tab_stop_skips_the_guide(page, server):
    open_docs(page, server)
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to all calls")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="All calls")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.locator(".scheme-container .authorize")).to_be_focused()


def test_the_tabs_of_the_guide_work_by_keyboard(page, server):
    open_docs(page, server)
    tabs = page.get_by_role("tablist", name="Issue a credential").get_by_role("tab")
    tabs.first.focus()
    for key, language in (
        ("ArrowRight", "Python"),
        ("End", "Go"),
        ("ArrowRight", "curl"),
        ("ArrowLeft", "Go"),
        ("Home", "curl"),
        ("ArrowRight", "Python"),
    ):
        page.keyboard.press(key)
        chosen = tabs.filter(has_text=language)
        expect(chosen).to_be_focused()
        expect(chosen).to_have_attribute("aria-selected", "true")
        for other in LANGUAGES:
            panel = page.locator(f"#issue-{other}")
            expect(panel).to_be_visible(visible=other == language)
    page.keyboard.press("Tab")
    expect(page.get_by_role("tabpanel", name="Python").nth(1)).to_be_focused()


def test_the_tab_key_reaches_every_link_before_the_first_tabs(page, server):
    open_docs(page, server)
    reached = []
    while "token-curl-tab" not in reached:
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.hash"))
        assert len(reached) < 20, reached
    assert {"#calls", "#credential", "#first-event", "#rotation"} <= set(reached)


def test_choosing_a_language_once_changes_every_sample(page, server):
    open_docs(page, server)
    tab = page.get_by_role("tablist", name="Verify it").get_by_role("tab", name="Go")
    tab.scroll_into_view_if_needed()
    before = tab.bounding_box()["y"]
    tab.click()
    for step in ("token", "issue", "verify", "rotate"):
        expect(page.locator(f"#{step}-Go")).to_be_visible()
        expect(page.locator(f"#{step}-curl")).to_be_hidden()
    assert tab.bounding_box()["y"] == pytest.approx(before, abs=1)


def test_the_page_never_scrolls_sideways_on_a_phone(page, server, issuer):
    page.set_viewport_size(PHONE)
    open_docs(page, server)
    for language in LANGUAGES:
        page.get_by_role("tab", name=language).first.click()
        assert width(page) == PHONE["width"], language
    authorize_bearer(page, issuer.sign())
    issued = try_out(page, "issueCredential")
    assert width(page) == PHONE["width"]
    try_out(page, "getCredential", secret_id=issued["secret_id"])
    try_out(page, "listEvents", secret_id=issued["secret_id"])
    page.locator(".scheme-container .authorize").click()
    assert width(page) == PHONE["width"]


def width(page):
    return page.evaluate("document.documentElement.scrollWidth")


def test_the_screenshots_are_taken(page, server, tmp_path):
    directory = ROOT / "docs" / "img" if "SCREENSHOTS" in os.environ else tmp_path
    directory.mkdir(exist_ok=True)
    open_docs(page, server)
    # the port is a different one in each run; show the usual one
    page.evaluate(
        "for (const place of document.querySelectorAll('[data-origin]'))"
        " place.textContent = 'http://127.0.0.1:8000'"
    )
    page.set_viewport_size({"width": 1280, "height": 1440})
    page.screenshot(path=directory / "docs-desktop.png")
    page.set_viewport_size(PHONE)
    page.screenshot(path=directory / "docs-phone.png")
    assert {path.name for path in directory.glob("docs-*.png")} == {
        "docs-desktop.png",
        "docs-phone.png",
    }
