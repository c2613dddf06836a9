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
mod decimal;
pub mod decode;
mod depth;
mod encode;
mod jq;
mod json;
mod path;
mod plain;
pub mod program;
mod row;
mod scan;
mod shaper;
pub mod table;
mod value;

#[cfg(test)]
mod agreement_tests;

pub use batch::{CHUNK, REJECTS_KEPT, Reject, Rows, Stamp, Tally};
pub use depth::bound_thread;
pub use program::{Program, ProgramError};
pub use shaper::{Error, Globals, Shaper};
pub use table::{Absent, Column, History, OnChange, Scalar, Table, TimeFormat, Type};
