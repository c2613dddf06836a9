//! The checked configuration: what the rest of trackd works with.
//!
//! Made by `file.rs` only. Must not know: how it was written.

use super::{Secret, Template};
use crate::schedule::{Missed, Overlap, Schedule};
use crate::shape::Table;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A configuration that holds. `Debug` shows no value of `vars`: they may come to be headers.
#[derive(Clone)]
pub struct Config {
    /// The file it came from.
    pub path: PathBuf,
    /// Files that were laid over it, in order.
    pub drop_ins: Vec<PathBuf>,
    /// `[database]`; a change between the embedded server and another needs a restart.
    pub database: Database,
    /// `[daemon]`; a change of `workers`, `per_host`, `lease` or `state_dir` needs a restart.
    pub daemon: Daemon,
    /// `[log]`; `level` is applied at reload.
    pub log: Log,
    /// `[alert]`; `None`: nobody is told.
    pub alert: Option<Arc<Alert>>,
    /// `[vars]` as JSON; a number that JSON's numbers would change is refused, so the digits are the file's.
    pub vars: Arc<serde_json::Value>,
    /// In the order of the file; names are unique.
    pub trackers: Vec<Arc<Tracker>>,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let vars: Vec<&String> = self.vars.as_object().into_iter().flat_map(|vars| vars.keys()).collect();
        f.debug_struct("Config")
            .field("path", &self.path)
            .field("drop_ins", &self.drop_ins)
            .field("database", &self.database)
            .field("daemon", &self.daemon)
            .field("log", &self.log)
            .field("alert", &self.alert)
            .field("vars", &vars)
            .field("trackers", &self.trackers)
            .finish()
    }
}

/// `[database]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// Default: `$DATABASE_URL`, else embedded.
    pub url: DatabaseUrl,
    /// Holds the password, where `url` has none. Default: the credential `database.password`, if there is one.
    pub password_file: Option<PathBuf>,
    /// Connections kept. Default 5, 1..=1000.
    pub pool_size: u32,
    /// Further ones under load. Default 10, 0..=1000.
    pub max_overflow: u32,
    /// Longest wait for a connection. Default 30s.
    pub pool_timeout: Duration,
    /// No connection grows older. Default 1h.
    pub pool_recycle: Duration,
    /// Checked at borrow: alive, and writable. Default true.
    pub pool_pre_ping: bool,
    /// Longest statement. Default 60s.
    pub statement_timeout: Duration,
}

/// Where the database is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// A private cluster in the state directory.
    Embedded,
    /// `postgres://…` or libpq's `key=value` words.
    Server(Secret),
}

/// `[daemon]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Daemon {
    /// Address of the status page; `None` when written as "". Default 127.0.0.1:8787.
    pub listen: Option<std::net::SocketAddr>,
    /// Runs at the same time. Default 16, 1..=1024.
    pub workers: usize,
    /// Requests at the same time to one host, and its runs; a change needs a restart. Default 4, 1..=1024.
    pub per_host: usize,
    /// How long running runs may finish at stop. Default 30s.
    pub drain: Duration,
    /// Default: `$STATE_DIRECTORY`, else `$XDG_STATE_HOME/trackd`, else `~/.local/state/trackd`; for root `/var/lib/trackd`.
    pub state_dir: PathBuf,
    /// The most that the spool may occupy, in bytes. Default 1 GiB, 64 KiB..=1 PiB.
    pub spool_max: u64,
    /// How long rows of the ledger are kept; `None` when written as "forever". Default 90d.
    pub keep_runs: Option<Duration>,
    /// How long a daemon's runs are its own without a sign of life; a change needs a restart. Default 10s, 3s..=10m.
    pub lease: Duration,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Directives of tracing's `EnvFilter`, checked. Default "info".
    pub level: String,
    /// Default auto.
    pub format: LogFormat,
    /// Log files, through tracing-appender. Default none.
    pub file: Option<LogFile>,
}

/// `log.format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// The journal's native fields under systemd, pretty on a terminal, plain text elsewhere.
    Auto,
    /// Text on stderr.
    Pretty,
    /// A JSON object a line on stderr.
    Json,
}

/// `log.file`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFile {
    /// A directory for trackd's logs alone.
    pub dir: PathBuf,
    /// Default daily.
    pub rotation: Rotation,
    /// Files kept. Default 14, 1..=10000.
    pub keep: usize,
}

/// When a new log file begins (UTC).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    Minutely,
    Hourly,
    Daily,
    Weekly,
    Never,
}

