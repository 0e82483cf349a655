"""All SQL about credentials. Each function runs one statement.

The order in which rows are locked, so that no two transactions wait for each other:

1. the unit (an advisory lock), 2. credentials, 3. their client secrets, by `client_secret_id`,
4. their stored responses (`sealed_answers`) and `ended_secrets`. A deletion cascades in this order
too. A leak report locks several units, and then several credentials, each in the order of their
identifiers.

A change to a credential locks its row before the others, so it may wait for all of these. Whoever
locks client secrets or stored responses without the credential's row skips those that are locked
(`SKIP LOCKED`) and tries again later: the background writer, and what it deletes every minute. It
skips credentials that are locked too.
`update_digest` locks a single row.
"""

from app.credentials.repository.client_secrets import (
    LAST_USE_SECONDS,
    STORED_SECRETS,
    count_expiring_secrets,
    delete_client_secrets,
    delete_expired_secrets,
    delete_expired_secrets_of,
    delete_leaked_secrets,
    expire_client_secrets,
    insert_client_secret,
    select_client_secrets,
    select_secrets,
    select_secrets_by_digest,
    select_secrets_without_digest,
    select_stored_secrets,
    stored_secrets,
    update_digest,
    update_digests,
    update_ended_last_use,
    update_expiry,
    update_last_use,
    update_leak_reported,
)
from app.credentials.repository.credentials import (
    UnitChange,
    change_unit,
    count_credentials,
    count_unrestricted,
    delete_credential,
    find_credential,
    find_owner,
    find_recent_use,
    insert_credential,
    lock_credential,
    lock_credentials,
    select_credentials,
    select_detailed_credentials,
    select_finished_rotations,
    select_units,
    update_credential,
)
from app.credentials.repository.ended_secrets import (
    delete_old_ended_secrets,
    select_ended_secrets,
    update_last_refused,
)
from app.credentials.repository.events import (
    MAX_EVENT_ID,
    find_newest_event_time,
    find_survival,
    find_time,
    find_trail_window,
    insert_event,
    select_event_keys,
    select_events,
    select_unit_events,
)
from app.credentials.repository.locks import (
    lock_quota,
    lock_unit,
    lock_unit_shared,
    try_lock_request,
)
from app.credentials.repository.responses import (
    RESPONSE_SECONDS,
    delete_old_responses,
    find_stored_response,
    insert_stored_response,
)
from app.credentials.repository.writers import (
    ask_writers,
    count_unanswered,
    delete_writer,
    find_writer,
    update_answered,
    upsert_writer,
)

__all__ = [
    "LAST_USE_SECONDS",
    "MAX_EVENT_ID",
    "RESPONSE_SECONDS",
    "STORED_SECRETS",
    "UnitChange",
    "ask_writers",
    "change_unit",
    "count_credentials",
    "count_expiring_secrets",
    "count_unanswered",
    "count_unrestricted",
    "delete_client_secrets",
    "delete_credential",
    "delete_expired_secrets",
    "delete_expired_secrets_of",
    "delete_leaked_secrets",
    "delete_old_ended_secrets",
    "delete_old_responses",
    "delete_writer",
    "expire_client_secrets",
    "find_credential",
    "find_newest_event_time",
    "find_owner",
    "find_recent_use",
    "find_stored_response",
    "find_survival",
    "find_time",
    "find_trail_window",
    "find_writer",
    "insert_client_secret",
    "insert_credential",
    "insert_event",
    "insert_stored_response",
    "lock_credential",
    "lock_credentials",
    "lock_quota",
    "lock_unit",
    "lock_unit_shared",
    "select_client_secrets",
    "select_credentials",
    "select_detailed_credentials",
    "select_ended_secrets",
    "select_event_keys",
    "select_events",
    "select_finished_rotations",
    "select_secrets",
    "select_secrets_by_digest",
    "select_secrets_without_digest",
    "select_stored_secrets",
    "select_unit_events",
    "select_units",
    "stored_secrets",
    "try_lock_request",
    "update_answered",
    "update_credential",
    "update_digest",
    "update_digests",
    "update_ended_last_use",
    "update_expiry",
    "update_last_refused",
    "update_last_use",
    "update_leak_reported",
    "upsert_writer",
]
