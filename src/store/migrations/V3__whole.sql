-- What a process that is killed had in its memory alone is found at the next start.

ALTER TABLE trackd.instances ADD COLUMN whole_until timestamptz;
COMMENT ON COLUMN trackd.instances.whole_until IS
    'its instants up to here have their rows; the outcomes of later ones may have been in its memory alone';
COMMENT ON TABLE trackd.instances IS 'processes that may hold claims; one whose lease is over holds none, and is removed after a day';
