-- Let client secrets that end soon be counted without reading all of them.

SET LOCAL lock_timeout = '2s';  -- everybody else would queue behind it; try again instead

-- Verifications go on while the index is built; changes wait, for about a second per million client
-- secrets that have an expiry. CONCURRENTLY would wait for the other hosts that migrate, and they wait for
-- the advisory lock of this one.
CREATE INDEX client_secrets_expires_at ON client_secrets (expires_at)
    WHERE expires_at IS NOT NULL;
