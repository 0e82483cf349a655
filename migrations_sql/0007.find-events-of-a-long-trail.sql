-- Let the events that pass a filter be found without reading a long trail, while changes go on.

-- transactional: false

-- A trail may have millions of events, and CONCURRENTLY lets changes be written meanwhile. It cannot
-- run in a transaction, so a run that is killed may leave an invalid index behind: the next one drops it.
DROP INDEX CONCURRENTLY IF EXISTS credential_events_by_kind;
CREATE INDEX CONCURRENTLY credential_events_by_kind
    ON credential_events (unit_id, event, transaction_id, event_id);

DROP INDEX CONCURRENTLY IF EXISTS credential_events_by_actor;
CREATE INDEX CONCURRENTLY credential_events_by_actor
    ON credential_events (unit_id, actor, transaction_id, event_id);

DROP INDEX CONCURRENTLY IF EXISTS credential_events_by_credential;
CREATE INDEX CONCURRENTLY credential_events_by_credential
    ON credential_events (unit_id, secret_id, transaction_id, event_id);

-- Where in the order of the trail a time lies.
DROP INDEX CONCURRENTLY IF EXISTS credential_events_by_time;
CREATE INDEX CONCURRENTLY credential_events_by_time ON credential_events (unit_id, at);

-- Who issued a credential, however many events it has had since.
DROP INDEX CONCURRENTLY IF EXISTS credential_events_issued;
CREATE INDEX CONCURRENTLY credential_events_issued
    ON credential_events (unit_id, secret_id) WHERE event = 'issued';
