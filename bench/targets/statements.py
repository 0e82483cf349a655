"""Copies of the service's statements: a change to the service must not change the floors."""

STORED_SECRETS = """
    SELECT secret_id, unit_id, client_id, name, trust_upstream_consent,
           client_secret_id, secret_hash, digest,
           extract(epoch FROM expires_at)::float8 AS expires_at,
           coalesce(
               client_secrets.last_used_at < now() - interval '60 seconds', true
           ) AS last_used_is_stale,
           CASE WHEN disabled_at IS NOT NULL THEN 'disabled'
                WHEN expires_at <= now() THEN 'expired' END AS refusal
    FROM credentials JOIN client_secrets USING (secret_id)
    WHERE client_id = %(client_id)s
"""

LISTED_CREDENTIALS = """
    SELECT coalesce(json_agg(listed), '[]')::text
    FROM (
        SELECT secret_id, unit_id, client_id, name, trust_upstream_consent, created_at
        FROM credentials
        WHERE unit_id = %(unit_id)s
        ORDER BY created_at DESC, secret_id DESC
        LIMIT 1000
    ) AS listed
"""
