"""The guide's receivers of events, run unchanged."""

import os
import subprocess
import sys
from contextlib import closing, contextmanager
from http.client import HTTPConnection

import pytest

from app.docs.origin import ORIGIN
from tests.docs.guide import blocks, documentation
from tests.helpers import basic, caller, require, typo_of
from tests.running_server import HANG_SECONDS, ROOT, free_port, wait_until

LANGUAGES = ("python", "javascript", "go")


def command_of(language, code, directory, port):
    """Write the program into the directory and return the command that starts it."""
    if language == "python":
        (directory / "receiver.py").write_text(code)
        options = ["--app", "receiver", "run", "--port", str(port)]
        return [sys.executable, "-m", "flask", *options]
    if language == "javascript":
        require(ROOT / "node_modules" / "express", install="npm ci")
        (directory / "node_modules").symlink_to(ROOT / "node_modules")
        (directory / "receiver.mjs").write_text(code)
        return ["node", "receiver.mjs"]
    require("go", install="apt-get install golang-go")
    (directory / "receiver.go").write_text(code)
    subprocess.run(["go", "build", "receiver.go"], cwd=directory, check=True)
    return ["./receiver"]


@contextmanager
def receiving(language, client, directory, service):
    """Run the guide's receiver in front of the service, and lend a function that sends an event."""
    found = dict(blocks(documentation(client), "In your own service"))
    port = free_port()
    command = command_of(language, found[language].replace(ORIGIN, service), directory, port)
    process = subprocess.Popen(
        command,
        cwd=directory,
        env=os.environ | {"PORT": str(port)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def send(**headers):
        with closing(HTTPConnection("127.0.0.1", port, timeout=HANG_SECONDS)) as connection:
            connection.request("POST", "/events", b"{}", headers)
            answer = connection.getresponse()
            return answer, answer.read()

    def is_up():
        assert process.poll() is None
        try:
            send()
        except OSError:
            return False
        return True

    try:
        wait_until(is_up)
        yield send
    finally:
        process.terminate()
        process.wait(HANG_SECONDS)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_receiver_accepts_an_event_only_on_200(
    language, client, server, service, issued, tmp_path
):
    restricted = service.issue(caller(), name="x", scopes=["ingest"])
    with receiving(language, client, tmp_path, f"http://127.0.0.1:{server.port}") as send:
        accepted, body = send(**basic(issued.client_id, issued.client_secret))
        assert accepted.status == 202
        assert issued.name.encode() in body
        for headers in ({}, basic(issued.client_id, typo_of(issued.client_secret))):
            refused, _ = send(**headers)
            assert refused.status == 401
            assert refused.headers["WWW-Authenticate"].startswith("Basic")
        refused, _ = send(**basic(restricted.client_id, restricted.client_secret))
        assert refused.status == 403


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_receiver_answers_503_if_the_service_is_down(language, client, issued, tmp_path):
    nowhere = f"http://127.0.0.1:{free_port()}"
    with receiving(language, client, tmp_path, nowhere) as send:
        answer, _ = send(**basic(issued.client_id, issued.client_secret))
        assert answer.status == 503
        assert answer.headers["Retry-After"] == "1"
