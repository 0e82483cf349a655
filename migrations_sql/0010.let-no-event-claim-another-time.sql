-- Refuse an event with another time than the clock's: the service's role could backdate what it adds.

-- The owner of the tables, who can disable triggers anyway, may add events of other times.
CREATE FUNCTION credential_events_refuse_time() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF pg_has_role((SELECT relowner FROM pg_class WHERE oid = TG_RELID), 'MEMBER') THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'an event has the time at which it is added'
        USING ERRCODE = 'insufficient_privilege';
END
$$;

-- A minute is for a clock that is set while the transaction runs.
CREATE TRIGGER credential_events_at_the_time
    BEFORE INSERT ON credential_events
    FOR EACH ROW
    WHEN (
        NEW.at < now() - interval '1 minute' OR NEW.at > clock_timestamp() + interval '1 minute'
    )
    EXECUTE FUNCTION credential_events_refuse_time();
