//! The store: everything that speaks to PostgreSQL.
//!
//! ```text
//!  Pool --begin--> Guard --defer, flush, copy--> … --commit--> Receipt
//!                    \ dropped, failed, panicked: rolled back, running statement cancelled, connection clean
//! ```
//!
//! `write` lands batches by a guard, `ledger` keeps what happened to every run, `tables` makes and extends the
//! data tables, `migrate` trackd's own schema, `embedded` owns a private server.
//! Must not know: HTTP, shape programs, configuration files.

mod arrays;
pub mod connect;
pub mod embedded;
pub mod error;
pub mod guard;
pub mod ledger;
mod merge;
pub mod migrate;
pub mod notify;
pub mod pool;
pub mod tables;
pub mod write;

pub use error::Error;
pub use guard::{CopyIn, Guard, Receipt, Statement, Wire};
pub use pool::{Numbers, Pool, PoolOptions};
