//! The store: everything that speaks to PostgreSQL.
//!
//! ```text
//!  Target --open--> Pool --begin--> Guard --defer, flush, query, copy, cursor--> … --commit--> Receipt
//!                                     \ dropped, failed, panicked: rolled back, what runs cancelled, connection clean
//! ```
//!
//! `connect`, `pool`, `guard`, `transaction` and `error` are a connection layer of their own, for any program: see
//! `examples/` and `docs/connections.md`. Above it `write` lands batches by a guard, `instance` and `claim` make a run one process's at a time, `ledger` keeps what happened to
//! every run, `tables` makes and extends the data tables, `migrate` trackd's own schema, `health` asks the server how
//! it is, `embedded` owns a private server.
//!
//! ```no_run
//! use trackd::store::{Error, Guard, Pool, PoolOptions, Statement, TransactionOptions};
//!
//! # async fn example() -> Result<(), Error> {
//! let pool = Pool::new(PoolOptions::new("postgres://me@db.example/shop?sslmode=verify-full&sslrootcert=system")?);
//! let orders = pool
//!     .transaction(TransactionOptions::default(), async |tx: &mut Guard| {
//!         tx.defer(Statement::new("UPDATE orders SET seen = true"));
//!         let rows = tx.query(Statement::new("SELECT count(*) FROM orders")).await?;
//!         Ok::<i64, Error>(rows[0].get(0))
//!     })
//!     .await?;
//! # let _ = orders;
//! # Ok(())
//! # }
//! ```
//!
//! Must not know: HTTP, shape programs, configuration files.

pub mod analyze;
mod arrays;
pub mod backup;
pub mod claim;
pub mod connect;
pub mod embedded;
pub mod error;
pub mod guard;
pub mod health;
pub mod instance;
mod late;
pub mod ledger;
mod merge;
pub mod migrate;
pub mod notify;
pub mod pool;
pub mod privileges;
pub mod prune;
pub mod tables;
pub mod tools;
pub mod transaction;
pub mod write;

pub use connect::{Surroundings, Target};
pub use error::Error;
pub use guard::{CopyIn, CopyOut, Cursor, Guard, Receipt, Statement, Wire};
pub use health::health;
pub use pool::{Numbers, Pool, PoolOptions};
pub use transaction::{Isolation, TransactionOptions};
