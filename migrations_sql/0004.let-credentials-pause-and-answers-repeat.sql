-- Let a credential be disabled, a trail be followed, and a lost answer be given again.

-- An event also says where the request came from, and the client ID and name of the credential at
-- that moment: the credential may be gone when somebody reads its trail. These are null in events
-- that are older than the columns.
--
-- Identity values commit out of order. A reader who follows the trail sorts it by the transaction
-- that wrote it and reads up to the oldest one that still runs, so no event is ever passed over. The
-- events from before the column come first.
ALTER TABLE credential_events
    ADD COLUMN client_id text,
    ADD COLUMN name text,
    ADD COLUMN address text,
    ADD COLUMN transaction_id xid8 NOT NULL DEFAULT '0',
    DROP CONSTRAINT credential_events_event_known,
    ADD CONSTRAINT credential_events_event_known CHECK (
        event IN (
            'issued', 'updated', 'disabled', 'enabled', 'rotated', 'secret_ended', 'revoked'
        )
    ) NOT VALID,
    ADD CONSTRAINT credential_events_address_length CHECK (
        char_length(address) BETWEEN 1 AND 255
    ) NOT VALID;

ALTER TABLE credential_events ALTER COLUMN transaction_id SET DEFAULT pg_current_xact_id();

CREATE INDEX credential_events_in_order
    ON credential_events (unit_id, transaction_id, event_id);

-- Answers to requests with an Idempotency-Key. Neither the key nor the answer can be read from them.
CREATE TABLE sealed_answers (
    key_hash bytea NOT NULL,
    client_secret_id bigint NOT NULL,
    sealed bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT sealed_answers_pkey PRIMARY KEY (key_hash),
    CONSTRAINT sealed_answers_client_secret_id_fkey FOREIGN KEY (client_secret_id)
        REFERENCES client_secrets (client_secret_id) ON DELETE CASCADE,
    CONSTRAINT sealed_answers_key_hash_length CHECK (octet_length(key_hash) = 32)
);

CREATE INDEX sealed_answers_client_secret_id ON sealed_answers (client_secret_id);
CREATE INDEX sealed_answers_created_at ON sealed_answers (created_at);

-- Last, because nobody can verify from here until the migration ends.
--
-- Null while the credential is enabled. What was disabled together with its whole unit is enabled
-- together with it, and nothing else is.
ALTER TABLE credentials
    ADD COLUMN disabled_at timestamptz,
    ADD COLUMN disabled_with_unit boolean NOT NULL DEFAULT false;
