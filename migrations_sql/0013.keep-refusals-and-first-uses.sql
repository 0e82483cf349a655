-- Show who uses a credential, from where, and who is refused and why (ADR 33).

-- Client secrets that no longer exist, so that whoever still sends one can be told apart from somebody
-- who guesses. A digest revives nothing: there is no hash. `reason` is why a sender is refused.
CREATE TABLE ended_secrets (
    secret_id text NOT NULL,
    digest bytea NOT NULL,
    hint text NOT NULL,
    reason text NOT NULL,
    ended_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT ended_secrets_pkey PRIMARY KEY (secret_id, digest),
    CONSTRAINT ended_secrets_secret_id_fkey FOREIGN KEY (secret_id)
        REFERENCES credentials (secret_id) ON DELETE CASCADE,
    CONSTRAINT ended_secrets_digest_length CHECK (octet_length(digest) = 40),
    CONSTRAINT ended_secrets_hint_format CHECK (hint ~ '^[0-9A-Za-z]{4}$')
);

CREATE INDEX ended_secrets_ended_at ON ended_secrets (ended_at);

ALTER TABLE credential_events
    DROP CONSTRAINT credential_events_event_known,
    ADD CONSTRAINT credential_events_event_known CHECK (
        event IN (
            'issued', 'first_used', 'updated', 'disabled', 'enabled', 'rotated', 'secret_ended',
            'revoked'
        )
    ) NOT VALID,
    DROP CONSTRAINT credential_events_via_known,
    ADD CONSTRAINT credential_events_via_known CHECK (via IN ('api', 'cli', 'verify')) NOT VALID;

-- Last, because nobody can verify from here until the migration ends.
ALTER TABLE client_secrets ADD COLUMN last_used_from text;

ALTER TABLE credentials
    ADD COLUMN last_refused_at timestamptz,
    ADD COLUMN last_refused_reason text,
    ADD COLUMN last_refused_from text,
    ADD COLUMN last_refused_hint text;
