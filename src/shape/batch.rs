//! What shaping gives: encoded rows, and the rows set aside.
//!
//! Rows are kept in the one form that needs no further work: tuples of PostgreSQL's binary COPY format,
//! without its header and trailer. Must not know: tokio, the database client, the clock.

use jiff::Timestamp;
use uuid::Uuid;

/// The two columns every history adds, the same for all rows of a run.
///
/// Each encoded row ends with these two fields: the instant (timestamptz), then the run's id (uuid).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The scheduled instant of the run.
    pub at: Timestamp,
    /// The run's id.
    pub run_id: Uuid,
}

/// A stretch of encoded rows.
///
/// Shape: `count` tuples, each `i16` number of fields (columns + 2), then a field for each column in the
/// table's order and the two of the `Stamp`; a field is `i32` length (-1: null) and that many bytes.
/// Source: PostgreSQL manual, COPY, "Binary Format".
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rows {
    /// The tuples, one after another.
    pub data: Vec<u8>,
    /// How many.
    pub count: u64,
}

/// A row that was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// The row as JSON text that PostgreSQL's jsonb takes (no NUL).
    pub row: String,
    /// Why: column, expected, got. One line.
    pub reason: String,
}

/// What came of one table's pass over a payload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Rows the program yielded, good and bad.
    pub read: u64,
    /// The rows set aside, at most `REJECTS_KEPT` of them.
    pub rejects: Vec<Reject>,
    /// How many were set aside, kept or not.
    pub rejected: u64,
}

/// Rejects kept in full for one table of one run; the others are only counted.
pub const REJECTS_KEPT: usize = 1_000;

/// Bytes of tuples given on at a time; a stretch is longer by less than one row.
pub const CHUNK: usize = 128 * 1024;
