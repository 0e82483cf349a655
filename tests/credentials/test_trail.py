from dataclasses import replace

import pytest
from psycopg import errors

from app.credentials.model import CredentialChanges
from app.database.errors import DatabaseFault
from tests.helpers import caller


@pytest.fixture
def event(service, rows):
    service.issue(caller(), name="x")
    return rows("SELECT * FROM credential_events")[0]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE credential_events SET actor = 'eve'",
        "UPDATE credential_events SET actor = 'eve' WHERE false",
        "DELETE FROM credential_events",
        "TRUNCATE credential_events",
    ],
)
def test_the_trail_is_append_only(rows, event, statement):
    with pytest.raises(errors.RestrictViolation, match="append-only"):
        rows.execute(statement)
    assert rows("SELECT * FROM credential_events") == [event]


@pytest.mark.parametrize("verb", ["update", "rotate", "revoke"])
def test_a_change_is_rolled_back_if_its_event_cannot_be_stored(service, rows, verb):
    """The event comes last and its actor violates a constraint, so the rest is rolled back."""
    issued = service.issue(caller(), name="x")
    before = rows(
        "SELECT c::text, s::text FROM credentials c JOIN client_secrets s USING (secret_id)"
    )
    change = CredentialChanges(trust_upstream_consent=True, name="new")
    arguments = {
        "update": {"changes": change},
        "rotate": {"overlap_seconds": 0},
        "revoke": {},
    }
    with pytest.raises(DatabaseFault, match="credential_events_actor_length"):
        getattr(service, verb)(caller(actor=""), issued.secret_id, **arguments[verb])
    after = rows(
        "SELECT c::text, s::text FROM credentials c JOIN client_secrets s USING (secret_id)"
    )
    assert after == before
    assert rows.count("credential_events") == 1


def test_the_trail_records_the_channel_separately_from_the_actor(service, rows):
    """A token's subject may look like an actor of the command line."""
    service.issue(caller(actor="cli:root"), name="x")
    service.issue(replace(caller(actor="cli:root"), via="cli"), name="x")
    trail = rows("SELECT actor, via FROM credential_events ORDER BY event_id")
    assert [(each["actor"], each["via"]) for each in trail] == [
        ("cli:root", "api"),
        ("cli:root", "cli"),
    ]
