//! This process among those that share a ledger: its lease, by the database's clock, and what others left behind.
//!
//! ```text
//!  renew, every third of the lease --> … --leave--> its claims are free at once
//!     \ not renewed in time: its claims are free, and whoever looks next finds them as orphans
//! ```
//!
//! Must not know: what a run does, who takes orphans over.

use super::{Error, Pool, Statement};
use crate::status::Kind;
use jiff::Timestamp;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

/// Orphans of one look: the next one finds further ones.
const MOST_ORPHANS: i64 = 1_000;

/// For what a crash of the server may take back: it is said again, or claimed again, or known a lease later. Nobody waits for
/// the disk of the server.
pub(super) const BEFORE_IT_IS_SYNCED: &str = "SET LOCAL synchronous_commit = off";

/// One process.
#[derive(Debug)]
pub struct Instance {
    name: String,
    lease: Duration,
    id: i64,
    fence: AtomicI64,
    /// What it said last of how far its instants have their rows.
    said: Mutex<Option<Timestamp>>,
}

/// A run that was claimed by a process whose lease is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    pub tracker: String,
    pub scheduled_at: Timestamp,
    pub kind: Kind,
}

/// The other processes, as far as this one cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Others {
    /// Runs that nobody is at any more: their process died, or stands still for longer than its lease. Oldest first, at
    /// most 1,000.
    pub orphans: Vec<Orphan>,
    /// How long until the first lease of another process is over, if it is not renewed before; `None`: there is none.
    pub next_to_expire: Option<Duration>,
}

impl Instance {
    /// This process, without a lease yet. `name` is `host:pid`.
    ///
    /// Its number is drawn at random: one that a database hands out may be handed out again after a fail-over.
    pub fn new(name: impl Into<String>, lease: Duration) -> Instance {
        // Keyed by the operating system, for each value anew.
        let id = RandomState::new().hash_one(std::process::id());
        Instance { name: name.into(), lease, id: (id >> 1) as i64, fence: AtomicI64::new(0), said: Mutex::new(None) }
    }

    /// `host:pid`, as in `trackd.runs.instance`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How long its claims hold without `renew`.
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// Its number in `trackd.instances`.
    pub fn id(&self) -> i64 {
        self.id
    }

    pub(super) fn next_fence(&self) -> i64 {
        self.fence.fetch_add(1, Ordering::Relaxed)
    }

    /// Takes the lease, and ends that of the process that was here before, which is known to be gone: its claims are free
    /// at once.
    ///
    /// Cancel safety: safe; it landed or it did not.
    ///
    /// # Errors
    /// As the guard's: they are free when its lease is over.
    pub async fn begin(&self, pool: &Pool, predecessor: Option<i64>) -> Result<(), Error> {
        let mut guard = pool.begin().await?;
        guard.defer(Statement::new(BEFORE_IT_IS_SYNCED));
        if let Some(id) = predecessor.filter(|id| *id != self.id) {
            guard.defer(end_of_lease(id));
        }
        let _rows = guard.commit_with(self.renewal(None)).await?;
        *self.said.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }

    /// Renews the lease, or takes it where there is none. `whole_until`: its instants up to there have their rows.
    ///
    /// Returns whether the database remembers less than this process said before: the server went back in time. What it
    /// remembers stands then, so that the next start makes the ledger whole from there. `None` begins anew.
    ///
    /// Cancel safety: safe; it landed or it did not.
    ///
    /// # Errors
    /// As the guard's.
    pub async fn renew(&self, pool: &Pool, whole_until: Option<Timestamp>) -> Result<bool, Error> {
        let (rows, _receipt) = pool.begin().await?.commit_with(self.renewal(whole_until)).await?;
        let is_back = rows.first().is_some_and(|row| row.get(0));
        if !is_back {
            *self.said.lock().unwrap_or_else(PoisonError::into_inner) = whole_until;
        }
        Ok(is_back)
    }

