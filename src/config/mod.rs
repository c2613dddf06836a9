//! Configuration: the file as written → checked values, or every fault with its place.
//!
//! In: the file's text and the environment. Out: `Config`, in which no string is left to parse and nothing to
//! default. Must not know: the daemon, the database, HTTP. Only this room reads the environment and the file.

pub mod checked;
pub mod diff;
pub mod fault;
pub mod file;
pub mod secret;
pub mod template;

pub use checked::{
    Config, Daemon, Database, DatabaseUrl, FileSource, HttpSource, Log, LogFile, LogFormat, OnBadRow, Retry, Rotation,
    SourceSpec, Tracker,
};
pub use secret::Secret;
pub use template::Template;
