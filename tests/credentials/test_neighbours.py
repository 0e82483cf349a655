"""A change to one credential leaves all others unchanged, in its unit and in other units."""

import pytest

from app.credentials.errors import CredentialInUse
from app.credentials.model import CredentialChanges
from tests.helpers import caller


def use(service, issued):
    (used,) = service.get(caller(), issued.secret_id).secrets
    service.writer.record_use(used.client_secret_id, issued.secret_id)
    service.writer.flush()


def use_and_replace(service, issued):
    """The use is recorded after its client secret was deleted."""
    (used,) = service.get(caller(), issued.secret_id).secrets
    service.rotate(caller(), issued.secret_id, overlap_seconds=0)
    service.writer.record_use(used.client_secret_id, issued.secret_id)
    service.writer.flush()


def replace_what_was_used(service, issued):
    use(service, issued)
    service.rotate(caller(), issued.secret_id, overlap_seconds=0)


def rotate_and_end_one(service, issued):
    service.rotate(caller(), issued.secret_id, overlap_seconds=60)
    service.end_secret(caller(), issued.secret_id, issued.client_secret[-4:])


def refuse_to_revoke(service, issued):
    with pytest.raises(CredentialInUse):
        service.revoke(caller(), issued.secret_id, unused_for=60)


CHANGES = {
    "update": lambda service, issued: service.update(
        caller(),
        issued.secret_id,
        CredentialChanges(name="new", trust_upstream_consent=True, enabled=False),
    ),
    "rotate": lambda service, issued: service.rotate(
        caller(), issued.secret_id, overlap_seconds=60
    ),
    "replace": lambda service, issued: service.rotate(
        caller(), issued.secret_id, overlap_seconds=0
    ),
    "replace what was used": replace_what_was_used,
    "end one secret": rotate_and_end_one,
    "revoke": lambda service, issued: service.revoke(caller(), issued.secret_id),
    "refuse to revoke": refuse_to_revoke,
    "use": use,
    "use and replace": use_and_replace,
}


@pytest.fixture
def others(service, issued, rows):
    """Two more credentials, one in the same unit and one in another, used 90 s ago.

    That is so long ago that another use would be recorded, and too recent for a revocation.
    """
    others = [service.issue(caller(unit), name="other") for unit in ("unit_demo", "unit_other")]
    rows.execute(
        """
        WITH used AS (
            UPDATE client_secrets SET last_used_at = now() - interval '90 s'
            WHERE secret_id <> %(secret_id)s
        )
        UPDATE credentials SET ended_secrets_last_used_at = now() - interval '90 s'
        WHERE secret_id <> %(secret_id)s
        """,
        secret_id=issued.secret_id,
    )
    return others


def stored(rows, *, without):
    return rows(
        "SELECT c::text, s::text FROM credentials c JOIN client_secrets s USING (secret_id) "
        "WHERE secret_id <> %(secret_id)s ORDER BY client_secret_id",
        secret_id=without.secret_id,
    )


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_leaves_every_other_credential_unchanged(service, issued, others, rows, change):
    before = stored(rows, without=issued)
    assert len(before) == len(others)
    change(service, issued)
    assert stored(rows, without=issued) == before


def test_a_conditional_revocation_looks_at_its_own_credential_only(service, issued, others, rows):
    rows.execute("UPDATE client_secrets SET created_at = '2025-01-01Z'")
    rows.execute(
        "UPDATE credentials SET created_at = '2025-01-01Z' WHERE secret_id = %(secret_id)s",
        secret_id=issued.secret_id,
    )
    before = stored(rows, without=issued)
    service.revoke(caller(), issued.secret_id, unused_for=60)
    assert stored(rows, without=issued) == before
    assert rows.count("credentials") == len(others)


@pytest.mark.parametrize("verb", ["disable_all", "enable_all", "revoke_all"])
def test_a_change_to_a_whole_unit_leaves_other_units_unchanged(service, issued, rows, verb):
    for unit_id in ("unit_awake", "unit_asleep"):
        service.issue(caller(unit_id), name="other")
    rows.execute(
        "UPDATE credentials SET disabled_at = now(), disabled_with_unit = true "
        "WHERE unit_id = 'unit_asleep'"
    )
    before = stored(rows, without=issued)
    getattr(service, verb)(caller())
    assert stored(rows, without=issued) == before


def test_a_credential_is_shown_with_its_own_data_only(service, issued, others):
    service.issue(caller(actor="bob"), name="newest")
    shown = service.get(caller(), issued.secret_id)
    assert (shown.name, shown.created_by, shown.last_used_at) == (issued.name, "ada", None)
    assert [each.hint for each in shown.secrets] == [issued.client_secret[-4:]]


def test_bcrypt_stores_a_digest_for_its_own_client_secret_only(verifier, issued, others, rows):
    rows.execute("UPDATE client_secrets SET digest = NULL")
    verifier.verify(client_id=issued.client_id, client_secret=issued.client_secret)
    found = rows("SELECT secret_id FROM client_secrets WHERE digest IS NOT NULL")
    assert found == [{"secret_id": issued.secret_id}]
