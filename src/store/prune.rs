//! Removes old rows of the ledger, a batch at a time. Never touches a data table.
//!
//! ```text
//!  one tracker   [ old | old | success ] … | last run | missed | skipped | now
//!                  gone  gone   kept          kept: catching up goes by it and by what follows it
//! ```
//!
//! Must not know: who asks, and when.

use super::{Error, Pool, Statement};
use jiff::Timestamp;
use std::ops::AddAssign;
use std::time::Duration;
use tokio_postgres::types::Type;

/// Runs of one transaction, with the rows they set aside.
const BATCH: i64 = 2_000;
/// Who prunes takes this lock first, so that two daemons do not wait for each other's rows: "trackd" and a 3, as bytes.
const LOCK: i64 = 0x7472_6163_6b64_0003;

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Rows of `trackd.runs`.
    pub runs: u64,
    /// Rows of `trackd.rejects`, all of those runs.
    pub rejects: u64,
    /// There may be more.
    pub more: bool,
}

impl AddAssign for Pruned {
    fn add_assign(&mut self, other: Pruned) {
        *self = Pruned { runs: self.runs + other.runs, rejects: self.rejects + other.rejects, more: other.more };
    }
}

/// `names` jumps from tracker to tracker along the index; the ledger is not read through.
///
/// The earlier of both clocks counts: one that runs ahead must not make everything old. `anchor` is where
/// `ledger::instants` begins; of a tracker that never ran, its newest instant does for it.
const STATEMENT: &str = "WITH RECURSIVE names(tracker) AS (\
      (SELECT tracker FROM trackd.runs ORDER BY tracker LIMIT 1) UNION ALL \
      SELECT (SELECT r.tracker FROM trackd.runs r WHERE r.tracker > n.tracker ORDER BY r.tracker LIMIT 1) \
      FROM names n WHERE n.tracker IS NOT NULL), \
    keeps AS MATERIALIZED (\
      SELECT n.tracker, c.cutoff, \
        (SELECT r.scheduled_at FROM trackd.runs r WHERE r.tracker = n.tracker ORDER BY r.scheduled_at DESC LIMIT 1) AS newest, \
        (SELECT r.scheduled_at FROM trackd.runs r WHERE r.tracker = n.tracker AND r.status = 'succeeded' \
         ORDER BY r.scheduled_at DESC LIMIT 1) AS success, \
        coalesce(\
          (SELECT r.scheduled_at FROM trackd.runs r WHERE r.tracker = n.tracker AND r.kind <> 'manual' \
           AND r.status NOT IN ('missed', 'skipped', 'running') ORDER BY r.scheduled_at DESC LIMIT 1), \
          (SELECT r.scheduled_at FROM trackd.runs r WHERE r.tracker = n.tracker AND r.kind <> 'manual' \
           ORDER BY r.scheduled_at DESC LIMIT 1)) AS anchor \
      FROM names n CROSS JOIN (SELECT least($1, pg_catalog.now()) - pg_catalog.make_interval(secs => $2) AS cutoff) c \
      WHERE n.tracker IS NOT NULL), \
    old AS MATERIALIZED (\
      SELECT r.run_id FROM keeps k CROSS JOIN LATERAL (\
        SELECT r.run_id FROM trackd.runs r WHERE r.tracker = k.tracker AND r.scheduled_at < least(k.cutoff, k.anchor) \
        AND r.scheduled_at <> k.newest AND r.scheduled_at IS DISTINCT FROM k.success AND r.status <> 'running' \
        AND coalesce(r.finished_at, r.started_at) < k.cutoff ORDER BY r.scheduled_at LIMIT $3) r LIMIT $3), \
    rejects AS (DELETE FROM trackd.rejects r USING old WHERE r.run_id = old.run_id RETURNING 1), \
    runs AS (DELETE FROM trackd.runs r USING old WHERE r.run_id = old.run_id RETURNING 1) \
    SELECT (SELECT count(*) FROM runs), (SELECT count(*) FROM rejects)";

/// Removes rows of runs that were due, and ended, more than `keep` ago; at most `batches` transactions of 2,000 runs.
///
/// Of each tracker there stay its newest row, its newest success, and everything from its last run on: what of it is
/// missing there would be caught up.
///
/// Cancel safety: safe; each batch lands or does not.
///
/// # Errors
/// As the guard's; earlier batches have landed then.
pub async fn prune(pool: &Pool, keep: Duration, now: Timestamp, batches: u32) -> Result<Pruned, Error> {
    let mut pruned = Pruned::default();
    for _ in 0..batches {
        pruned += batch(pool, keep, now).await?;
        if !pruned.more {
            break;
        }
    }
    Ok(pruned)
}

async fn batch(pool: &Pool, keep: Duration, now: Timestamp) -> Result<Pruned, Error> {
    let statement = Statement::new(STATEMENT)
        .bind(now, Type::TIMESTAMPTZ)
        .bind(keep.as_secs_f64(), Type::FLOAT8)
        .bind(BATCH, Type::INT8);
    let mut guard = pool.begin().await?;
    guard.defer(Statement::new("SELECT pg_catalog.pg_advisory_xact_lock($1)").bind(LOCK, Type::INT8));
    let (rows, _receipt) = guard.commit_with(statement).await?;
    let count = |at| rows.first().map_or(0, |row| u64::try_from(row.get::<_, i64>(at)).unwrap_or_default());
    Ok(Pruned { runs: count(0), rejects: count(1), more: count(0) >= BATCH.unsigned_abs() })
}
