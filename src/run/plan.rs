//! A tracker made ready to run: its source built, its statements written, once for a configuration.
//!
//! Must not know: the daemon, the pages, the command line.

use super::{Bench, Error, Shaping};
use crate::class::Class;
use crate::clock;
use crate::config::{self, Config, OnBadRow, Tracker};
use crate::shape::{Globals, Rows, Stamp, Table, decode};
use crate::source::{self, Ask, Payload, Source};
use crate::status::{Kind, Run, RunStatus, Sample};
use crate::store::notify::Notifier;
use crate::store::write::{Care, Failure, Writer, Written};
use crate::store::{Guard, Pool, Receipt, ledger, tables};
use bytes::Bytes;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Hashing a larger body would hold up a thread of the runtime for more than a millisecond.
const HASH_ON_THE_SPOT: usize = 256 * 1024;

/// What all plans of a process share.
#[derive(Debug, Clone)]
pub struct Shared {
    /// Where runs land.
    pub pool: Pool,
    /// `host:pid`, as in `trackd.runs.instance`.
    pub instance: Arc<str>,
    /// Who is told of runs that landed.
    pub notifier: Notifier,
}

/// A tracker, ready to run any number of times, by one task at a time.
pub struct Plan {
    pub(super) tracker: Arc<Tracker>,
    pub(super) shared: Shared,
    pub(super) source: Box<dyn Source>,
    pub(super) bench: Bench,
    pub(super) writers: Vec<Writer>,
    vars: Arc<serde_json::Value>,
    template_vars: minijinja::Value,
    /// Its tables and those they refer to, which must be there before the first row.
    related: Vec<Arc<Table>>,
    tables_stand: AtomicBool,
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan").field("tracker", &self.tracker.name).finish_non_exhaustive()
    }
}

impl Plan {
    /// Makes a tracker of `config` ready. Opens nothing.
    ///
    /// # Errors
    /// The source cannot be built (a header that is no header, a TLS store that cannot be read).
    pub fn new(config: &Config, tracker: &Arc<Tracker>, shared: &Shared) -> Result<Plan, source::Error> {
        let writers = tracker.tables.iter().map(|table| Writer::new(table.clone())).collect();
        Ok(Plan {
            source: source::build(&tracker.source, tracker.timeout, tracker.retry)?,
            bench: Bench::new(),
            writers,
            vars: config.vars.clone(),
            template_vars: config::template::value(&config.vars),
            related: related(config, tracker),
            tables_stand: AtomicBool::new(false),
            tracker: tracker.clone(),
            shared: shared.clone(),
        })
    }

    /// The tracker.
    pub fn tracker(&self) -> &Arc<Tracker> {
        &self.tracker
    }

    /// What the source may depend on.
    pub(super) fn ask(&self, draft: &Draft) -> Ask {
        Ask { context: minijinja::context! { vars => self.template_vars.clone(), run => draft.run_value() } }
    }

    pub(super) fn tries(&self) -> Tries {
        Tries { made: 1, care: Care::Sets, tables_again: true }
    }

    /// Makes or extends the tables in the run's own transaction, until one such transaction committed.
    pub(super) async fn ensure_tables(&self, guard: &mut Guard) -> Result<(), Failure> {
        if !self.tables_stand.load(Ordering::Acquire) {
            tables::ensure(guard, &self.related).await?;
        }
        Ok(())
    }

    pub(super) fn tables_stand(&self, _proof: &Receipt) {
        self.tables_stand.store(true, Ordering::Release);
    }

    /// Refuses a table with bad rows where the tracker asks for all or nothing.
    pub(super) fn accept(&self, writer: &Writer, written: Written) -> Result<Written, Failure> {
        match (&self.tracker.on_bad_row, &written.first_reject) {
            (OnBadRow::Fail, Some(reject)) => Err(Failure::BadRow {
                table: writer.table().name.clone(),
                reject: reject.clone(),
                rejected: written.rejected,
            }),
            _ => Ok(written),
        }
    }

    /// The rows that would land, table by table, without a database.
    ///
    /// # Errors
    /// The source gave no payload, or it is not the documented shape.
    pub async fn dry_run(&self, scheduled_at: Timestamp) -> Result<Vec<DryTable>, Error> {
        let mut draft = Draft::new(self, scheduled_at, Kind::Manual);
        let payload = self.source.fetch(&self.ask(&draft)).await.map_err(Error::Fetch)?;
        draft.fetched(&payload).await;
        let globals = draft.globals(self, &payload);
        let starting = self.bench.start(&self.tracker.tables, &payload.body, &globals, draft.stamp());
        let mut parts = starting.await.map_err(Error::Shape)?;
        let mut dry = Vec::with_capacity(self.writers.len());
        for writer in &self.writers {
            dry.push(DryTable::collect(writer.table(), &mut parts).await?);
        }
        Ok(dry)
    }
}

