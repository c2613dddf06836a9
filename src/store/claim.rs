//! Claims: a run belongs to one process at a time, and its claim is what turns into its outcome.
//!
//! ```text
//!  nobody's --claim (or reserve, and claim later)--> running, ours --close, in the guard that lands the rows--> succeeded
//!                        |        \-- record --> failed
//!                        +-- our lease is over: whoever claims next has it, and our close fails
//! ```
//!
//! Must not know: what a run does.

use super::instance::{BEFORE_IT_IS_SYNCED, Instance};
use super::ledger::{bind_run, run_id};
use super::{Error, Pool, Statement};
use crate::status::{Kind, Run};
use jiff::Timestamp;
use std::time::Duration;
use tokio::time::timeout;
use tokio_postgres::types::Type;
use xxhash_rust::xxh3::xxh3_64;

/// SQLSTATE of a close whose claim is lost; raised by `trackd.claim_lost`.
const LOST: &str = "TD001";

/// The right to end one run. Lost when another process, or a later claim of this one, takes the run over.
#[derive(Debug)]
#[must_use = "a run that was claimed and is not ended stays until the lease is over"]
pub struct Claim {
    claimed_by: i64,
    fence: i64,
}

/// Of what a claim may take the place, besides what nobody is at any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// Of nothing else.
    Running,
    /// Of outcomes without rows: there is a payload now.
    Unlanded,
}

/// Claims a run: `None` when it has its outcome already, or a process whose lease holds is at it.
///
/// Shape: `run` as it begins; one round trip. Claimed again by the same process, the older claim is lost.
///
/// Cancel safety: safe; the claim may stand then, and the next one of this process takes it over.
///
/// # Errors
/// As the guard's; no answer within `patience`.
pub async fn claim(
    pool: &Pool,
    instance: &Instance,
    run: &Run,
    over: Over,
    patience: Duration,
) -> Result<Option<Claim>, Error> {
    let claim = Claim { claimed_by: instance.id(), fence: instance.next_fence() };
    let try_to = async || {
        let mut guard = pool.begin().await?;
        guard.defer(Statement::new(BEFORE_IT_IS_SYNCED));
        guard.defer(statement(&claim, run, over));
        let receipt = guard.commit().await?;
        Ok::<_, Error>(receipt.touched().last() == Some(&1))
    };
    let claiming = async {
        // The table has a second unique index: of two that insert at once, one may meet the other there, where ON CONFLICT
        // does not look. Once more, it meets it where it does.
        match try_to().await {
            Err(error) if error.is_unique_violation() => try_to().await,
            claimed => claimed,
        }
    };
    let claimed = timeout(patience, claiming).await.unwrap_or_else(|_| Err(Error::timeout("claim", patience)));
    Ok(claimed?.then_some(claim))
}

/// Of a row `r` in the way of `excluded`: it has no outcome, and is ours, or of a process whose lease is over.
pub(super) const FREE: &str = "r.status = 'running' AND (r.claimed_by = excluded.claimed_by OR NOT EXISTS \
    (SELECT FROM trackd.instances i WHERE i.instance_id = r.claimed_by AND i.lease_until > pg_catalog.clock_timestamp()))";

fn statement(claim: &Claim, run: &Run, over: Over) -> Statement {
    let unlanded = match over {
        Over::Running => "",
        Over::Unlanded => " OR r.status IN ('missed', 'skipped', 'failed')",
    };
    Statement::new(format!(
        "INSERT INTO trackd.runs AS r (run_id, tracker, scheduled_at, kind, status, attempt, instance, started_at, \
         claimed_by, fence) VALUES ($1, $2, $3, $4, 'running', 0, $5, $6, $7, $8) \
         ON CONFLICT (run_id) DO UPDATE SET status = 'running', instance = excluded.instance, \
         started_at = excluded.started_at, claimed_by = excluded.claimed_by, fence = excluded.fence WHERE ({FREE}){unlanded}"
    ))
    .bind(run.run_id, Type::UUID)
    .bind(run.tracker.clone(), Type::TEXT)
    .bind(run.scheduled_at, Type::TIMESTAMPTZ)
    .bind(run.kind.as_str(), Type::TEXT)
    .bind(run.instance.clone(), Type::TEXT)
    .bind(run.started_at, Type::TIMESTAMPTZ)
    .bind(claim.claimed_by, Type::INT8)
    .bind(claim.fence, Type::INT8)
}

