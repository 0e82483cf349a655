"""The page at /docs in a real Chromium, used as a reader would."""

import json
import os
import re
from contextlib import nullcontext
from itertools import product
from pathlib import Path
from urllib.parse import parse_qs, urljoin, urlsplit

import pytest
from playwright.sync_api import expect, sync_playwright

from app.docs.reference import read_reference
from tests.helpers import caller, require, time_in
from tests.make_run import running
from tests.nginx import under_prefix
from tests.running_server import HANG_SECONDS, ROOT, free_port

CHROMIUM = Path("/usr/bin/chromium")
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"

LANGUAGES = ("curl", "Python", "JavaScript", "Go")
THEMES = ({"color_scheme": "light"}, {"color_scheme": "dark"}, {"forced_colors": "active"})
WIDTHS = (320, 390, 1280, 1440)
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
    expect.set_options(timeout=HANG_SECONDS * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    """A browser page that must log no error and load nothing from other hosts."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(HANG_SECONDS * 1000)
    errors, hosts = [], set()
    page.add_init_script(_REPORT_VIOLATIONS)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on(
        "console",
        lambda line: errors.append(line.text) if line.type in {"error", "warning"} else None,
    )
    page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    page.errors = errors
    yield page
    own = urlsplit(page.url).netloc
    page.close()
    assert errors == []
    assert hosts - {""} == {own}  # a data: URL has no host


def open_docs(page, server, path="/docs"):
    page.goto(f"http://127.0.0.1:{server.port}{path}")


def open_console(page, operation_id):
    article = page.locator(f"article[aria-labelledby={operation_id}]")
    article.get_by_role("button", name="Try it").click()
    console = article.locator("form")
    expect(console).to_be_visible()
    return console


def send(console, status=200, **values):
    """Fill in the console, press Send, and return the response that the page shows."""
    for name, value in values.items():
        fill(console.locator(f"[name={name}]"), value)
    console.get_by_role("button", name="Send").click()
    response = console.get_by_role("status")
    expect(response).to_contain_text(f"{status} ")
    return json.loads(response.locator(".body").text_content())


def fill(field, value):
    is_select = field.evaluate("each => each.tagName === 'SELECT'")
    field.select_option(value) if is_select else field.fill(value)


def allow_errors(page, text):
    """Remove the errors that contain the text from those that the browser logged."""
    page.errors[:] = [error for error in page.errors if text not in error]


def test_a_reader_can_go_from_a_token_to_a_verified_credential(page, server, issuer):
    open_docs(page, server)
    issued = send(open_console(page, "issueCredential"), token=issuer.sign())
    assert issued["name"] == "CRM backend"
    (listed,) = send(open_console(page, "listCredentials"))  # the page knows the token by now
    assert listed["secret_id"] == issued["secret_id"]
    verified = send(open_console(page, "verify"))
    assert verified["client_id"] == issued["client_id"]
    rotated = send(open_console(page, "rotateCredential"))
    assert rotated["client_secret"] != issued["client_secret"]
    detailed = send(open_console(page, "getCredential"))
    assert len(detailed["secrets"]) == 2


@pytest.mark.parametrize("prefix", ["/credentials", "/a/b/credentials"])
def test_the_page_works_under_a_path_prefix(page, server, issuer, tmp_path, prefix):
    with under_prefix(server.port, tmp_path, prefix) as address:
        page.goto(f"{address}/")
        assert page.url == f"{address}/docs"
        shown = page.locator("figure.code:visible [data-origin]")
        assert set(shown.all_text_contents()) == {address}
        issued = send(open_console(page, "issueCredential"), token=issuer.sign())
        assert send(open_console(page, "verify"))["client_id"] == issued["client_id"]
        events = send(open_console(page, "listEvents"))
        assert events[-1]["event"] == "issued"
        page.locator("nav").get_by_role("link", name="Errors").click()
        assert page.url == f"{address}/docs/errors"
        page.goto(urljoin(address, problem_type := "/docs/errors#invalid-pair"))
        assert page.url.endswith(f"{prefix}{problem_type}")
        expect(page.locator("[id=invalid-pair]")).to_be_in_viewport()
        page.get_by_role("link", name="Guide and calls").click()
        assert page.url == f"{address}/docs"


def test_the_console_shows_a_problem_and_keeps_what_was_typed(page, server, issuer):
    open_docs(page, server)
    console = open_console(page, "issueCredential")
    problem = send(console, 400, token=issuer.sign(), body="{}")
    assert problem["detail"] == "Name must be 1-50 characters"
    assert send(console, body='{"name": "x"}')["name"] == "x"
    allow_errors(page, "400")


def test_a_wrong_pair_opens_no_dialog_of_the_browser(page, server):
    open_docs(page, server)
    wrong = send(open_console(page, "verify"), 401, client_id="lv_ci_x", client_secret="wrong")
    assert wrong["type"] == "/docs/errors#invalid-pair"
    allow_errors(page, "401")


def test_the_console_fills_in_the_values_that_it_saw_last(page, server, issuer):
    open_docs(page, server)
    issue, verify = (open_console(page, name) for name in ("issueCredential", "verify"))
    send(issue, token=issuer.sign())
    again = send(issue)
    expect(verify.locator("[name=client_id]")).to_have_value(again["client_id"])
    verify.locator("[name=client_id]").fill("lv_ci_mine")
    send(issue)
    expect(verify.locator("[name=client_id]")).to_have_value("lv_ci_mine")


def test_the_console_does_not_send_an_incomplete_request(page, server):
    open_docs(page, server)
    console = open_console(page, "revokeCredential")
    console.get_by_role("button", name="Send").click()
    expect(console.locator("[name=token]")).to_be_focused()
    expect(console.get_by_role("status")).to_be_empty()


def values_of(operation_id, secret_id):
    """Return a value for every field that may stand in the console of a call."""
    return {
        "secret_id": secret_id,
        "hint": "zzzz",
        "activeOu": "unit_b",
        "limit": "1",
        "cursor": "none",
        "order": "asc",
        "event": "issued",
        "enabled": "true",
        "unrestricted": "true",
        "detailed": "true",
        "scope": "ingest",
        "actor": "ada",
        "name": "CRM",
        "client_id": "lv_ci_x",
        "client_secret": "wrong",
        "unused_for": "60",
        "Idempotency-Key": f"a-key-for-{operation_id}",
    }


def test_every_field_of_every_call_is_sent(page, server, issuer, service):
    """A time is today's, and text that the page does not know is a word."""
    issued = service.issue(caller("unit_b"), name="CRM")
    token = issuer.sign(unit_id="unit_a", unit_ids=["unit_a", "unit_b"])
    page.on("dialog", lambda dialog: dialog.accept())
    sent = []
    page.on("request", lambda request: sent.append(request))  # noqa: PLW0108  no method of C
    open_docs(page, server)
    document = json.loads(server.request("GET", "/openapi.json").body)
    for operation in read_reference(document).operations:
        console = open_console(page, operation.id)
        values = {"token": token} | values_of(operation.id, issued.secret_id)
        for field in console.locator("input, select").all():
            name = field.get_attribute("name")
            default = time_in(days=1) if "_" in name else time_in(days=-1)
            fill(field, values.get(name, default))
        console.get_by_role("button", name="Send").click()
        expect(console.get_by_role("status")).to_have_text(re.compile(r"^[2-5]\d\d "))
        request = sent[-1]
        headers = request.all_headers()
        query = parse_qs(urlsplit(request.url).query)
        assert request.method == operation.method
        for each in operation.parameters:
            expected = values.get(each.name)
            if each.location == "cookie":
                assert headers["cookie"] == f"activeOu={expected}"
            elif each.location == "header":
                assert headers[each.name.lower()] == expected
            elif each.location == "query":
                assert expected in (None, *query[each.name])
                assert each.name in query
            else:
                assert f"/{expected}" in urlsplit(request.url).path
        if operation.scheme == "bearerAuth":
            assert headers["authorization"] == f"Bearer {token}"
        elif operation.scheme == "basicAuth":
            assert headers["authorization"].startswith("Basic ")
    assert page.context.cookies() == []
    allow_errors(page, "Failed to load resource")


@pytest.mark.parametrize("prefix", ["", "/credentials"])
def test_the_console_acts_for_the_chosen_unit_once(page, server, issuer, tmp_path, prefix):
    token = issuer.sign(unit_id="unit_a", unit_ids=["unit_a", "unit_b"])
    proxied = under_prefix(server.port, tmp_path, prefix) if prefix else nullcontext()
    with proxied as address:
        page.goto(f"{address or f'http://127.0.0.1:{server.port}'}/docs")
        console = open_console(page, "issueCredential")
        assert send(console, token=token, activeOu="unit_b")["unit_id"] == "unit_b"
        assert page.context.cookies() == []
        assert send(console, activeOu="")["unit_id"] == "unit_a"
        fill(console.locator("[name=activeOu]"), "a;b")
        console.get_by_role("button", name="Send").click()
        expect(console.get_by_role("status")).to_have_text(
            "Not sent: activeOu cannot be sent as a cookie"
        )


def test_the_console_follows_a_link_to_the_end(page, server, issuer, service):
    for number in range(3):
        service.issue(caller(), name=f"n{number}")
    open_docs(page, server)
    console = open_console(page, "listCredentials")
    (shown,) = send(console, token=issuer.sign(), limit="1", enabled="true")
    assert shown["name"] == "n2"
    body, follow = console.locator(".body"), console.get_by_role("button", name="Follow the Link")
    for name in ("n1", "n0"):
        follow.click()
        expect(body).to_contain_text(f'"{name}"')
    expect(follow).to_have_count(0)


def test_the_console_shows_the_headers_of_a_response(page, server, issuer):
    open_docs(page, server)
    console = open_console(page, "issueCredential")
    values = {"token": issuer.sign(), "Idempotency-Key": "a-key-of-sixteen"}
    send(console, **values)
    expect(console.locator(".headers")).to_contain_text("x-request-id: ")
    send(console, **values)
    expect(console.locator(".headers")).to_contain_text("idempotency-replayed: true")


def test_the_console_asks_before_it_deletes(page, server, issuer, service):
    secret_id = service.issue(caller(), name="x").secret_id
    questions, accepted = [], []

    def answer(dialog):
        questions.append(dialog.message)
        dialog.accept() if accepted else dialog.dismiss()

    page.on("dialog", answer)
    open_docs(page, server)
    console = open_console(page, "revokeCredential")
    fill(console.locator("[name=token]"), issuer.sign())
    fill(console.locator("[name=secret_id]"), secret_id)
    button = console.get_by_role("button", name="Send")
    button.click()
    expect(console.get_by_role("status")).to_be_empty()
    accepted.append(True)
    button.click()
    expect(console.get_by_role("status")).to_contain_text("204 No Content")
    assert questions == [f"Send DELETE /secrets/{secret_id}?"] * 2


def test_what_was_issued_does_not_become_a_filter(page, server, issuer):
    open_docs(page, server)
    lists = [open_console(page, name) for name in ("listCredentials", "listUnitEvents")]
    issued = send(open_console(page, "issueCredential"), token=issuer.sign())
    getting = open_console(page, "getCredential")
    expect(getting.locator("[name=secret_id]")).to_have_value(issued["secret_id"])
    for console in lists:
        for name in ("client_id", "secret_id", "cursor"):
            if console.locator(f"[name={name}]").count():
                expect(console.locator(f"[name={name}]")).to_have_value("")


def test_an_enumeration_is_a_choice(page, server):
    open_docs(page, server)
    console = open_console(page, "listUnitEvents")
    choices = console.locator("[name=event] option").all_text_contents()
    assert choices[0] == ""
    assert {"issued", "rotated", "revoked"} <= set(choices)
    assert console.locator("[name=order] option").all_text_contents() == ["", "desc", "asc"]


def test_the_console_is_fetched_only_when_somebody_asks_for_it(page, server):
    fetched = []
    page.on("request", lambda request: fetched.append(urlsplit(request.url).path))
    open_docs(page, server)
    assert not [path for path in fetched if "console" in path]
    open_console(page, "getHealth")
    assert [path for path in fetched if "console" in path]


def test_the_console_sends_no_request_id_of_its_own(page, server):
    headers = []
    page.on("request", lambda request: headers.append(request.headers))
    open_docs(page, server)
    send(open_console(page, "getHealth"))
    assert "x-request-id" not in headers[-1]


def test_the_development_token_is_masked_and_used_by_the_console(page, var, context_that_copies):
    port = str(free_port())
    with running(var, PORT=port):
        page.goto(f"http://127.0.0.1:{port}/docs")
        token = page.locator("#development-token")
        expect(token).to_have_attribute("type", "password")
        assert send(open_console(page, "issueCredential"))["unit_id"] == "unit_demo"
        copying = context_that_copies.new_page()
        copying.goto(f"http://127.0.0.1:{port}/docs")
        assert copied(copying, "Copy export TOKEN=…").startswith("export TOKEN='eyJhbGciOiJFZERTQS")


def test_production_does_not_mention_development(page, server):
    open_docs(page, server)
    assert "development" not in page.content().lower()
    assert "eyJ…" in page.content()


@pytest.fixture
def context_that_copies(browser):
    """A browser whose pages may use the clipboard."""
    with browser.new_context(permissions=["clipboard-read", "clipboard-write"]) as context:
        yield context


def copied(page, name):
    """Press the button and return what is in the clipboard afterwards."""
    page.get_by_role("button", name=name).first.click()
    expect(page.locator(".announcement")).to_have_text("Copied")
    return page.evaluate("navigator.clipboard.readText()")


def test_a_block_of_code_can_be_copied(context_that_copies, server):
    page = context_that_copies.new_page()
    open_docs(page, server)
    text = copied(page, "Copy: curl")
    assert text == (
        f"curl --fail-with-body http://127.0.0.1:{server.port}/verify \\\n"
        '  --user "$CLIENT_ID:$CLIENT_SECRET"'
    )


def test_samples_use_the_host_name_that_the_reader_used(page, server):
    page.goto(f"http://localhost:{server.port}/docs")
    sample = page.locator("article[aria-labelledby=verify] figure").first
    expect(sample).to_contain_text(f"http://localhost:{server.port}/verify")


def test_the_page_can_be_copied_as_markdown(context_that_copies, server):
    page = context_that_copies.new_page()
    page.goto(f"http://localhost:{server.port}/docs")
    text = copied(page, "Copy page as Markdown")
    assert text.startswith("# LeadVibe Credentials")
    served = server.request("GET", "/docs.md", Host=f"localhost:{server.port}")
    assert text == served.body.decode()


@pytest.mark.parametrize("key", ["Control+k", "Meta+k", "/"])
@pytest.mark.parametrize("path", ["/docs", "/docs/errors"])
def test_a_key_opens_the_search(page, server, path, key):
    open_docs(page, server, path)
    page.keyboard.press(key)
    field = page.get_by_role("combobox")
    expect(field).to_be_focused()
    for words, name, fragment in (
        ("overlap", "overlap_seconds", "#rotateCredential.request.overlap_seconds"),
        ("invalid-pair", "invalid-pair", "/docs/errors#invalid-pair"),
        ("retry safely", "Retry safely", "#retry-safely"),
        ("ROTATE client", "Rotate a credential's client secret", "#rotateCredential"),
    ):
        if not field.is_visible():
            page.keyboard.press(key)
        field.fill(words)
        expect(page.get_by_role("option").first).to_contain_text(name)
        page.keyboard.press("Enter")
        page.wait_for_url(f"**{fragment}")
        expect(page.locator(f"[id='{fragment.partition('#')[2]}']")).to_be_in_viewport()


def test_the_search_is_used_with_the_arrow_keys(page, server):
    open_docs(page, server)
    page.get_by_role("button", name="Search").click()
    field = page.get_by_role("combobox")
    field.fill("credential")
    options = page.get_by_role("option")
    expect(options.first).to_have_attribute("aria-selected", "true")
    page.keyboard.press("ArrowDown")
    expect(options.nth(1)).to_have_attribute("aria-selected", "true")
    expect(field).to_have_attribute("aria-activedescendant", "found-1")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    expect(options.last).to_have_attribute("aria-selected", "true")
    field.fill("nothing has this name")
    expect(options).to_have_count(0)
    expect(page.locator("dialog [role=status]")).to_have_text("0 results")
    page.keyboard.press("Escape")
    expect(field).to_be_hidden()


def test_the_key_of_the_search_can_be_typed_and_turned_off(page, server):
    open_docs(page, server)
    console = open_console(page, "issueCredential")
    console.locator("[name=token]").press("/")
    expect(console.locator("[name=token]")).to_have_value("/")
    page.get_by_role("button", name="Search").click()
    page.get_by_role("checkbox").uncheck()
    page.reload()
    page.keyboard.press("/")
    page.keyboard.press("Control+k")
    expect(page.get_by_role("checkbox")).not_to_be_checked()
    expect(page.get_by_role("combobox")).to_have_value("")


def test_the_search_says_if_it_cannot_be_fetched(page, server):
    page.route("**/docs/search.json", lambda route: route.fulfill(status=503))
    open_docs(page, server)
    page.keyboard.press("Control+k")
    expect(page.locator("dialog [role=status]")).to_have_text("The search cannot be fetched")
    page.unroute("**/docs/search.json")
    page.keyboard.press("Escape")
    page.keyboard.press("Control+k")
    page.get_by_role("combobox").fill("glossary")
    expect(page.get_by_role("option").first).to_contain_text("Glossary")
    allow_errors(page, "503")


@pytest.mark.parametrize("comes_from", ["outside", "the page"])
def test_a_link_unfolds_what_it_leads_to(page, server, comes_from):
    anchor = "listUnitEvents.response.detail.rotated.overlap_seconds"
    open_docs(page, server, f"/docs#{anchor}" if comes_from == "outside" else "/docs")
    member = page.locator(f"[id='{anchor}']")
    if comes_from == "the page":
        expect(member).to_be_hidden()
        page.evaluate(f"location.hash = '{anchor}'")
    expect(member).to_be_in_viewport()
    expect(page.locator("[id='listEvents.response.detail.rotated']")).to_be_hidden()


def test_one_choice_of_language_changes_every_sample_and_is_remembered(page, server):
    open_docs(page, server)
    page.get_by_role("radio", name="curl").focus()
    page.keyboard.press("ArrowRight")
    expect_language(page, "Python")
    page.get_by_role("radio", name="Go").check(force=True)
    expect_language(page, "Go")
    page.reload()
    expect_language(page, "Go")


def expect_language(page, language):
    receivers = page.locator("#in-your-own-service ~ [data-sample]:visible figcaption")
    expect(receivers.first).to_have_text("Python" if language == "curl" else language)
    in_reference = page.locator(".reference [data-sample]")
    shown = page.locator(".reference [data-sample]:visible figcaption").all_text_contents()
    assert set(shown) == {language}
    assert len(shown) * len(LANGUAGES) == in_reference.count()


def test_choosing_a_language_keeps_the_readers_place(page, server):
    open_docs(page, server, "/docs#rotateCredential")
    heading = page.locator("h4[id=rotateCredential]")
    before = heading.bounding_box()["y"]
    label = page.locator(".languages label", has_text="Go").bounding_box()
    page.mouse.click(label["x"] + 5, label["y"] + 5)  # click() would scroll first
    expect_language(page, "Go")
    assert heading.bounding_box()["y"] == pytest.approx(before, abs=2)


def test_the_page_works_without_local_storage(page, server):
    page.add_init_script(
        "Object.defineProperty(window, 'localStorage',"
        " { get() { throw new DOMException('denied', 'SecurityError'); } })"
    )
    open_docs(page, server)
    page.locator(".languages label", has_text="Go").click()
    expect_language(page, "Go")
    expect(page.get_by_role("button", name="Try it").first).to_be_visible()


def test_without_scripts_everything_can_be_read(browser, server):
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        open_docs(page, server)
        expect_language(page, "curl")
        page.get_by_role("radio", name="Python").check(force=True)
        expect_language(page, "Python")
        for text in ("I receive events", "Rotate a credential's client secret", "overlap_seconds"):
            expect(page.get_by_text(text).first).to_be_visible()
        assert page.get_by_role("button").all_text_contents() == []


def test_the_contents_show_where_the_reader_is(page, server):
    open_docs(page, server)
    current = page.locator("nav [aria-current=location]")
    for name in ("Rotate a credential's client secret", "Glossary"):
        page.locator("nav").get_by_role("link", name=name).click()
        expect(current).to_have_text(name if name == "Glossary" else f"POST {name}")


def test_a_phone_shows_the_contents_when_asked(page, server):
    page.set_viewport_size(PHONE)
    open_docs(page, server)
    contents = page.locator("nav")
    expect(contents).to_be_hidden()
    menu = page.get_by_role("button", name="Contents")
    menu.click()
    expect(contents).to_be_visible()
    page.keyboard.press("Escape")
    expect(contents).to_be_hidden()
    expect(menu).to_be_focused()
    menu.click()
    contents.get_by_role("link", name="Glossary").click()
    expect(contents).to_be_hidden()
    expect(page.get_by_role("heading", name="Glossary")).to_be_in_viewport()


@pytest.mark.parametrize(
    "fragment",
    ["rotation", "glossary", "issueCredential", "getCredential.response.secrets.hint", "calls"],
)
def test_a_link_from_another_site_scrolls_to_its_target(page, server, fragment):
    open_docs(page, server, f"/docs#{fragment}")
    expect(page.locator(f"[id='{fragment}']")).to_be_in_viewport()


def test_the_first_tab_stop_skips_the_contents(page, server):
    open_docs(page, server)
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the content")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()


@pytest.mark.long
@pytest.mark.parametrize("path", ["/docs", "/docs/errors", "/docs/changelog"])
def test_axe_finds_nothing_on_any_width_in_any_theme(browser, server, path):
    require(AXE, install="npm ci")
    with browser.new_context(bypass_csp=True) as context:  # axe is a script of ours
        page = context.new_page()
        open_docs(page, server, path)
        page.add_script_tag(path=AXE)
        for width, theme in product(WIDTHS, THEMES):
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(**{"color_scheme": "light", "forced_colors": "none"} | theme)
            assert violations(page) == [], (width, theme)
            assert scroll_width(page) == width


def violations(page):
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    return [(each["id"], [node["target"] for node in each["nodes"]]) for each in found]


def test_axe_finds_nothing_in_an_open_console_and_open_contents(browser, server, issuer):
    require(AXE, install="npm ci")
    with browser.new_context(bypass_csp=True, viewport=PHONE) as context:
        page = context.new_page()
        open_docs(page, server)
        page.add_script_tag(path=AXE)
        send(open_console(page, "issueCredential"), token=issuer.sign())
        page.get_by_role("button", name="Search").click()
        page.get_by_role("combobox").fill("rotate")
        expect(page.get_by_role("option").first).to_be_visible()
        assert violations(page) == []
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Contents").click()
        assert violations(page) == []
        assert scroll_width(page) == PHONE["width"]


def scroll_width(page):
    return page.evaluate("document.documentElement.scrollWidth")


def test_print_shows_the_text_without_the_controls(page, server):
    open_docs(page, server)
    page.emulate_media(media="print")
    for hidden in ("nav", ".bar", "button.try >> nth=0"):
        expect(page.locator(hidden)).to_be_hidden()
    expect(page.get_by_role("heading", name="Issue a credential").first).to_be_visible()
    expect(page.locator("[id='listEvents.response.detail.rotated']")).to_be_visible()


def test_the_screenshots_are_taken(page, server, tmp_path):
    directory = ROOT / "docs" / "img" if "SCREENSHOTS" in os.environ else tmp_path
    directory.mkdir(exist_ok=True)
    open_docs(page, server)
    # each run has another port; show the default one
    page.evaluate(
        "for (const place of document.querySelectorAll('[data-origin]'))"
        " place.textContent = 'http://127.0.0.1:8000'"
    )
    page.locator("nav").get_by_role("link", name="POST Issue a credential").click()
    page.screenshot(path=directory / "docs-desktop.png")
    page.set_viewport_size(PHONE)
    page.screenshot(path=directory / "docs-phone.png")
    assert {path.name for path in directory.glob("docs-*.png")} == {
        "docs-desktop.png",
        "docs-phone.png",
    }
