//! The database as the daemon sees it: opaque, may be away for hours, remembers what ran.
//!
//! Must not know: SQL, connections. Tests put a ledger here that fails when told to.

use super::work::Due;
use crate::class::Class;
use crate::config;
use crate::status::{Pool, Run, Server, Spool};
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use std::collections::HashMap;
use std::time::Duration;

/// Where outcomes are kept.
pub trait Ledger: Send + Sync + 'static {
    /// Makes it usable: the server started if it is ours, the schema up to date. May be called again after a failure.
    ///
    /// # Errors
    /// Class retry: it is away, try again. Class standing: a person must act.
    fn open(&self) -> BoxFuture<'_, Result<(), Unusable>>;

    /// Waits for one that is away, or until so much time has passed. Returns whether it is back.
    fn back(&self, within: Duration) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            tokio::time::sleep(within).await;
            false
        })
    }

    /// Notes that these trackers are followed since then; those it knows keep their time.
    ///
    /// # Errors
    /// As `open`.
    fn meet(&self, _trackers: Vec<String>, _since: Timestamp) -> BoxFuture<'_, Result<(), Unusable>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// What it remembers of these trackers; of instants after `until`, which run already, only that they have rows. What
    /// this process has reserved does not count: it is dealt out again.
    ///
    /// # Errors
    /// As `open`.
    fn recall(
        &self,
        trackers: Vec<String>,
        until: Option<Timestamp>,
    ) -> BoxFuture<'_, Result<HashMap<String, Memory>, Unusable>>;

    /// The latest run of each of these trackers, whoever ran it, and the instant of its latest success.
    ///
    /// # Errors
    /// As `open`.
    fn latest(&self, _trackers: Vec<String>) -> BoxFuture<'_, Result<Vec<Latest>, Unusable>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// Writes all of these runs or none; an instant that has its row keeps it.
    ///
    /// # Errors
    /// As `open`; the caller tries again.
    fn record<'a>(&'a self, runs: &'a [Run]) -> BoxFuture<'a, Result<(), Unusable>>;

    /// The past is dealt with. Claims runs of it that will be run by and by: none of them is forgotten when this process
    /// dies before, and a later one has landed. Those that have a row keep it.
    ///
    /// # Errors
    /// As `open`.
    fn reserve<'a>(&'a self, _dues: &'a [Due]) -> BoxFuture<'a, Result<(), Unusable>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Renews this process's lease, and says that its instants up to `whole_until` have their rows.
    ///
    /// # Errors
    /// As `open`; claims hold until the lease is over.
    fn renew(&self, _whole_until: Timestamp) -> BoxFuture<'_, Result<Renewed, Unusable>> {
        Box::pin(std::future::ready(Ok(Renewed::default())))
    }

    /// Connects as another configuration says, which is in force when this returns. What runs is not disturbed.
    ///
    /// # Errors
    /// Nothing has changed: not understood, refused, or away while the old one is there.
    fn change<'a>(&'a self, _database: &'a config::Database) -> BoxFuture<'a, Result<(), Unusable>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Whether files that this configuration names, as a password's, hold something else than when they were read.
    fn is_stale(&self, _database: &config::Database) -> bool {
        false
    }

    /// Connections at this moment, and what the server last said if it is away.
    fn gauges(&self) -> (Pool, Option<String>);

    /// Every instant of the past has its row, or is on its way: from now on runs may land.
    fn whole(&self) {}

    /// Payloads that wait for it.
    fn spool(&self) -> Spool {
        Spool::default()
    }

    /// From here on they may take so many bytes of the disk; what waits stays.
    fn bound_spool(&self, _max_bytes: u64) {}

    /// Asks the database how it is, within a few seconds; `None` while it does not answer.
    fn look(&self) -> BoxFuture<'_, Option<Server>> {
        Box::pin(std::future::ready(None))
    }

    /// Removes what is too old and brings statistics up to date; a part of it, where there is much.
    ///
    /// # Errors
    /// As `open`; what was done stays.
    fn tidy<'a>(&'a self, _chores: &'a Chores) -> BoxFuture<'a, Result<Tidied, Unusable>> {
        Box::pin(std::future::ready(Ok(Tidied::default())))
    }

    /// Closes connections, stops the server if it is ours. After it, nothing works.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// What a process learns when it renews its lease.
#[derive(Debug, Clone, Default)]
pub struct Renewed {
    /// Runs whose process is gone: whoever claims one first runs it. Oldest first, some at a time.
    pub orphans: Vec<Due>,
    /// How long until the lease of another process is over, if that does not renew it before.
    pub next_to_expire: Option<Duration>,
    /// The ledger lacks what was there: the server went back in time.
    pub is_back: bool,
}

/// What is to be tidied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chores {
    /// `daemon.keep_runs`.
    pub keep_runs: Option<Duration>,
    /// The tables of all trackers.
    pub tables: Vec<String>,
}

/// What was tidied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tidied {
    /// Runs removed from the ledger, and rows they had set aside.
    pub runs: u64,
    pub rejects: u64,
    /// Tables whose statistics are new.
    pub analyzed: Vec<String>,
}

/// A tracker's latest run, and the instant of its latest success.
pub type Latest = (Run, Option<Timestamp>);

/// A tracker's past.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// Every instant of its schedule up to this one is dealt with: the latest that was run to an end.
    ///
    /// Not the latest that has a row: an instant is skipped while another runs, and that one has no row yet.
    pub dealt_until: Option<Timestamp>,
    /// Later instants that have a row, upwards.
    pub recorded: Vec<Timestamp>,
    /// Since when it is followed.
    pub since: Option<Timestamp>,
    pub last: Option<Latest>,
}

/// Why the ledger cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Unusable {
    pub class: Class,
    /// One line, causes included once.
    pub message: String,
    pub hint: Option<String>,
}
