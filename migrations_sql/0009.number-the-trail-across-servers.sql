-- Keep the trail in order after a failover or a restore, when transaction IDs run on from an earlier one.

-- The servers, and their timelines, on which the trail was written. On another server, or after the
-- loss of commits, transaction IDs start from a lower number. So each history has a `base`, a
-- multiple of 10^12, which is added to them: its events come after those of all earlier histories,
-- also of those that were lost. Nothing of a history survived from `first_event_id` of the next one
-- on. `server` is null if the server does not tell.
CREATE TABLE trail_histories (
    base bigint NOT NULL,
    server text,
    first_event_id bigint NOT NULL,
    began_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT trail_histories_pkey PRIMARY KEY (base)
);

-- Which server, and which of its timelines, this is; null on a standby and on services that lack
-- these functions.
CREATE FUNCTION trail_server() RETURNS text STABLE LANGUAGE plpgsql AS $$
BEGIN
    IF pg_is_in_recovery() THEN
        RETURN NULL;
    END IF;
    RETURN (
        SELECT system_identifier || '/' || left(pg_walfile_name(pg_current_wal_lsn()), 8)
        FROM pg_control_system()
    );
EXCEPTION WHEN OTHERS THEN
    RETURN NULL;
END
$$;

-- The number of the current transaction in the trail. The first one on a server begins a history. The
-- random step tells apart two servers that were both restored from one backup.
CREATE FUNCTION trail_transaction() RETURNS xid8 LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    here CONSTANT text := trail_server();
    newest trail_histories;
BEGIN
    SELECT * INTO STRICT newest FROM trail_histories ORDER BY base DESC LIMIT 1;
    IF newest.server <> here THEN
        PERFORM pg_advisory_xact_lock(hashtextextended('trail_histories', 0));
        SELECT * INTO STRICT newest FROM trail_histories ORDER BY base DESC LIMIT 1;
    END IF;
    IF newest.server <> here THEN
        INSERT INTO trail_histories (base, server, first_event_id)
        SELECT newest.base + (1 + floor(random() * 1000))::bigint * 1000000000000, here,
               coalesce(max(event_id), 0) + 1
        FROM credential_events
        RETURNING * INTO newest;
    END IF;
    RETURN (newest.base + pg_current_xact_id()::text::bigint)::text::xid8;
END
$$;

-- The number below which nothing can be added any more. Before a server has begun its history, this
-- is the end of the previous one.
CREATE FUNCTION trail_horizon() RETURNS xid8 STABLE LANGUAGE plpgsql AS $$
DECLARE
    newest trail_histories;
BEGIN
    SELECT * INTO STRICT newest FROM trail_histories ORDER BY base DESC LIMIT 1;
    RETURN (newest.base + CASE
        WHEN newest.server <> trail_server() THEN 999999999999
        ELSE pg_snapshot_xmin(pg_current_snapshot())::text::bigint
    END)::text::xid8;
END
$$;

DO $$
BEGIN
    -- a role that may write to the trail must not be able to put another table in place of ours
    EXECUTE format(
        'ALTER FUNCTION trail_transaction() SET search_path = pg_catalog, %I, pg_temp',
        current_schema()
    );
END
$$;

INSERT INTO trail_histories (base, server, first_event_id) VALUES (0, trail_server(), 0);

ALTER TABLE credential_events ALTER COLUMN transaction_id SET DEFAULT trail_transaction();
