-- Refuse every change of the audit trail but an addition, whoever asks for it.

CREATE FUNCTION credential_events_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'credential_events is append-only' USING ERRCODE = 'restrict_violation';
END
$$;

CREATE TRIGGER credential_events_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON credential_events
    FOR EACH STATEMENT EXECUTE FUNCTION credential_events_refuse_change();
