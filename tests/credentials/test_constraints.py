"""The database itself rejects values that the contract forbids, in case the service has a bug."""

import re

import psycopg
import pytest
from psycopg import errors

from app.credentials.model import EVENT_NAMES

CREDENTIAL = {
    "secret_id": "sec_" + "a" * 20,
    "unit_id": "unit_demo",
    "client_id": "lv_ci_" + "a" * 20,
    "name": "CRM backend",
}
SECRET = {
    "secret_id": CREDENTIAL["secret_id"],
    "secret_hash": "$2b$10$" + "a" * 53,
    "digest": b"d" * 40,
    "hint": "abcd",
}
EVENT = {
    "secret_id": CREDENTIAL["secret_id"],
    "unit_id": "unit_demo",
    "event": "issued",
    "actor": "ada",
    "request_id": "req-1",
}


def insert(rows, table, values):
    columns = ", ".join(values)
    placeholders = ", ".join(f"%({name})s" for name in values)
    rows.execute(f"INSERT INTO {table} ({columns}) VALUES ({placeholders})", **values)


ENDED_SECRET = {
    "secret_id": CREDENTIAL["secret_id"],
    "digest": b"d" * 40,
    "hint": "abcd",
    "reason": "ended",
}
ANSWERED_REQUEST = {"key_hash": b"k" * 32, "fingerprint": b"f" * 32}


@pytest.mark.parametrize("scopes", [[], ["ingest", "null"], ["x" * 32] * 16])
def test_a_valid_restriction_is_stored(rows, scopes):
    addresses = ["192.0.2.0/24", "2001:db8::1"]
    insert(rows, "credentials", CREDENTIAL | {"scopes": scopes, "addresses": addresses})


def test_a_valid_row_of_each_table_is_stored(rows):
    insert(rows, "credentials", CREDENTIAL)
    insert(rows, "client_secrets", SECRET)
    insert(rows, "credential_events", EVENT)
    insert(rows, "answered_requests", ANSWERED_REQUEST)
    insert(rows, "ended_secrets", ENDED_SECRET)


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ({"digest": b"d" * 39}, "ended_secrets_digest_length"),
        ({"hint": "abcde"}, "ended_secrets_hint_format"),
        ({"secret_id": "sec_" + "b" * 20}, "ended_secrets_secret_id_fkey"),
    ],
)
def test_an_invalid_ended_secret_violates_its_constraint(rows, change, constraint):
    insert(rows, "credentials", CREDENTIAL)
    with pytest.raises(psycopg.IntegrityError, match=constraint):
        insert(rows, "ended_secrets", ENDED_SECRET | change)


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ({"secret_id": "sec_" + "A" * 20}, "credentials_secret_id_format"),
        ({"secret_id": "sec_" + "a" * 19}, "credentials_secret_id_format"),
        ({"secret_id": "sec_" + "a" * 20 + "\n"}, "credentials_secret_id_format"),
        ({"client_id": "lv_ci_" + "a" * 21}, "credentials_client_id_format"),
        ({"unit_id": ""}, "credentials_unit_id_length"),
        ({"unit_id": "u" * 256}, "credentials_unit_id_length"),
        ({"name": ""}, "credentials_name_length"),
        ({"name": "x" * 51}, "credentials_name_length"),
        ({"name": "a\x01b"}, "credentials_name_characters"),
        ({"name": "a\x7fb"}, "credentials_name_characters"),
        ({"name": "a\x85b"}, "credentials_name_characters"),
        ({"name": "a\u202eb"}, "credentials_name_characters"),
        ({"name": "a\u2069b"}, "credentials_name_characters"),
        ({"scopes": ["Ingest"]}, "credentials_scopes_format"),
        ({"scopes": ["ingest "]}, "credentials_scopes_format"),
        ({"scopes": ["ingest", ""]}, "credentials_scopes_format"),
        ({"scopes": [None, "ingest"]}, "credentials_scopes_format"),
        ({"scopes": ["x" * 33]}, "credentials_scopes_format"),
        ({"scopes": [f"x{number}" for number in range(17)]}, "credentials_scopes_format"),
        ({"addresses": []}, "credentials_addresses_format"),
        ({"addresses": ["nowhere"]}, "credentials_addresses_format"),
        ({"addresses": ["192.0.2.1", None]}, "credentials_addresses_format"),
        ({"addresses": ["192.0.2.1"] * 51}, "credentials_addresses_format"),
    ],
)
def test_an_invalid_credential_violates_its_constraint(rows, change, constraint):
    with pytest.raises(errors.CheckViolation) as error:
        insert(rows, "credentials", CREDENTIAL | change)
    assert error.value.diag.constraint_name == constraint


