-- Keep credentials, their client secrets, and a trail that outlives both.

CREATE TABLE credentials (
    secret_id text NOT NULL,
    unit_id text NOT NULL,
    client_id text NOT NULL,
    name text NOT NULL,
    trust_upstream_consent boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT credentials_pkey PRIMARY KEY (secret_id),
    CONSTRAINT credentials_client_id_key UNIQUE (client_id),
    CONSTRAINT credentials_secret_id_format CHECK (secret_id ~ '^sec_[0-9a-z]{20}$'),
    CONSTRAINT credentials_client_id_format CHECK (client_id ~ '^lv_ci_[0-9a-z]{20}$'),
    CONSTRAINT credentials_unit_id_length CHECK (char_length(unit_id) BETWEEN 1 AND 255),
    CONSTRAINT credentials_name_length CHECK (char_length(name) BETWEEN 1 AND 50),
    CONSTRAINT credentials_name_characters CHECK (
        name !~ '[\u0001-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]'
    )
);

CREATE INDEX credentials_unit_newest_first
    ON credentials (unit_id, created_at DESC, secret_id DESC);

CREATE TABLE client_secrets (
    client_secret_id bigint GENERATED ALWAYS AS IDENTITY,
    secret_id text NOT NULL,
    secret_hash text NOT NULL,
    digest bytea,
    hint text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz,
    expires_at timestamptz,
    CONSTRAINT client_secrets_pkey PRIMARY KEY (client_secret_id),
    CONSTRAINT client_secrets_secret_id_fkey FOREIGN KEY (secret_id)
        REFERENCES credentials (secret_id) ON DELETE CASCADE,
    CONSTRAINT client_secrets_secret_hash_format CHECK (
        secret_hash ~ '^\$2b\$1[0-6]\$[./0-9A-Za-z]{53}$'
    ),
    CONSTRAINT client_secrets_digest_length CHECK (octet_length(digest) = 40),
    CONSTRAINT client_secrets_hint_format CHECK (hint ~ '^[0-9A-Za-z]{4}$')
);

CREATE INDEX client_secrets_secret_id ON client_secrets (secret_id);

CREATE TABLE credential_events (
    event_id bigint GENERATED ALWAYS AS IDENTITY,
    secret_id text NOT NULL,
    unit_id text NOT NULL,
    event text NOT NULL,
    actor text NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    request_id text NOT NULL,
    detail json NOT NULL DEFAULT '{}',
    CONSTRAINT credential_events_pkey PRIMARY KEY (event_id),
    CONSTRAINT credential_events_event_known CHECK (
        event IN ('issued', 'updated', 'rotated', 'revoked')
    ),
    CONSTRAINT credential_events_actor_length CHECK (char_length(actor) BETWEEN 1 AND 255),
    CONSTRAINT credential_events_request_id_format CHECK (
        request_id ~ '^[A-Za-z0-9._-]{1,128}$'
    ),
    CONSTRAINT credential_events_detail_object CHECK (json_typeof(detail) = 'object')
);

CREATE INDEX credential_events_newest_first
    ON credential_events (unit_id, secret_id, event_id DESC);
