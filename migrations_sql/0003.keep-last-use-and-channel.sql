-- Keep a credential's last use when a client secret is deleted, and the channel of each change.

-- Client secrets that have ended are deleted, so their last use moves here. (Its name is not that of
-- a column of client_secrets: in the joins of the previous release it would be ambiguous.)
ALTER TABLE credentials ADD COLUMN ended_secrets_last_used_at timestamptz;

-- Whether a change came through the API or the command line: a token's subject may look like the
-- command line's actor. Null in events that are older than the column; NOT VALID, so that the
-- whole trail is not read while the table is locked.
ALTER TABLE credential_events
    ADD COLUMN via text,
    ADD CONSTRAINT credential_events_via_known CHECK (via IN ('api', 'cli')) NOT VALID;
