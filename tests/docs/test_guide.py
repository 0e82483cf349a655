"""The guide's own blocks of code, run unchanged."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from app.api.http.pagination import next_link
from app.credentials.model import CredentialChanges, TrailPosition
from tests.docs.guide import block
from tests.helpers import basic, caller, is_live, time_in


@pytest.fixture
def code(client, server):
    """Return a function that reads a block below a heading of the guide."""
    address = f"http://127.0.0.1:{server.port}"
    return lambda heading, language="sh", **which: block(
        client, heading, language, address, **which
    )


@pytest.fixture
def token(issuer):
    return {"TOKEN": issuer.sign()}


def output(command, variables):
    return subprocess.check_output(command, env=os.environ | variables, text=True)


def test_the_warning_before_an_expiry_works(code, member, server, caplog):
    issued = member.post("/secrets", json={"name": "x", "expires_at": time_in(days=90)}).json
    pair = basic(issued["client_id"], issued["client_secret"])
    answer = server.request("GET", "/verify", **pair)
    exact = {"X-LeadVibe-Secret-Expires-At": answer.headers["x-leadvibe-secret-expires-at"]}
    sample = code("When the client secret changes", "python")
    caplog.clear()
    warn(sample, exact)
    assert caplog.messages == []
    warn(sample, {"X-LeadVibe-Secret-Expires-At": time_in(days=3, minutes=1)})
    warn(sample, {"X-LeadVibe-Secret-Expires-At": "none"})
    assert caplog.messages == ["the client secret expires in 3 days"]


def warn(sample, headers):
    imports = "import logging\nfrom datetime import UTC, datetime, timedelta\n"
    exec(imports + sample, {"response": SimpleNamespace(headers=headers)})  # noqa: S102  our own page


@pytest.mark.parametrize("trust", [True, False])
def test_pausing_and_going_on_works_and_changes_nothing_else(
    code, token, issued, rows, service, trust
):
    service.update(caller(), issued.secret_id, CredentialChanges(trust_upstream_consent=trust))
    for number, is_enabled in enumerate((False, True)):
        sample = code("Pause", number=number)
        output(["sh", "-c", sample], token | {"SECRET_ID": issued.secret_id})
        assert is_live(rows, issued.client_secret) is is_enabled
    shown = service.get(caller(), issued.secret_id)
    assert (shown.trust_upstream_consent, shown.name) == (trust, issued.name)


def test_restricting_a_credential_works(code, token, server, issued):
    """Let it only send events, then only from some addresses, and remove both."""
    variables = token | {"SECRET_ID": issued.secret_id}
    pair = basic(issued.client_id, issued.client_secret)

    def statuses():
        paths = ("/verify", "/verify/ingest", "/verify/leads.read")
        return [server.request("GET", path, **pair).status for path in paths]

    assert statuses() == [200, 200, 200]
    for number, expected in enumerate(([403, 200, 403], [401, 401, 401], [200, 200, 200])):
        output(["sh", "-c", code("Restrict", number=number)], variables)
        assert statuses() == expected


def test_ending_the_previous_secret_works(code, token, issued, service, rows):
    rotated = service.rotate(caller(), issued.secret_id, overlap_seconds=86400)
    rows.execute("UPDATE client_secrets SET created_at = created_at - interval '1 day'")
    variables = {"SECRET_ID": issued.secret_id, "HINT": issued.client_secret[-4:]}
    output(["sh", "-c", code("Rotation", number=-1)], token | variables)
    assert not is_live(rows, issued.client_secret)
    assert is_live(rows, rotated.client_secret)


def test_revoking_an_unused_credential_works(code, token, issued, rows):
    for table in ("credentials", "client_secrets"):
        rows.execute(f"UPDATE {table} SET created_at = created_at - interval '31 days'")
    output(["sh", "-c", code("End")], token | {"SECRET_ID": issued.secret_id})
    assert rows.count("credentials") == 0


def test_a_retry_gives_the_same_answer(code, token, rows):
    sample = code("Retry safely")
    twice = sample + "\necho\n" + sample.partition("\n")[2]
    first, again = filter(None, output(["sh", "-c", twice], token).splitlines())
    assert first == again
    assert rows.count("credentials") == 1


def test_the_trail_streams_events(code, token, issued, service, tmp_path):
    """The program starts with a page of a database that is gone, as an earlier release named it."""
    lost = TrailPosition(transaction_id=10**15, event_id=1)
    link = next_link({"order": "asc", "limit": 1000}, lost)
    (tmp_path / "next-page").write_text(f"/secrets/events{link[1:].partition('>')[0]}")
    following = subprocess.Popen(
        [sys.executable, "-c", code("Follow the trail", "python")],
        cwd=tmp_path,
        env=os.environ | token,
        stdout=subprocess.PIPE,
        text=True,
    )
    with following:
        assert json.loads(following.stdout.readline())["event"] == "issued"
        service.revoke(caller(), issued.secret_id)
        assert json.loads(following.stdout.readline())["event"] == "revoked"
        following.kill()
