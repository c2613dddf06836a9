-- The ledger: exactly one row for each tracker and scheduled instant.

CREATE TABLE trackd.runs (
    run_id uuid NOT NULL,
    tracker text NOT NULL,
    scheduled_at timestamptz NOT NULL,
    kind text NOT NULL CHECK (kind IN ('scheduled', 'catch_up', 'manual', 'backfill')),
    status text NOT NULL CHECK (status IN ('running', 'succeeded', 'unchanged', 'failed', 'missed', 'skipped')),
    attempt integer NOT NULL,
    instance text NOT NULL,
    started_at timestamptz NOT NULL,
    finished_at timestamptz,
    fetched_bytes bigint,
    http_status integer,
    rows_read bigint NOT NULL DEFAULT 0,
    rows_written bigint NOT NULL DEFAULT 0,
    rows_rejected bigint NOT NULL DEFAULT 0,
    payload_sha256 bytea,
    error_class text CHECK (error_class IN ('retry', 'row', 'standing')),
    error text,
    -- Ids grow with time: an insert touches the rightmost page only, and "the latest runs of all" reads it backwards.
    CONSTRAINT runs_pkey PRIMARY KEY (run_id),
    -- The identity of a run, and "the latest runs of this tracker".
    CONSTRAINT runs_tracker_scheduled_at_key UNIQUE (tracker, scheduled_at)
);
COMMENT ON TABLE trackd.runs IS 'one row for each tracker and scheduled instant: what became of it';
COMMENT ON COLUMN trackd.runs.attempt IS 'attempts of the source, from 1; 0 where none was made';
COMMENT ON COLUMN trackd.runs.instance IS 'host:pid of the process that ran it';

CREATE TABLE trackd.rejects (
    reject_id bigint GENERATED ALWAYS AS IDENTITY,
    run_id uuid NOT NULL,
    "table" text NOT NULL,
    "row" jsonb NOT NULL,
    reason text NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT rejects_pkey PRIMARY KEY (reject_id)
);
-- No foreign key: a run's ledger row is written last in its guard, and a look-up per rejected row buys nothing.
CREATE INDEX rejects_run_id_idx ON trackd.rejects (run_id);
COMMENT ON TABLE trackd.rejects IS 'rows that did not fit, with the reason';
