//! Configuration: the files as written → checked values, or every fault with its place.
//!
//! In: the files' texts and the environment. Out: `Config`, in which no string is left to parse and nothing to
//! default. Must not know: the daemon, the database, HTTP. Only this room reads the environment and the files.

mod alert;
pub mod checked;
mod column;
mod credential;
pub mod diff;
pub mod environment;
pub mod fault;
pub mod file;
mod files;
mod fingerprint;
mod merge;
mod node;
mod read;
mod request;
pub mod secret;
mod secrets;
mod table;
pub mod template;
mod tracker;

pub use checked::{
    Alert, Config, Daemon, Database, DatabaseUrl, FileSource, HttpSource, Log, LogFile, LogFormat, OnBadRow, Retry,
    Rotation, SecretTemplate, SourceSpec, Tracker, Webhook, WebhookUrl,
};
pub use diff::{Diff, diff};
pub use environment::Environment;
pub use fault::{Fault, Faults};
pub use file::{is_readable, load, locate, parse, state_dir};
pub use secret::Secret;
pub use template::Template;
