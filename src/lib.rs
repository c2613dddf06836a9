//! **trackd**: cron + curl + jq + psql, as one daemon that loses nothing.
//!
//! # The flow
//!
//! ```text
//!  schedule --due--> fetch --Payload--> shape --Batch--> guard { write rows, ledger } --commit--> Receipt --> record
//!                      |                                   |
//!                      +- source away: retry, then failed  +- database away: retry; answer lost: looked up by run_id
//! ```
//!
//! [`run`] is that flow on one screen. Everything else is a room beside it.
//!
//! # Words
//!
//! | word | meaning |
//! |---|---|
//! | tracker | a named thing to follow: one schedule, one source, one or more tables |
//! | run | one firing of one tracker for one scheduled instant; its identity is (tracker, scheduled_at) |
//! | payload | the bytes a source gave for one run |
//! | shape | turning a payload into typed rows: a jq program per table, a type per column |
//! | batch | the rows of one run for one table |
//! | history | how a table keeps time: snapshot, event, change, state |
//! | guard | the transaction of one run: rolled back unless committed |
//! | receipt | what a commit returns; nothing else proves that a run landed |
//! | ledger | the schema `trackd`: runs and rejects |
//! | spool | payloads fetched while the database was away, on the disk |
//! | supervisor | the task that owns every other task |
//!
//! # Who may know whom
//!
//! | room | may know | never |
//! |---|---|---|
//! | `class`, `schedule`, `shape`, `status` | each other downward | tokio, the database, HTTP, the clock, configuration, logging |
//! | `blocking` | tokio | all others |
//! | `lockfile` | nothing | all others |
//! | `spool` | `status`, `lockfile` | tokio, the database, HTTP, configuration, `shape`, the clock |
//! | `config` | `schedule`, `shape`, `class` | the daemon, the database, HTTP |
//! | `source` | `class`, checked configuration, the clock | `store`, `shape` |
//! | `store` | `class`, `shape`'s batches, `status`, the clock | HTTP, shape programs, configuration |
//! | `run` | all of the above | `daemon`, `admin`, `cli` |
//! | `daemon` | `run` as one opaque value, `schedule`, `config`, `status` | SQL, HTTP |
//! | `admin` | `status`, `lockfile` | `run`, `store`, `source` |
//! | `demo` | the clock | all others |
//! | `cli` | everything | nothing knows `cli` |
//!
//! `tests/it/rules.rs` enforces this.

// They panic where nobody reads any more: write to the stream, and return or drop its error.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod admin;
pub mod blocking;
pub mod class;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod demo;
mod lockfile;
pub mod log;
pub mod run;
pub mod schedule;
pub mod shape;
pub mod source;
pub mod spool;
pub mod status;
pub mod store;
