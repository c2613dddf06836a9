//! What a reload changes.
//!
//! In: the configuration in force and the new one. Out: names. Must not know: how it is applied.

use super::checked::{Config, Daemon, Database, DatabaseUrl, LogFile, Tracker};
use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// The difference of two configurations. Of values it holds only what can be no secret.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diff {
    /// Trackers only the new one has, in its order.
    pub added: Vec<String>,
    /// Trackers of both with another fingerprint, in the new one's order.
    pub changed: Vec<String>,
    /// Trackers only the old one has, in its order.
    pub removed: Vec<String>,
    /// Trackers of both that stay as they are, in the new one's order.
    pub unchanged: Vec<String>,
    /// Keys with another value that takes a restart: with one of them nothing of the new configuration can be in force.
    pub restart: Vec<Restart>,
    /// Keys of the connection pool with another value.
    pub pool: Vec<&'static str>,
    /// Keys of `[daemon]` with another value that holds at once.
    pub daemon: Vec<&'static str>,
    /// Whether `[alert]` is another.
    pub alert: bool,
    /// The new `log.level`, if it is another.
    pub level: Option<String>,
}

/// A key that cannot change while trackd runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restart {
    pub key: &'static str,
    /// What is in force, and what is configured now; of an address that may hold a password only what kind it is.
    pub old: String,
    pub new: String,
    pub why: &'static str,
}

/// What changes from `old` to `new`.
pub fn diff(old: &Config, new: &Config) -> Diff {
    let before: HashMap<&str, &Tracker> = old.trackers.iter().map(|t| (t.name.as_str(), t.as_ref())).collect();
    let after: HashMap<&str, &Tracker> = new.trackers.iter().map(|t| (t.name.as_str(), t.as_ref())).collect();
    let mut diff = Diff {
        removed: old
            .trackers
            .iter()
            .map(|t| t.name.clone())
            .filter(|name| !after.contains_key(name.as_str()))
            .collect(),
        restart: restart(old, new),
        pool: pool(&old.database, &new.database),
        daemon: daemon(&old.daemon, &new.daemon),
        alert: old.alert != new.alert,
        level: (old.log.level != new.log.level).then(|| new.log.level.clone()),
        ..Diff::default()
    };
    // How long a run may take depends on it.
    let deadlines = old.database.statement_timeout != new.database.statement_timeout;
    for tracker in &new.trackers {
        let list = match before.get(tracker.name.as_str()) {
            None => &mut diff.added,
            Some(old) if old.fingerprint != tracker.fingerprint || deadlines => &mut diff.changed,
            Some(_) => &mut diff.unchanged,
        };
        list.push(tracker.name.clone());
    }
    diff
}

/// Keys of the pool with another value.
fn pool(old: &Database, new: &Database) -> Vec<&'static str> {
    [
        ("database.url", old.url != new.url),
        ("database.password_file", old.password_file != new.password_file),
        ("database.pool_size", old.pool_size != new.pool_size),
        ("database.max_overflow", old.max_overflow != new.max_overflow),
        ("database.pool_timeout", old.pool_timeout != new.pool_timeout),
        ("database.pool_recycle", old.pool_recycle != new.pool_recycle),
        ("database.pool_pre_ping", old.pool_pre_ping != new.pool_pre_ping),
        ("database.statement_timeout", old.statement_timeout != new.statement_timeout),
    ]
    .into_iter()
    .filter_map(|(key, differs)| differs.then_some(key))
    .collect()
}

/// Keys of the daemon that hold at once.
fn daemon(old: &Daemon, new: &Daemon) -> Vec<&'static str> {
    [
        ("daemon.listen", old.listen != new.listen),
        ("daemon.drain", old.drain != new.drain),
        ("daemon.spool_max", old.spool_max != new.spool_max),
        ("daemon.keep_runs", old.keep_runs != new.keep_runs),
    ]
    .into_iter()
    .filter_map(|(key, differs)| differs.then_some(key))
    .collect()
}

fn restart(old: &Config, new: &Config) -> Vec<Restart> {
    const LOGS: &str = "logs are opened at the start";
    let texts = |key, text: fn(&Config) -> String, why| Restart { key, old: text(old), new: text(new), why };
    [
        // Another server is no restart's business, nor are other words for the same: they may hold a password.
        texts("database.url", server, "the embedded server is started and stopped with trackd"),
        texts("daemon.workers", |config| config.daemon.workers.to_string(), "workers are started at the start"),
        texts("daemon.per_host", |config| config.daemon.per_host.to_string(), "hosts keep their count from the start"),
        texts("daemon.lease", |config| length(config.daemon.lease), "other daemons know it from the start"),
        texts(
            "daemon.state_dir",
            |config| quoted(&config.daemon.state_dir),
            "it holds the spool, the embedded database and the lock that are in use",
        ),
        texts("log.format", |config| format!("{:?}", config.log.format).to_lowercase(), LOGS),
        texts("log.file", |config| config.log.file.as_ref().map_or_else(|| "none".to_owned(), log_file), LOGS),
    ]
    .into_iter()
    .filter(|restart| restart.old != restart.new)
    .collect()
}

fn server(config: &Config) -> String {
    let embedded = config.database.url == DatabaseUrl::Embedded;
    if embedded { "\"embedded\"".to_owned() } else { "a server's address".to_owned() }
}

fn log_file(LogFile { dir, rotation, keep }: &LogFile) -> String {
    let rotation = format!("{rotation:?}").to_lowercase();
    format!("{{ dir = {}, rotation = \"{rotation}\", keep = {keep} }}", quoted(dir))
}

fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display())
}

fn length(length: Duration) -> String {
    humantime::format_duration(length).to_string()
}

/// `daemon.workers: cannot change while trackd runs: 16 is in force, 3 is configured now; …`
impl fmt::Display for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Restart { key, old, new, why } = self;
        write!(f, "{key}: cannot change while trackd runs: {old} is in force, {new} is configured now; {why}")
    }
}

/// `added 1 (x), changed 0, removed 2 (y, z)`, and what else is another.
impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lists = [("added", &self.added), ("changed", &self.changed), ("removed", &self.removed)];
        for (index, (word, names)) in lists.into_iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{word} {}", names.len())?;
            if !names.is_empty() {
                write!(f, " ({})", names.join(", "))?;
            }
        }
        if !self.pool.is_empty() {
            write!(f, ", connections anew for {}", self.pool.join(", "))?;
        }
        if !self.daemon.is_empty() {
            write!(f, ", {} anew", self.daemon.join(", "))?;
        }
        if self.alert {
            f.write_str(", [alert] is another")?;
        }
        if let Some(level) = &self.level {
            write!(f, ", log.level is {level}")?;
        }
        Ok(())
    }
}
