"""The examples of the README, run unchanged, and the page of settings."""

import json
import os
import re
import subprocess

from app.settings import CREDENTIAL_VARIABLES
from tests.helpers import basic, known_settings
from tests.running_server import ROOT

README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


def test_the_curl_example_verifies(server, issued):
    (command,) = re.findall(r"```sh\n(curl --user.*)\n```", README)
    answer = run(command, server, CLIENT_ID=issued.client_id, CLIENT_SECRET=issued.client_secret)
    assert answer["client_id"] == issued.client_id


def test_the_first_call_gets_the_answer_that_the_readme_shows(server, issuer):
    command, answer = re.search(
        r"```sh\n(curl -X POST [^`]*)```\n+```json\n(.*)\n```", README
    ).groups()
    given = run(command, server, TOKEN=issuer.sign())
    assert list(given) == list(json.loads(answer))
    assert (given["name"], given["unit_id"]) == ("CRM backend", "unit_demo")


def test_after_the_rotation_both_client_secrets_verify(server, issuer, issued):
    (command,) = re.findall(r"```sh\n(KEY=[^`]*/rotate[^`]*)```", README)
    given = run(command, server, TOKEN=issuer.sign(), SECRET_ID=issued.secret_id)
    for client_secret in (issued.client_secret, given["client_secret"]):
        answer = server.request("GET", "/verify", **basic(issued.client_id, client_secret))
        assert answer.status == 200


def run(command, server, **variables):
    """Run a call of the README against the server, and return its answer."""
    command = command.strip().replace("http://127.0.0.1:8000", f"http://127.0.0.1:{server.port}")
    command = command.replace("$(make token)", "$TOKEN")
    answer = subprocess.check_output(
        ["sh", "-c", f"{command} --silent"], env=os.environ | variables, text=True
    )
    return json.loads(answer)


def test_the_first_answer_is_on_the_first_screen():
    assert "lv_cs_" in "\n".join(README.splitlines()[:40])


def test_the_page_of_settings_names_every_setting():
    read = known_settings()
    page = (ROOT / "docs" / "configuration.md").read_text()
    stated = re.findall(r"^\| (`.*?) \|", page, re.MULTILINE)
    assert len(read) > 10
    assert read <= set(re.findall(r"`([A-Z][A-Z_]+)`", " ".join(stated)))


def test_what_the_command_line_reads_is_named_where_it_is_set():
    settings = (ROOT / "app" / "settings.py").read_text()
    (values,) = re.findall(r"def _domain_values.*?\n\n\n", settings, re.DOTALL)
    read = set(re.findall(r'"([A-Z][A-Z_]+)"', values))
    (operate,) = re.findall(r"\n## Operate\n.*?\n## ", README, re.DOTALL)
    assert read == CREDENTIAL_VARIABLES <= set(re.findall(r"[A-Z][A-Z_]+", operate))


def test_the_layout_names_every_module_of_the_app_and_nothing_else():
    (layout,) = re.findall(r"## Layout\n\n```\n(.*?)```", CONTRIBUTING, re.DOTALL)
    (modules,) = re.findall(r"^app/\n((?: .*\n)+)", layout, re.MULTILINE)
    named = " ".join(re.findall(r"^  (\S.*?)  ", modules, re.MULTILINE))
    found = [
        f"{path.name}/" if path.is_dir() else path.name
        for path in (ROOT / "app").iterdir()
        if path.name != "__pycache__"
    ]
    assert sorted(re.split(r",? ", named)) == sorted(found)
