//! What the daemon shows of itself and of its database: plain values, made by `daemon` and `store`, rendered by `admin`
//! and `cli`.
//!
//! Must not know: how they are made or shown. Holds no secret.

pub mod alert;
mod hand;
pub mod health;

pub use alert::Alert;
pub use hand::ByHand;
pub use health::{Health, Server};

use crate::class::Class;
use crate::schedule::pace::Standing;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The whole daemon at one moment.
#[derive(Debug, Clone, Serialize, Default)]
pub struct Status {
    /// trackd's version.
    pub version: &'static str,
    /// `host:pid`, as in `trackd.runs.instance`.
    pub instance: String,
    /// Where the daemon is in its life.
    pub phase: Phase,
    /// When it started.
    pub started_at: Timestamp,
    /// The configuration file.
    pub config_path: String,
    /// 1 for the configuration of the start, one more at each good reload.
    pub config_generation: u64,
    /// The latest reload, if any.
    pub last_reload: Option<Reload>,
    /// Runs going on now, and the most there can be.
    pub workers_busy: usize,
    /// `daemon.workers`.
    pub workers: usize,
    /// Due runs that wait for a worker.
    pub queued: usize,
    /// What the database last said, if it is away.
    pub database_error: Option<String>,
    /// The pool's numbers.
    pub pool: Pool,
    /// Payloads that wait for the database.
    pub spool: Spool,
    /// What the database said of itself when it was last asked; `None` before, and while it is away.
    pub server: Option<Server>,
    /// Totals since the start.
    pub totals: Totals,
    /// Trackers that are stale.
    pub stale: usize,
    /// Trackers with a fault that stands.
    pub standing: usize,
    /// In the order of the file.
    pub trackers: Vec<Tracker>,
}

/// `Status::phase`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    #[default]
    Starting,
    Running,
    /// Running, but the database is away.
    Degraded,
    Draining,
}

/// One reload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reload {
    /// When it ended.
    pub at: Timestamp,
    /// Whether the new configuration is in force.
    pub ok: bool,
    /// What changed, or every fault, a line each.
    pub message: String,
    /// Of one that failed: `Standing` if the configuration is to be changed, `Retry` if what it names is away.
    pub class: Option<Class>,
    /// What to do about it, where that is not in the message.
    pub hint: Option<String>,
}

/// Connections.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Pool {
    /// Open ones.
    pub size: u32,
    /// Open and not borrowed.
    pub idle: u32,
    /// Borrowed ones.
    pub borrowed: u32,
    /// Tasks that wait for one.
    pub waiting: u32,
    /// The most there can be.
    pub limit: u32,
}

/// Payloads that wait for the database.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Spool {
    /// Those that wait.
    pub entries: u64,
    /// Bytes of the disk that they take, bad files included, and the most that they may.
    pub used: u64,
    pub limit: u64,
    /// The earliest instant that waits.
    pub oldest: Option<Timestamp>,
    /// Files that were not whole, and lie in `bad/`.
    pub bad: u64,
}

/// Counts since the start.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Totals {
    pub succeeded: u64,
    pub failed: u64,
    pub skipped: u64,
    pub missed: u64,
    /// Runs whose payloads had to wait in the spool.
    pub kept: u64,
    pub rows_written: u64,
    pub rows_rejected: u64,
}

/// One tracker.
#[derive(Debug, Clone, Serialize)]
pub struct Tracker {
    pub name: String,
    /// As written, with its zone.
    pub schedule: String,
    /// What is going on.
    pub state: TrackerState,
    /// The next instant, without jitter.
    pub next_run: Option<Timestamp>,
    /// The latest run that ended, of this process or of the ledger.
    pub last: Option<Run>,
    /// The scheduled instant of the latest success.
    pub last_success: Option<Timestamp>,
    /// When it becomes stale, or became; `None` without `fresh_within`.
    pub stale_at: Option<Timestamp>,
    /// No success for `fresh_within`.
    pub stale: bool,
    /// The fault that stands, until the next success or reload.
    pub standing: Option<Standing>,
    /// Failures since the latest success.
    pub failures_in_a_row: u32,
    /// Since the start.
    pub totals: Totals,
    /// The newest rows landed by this process, a few for each table.
    pub newest: Vec<Sample>,
}

/// `Tracker::state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrackerState {
    Idle,
    /// Due, waits for a worker.
    Queued,
    Running,
}

/// One run, as in `trackd.runs`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Run {
    pub run_id: Uuid,
    pub tracker: String,
    pub scheduled_at: Timestamp,
    pub kind: Kind,
    pub status: RunStatus,
    /// Attempts of the source, from 1; 0 where none was made.
    pub attempt: i32,
    pub instance: String,
    pub started_at: Timestamp,
    pub finished_at: Timestamp,
    pub fetched_bytes: Option<i64>,
    pub http_status: Option<i32>,
    pub rows_read: i64,
    pub rows_written: i64,
    pub rows_rejected: i64,
    /// Lower-case hexadecimal.
    pub payload_sha256: Option<String>,
    pub error_class: Option<Class>,
    /// One line, with the hint where there is one.
    pub error: Option<String>,
}

impl Run {
    /// A run of which nothing is known yet but that it begins: failed, unless more becomes of it.
    pub fn begun(
        run_id: Uuid,
        tracker: impl Into<String>,
        scheduled_at: Timestamp,
        kind: Kind,
        instance: impl Into<String>,
        at: Timestamp,
    ) -> Run {
        Run {
            run_id,
            tracker: tracker.into(),
            scheduled_at,
            kind,
            status: RunStatus::Failed,
            attempt: 0,
            instance: instance.into(),
            started_at: at,
            finished_at: at,
            fetched_bytes: None,
            http_status: None,
            rows_read: 0,
            rows_written: 0,
            rows_rejected: 0,
            payload_sha256: None,
            error_class: None,
            error: None,
        }
    }
}

/// `trackd.runs.kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Scheduled,
    CatchUp,
    Manual,
}

impl Kind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Scheduled => "scheduled",
            Kind::CatchUp => "catch_up",
            Kind::Manual => "manual",
        }
    }
}

/// `trackd.runs.status` of a run that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunStatus {
    Succeeded,
    Failed,
    Missed,
    Skipped,
}

impl RunStatus {
    pub const fn as_str(self) -> &'static str {
        match self {
            RunStatus::Succeeded => "succeeded",
            RunStatus::Failed => "failed",
            RunStatus::Missed => "missed",
            RunStatus::Skipped => "skipped",
        }
    }
}

/// A few rows, as text.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    pub table: String,
    /// The scheduled instant of their run.
    pub at: Timestamp,
    pub columns: Vec<String>,
    /// `None` is null; long texts are cut.
    pub rows: Vec<Vec<Option<String>>>,
}
