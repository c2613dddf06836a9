//! Store: rows and ledger into PostgreSQL, in one guard.
//!
//! In: encoded rows and the tables they belong to. Out: receipts. Must not know: sources, schedules, commands.

pub mod embedded;
pub mod migrate;
