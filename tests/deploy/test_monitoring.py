"""The alerts and the dashboard, tried with Debian's Prometheus on the running service."""

import itertools
import json
import re
import subprocess
from contextlib import contextmanager
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml

from tests.conftest import environment
from tests.helpers import basic, caller, require, typo_of
from tests.jwks_server import serving_keys
from tests.running_server import HANG_SECONDS, ROOT, free_port, running_server, wait_until

pytestmark = pytest.mark.long

PROMETHEUS = ROOT / "deploy" / "prometheus"
RULES = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())
ALERTS = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"]}
RULE_TESTS = yaml.safe_load((PROMETHEUS / "rules_test.yml").read_text())["tests"]
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()

# Labels that appear only after an error that no test can provoke in a working service.
RARE_LABELS = re.compile(r',?\s*status=~?"[^"]*"')


def expressions():
    """Return every expression of the rules and the dashboard, in Prometheus' syntax."""
    of_panels = [target["expr"] for panel in PANELS for target in panel["targets"]]
    found = [rule["expr"] for rule in ALERTS.values()] + of_panels
    return [each.replace("$__rate_interval", "1m").replace("$instance", ".+") for each in found]


def series():
    """Return every series that an expression names, with its labels."""
    named = re.findall(r"(?:leadvibe_\w+|\bup)(?:\{[^}]*\})?", "\n".join(expressions()))
    return {RARE_LABELS.sub("", each).replace("{, ", "{") for each in named}


def promtool(*arguments, **more):
    require("promtool", install="apt-get install prometheus")
    return subprocess.run(
        ["promtool", *arguments], capture_output=True, text=True, check=False, **more
    )


def test_promtool_accepts_the_metrics(server, issued):
    server.request("GET", "/verify", **basic(issued.client_id, issued.client_secret))
    text = server.request("GET", "/metrics").body.decode()
    checked = promtool("check", "metrics", input=text)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


@pytest.mark.parametrize(
    "arguments",
    [("check", "config", "prometheus.yml"), ("check", "rules", "rules.yml")],
    ids=" ".join,
)
def test_prometheus_accepts_the_configuration(arguments):
    checked = promtool(*arguments, cwd=PROMETHEUS)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_alert_does_what_its_tests_say():
    tested = promtool("test", "rules", "rules_test.yml", cwd=PROMETHEUS)
    assert tested.returncode == 0, tested.stdout + tested.stderr


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_is_tested_when_it_fires_and_when_it_is_silent(alert):
    tests = [
        each
        for test in RULE_TESTS
        for each in test["alert_rule_test"]
        if each["alertname"] == alert
    ]
    assert any(each["exp_alerts"] for each in tests), "it never fires"
    assert not all(each["exp_alerts"] for each in tests), "it is never silent"


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_says_how_bad_it_is_and_what_to_do(alert):
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    assert rule["annotations"]["runbook"] == f"docs/operations.md#{alert.lower()}"
    (_, alerts) = OPERATIONS.split("\n## Alerts\n")
    (paragraph,) = re.findall(rf"### {alert}\n\n(.+?)\n(?=#|\Z)", alerts, re.DOTALL)
    assert len(paragraph) > 100


def test_no_paragraph_is_about_an_alert_that_is_gone():
    assert set(re.findall(r"^### (LeadVibe\w+)$", OPERATIONS, re.MULTILINE)) == set(ALERTS)


def test_every_panel_has_a_title_and_a_place_of_its_own():
    identifiers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(identifiers)) == len(identifiers)
    cells = []
    for panel in DASHBOARD["panels"]:
        assert panel["title"]
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells += itertools.product(
            range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])
        )
    assert len(set(cells)) == len(cells), "two panels overlap"


def test_every_panel_asks_the_chosen_data_source_about_the_chosen_instances():
    for panel in PANELS:
        for asking in (panel, *panel["targets"]):
            assert asking["datasource"]["uid"] == "${datasource}"
        for target in panel["targets"]:
            selectors = re.findall(r"leadvibe_\w+(\{[^}]*\})?", target["expr"])
            assert all('instance=~"$instance"' in each for each in selectors), panel["title"]


@contextmanager
def prometheus(target, directory):
    """Run Prometheus with our configuration on the target, and lend a function that queries it."""
    require("prometheus", install="apt-get install prometheus")
    configuration = (PROMETHEUS / "prometheus.yml").read_text()
    assert "127.0.0.1:8000" in configuration
    changed = configuration.replace("127.0.0.1:8000", target).replace("15s", "1s")
    (directory / "prometheus.yml").write_text(changed)
    (directory / "rules.yml").write_text((PROMETHEUS / "rules.yml").read_text())
    port = free_port()
    process = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={directory}/prometheus.yml",
            f"--storage.tsdb.path={directory}/data",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=error",
        ]
    )

    def ask(path, **parameters):
        with urlopen(f"http://127.0.0.1:{port}/api/v1/{path}?{urlencode(parameters)}") as answer:
            return json.load(answer)["data"]

    def is_ready():
        try:
            return urlopen(f"http://127.0.0.1:{port}/-/ready").close() is None
        except OSError:
            return False

    try:
        wait_until(is_ready)
        yield ask
    finally:
        process.terminate()
        process.wait(HANG_SECONDS)


def rules(ask):
    (group,) = ask("rules")["groups"]
    return group["rules"]


@pytest.fixture
def busy_server(settings, issuer, service, rows):
    """A server with two processes that have done every kind of work."""
    issued = service.issue(caller(), name="x")
    changed = environment(settings, web_concurrency=2)
    del changed["JWT_PUBLIC_KEY_FILE"]
    with (
        serving_keys(issuer.jwks()) as keys,
        running_server(changed | {"JWT_JWKS_URL": keys.url}) as server,
    ):
        bearer = {"Authorization": f"Bearer {issuer.sign()}"}
        wait_until(lambda: server.request("GET", "/readyz").status == 200)
        server.request(
            "POST", "/secrets", b'{"name": "y"}', Content_Type="application/json", **bearer
        )
        for _ in range(5):
            server.request("GET", "/verify", **basic(issued.client_id, issued.client_secret))
            server.request(
                "GET", "/verify", **basic(typo_of(issued.client_id), issued.client_secret)
            )
        yield server


def test_prometheus_finds_every_series_that_the_rules_and_the_dashboard_name(busy_server, tmp_path):
    with prometheus(f"127.0.0.1:{busy_server.port}", tmp_path) as ask:
        assert len(series()) > 20
        for each in series():
            wait_until(lambda each=each: ask("query", query=each)["result"])
        for each in expressions():
            ask("query", query=each)
        wait_until(lambda: {rule["health"] for rule in rules(ask)} == {"ok"})
        assert {rule["name"] for rule in rules(ask)} == set(ALERTS)
