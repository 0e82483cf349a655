"""The metrics of one process: what each series counts."""

import math
import re
from contextlib import suppress
from uuid import uuid4

import pytest

from app import create_app
from app.credentials.errors import VerificationRefused
from app.credentials.hashing import BCRYPT_RUNS
from app.credentials.model import EVENT_NAMES, CredentialChanges
from app.metrics.requests import OUTCOMES
from tests.conftest import client_of, database, execute
from tests.helpers import basic, caller, typo_of
from tests.jwks_server import serving_keys
from tests.metrics.reading import read_metrics
from tests.running_server import HANG_SECONDS, ROOT, wait_until


@pytest.fixture
def app(app_with):
    """A service that has counted nothing yet."""
    return app_with()


def outcomes(client):
    """Return how many verifications had each outcome, without the outcomes that none had."""
    found = {
        re.fullmatch(r'leadvibe_verifications_total\{outcome="(.*)"\}', series): value
        for series, value in read_metrics(client).items()
    }
    return {match[1]: value for match, value in found.items() if match and value}


def test_scrapes_share_a_text_until_the_next_publication(settings):
    app = create_app(settings)  # it is not open, so nothing publishes once a second
    client = app.test_client()
    first = client.get("/metrics").text
    client.get("/healthz")
    assert client.get("/metrics").text == first
    app.services.metrics.publish()
    assert client.get("/metrics").text != first


def test_metrics_need_no_token(client):
    assert client.get("/metrics").status_code == 200


@pytest.mark.parametrize("page", ["docs/operations.md", "deploy/grafana/dashboard.json"])
def test_the_table_and_the_dashboard_show_every_metric(client, page):
    metrics = set(re.findall(r"^# TYPE (\w+)", client.get("/metrics").text, re.MULTILINE))
    named = set(re.findall(r"(leadvibe_\w+?)(?:_bucket)?\b", (ROOT / page).read_text()))
    assert len(metrics) > 10
    assert {each for each in metrics if not each.endswith("_created")} <= named


def test_the_table_explains_every_value_that_the_code_gives_a_label():
    operations = (ROOT / "docs" / "operations.md").read_text()
    (page,) = re.findall(r"## Metrics\n(.*?)\n## ", operations, re.DOTALL)
    assert {*EVENT_NAMES, *OUTCOMES, *BCRYPT_RUNS} <= set(re.findall(r"`(\w+)`", page))


def test_a_request_is_counted_by_its_route_method_and_status(client, member):
    issued = member.post("/secrets", json={"name": "x"}).json
    member.get(f"/secrets/{issued['secret_id']}")
    member.get("/secrets/sec_unknown")
    client.get("/secrets")
    found = read_metrics(client)
    total = 'leadvibe_http_requests_total{method="%s",route="%s",status="%s"}'
    assert found[total % ("POST", "/secrets", 200)] == 1
    assert found[total % ("GET", "/secrets/<secret_id>", 200)] == 1
    assert found[total % ("GET", "/secrets/<secret_id>", 404)] == 1
    assert found[total % ("GET", "/secrets", 401)] == 1


@pytest.mark.parametrize("body", [b"", b"x"], ids=["middleware", "Flask"])
def test_a_verification_is_counted_at_both_entrances(client, issued, body):
    """The middleware leaves a request with a body to Flask."""
    pair = basic(issued.client_id, issued.client_secret)
    for _ in range(3):
        assert client.post("/verify", data=body, headers=pair).status_code == 200
    found = read_metrics(client)
    for series in (
        'leadvibe_http_requests_total{method="POST",route="/verify",status="200"}',
        'leadvibe_http_request_duration_seconds_count{method="POST",route="/verify"}',
        'leadvibe_verifications_total{outcome="accepted"}',
    ):
        assert found[series] == 3


def test_unknown_paths_and_methods_do_not_make_new_series(client):
    for _ in range(3):
        client.get(f"/{uuid4()}")
        client.open("/secrets", method=f"X{uuid4().hex}".upper())
    found = [series for series in read_metrics(client) if "requests_total" in series]
    assert sorted(found) == [
        'leadvibe_http_requests_total{method="GET",route="none",status="404"}',
        'leadvibe_http_requests_total{method="other",route="none",status="405"}',
    ]


def test_durations_are_in_buckets_that_fit_a_verification_and_an_issue(client, member):
    member.post("/secrets", json={"name": "x"})
    found = read_metrics(client)
    bucket = 'leadvibe_http_request_duration_seconds_bucket{le="%s",method="POST",route="/secrets"}'
    assert found[bucket % "0.0005"] == 0
    assert found[bucket % "0.025"] == 0  # bcrypt takes longer
    assert bucket % "5.0" in found
    assert found[bucket % "+Inf"] == 1


