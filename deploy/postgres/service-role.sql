-- The role of the service, with no more rights than it needs. Run this file after each migration,
-- as the owner of the tables with CREATEROLE, or as a superuser. Running it again does no harm. The
-- password comes from the environment, because anybody on the machine can read the arguments of a
-- process. docs/operations.md, "Postgres", says how psql finds the owner's:
--
--   SERVICE_PASSWORD=… PGSERVICE=credentials-owner psql --set ON_ERROR_STOP=1 --file service-role.sql

\getenv password SERVICE_PASSWORD

SELECT 'CREATE ROLE credentials_service LOGIN'
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'credentials_service')
\gexec

-- Postgres' log must not get the statement with the password. Only a superuser can prevent that.
SELECT current_setting('is_superuser') AS is_superuser
\gset
\if :is_superuser
SET log_statement = 'none';
SET log_min_duration_statement = -1;
\endif
ALTER ROLE credentials_service PASSWORD :'password';

-- Postgres before 15 lets every role create tables there.
REVOKE CREATE ON SCHEMA public FROM PUBLIC;

-- Granted column by column: INSERT on a whole table would also cover the numbers that Postgres
-- assigns. With these, the role could hide events of the trail, or let every change fail. What an
-- earlier version of this file granted and this one does not is revoked.
BEGIN;
REVOKE ALL ON credentials, client_secrets, credential_events, sealed_answers, answered_requests,
              writers, ended_secrets, _yoyo_migration, trail_histories
    FROM credentials_service;
GRANT SELECT, DELETE,
      INSERT (secret_id, unit_id, client_id, name, scopes, addresses),
      UPDATE (name, trust_upstream_consent, updated_at, ended_secrets_last_used_at,
              disabled_at, disabled_with_unit, last_refused_at, last_refused_reason,
              last_refused_from, last_refused_hint, scopes, addresses)
    ON credentials TO credentials_service;
GRANT SELECT, DELETE,
      INSERT (secret_id, secret_hash, digest, hint, created_at, expires_at),
      UPDATE (digest, last_used_at, last_used_from, expires_at, leak_reported_at)
    ON client_secrets TO credentials_service;
GRANT SELECT,
      INSERT (secret_id, unit_id, client_id, name, event, actor, via, address, at, request_id,
              detail)
    ON credential_events TO credentials_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON sealed_answers, answered_requests TO credentials_service;
GRANT SELECT, INSERT (writer_id), DELETE, UPDATE (asked, answered, seen_at)
    ON writers TO credentials_service;
-- UPDATE only to lock the rows that it deletes
GRANT SELECT, INSERT (secret_id, digest, hint, reason), DELETE, UPDATE (ended_at)
    ON ended_secrets TO credentials_service;
GRANT SELECT ON _yoyo_migration, trail_histories TO credentials_service;
COMMIT;

-- The service asks for these limits itself, but a pooler such as PgBouncer may drop its request.
ALTER ROLE credentials_service SET statement_timeout = '3s';
ALTER ROLE credentials_service SET lock_timeout = '500ms';
ALTER ROLE credentials_service SET idle_in_transaction_session_timeout = '4s';
ALTER ROLE credentials_service SET default_transaction_isolation = 'read committed';
