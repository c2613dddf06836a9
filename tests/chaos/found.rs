//! What is in the database and in the state directories when all is over: plain values.
//!
//! Must not know: what should be there, SQL.

use super::fleet::Millis;
use super::model::Kept;
use serde::Serialize;
use std::collections::HashMap;

/// A ledger row.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    pub run_id: String,
    pub tracker: String,
    pub at: Millis,
    pub status: String,
    /// Of the process that wrote it.
    pub pid: u32,
    /// When its transaction committed, in microseconds of the server's clock; orders all of them.
    pub committed: i64,
    pub rows_written: i64,
    pub rows_rejected: i64,
    /// Whether the process had the whole response.
    pub fetched: bool,
    pub class: Option<String>,
    pub error: Option<String>,
}

impl Run {
    /// Whether it was run, and not only recorded.
    pub fn ran(&self) -> bool {
        !matches!(self.status.as_str(), "missed" | "skipped")
    }
}

/// A row of a tracker's snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Proof {
    pub run_id: String,
    pub at: Millis,
    pub k: String,
    pub serial: u64,
}

/// All of it.
#[derive(Debug, Clone, Default)]
pub struct Found {
    pub runs: Vec<Run>,
    /// By tracker; none where the table is not there.
    pub proof: HashMap<String, Vec<Proof>>,
    /// By tracker.
    pub kept: HashMap<String, Vec<Kept>>,
    /// By run.
    pub rejects: HashMap<String, i64>,
    /// Serial numbers of answers that are on disk, to be landed.
    pub spooled: Vec<u64>,
}
