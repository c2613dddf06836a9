//! The private PostgreSQL: a cluster in the state directory, made from the installed binaries.
//!
//! In: a state directory. Out: a running server and how to connect to it.
//! Must not know: what the database is used for.

mod account;
mod binaries;
mod cluster;
mod directory;
mod error;
mod remains;

pub use account::Account;
pub(super) use binaries::parse_major;
pub use binaries::{Binaries, SUPPORTED, search_path};
pub use cluster::Cluster;
pub use error::EmbeddedError;
