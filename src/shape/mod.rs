//! Shape: a payload's bytes → typed, encoded rows.
//!
//! ```text
//!  bytes --plain path--> values \
//!                                > column types --> COPY tuples (Rows), or set aside (Reject)
//!  bytes --jq program--> values /
//! ```
//!
//! Pure: must not know tokio, the database client, HTTP, the clock, configuration files, logging.

pub mod batch;
pub mod program;
pub mod table;

pub use batch::{REJECTS_KEPT, Reject, Rows, Stamp, Tally};
pub use program::Program;
pub use table::{Absent, Column, History, OnChange, Scalar, Table, TimeFormat, Type};

/// The body is not the documented shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    pub message: String,
    pub hint: Option<String>,
}
