"""The samples of every call, run unchanged against the real server."""

import json
import os
import subprocess
import sys

import pytest

from app.docs.origin import ORIGIN
from tests.docs.guide import samples
from tests.helpers import require

LIFE = (
    "getHealth", "getReadiness", "getMetrics", "reportLeaks", "listCredentials", "issueCredential",
    "getCredential", "verify", "patchCredential", "updateCredential", "rotateCredential",
    "verifyByPost", "verifyScope", "verifyScopeByPost",
    "endClientSecret", "listEvents", "listUnitEvents", "revokeCredential",
)  # fmt: skip


def as_shell(directory, programs):
    return {name: ["sh", "-c", program] for name, program in programs.items()}


def as_python(directory, programs):
    return {name: [sys.executable, "-c", program] for name, program in programs.items()}


def as_javascript(directory, programs):
    require("node", install="apt-get install nodejs")
    options = ["--input-type=module", "--eval"]
    return {name: ["node", *options, program] for name, program in programs.items()}


def as_go(directory, programs):
    """Build all programs at once, which is much faster than one by one."""
    require("go", install="apt-get install golang-go")
    (directory / "go.mod").write_text("module samples\n")
    for name, program in programs.items():
        (directory / name).mkdir()
        (directory / name / "main.go").write_text(program)
    build = ["go", "build", "-o", f"{directory}/bin/", "./..."]
    subprocess.run(build, cwd=directory, check=True)
    return {name: [directory / "bin" / name] for name in programs}


@pytest.fixture(
    params=[("sh", as_shell), ("python", as_python), ("javascript", as_javascript), ("go", as_go)],
    ids=["curl", "Python", "JavaScript", "Go"],
)
def run(request, client, server, tmp_path):
    """Return a function that runs the sample of a call in one language."""
    language, prepare = request.param
    programs = {
        name: program.replace(ORIGIN, f"http://127.0.0.1:{server.port}")
        for name, program in samples(client, language)
    }
    commands = prepare(tmp_path, programs)
    assert set(commands) == set(LIFE)

    def run(name, variables):
        return subprocess.run(
            commands[name],
            env=os.environ | variables,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_the_samples_take_a_credential_through_its_life(run, issuer, member):
    variables = {"TOKEN": issuer.sign(), "SCOPE": "ingest"}
    answers = {}
    for name in LIFE:
        done = run(name, variables)
        assert done.returncode == 0, done.stderr
        if name == "getMetrics":
            assert "leadvibe_build_info" in done.stdout
            continue
        answers[name] = answer = json.loads(done.stdout) if done.stdout.strip() else None
        if name in ("issueCredential", "rotateCredential"):
            previous = variables.get("CLIENT_SECRET", "")
            variables |= {key.upper(): str(value) for key, value in answer.items()}
            variables["HINT"] = previous[-4:]
    assert answers["listCredentials"] == []
    assert answers["verify"]["name"] == "CRM backend"
    assert answers["verifyByPost"]["name"] == "CRM backend (EMEA)"
    assert answers["verifyByPost"]["trust_upstream_consent"] is True
    kinds = [each["event"] for each in answers["listUnitEvents"]]
    events = [each for each in kinds if each != "first_used"]  # it comes a moment after the use
    assert events == ["secret_ended", "rotated", "updated", "updated", "issued"]
    assert member.get("/secrets").json == []

    failed = run("listCredentials", {"TOKEN": "x"})
    assert failed.returncode != 0
    assert "Check authentication credentials" in failed.stdout + failed.stderr
