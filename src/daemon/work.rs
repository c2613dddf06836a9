//! What the daemon runs: one tracker's work, opaque to it.
//!
//! In: an instant. Out: an `End`. The daemon knows nothing of sources, shapes or SQL; tests put work here
//! that panics and hangs. Must not know: how a run is done.

use crate::run::End;
use crate::schedule::Overlap;
use crate::status::{Kind, Run, RunStatus};
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// One tracker's work.
pub trait Work: Send + Sync + 'static {
    /// The tracker's name.
    fn name(&self) -> &str;
    /// Works of one group take turns: only so many run at once. `None`: it is alone.
    fn group(&self) -> Option<&str> {
        None
    }
    /// What a tick does that finds it busy.
    fn overlap(&self) -> Overlap;
    /// A run that goes on longer is stuck.
    fn deadline(&self) -> Duration;
    /// One run, from claim to ledger. It reports its failures in the outcome.
    ///
    /// Cancel safety: dropping it rolls back what it did not commit.
    fn run(self: Arc<Self>, scheduled_at: Timestamp, kind: Kind) -> BoxFuture<'static, End>;
}

/// One instant to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    pub tracker: Arc<str>,
    pub scheduled_at: Timestamp,
    pub kind: Kind,
}

/// Who runs, for ledger rows of runs that never began.
#[derive(Debug, Clone)]
pub struct Identity {
    /// `host:pid`.
    pub instance: String,
    /// The id of a run; a function of the tracker and the instant alone.
    pub run_id: fn(&str, Timestamp) -> Uuid,
}

impl Identity {
    /// The ledger row of an instant that trackd did not run to its end.
    pub fn unrun(&self, due: &Due, status: RunStatus, started_at: Timestamp, now: Timestamp) -> Run {
        let run_id = (self.run_id)(&due.tracker, due.scheduled_at);
        let begun = Run::begun(run_id, &*due.tracker, due.scheduled_at, due.kind, &*self.instance, started_at);
        Run { status, finished_at: now, ..begun }
    }

    /// The ledger row of an instant that trackd did not run at all.
    pub fn not_run(&self, due: &Due, status: RunStatus, now: Timestamp, reason: &str) -> Run {
        Run { error: Some(reason.to_owned()), ..self.unrun(due, status, now, now) }
    }
}
