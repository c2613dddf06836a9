//! A run in the making, and what became of it.
//!
//! Must not know: how it is fetched, shaped or landed.

use super::{Error, Landing};
use crate::clock;
use crate::shape::{Globals, Rows, Stamp, Table, decode};
use crate::source::Payload;
use crate::status::{Kind, Run, RunStatus, Sample};
use crate::store::ledger;
use crate::store::write::{Writer, Written};
use bytes::Bytes;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// Hashing a larger body would hold up a thread of the runtime for more than a millisecond.
const HASH_ON_THE_SPOT: usize = 256 * 1024;

/// A run in the making.
pub(super) struct Draft {
    pub(super) scheduled_at: Timestamp,
    pub(super) run: Run,
}

impl Draft {
    pub(super) fn new(landing: &Landing, scheduled_at: Timestamp, kind: Kind) -> Draft {
        let (name, instance) = (&*landing.recipe.tracker, landing.shared.instance.name());
        let run = Run::begun(ledger::run_id(name, scheduled_at), name, scheduled_at, kind, instance, clock::now());
        Draft { scheduled_at, run }
    }

    /// Notes what the source gave.
    pub(super) async fn fetched(&mut self, payload: &Payload) {
        self.run.attempt = payload.attempts as i32;
        self.run.fetched_bytes = Some(payload.body.len() as i64);
        self.run.http_status = payload.response.status.map(i32::from);
        self.run.payload_sha256 = Some(sha256(&payload.body).await);
    }

    pub(super) fn stamp(&self) -> Stamp {
        Stamp { at: self.scheduled_at, run_id: self.run.run_id }
    }

    /// `run` in templates, `$run` in programs.
    pub(super) fn run_value(&self) -> minijinja::Value {
        crate::config::template::value(&self.run_json())
    }

    fn run_json(&self) -> serde_json::Value {
        serde_json::json!({
            "id": self.run.run_id,
            "tracker": self.run.tracker,
            "scheduled_at": self.scheduled_at,
            "attempt": self.run.attempt.max(1),
        })
    }

    pub(super) fn globals(&self, landing: &Landing, payload: &Payload) -> Arc<Globals> {
        let response = serde_json::to_value(&payload.response).unwrap_or_default();
        Arc::new(Globals { run: self.run_json(), vars: landing.recipe.vars.clone(), response })
    }

    pub(super) fn succeeded(&self, written: &[Written]) -> Run {
        let sum = |count: fn(&Written) -> u64| written.iter().map(count).sum::<u64>() as i64;
        Run {
            status: RunStatus::Succeeded,
            finished_at: clock::now(),
            rows_read: sum(|table| table.read),
            rows_written: sum(|table| table.rows),
            rows_rejected: sum(|table| table.rejected),
            ..self.run.clone()
        }
    }

    pub(super) fn into_failure(mut self, error: &Error) -> Outcome {
        if let Error::Fetch(fetch) = error {
            self.run.attempt = fetch.attempts as i32;
            self.run.http_status = fetch.status.map(i32::from);
        }
        self.run.finished_at = clock::now();
        self.run.error_class = Some(error.class());
        self.run.error = Some(match error.hint() {
            Some(hint) => format!("{error} ({hint})"),
            None => error.to_string(),
        });
        let recorded = matches!(error, Error::Recorded(_));
        Outcome { run: self.run, fresh: Vec::new(), recorded }
    }
}

async fn sha256(body: &Bytes) -> String {
    if body.len() <= HASH_ON_THE_SPOT {
        return ledger::hex(&Sha256::digest(body));
    }
    let shared = body.clone();
    // Cancel safety: the thread ends by itself within the time of one pass over the body.
    let hashing = tokio::task::spawn_blocking(move || ledger::hex(&Sha256::digest(&shared)));
    hashing.await.unwrap_or_else(|_| ledger::hex(&Sha256::digest(body)))
}

/// A run that is in the database.
pub(super) struct Landed {
    run: Run,
    written: Vec<Written>,
}

impl Landed {
    pub(super) fn new(run: Run, written: Vec<Written>) -> Landed {
        Landed { run, written }
    }

    /// The ledger row that was found instead of landing the run again.
    pub(super) fn found(run: Run, draft: &Draft) -> Result<Landed, Error> {
        match run.status {
            RunStatus::Succeeded => Ok(Landed { run, written: Vec::new() }),
            status => Err(Error::Recorded(format!(
                "the instant {} is on record as {} already",
                draft.scheduled_at,
                status.as_str()
            ))),
        }
    }

    pub(super) fn into_end(self, landing: &Landing) -> End {
        landing.shared.notifier.landed(&self.run.tracker, self.run.run_id);
        let at = self.run.scheduled_at;
        let fresh = |(writer, written): (&Writer, Written)| {
            (written.sample.count > 0).then(|| FreshRows { table: writer.table().clone(), at, rows: written.sample })
        };
        let fresh = landing.writers.iter().zip(self.written).filter_map(fresh).collect();
        End::Ended(Outcome { run: self.run, fresh, recorded: true })
    }
}

/// How a run ended for this process.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "one a run, and most are the large one")]
pub enum End {
    /// It has its outcome.
    Ended(Outcome),
    /// Its payload waits in the spool, and lands later as the same run.
    Kept,
    /// Another process is at it, or ended it.
    Elsewhere,
}

/// What became of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// As it is, or is to be, in `trackd.runs`.
    pub run: Run,
    /// A few of its rows, a table each.
    pub fresh: Vec<FreshRows>,
    /// Whether the ledger has it; otherwise somebody must still write it there.
    pub recorded: bool,
}

/// A few rows just landed, still encoded: they cost nothing until somebody looks.
#[derive(Debug, Clone)]
pub struct FreshRows {
    table: Arc<Table>,
    at: Timestamp,
    rows: Rows,
}

impl FreshRows {
    /// The rows as people read them.
    pub fn sample(&self) -> Sample {
        Sample {
            table: self.table.name.clone(),
            at: self.at,
            columns: self.table.columns.iter().map(|column| column.name.clone()).collect(),
            rows: decode::texts(&self.table, &self.rows, usize::MAX),
        }
    }
}
