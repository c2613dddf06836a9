//! From the words of a connection string to an open session.
//!
//! ```text
//!  text --words--> + service, environment, password file --> Target --open--> host by host --> Opened
//! ```
//!
//! What libpq's users know holds: both forms of the string, `PG*`, services, password files, `sslmode` to verify-full,
//! several hosts, `target_session_attrs`. A word that cannot be had is refused, never passed over.
//! Must not know: pools, transactions, configuration files.

mod attributes;
mod surroundings;
mod target;
mod tls;
mod words;

pub use surroundings::Surroundings;
pub use target::Target;
pub(super) use target::{Link, Opened};