/// One table of a dry run.
#[derive(Debug)]
pub struct DryTable {
    /// The table.
    pub table: Arc<Table>,
    /// All good rows.
    pub rows: Rows,
    /// The rows that would be set aside.
    pub tally: crate::shape::Tally,
}

impl DryTable {
    async fn collect(table: &Arc<Table>, parts: &mut Shaping) -> Result<DryTable, Error> {
        use crate::store::write::{Part, Parts as _};
        let mut rows = Rows::default();
        loop {
            match parts.next().await.map_err(Error::Shape)? {
                Part::Rows(more) => {
                    rows.data.extend_from_slice(&more.data);
                    rows.count += more.count;
                }
                Part::End(tally) => return Ok(DryTable { table: table.clone(), rows, tally }),
            }
        }
    }
}

/// The tracker's tables and all that they refer to.
pub fn related(config: &Config, tracker: &Tracker) -> Vec<Arc<Table>> {
    let by_name = |name: &str| config.trackers.iter().flat_map(|other| &other.tables).find(|table| table.name == name);
    let mut seen = HashSet::new();
    let mut open: Vec<&Arc<Table>> = tracker.tables.iter().collect();
    let mut related = Vec::new();
    while let Some(table) = open.pop() {
        if seen.insert(table.name.as_str()) {
            related.push(table.clone());
            open.extend(table.columns.iter().filter_map(|column| column.references.as_deref()).filter_map(by_name));
        }
    }
    related
}

/// How often, and how, a payload is landed again.
pub(super) struct Tries {
    made: u32,
    pub(super) care: Care,
    tables_again: bool,
}

impl Tries {
    /// Waits for the next try, or gives the failure back when there is none.
    pub(super) async fn again(&mut self, plan: &Plan, failure: Failure) -> Result<(), Error> {
        let Failure::Store(error) = &failure else { return Err(failure.into()) };
        match error.class() {
            // The server refused a row that looked good: find it, set it aside, land the others.
            Class::Row if self.care == Care::Sets && plan.tracker.on_bad_row == OnBadRow::Reject => {
                self.care = Care::Halves;
                Ok(())
            }
            // Somebody changed a table since it was checked: check again, once.
            Class::Standing if self.tables_again && matches!(error.sqlstate(), Some("42P01" | "42703")) => {
                self.tables_again = false;
                plan.tables_stand.store(false, Ordering::Release);
                Ok(())
            }
            Class::Retry if self.made < plan.tracker.retry.attempts => {
                tokio::time::sleep(source::backoff(&plan.tracker.retry, self.made)).await;
                self.made += 1;
                Ok(())
            }
            _ => Err(failure.into()),
        }
    }
}

/// A run in the making.
pub(super) struct Draft {
    pub(super) scheduled_at: Timestamp,
    run: Run,
}

impl Draft {
    pub(super) fn new(plan: &Plan, scheduled_at: Timestamp, kind: Kind) -> Draft {
        let now = clock::now();
        let run = Run {
            run_id: ledger::run_id(&plan.tracker.name, scheduled_at),
            tracker: plan.tracker.name.clone(),
            scheduled_at,
            kind,
            status: RunStatus::Failed,
            attempt: 0,
            instance: plan.shared.instance.to_string(),
            started_at: now,
            finished_at: now,
            fetched_bytes: None,
            http_status: None,
            rows_read: 0,
            rows_written: 0,
            rows_rejected: 0,
            payload_sha256: None,
            error_class: None,
            error: None,
        };
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
    fn run_value(&self) -> minijinja::Value {
        config::template::value(&self.run_json())
    }

    fn run_json(&self) -> serde_json::Value {
        serde_json::json!({
            "id": self.run.run_id,
            "tracker": self.run.tracker,
            "scheduled_at": self.scheduled_at,
            "attempt": self.run.attempt.max(1),
        })
    }

    pub(super) fn globals(&self, plan: &Plan, payload: &Payload) -> Arc<Globals> {
        let response = serde_json::to_value(&payload.response).unwrap_or_default();
        Arc::new(Globals { run: self.run_json(), vars: plan.vars.clone(), response })
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

    pub(super) fn into_outcome(self, plan: &Plan) -> Outcome {
        plan.shared.notifier.landed(&self.run.tracker, self.run.run_id);
        let at = self.run.scheduled_at;
        let fresh = |(writer, written): (&Writer, Written)| {
            (written.sample.count > 0).then(|| FreshRows { table: writer.table().clone(), at, rows: written.sample })
        };
        let fresh = plan.writers.iter().zip(self.written).filter_map(fresh).collect();
        Outcome { run: self.run, fresh, recorded: true }
    }
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