def test_a_refusal_is_counted_by_its_reason(app, client, service, issued, rows):
    def verify(client_id=issued.client_id, client_secret=issued.client_secret):
        answer = client.get("/verify", headers=basic(client_id, client_secret))
        return answer.status_code, answer.data

    rotated = app.services.credentials.rotate(caller(), issued.secret_id, overlap_seconds=60)
    rows.execute("UPDATE client_secrets SET expires_at = now() WHERE expires_at IS NOT NULL")
    wrong = app.services.credentials.issue(caller(), name="other").client_secret
    answers = {verify("x"), verify(typo_of(issued.client_id)), verify(client_secret=wrong)}
    answers.add(verify())  # with the client secret that has expired
    app.services.credentials.update(caller(), issued.secret_id, CredentialChanges(enabled=False))
    answers.add(verify(client_secret=rotated.client_secret))
    assert len(answers) == 1, "the caller sees no difference"
    verify(client_secret=wrong)
    assert outcomes(client) == {
        "malformed": 1,
        "unknown": 1,
        "wrong": 2,
        "expired": 1,
        "disabled": 1,
    }
    app.services.credentials.update(caller(), issued.secret_id, CredentialChanges(enabled=True))
    assert verify(client_secret=rotated.client_secret)[0] == 200
    assert outcomes(client)["accepted"] == 1


def test_a_failure_beyond_the_limit_is_counted_as_limited(app_with, issued):
    client = app_with(verify_failure_limit=1).test_client()
    unknown = basic(typo_of(issued.client_id), issued.client_secret)
    assert [client.get("/verify", headers=unknown).status_code for _ in range(3)] == [401, 429, 429]
    assert outcomes(client) == {"unknown": 1, "limited": 2}


def test_without_a_database_verifications_are_counted_as_unavailable(app_with, issued):
    client = app_with(database_url="postgresql://postgres@127.0.0.1:1/nowhere").test_client()
    pair = basic(issued.client_id, issued.client_secret)
    assert client.get("/verify", headers=pair).status_code == 503
    assert outcomes(client) == {"unavailable": 1}
    wait_until(lambda: read_metrics(client)["leadvibe_database_down"] == 1)


def test_the_database_is_no_longer_down_once_it_answers(app_with, postgres_uri, issued):
    name = f"later_{uuid4().hex}"
    app = app_with(database_url=database(postgres_uri, name))
    client = app.test_client()
    client.get("/readyz")
    wait_until(lambda: read_metrics(client)["leadvibe_database_down"] == 1)
    execute(postgres_uri, f"CREATE DATABASE {name}")
    wait_until(lambda: read_metrics(client)["leadvibe_database_down"] == 0)
    app.services.database.close()
    execute(postgres_uri, f"DROP DATABASE {name} WITH (FORCE)")


def test_every_event_of_the_trail_is_counted(client, member, app, rows):
    service = app.services.credentials
    path = f"/secrets/{member.post('/secrets', json={'name': 'x'}).json['secret_id']}"
    first = member.post(f"{path}/rotate", json={}).json
    client.get("/verify", headers=basic(first["client_id"], first["client_secret"]))
    assert app.services.writer.flush()
    member.delete(f"{path}/secrets/{first['client_secret'][-4:]}")
    member.put(path, json={"trust_upstream_consent": True, "enabled": False})
    member.put(path, json={"trust_upstream_consent": True, "enabled": False})  # no change
    member.put(path, json={"trust_upstream_consent": True, "enabled": True})
    other = member.post("/secrets", json={"name": "y"}).json
    service.disable_all(caller())
    service.enable_all(caller())
    for _ in range(2):
        member.post("/leaks", json={"client_secret": first["client_secret"]})  # no longer live
        member.post("/leaks", json={"client_secret": other["client_secret"]})
    member.delete(path)
    service.revoke_all(caller())
    member.delete(path)  # not found
    stored = {row["event"]: row["count"] for row in rows(
        "SELECT event, count(*) FROM credential_events GROUP BY event"
    )}  # fmt: skip
    assert set(stored) == set(EVENT_NAMES)
    found = read_metrics(client)
    for event, count in stored.items():
        assert found[f'leadvibe_credential_events_total{{event="{event}"}}'] == count, event


def test_a_change_that_is_not_committed_is_not_counted(app, client, issued):
    with suppress(Exception):
        app.services.credentials.rotate(caller("unit_emea"), issued.secret_id, overlap_seconds=0)
    assert read_metrics(client)['leadvibe_credential_events_total{event="rotated"}'] == 0


def test_runs_of_bcrypt_are_counted(app, client, rows):
    issued = app.services.credentials.issue(caller(), name="x")
    rows.execute("UPDATE client_secrets SET digest = NULL")
    pair = basic(issued.client_id, issued.client_secret)
    assert [client.get("/verify", headers=pair).status_code for _ in range(2)] == [200, 200]
    found = read_metrics(client)
    assert found['leadvibe_bcrypt_runs_total{run="hash"}'] == 1
    assert found['leadvibe_bcrypt_runs_total{run="compare"}'] == 1
    assert found['leadvibe_places_taken_total{work="bcrypt"}'] == 2


