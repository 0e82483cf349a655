-- Let a conditional revocation ask every process whether it has recorded its uses (ADR 23).

-- One row for each process that records uses. `asked` counts the questions to it, `answered` is the
-- last one that it has answered: everything that it knew of by then is recorded. `seen_at` is
-- renewed every ten seconds, so that a process that was killed is forgotten after a while.
CREATE TABLE writers (
    writer_id uuid NOT NULL,
    asked bigint NOT NULL DEFAULT 0,
    answered bigint NOT NULL DEFAULT 0,
    seen_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT writers_pkey PRIMARY KEY (writer_id)
);
