-- Claims: a run belongs to one process at a time, and only it can end the run.

CREATE TABLE trackd.instances (
    instance_id bigint NOT NULL,
    name text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    lease_until timestamptz NOT NULL,
    CONSTRAINT instances_pkey PRIMARY KEY (instance_id)
);
COMMENT ON TABLE trackd.instances IS 'processes that may hold claims; one whose lease is over holds none';
COMMENT ON COLUMN trackd.instances.instance_id IS 'drawn at random at the start of the process';
COMMENT ON COLUMN trackd.instances.name IS 'host:pid, as in trackd.runs.instance';

ALTER TABLE trackd.runs ADD COLUMN claimed_by bigint, ADD COLUMN fence bigint;
COMMENT ON COLUMN trackd.runs.claimed_by IS 'trackd.instances of the process that may end the run, or did';
COMMENT ON COLUMN trackd.runs.fence IS 'number of the claim within its process: an older claim ends nothing';
-- Claims whose holder is gone; as good as empty.
CREATE INDEX runs_running_idx ON trackd.runs (claimed_by) WHERE status = 'running';

CREATE TABLE trackd.trackers (
    tracker text NOT NULL,
    since timestamptz NOT NULL,
    CONSTRAINT trackers_pkey PRIMARY KEY (tracker)
);
COMMENT ON TABLE trackd.trackers IS 'since when each tracker is followed: its instants from then on have their rows';

-- In the same flight as COMMIT nobody looks at a count: what must not be committed has to fail.
CREATE FUNCTION trackd.claim_lost(run_id uuid) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the claim of run % is lost: another process has it, or ended it', run_id USING ERRCODE = 'TD001';
END $$;
COMMENT ON FUNCTION trackd.claim_lost IS 'fails the transaction of a run whose claim is lost';
