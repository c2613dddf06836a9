//! What a reload changes.
//!
//! In: the configuration in force and the new one. Out: names. Must not know: how it is applied.

use super::checked::{Config, Daemon, Database, DatabaseUrl, Tracker};
use std::collections::HashMap;
use std::fmt;

/// The difference of two configurations. Holds no values: some are secrets.
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
    /// Keys with another value that holds only from the next start, and why.
    pub restart: Vec<(&'static str, &'static str)>,
    /// Keys of the connection pool with another value.
    pub pool: Vec<&'static str>,
    /// Keys of `[daemon]` with another value that holds at once.
    pub daemon: Vec<&'static str>,
    /// Whether `[alert]` is another.
    pub alert: bool,
    /// The new `log.level`, if it is another.
    pub level: Option<String>,
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
        pool: if kept_url(old, new) { Vec::new() } else { pool(&old.database, &new.database) },
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

/// Whether the address stays in force because one of the two is the embedded server.
pub fn kept_url(old: &Config, new: &Config) -> bool {
    let embedded = |config: &Config| config.database.url == DatabaseUrl::Embedded;
    embedded(old) != embedded(new)
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

fn restart(old: &Config, new: &Config) -> Vec<(&'static str, &'static str)> {
    const LOGS: &str = "logs are opened at the start";
    [
        ("database.url", kept_url(old, new), "the embedded server is started and stopped with trackd"),
        ("daemon.workers", old.daemon.workers != new.daemon.workers, "workers are started at the start"),
        ("daemon.per_host", old.daemon.per_host != new.daemon.per_host, "hosts keep their count from the start"),
        ("daemon.lease", old.daemon.lease != new.daemon.lease, "other daemons know it from the start"),
        ("daemon.state_dir", old.daemon.state_dir != new.daemon.state_dir, "it holds the cluster and the lock in use"),
        ("log.format", old.log.format != new.log.format, LOGS),
        ("log.file", old.log.file != new.log.file, LOGS),
    ]
    .into_iter()
    .filter(|(_, differs, _)| *differs)
    .map(|(key, _, why)| (key, why))
    .collect()
}

/// `added 1 (x), changed 0, removed 2 (y, z)`, and what needs a restart.
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
        if !self.restart.is_empty() {
            let keys: Vec<&str> = self.restart.iter().map(|(key, _)| *key).collect();
            write!(f, "; a restart is needed for {}", keys.join(", "))?;
        }
        Ok(())
    }
}
