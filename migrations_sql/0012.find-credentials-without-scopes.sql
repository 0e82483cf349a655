-- Let the credentials without scopes be counted without reading the others, while changes go on.

-- transactional: false

-- As in 0007: a run that is killed may leave an invalid index behind, and the next one drops it.
DROP INDEX CONCURRENTLY IF EXISTS credentials_unrestricted;
CREATE INDEX CONCURRENTLY credentials_unrestricted ON credentials (unit_id) WHERE scopes IS NULL;