def test_places_are_counted_for_each_kind_of_work(app, client):
    bulkhead = app.services.bulkheads.key_fetch
    with bulkhead:
        with suppress(Exception), bulkhead:
            pass
        found = read_metrics(client)
    assert found['leadvibe_places{work="key_fetch"}'] == 1
    assert found['leadvibe_places_in_use{work="key_fetch"}'] == 1
    assert found['leadvibe_places_taken_total{work="key_fetch"}'] == 1
    assert found['leadvibe_places_refused_total{work="key_fetch"}'] == 1
    assert found['leadvibe_places{work="verification"}'] == 4
    assert read_metrics(client)['leadvibe_places_in_use{work="key_fetch"}'] == 0


def test_the_pool_shows_how_many_connections_are_lent(app, client):
    def in_use():
        return read_metrics(client)["leadvibe_database_pool_in_use"]

    size = app.services.bulkheads.connections
    assert read_metrics(client)["leadvibe_database_pool_size"] == size
    wait_until(lambda: in_use() == 0)  # background work borrows one for a moment
    with app.services.database.connection(5), app.services.database.connection(5):
        wait_until(lambda: in_use() == 2)
    wait_until(lambda: in_use() == 0)


def test_fetches_of_keys_are_counted(app_with, issuer):
    with serving_keys(issuer.jwks()) as server:
        client = app_with(jwt_keys=server.url).test_client()
        success = 'leadvibe_jwks_fetches_total{result="success"}'
        wait_until(lambda: read_metrics(client)[success] == 1)
        assert 0 <= read_metrics(client)["leadvibe_jwks_age_seconds"] < HANG_SECONDS


def test_failed_fetches_of_keys_are_counted(app_with):
    client = app_with(jwt_keys="http://127.0.0.1:1/jwks.json").test_client()
    failure = 'leadvibe_jwks_fetches_total{result="failure"}'
    wait_until(lambda: read_metrics(client)[failure] == 1)
    assert read_metrics(client)["leadvibe_jwks_age_seconds"] == math.inf


@pytest.mark.parametrize(
    ("expiries", "within_7_days", "within_30_days"),
    [
        (["3 days"], 1, 1),
        (["20 days"], 0, 1),
        (["40 days"], 0, 0),
        ([None], 0, 0),
        (["-1 days"], 0, 0),
        (["3 days", None], 0, 0),
        (["3 days", "40 days"], 0, 0),
        (["3 days", "20 days"], 0, 1),
        (["3 days", "3 days"], 1, 1),
    ],
)
def test_client_secrets_that_expire_soon_without_a_successor_are_counted(
    service, issued, rows, expiries, within_7_days, within_30_days
):
    service.rotate(caller(), issued.secret_id, overlap_seconds=60)
    query = "SELECT client_secret_id FROM client_secrets ORDER BY client_secret_id"
    ids = [row["client_secret_id"] for row in rows(query)]
    if len(expiries) == 1:
        rows.execute("DELETE FROM client_secrets WHERE client_secret_id = %(id)s", id=ids.pop())
    for client_secret_id, expiry in zip(ids, expiries, strict=True):
        rows.execute(
            "UPDATE client_secrets SET expires_at = date_trunc('day', now()) + %(expiry)s::interval"
            " WHERE client_secret_id = %(id)s",
            expiry=expiry,
            id=client_secret_id,
        )
    ending = service.count_expiring_secrets()
    assert (ending.within_7_days, ending.within_30_days) == (within_7_days, within_30_days)


def test_client_secrets_that_expire_soon_appear_in_the_metrics(issued, rows, app_with):
    rows.execute("UPDATE client_secrets SET expires_at = now() + interval '3 days'")
    client = app_with().test_client()
    series = 'leadvibe_client_secrets_ending{within_days="7"}'
    wait_until(lambda: read_metrics(client).get(series) == 1)


def test_unrestricted_credentials_appear_in_the_metrics(service, rows, app_with):
    for scopes in (None, None, [], ["ingest"]):
        service.issue(caller(), name="x", scopes=scopes)
    client = app_with().test_client()
    assert read_metrics(client).get("leadvibe_credentials_unrestricted") in {None, 2}
    wait_until(lambda: read_metrics(client).get("leadvibe_credentials_unrestricted") == 2)


def test_no_label_is_a_unit_a_client_or_an_actor(app, client, issuer):
    member = client_of(app, issuer.sign(sub="grace", unit_id="unit_secret"))
    issued = member.post("/secrets", json={"name": "CRM of Ada"}).json
    member.get(f"/secrets/{issued['secret_id']}")
    client.get("/verify", headers=basic(issued["client_id"], issued["client_secret"]))
    text = client.get("/metrics").text
    for value in ("grace", "unit_secret", "CRM of Ada", issued["client_id"], issued["secret_id"]):
        assert value not in text


def test_the_caller_is_not_told_the_reason_of_a_refusal(verifier, issued):
    with pytest.raises(VerificationRefused) as refused:
        verifier.verify(client_id=typo_of(issued.client_id), client_secret=issued.client_secret)
    assert refused.value.reason == "unknown"
