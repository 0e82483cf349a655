-- Record when a client secret was reported as leaked, and let its events say so.

-- NOT VALID, so that the whole trail is not read while the table is locked.
ALTER TABLE credential_events
    DROP CONSTRAINT credential_events_event_known,
    ADD CONSTRAINT credential_events_event_known CHECK (
        event IN (
            'issued', 'first_used', 'updated', 'disabled', 'enabled', 'rotated', 'secret_ended',
            'revoked', 'leaked'
        )
    ) NOT VALID,
    DROP CONSTRAINT credential_events_via_known,
    ADD CONSTRAINT credential_events_via_known CHECK (
        via IN ('api', 'cli', 'verify', 'leak_report')
    ) NOT VALID;

-- Null if nobody has reported it. The first report alone leaves an event.
ALTER TABLE client_secrets ADD COLUMN leak_reported_at timestamptz;

CREATE INDEX ended_secrets_by_digest ON ended_secrets (digest);
