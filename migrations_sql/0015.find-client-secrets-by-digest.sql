-- Find a leaked client secret whose client ID nobody knows, while others are issued.

-- transactional: false

-- A run that is killed may leave an invalid index behind: the next one drops it.
DROP INDEX CONCURRENTLY IF EXISTS client_secrets_by_digest;
CREATE INDEX CONCURRENTLY client_secrets_by_digest ON client_secrets (digest);