@pytest.mark.parametrize("name", ["x" * 50, "\N{GRINNING FACE}" * 50, "é\u202f\u200b\u2065"])
def test_a_valid_name_is_stored(rows, name):
    insert(rows, "credentials", CREDENTIAL | {"name": name})


@pytest.mark.parametrize("column", ["unit_id", "client_id", "name"])
def test_no_column_of_a_credential_may_be_null(rows, column):
    with pytest.raises(errors.NotNullViolation):
        insert(rows, "credentials", CREDENTIAL | {column: None})


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ({"secret_id": "sec_" + "b" * 20}, "credentials_client_id_key"),
        ({"client_id": "lv_ci_" + "b" * 20}, "credentials_pkey"),
    ],
)
def test_identifiers_are_unique(rows, change, constraint):
    insert(rows, "credentials", CREDENTIAL)
    with pytest.raises(errors.UniqueViolation) as error:
        insert(rows, "credentials", CREDENTIAL | change)
    assert error.value.diag.constraint_name == constraint


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ({"secret_hash": "lv_cs_" + "a" * 49}, "client_secrets_secret_hash_format"),
        ({"secret_hash": "$2b$09$" + "a" * 53}, "client_secrets_secret_hash_format"),
        ({"digest": b"d" * 39}, "client_secrets_digest_length"),
        ({"hint": "abcde"}, "client_secrets_hint_format"),
    ],
)
def test_an_invalid_client_secret_violates_its_constraint(rows, change, constraint):
    insert(rows, "credentials", CREDENTIAL)
    with pytest.raises(errors.CheckViolation) as error:
        insert(rows, "client_secrets", SECRET | change)
    assert error.value.diag.constraint_name == constraint


def test_a_client_secret_belongs_to_a_credential(rows):
    with pytest.raises(errors.ForeignKeyViolation):
        insert(rows, "client_secrets", SECRET)


def test_deleting_a_credential_deletes_its_secrets_and_keeps_its_trail(rows):
    insert(rows, "credentials", CREDENTIAL)
    insert(rows, "client_secrets", SECRET)
    insert(rows, "credential_events", EVENT)
    rows.execute("DELETE FROM credentials")
    assert rows.count("client_secrets") == 0
    assert rows.count("credential_events") == 1


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ({"event": "burned"}, "credential_events_event_known"),
        ({"actor": ""}, "credential_events_actor_length"),
        ({"request_id": "a b"}, "credential_events_request_id_format"),
        ({"detail": "[]"}, "credential_events_detail_object"),
    ],
)
def test_an_invalid_event_violates_its_constraint(rows, change, constraint):
    with pytest.raises(psycopg.errors.CheckViolation) as error:
        insert(rows, "credential_events", EVENT | change)
    assert error.value.diag.constraint_name == constraint


@pytest.mark.parametrize("column", ["key_hash", "fingerprint"])
def test_a_hash_of_a_wrong_length_violates_its_constraint(rows, column):
    with pytest.raises(errors.CheckViolation) as error:
        insert(rows, "answered_requests", ANSWERED_REQUEST | {column: b"x" * 31})
    assert error.value.diag.constraint_name == f"answered_requests_{column}_length"


def test_the_database_and_the_service_know_the_same_events(rows):
    query = (
        "SELECT pg_get_constraintdef(oid) AS definition FROM pg_constraint "
        "WHERE conname = 'credential_events_event_known'"
    )
    [constraint] = rows(query)
    assert set(re.findall("'([a-z_]+)'", constraint["definition"])) == set(EVENT_NAMES)


def test_an_index_finds_the_newest_credentials_of_a_unit(rows):
    for other_plan in ("enable_seqscan", "enable_bitmapscan"):
        rows("SELECT set_config(%(name)s, 'off', false)", name=other_plan)
    plan = rows(
        "EXPLAIN SELECT * FROM credentials WHERE unit_id = 'u' "
        "ORDER BY created_at DESC, secret_id DESC"
    )
    text = str(plan)
    assert "credentials_unit_newest_first" in text
    assert "Sort" not in text