    /// The row says whether the database remembers less than was said.
    fn renewal(&self, whole_until: Option<Timestamp>) -> Statement {
        let said = whole_until.and_then(|_| *self.said.lock().unwrap_or_else(PoisonError::into_inner));
        Statement::new(
            "INSERT INTO trackd.instances AS i (instance_id, name, lease_until, whole_until) VALUES ($1, $2, \
             pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => $3), $4) \
             ON CONFLICT (instance_id) DO UPDATE SET lease_until = excluded.lease_until, \
             whole_until = CASE WHEN i.whole_until < $5 THEN i.whole_until ELSE coalesce($4, i.whole_until) END \
             RETURNING coalesce(whole_until <> $4, false)",
        )
        .bind(self.id, Type::INT8)
        .bind(self.name.clone(), Type::TEXT)
        .bind(self.lease.as_secs_f64(), Type::FLOAT8)
        .bind(whole_until, Type::TIMESTAMPTZ)
        .bind(said, Type::TIMESTAMPTZ)
    }

    /// What others left behind, and when more may be. Rows of processes that are long gone and claim nothing are removed.
    ///
    /// Cancel safety: safe; the next look finds it again.
    ///
    /// # Errors
    /// As the guard's.
    pub async fn others(&self, pool: &Pool) -> Result<Others, Error> {
        let mut guard = pool.begin().await?;
        let sql = "SELECT r.tracker, r.scheduled_at, r.kind FROM trackd.runs r LEFT JOIN trackd.instances i \
                   ON i.instance_id = r.claimed_by AND i.lease_until > pg_catalog.clock_timestamp() \
                   WHERE r.status = 'running' AND i.instance_id IS NULL ORDER BY r.scheduled_at LIMIT $1";
        let rows = guard.query(Statement::new(sql).bind(MOST_ORPHANS, Type::INT8)).await?;
        guard.defer(Statement::new(
            "DELETE FROM trackd.instances i WHERE lease_until < pg_catalog.clock_timestamp() - interval '1 day' AND NOT \
             EXISTS (SELECT FROM trackd.runs r WHERE r.status = 'running' AND r.claimed_by = i.instance_id)",
        ));
        let sql = "SELECT extract(epoch FROM min(lease_until) - pg_catalog.clock_timestamp())::float8 \
                   FROM trackd.instances WHERE lease_until > pg_catalog.clock_timestamp() AND instance_id <> $1";
        let (next, _receipt) = guard.commit_with(Statement::new(sql).bind(self.id, Type::INT8)).await?;
        let seconds: Option<f64> = next.first().and_then(|row| row.get(0));
        let next_to_expire = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).ok());
        Ok(Others { orphans: rows.iter().map(orphan).collect(), next_to_expire })
    }

    /// Removes a process that is known to be gone, once all of its instants have their rows.
    ///
    /// Cancel safety: safe; it landed or it did not.
    ///
    /// # Errors
    /// As the guard's: it is removed after a day.
    pub async fn forget(&self, pool: &Pool, id: i64) -> Result<(), Error> {
        let mut guard = pool.begin().await?;
        guard.defer(Statement::new(BEFORE_IT_IS_SYNCED));
        let sql = "DELETE FROM trackd.instances WHERE instance_id = $1 AND instance_id <> $2";
        guard.defer(Statement::new(sql).bind(id, Type::INT8).bind(self.id, Type::INT8));
        guard.commit().await.map(drop)
    }

    /// Gives its claims free at once.
    ///
    /// Cancel safety: safe; it landed or it did not.
    ///
    /// # Errors
    /// As the guard's: they are free when the lease is over.
    pub async fn leave(&self, pool: &Pool) -> Result<(), Error> {
        let mut guard = pool.begin().await?;
        guard.defer(end_of_lease(self.id));
        guard.commit().await.map(drop)
    }
}

fn end_of_lease(id: i64) -> Statement {
    let sql = "UPDATE trackd.instances SET lease_until = pg_catalog.clock_timestamp() WHERE instance_id = $1";
    Statement::new(sql).bind(id, Type::INT8)
}

fn orphan(row: &Row) -> Orphan {
    let kind = match row.get("kind") {
        "manual" => Kind::Manual,
        "catch_up" => Kind::CatchUp,
        _ => Kind::Scheduled,
    };
    Orphan { tracker: row.get("tracker"), scheduled_at: row.get("scheduled_at"), kind }
}
