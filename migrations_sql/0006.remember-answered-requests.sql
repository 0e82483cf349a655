-- Remember that a request with an Idempotency-Key was answered, even once its answer is erased.

-- A sealed answer ends with its client secret, or when that is first used. This row stays, so that
-- the same request does not make its change twice. The fingerprint does not reveal the request (ADR 12).
CREATE TABLE answered_requests (
    key_hash bytea NOT NULL,
    fingerprint bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT answered_requests_pkey PRIMARY KEY (key_hash),
    CONSTRAINT answered_requests_key_hash_length CHECK (octet_length(key_hash) = 32),
    CONSTRAINT answered_requests_fingerprint_length CHECK (octet_length(fingerprint) = 32)
);

CREATE INDEX answered_requests_created_at ON answered_requests (created_at);