/// `[alert]`: at least one of `command` and `webhook`. A reload applies all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// A program and its arguments.
    pub command: Option<Vec<String>>,
    /// Default: the address in the credential `alert.webhook`, if there is one.
    pub webhook: Option<Webhook>,
    /// A state is told when it has lasted so long. Default 1m, 0s..=1d.
    pub after: Duration,
    /// It is told again while it lasts; `None` when written as "off". Default 1h, 1m..=365d.
    pub repeat: Option<Duration>,
    /// One attempt. Default 10s, 1s..=1m.
    pub timeout: Duration,
}

/// `alert.webhook`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    pub url: WebhookUrl,
    /// Sent as given.
    pub headers: Vec<(String, Secret)>,
    /// Holds a token: `Authorization: Bearer …`.
    pub token_file: Option<PathBuf>,
}

/// Where a webhook is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WebhookUrl {
    /// http or https; its path is often the secret.
    Given(Secret),
    /// A file that holds it, read for each alert.
    File(PathBuf),
}

impl Webhook {
    /// Without headers.
    pub fn at(url: WebhookUrl) -> Webhook {
        Webhook { url, headers: Vec::new(), token_file: None }
    }
}

/// `[[tracker]]`, with `[defaults]` applied.
#[derive(Debug)]
pub struct Tracker {
    /// `[A-Za-z0-9][A-Za-z0-9_.-]*`, at most 63 bytes.
    pub name: String,
    /// From `schedule` (with `timezone`) or `every`.
    pub schedule: Schedule,
    /// The schedule as written, for people: `*/15 * * * * (Europe/Berlin)`, `every 15s`.
    pub schedule_text: String,
    /// Greatest delay; each tracker has a fixed one in 0..=jitter. Default 0s.
    pub jitter: Duration,
    /// Default once, 1d, 100.
    pub missed: Missed,
    /// Default coalesce.
    pub overlap: Overlap,
    /// No success for so long: stale. Default none.
    pub fresh_within: Option<Duration>,
    /// One attempt of the source. Default 30s.
    pub timeout: Duration,
    /// Default 4 attempts, base 1s, max 1m.
    pub retry: Retry,
    /// Default reject.
    pub on_bad_row: OnBadRow,
    /// Exactly one of `http`, `file`.
    pub source: SourceSpec,
    /// At least one; each after those it refers to, else in the order of the file.
    pub tables: Vec<Arc<Table>>,
    /// Equal exactly when nothing that matters to this tracker changed (its own keys, defaults, the vars).
    pub fingerprint: u64,
}

impl Tracker {
    /// The longest a run of this tracker can take: every attempt, every wait, the shaping, and the landing.
    pub fn deadline(&self, statement_timeout: Duration) -> Duration {
        let attempts = self.retry.attempts;
        self.timeout * attempts
            + self.retry.max * attempts.saturating_sub(1)
            + statement_timeout * 2
            + Duration::from_secs(90)
    }
}

/// `retry = { attempts, base, max }`: exponential with full jitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Attempts in all, 1..=20.
    pub attempts: u32,
    /// The first wait is random in 0..=base, then doubled.
    pub base: Duration,
    /// No wait is longer; also the cap on Retry-After.
    pub max: Duration,
}

/// `on_bad_row`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum OnBadRow {
    /// Set aside, the others land (default).
    Reject,
    /// The run fails, nothing lands.
    Fail,
}

/// Where a tracker's payloads come from.
#[derive(Debug)]
pub enum SourceSpec {
    Http(HttpSource),
    File(FileSource),
}

/// `http = { … }`.
#[derive(Debug)]
pub struct HttpSource {
    /// Default GET.
    pub method: String,
    /// http or https.
    pub url: Template,
    /// Sent as given; values are secrets.
    pub headers: Vec<(String, SecretTemplate)>,
    /// Added to the URL, percent-encoded.
    pub query: Vec<(String, Template)>,
    /// Sent as given.
    pub body: Option<Template>,
    /// Bytes after decompression. Default 64 MiB.
    pub max_body: u64,
    /// Redirects followed. Default 5, 0..=20.
    pub max_redirects: usize,
    /// The least time between two requests to its host, whichever tracker makes them. Default none, 1ms..=1h.
    pub rate_limit: Option<Duration>,
}

/// A template whose text and result are not to be printed.
pub struct SecretTemplate(pub Template);

impl std::fmt::Debug for SecretTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

/// `file = { path }`.
#[derive(Debug)]
pub struct FileSource {
    /// Absolute, or relative to `base`: `base.join(rendered)`.
    pub path: Template,
    /// The folder of the configuration file, absolute.
    pub base: PathBuf,
    /// Bytes. Default 64 MiB.
    pub max_body: u64,
}