/// Claims runs that this process will begin later, by `claim`: until then they are its own, and orphans when it dies.
///
/// Shape: tracker, instant and kind of each; 1,000 in a statement. Those that have a row keep it.
///
/// Cancel safety: safe; all of them are claimed or none, and it may be done again.
///
/// # Errors
/// As the guard's.
pub async fn reserve(pool: &Pool, instance: &Instance, runs: &[(&str, Timestamp, Kind)]) -> Result<(), Error> {
    if runs.is_empty() {
        return Ok(());
    }
    let mut guard = pool.begin().await?;
    for some in runs.chunks(1_000) {
        let statement = Statement::new(
            "INSERT INTO trackd.runs (run_id, tracker, scheduled_at, kind, status, attempt, instance, started_at, \
             claimed_by, fence) SELECT r.run_id, r.tracker, r.scheduled_at, r.kind, 'running', 0, $5, \
             pg_catalog.clock_timestamp(), $6, $7 FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::text[]) \
             AS r(run_id, tracker, scheduled_at, kind) ON CONFLICT DO NOTHING",
        )
        .bind(some.iter().map(|(tracker, at, _)| run_id(tracker, *at)).collect::<Vec<_>>(), Type::UUID_ARRAY)
        .bind(some.iter().map(|(tracker, ..)| (*tracker).to_owned()).collect::<Vec<_>>(), Type::TEXT_ARRAY)
        .bind(some.iter().map(|(_, at, _)| *at).collect::<Vec<_>>(), Type::TIMESTAMPTZ_ARRAY)
        .bind(some.iter().map(|(.., kind)| kind.as_str()).collect::<Vec<_>>(), Type::TEXT_ARRAY)
        .bind(instance.name().to_owned(), Type::TEXT)
        .bind(instance.id(), Type::INT8)
        .bind(instance.next_fence(), Type::INT8);
        guard.defer(statement);
    }
    guard.commit().await.map(drop)
}

/// The statement that waits until no other transaction that began with it is at this tracker, on any connection.
pub fn turn(tracker: &str) -> Statement {
    let lock = xxh3_64(format!("trackd/{tracker}").as_bytes()).cast_signed();
    Statement::new("SELECT pg_catalog.pg_advisory_xact_lock($1)").bind(lock, Type::INT8)
}

/// The statement that turns a claim into the run's outcome, inside the guard that lands it.
///
/// It fails when the claim is lost (`is_lost`): nothing of the guard lands then.
pub fn close(run: &Run, claim: &Claim) -> Statement {
    let statement = Statement::new(
        "WITH closed AS (UPDATE trackd.runs SET tracker = $2, scheduled_at = $3, kind = $4, status = $5, attempt = $6, \
         instance = $7, started_at = $8, finished_at = $9, fetched_bytes = $10, http_status = $11, rows_read = $12, \
         rows_written = $13, rows_rejected = $14, payload_sha256 = decode($15, 'hex'), error_class = $16, error = $17 \
         WHERE run_id = $1 AND status = 'running' AND claimed_by = $18 AND fence = $19 RETURNING 1) \
         SELECT trackd.claim_lost($1) WHERE NOT EXISTS (SELECT FROM closed)",
    );
    bind_run(statement, run).bind(claim.claimed_by, Type::INT8).bind(claim.fence, Type::INT8)
}

/// Whether an error says that the claim is not ours any more.
pub fn is_lost(error: &Error) -> bool {
    error.sqlstate() == Some(LOST)
}
