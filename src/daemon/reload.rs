//! SIGHUP: read, check, build, and only then swap.
//!
//! ```text
//!  load --faults--> nothing changed, every fault is logged
//!    \--config--> diff --> works of added and changed trackers --a fault--> nothing changed
//!                                   \--> swap: unchanged ones keep work and timer, running runs go on as they are
//! ```
//!
//! Must not know: how a configuration is read.

use super::work::Work;
use super::{Daemon, MakeWork, systemd};
use crate::clock;
use crate::config::diff::{Diff, diff, kept_url};
use crate::config::{self, Config, Tracker};
use crate::log::Event;
use crate::status::Reload;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

impl Daemon {
    /// Reloads, and tells the log, the status and systemd how it went.
    pub(super) async fn reload(&mut self) {
        // Whatever comes of it: who rotates files by their names reloads to have them opened anew.
        (self.setup.reopen_logs)();
        // Before the start is over READY would be a lie, and whoever waits for it goes on too early.
        let is_up = self.state.is_up();
        if is_up {
            systemd::reloading();
        }
        let (ok, message) = match self.try_reload().await {
            Ok(diff) => {
                for (key, why) in &diff.restart {
                    tracing::warn!(key, why, "this change needs a restart: the old value stays in force");
                }
                let message = diff.to_string();
                let config_generation = self.intake.dispatch.generation();
                tracing::info!(changes = message, config_generation, event = %Event::Reloaded, "configuration reloaded");
                (true, message)
            }
            Err(faults) => {
                for fault in &faults {
                    tracing::error!(fault, event = %Event::ConfigFault, "configuration fault");
                }
                tracing::error!(faults = faults.len(), event = %Event::ReloadRefused, "reload refused: the old configuration stays in force");
                (false, faults.join("\n"))
            }
        };
        self.state.reloaded(Reload { at: clock::now(), ok, message });
        if is_up {
            systemd::ready();
        }
    }

    async fn try_reload(&mut self) -> Result<Diff, Vec<String>> {
        let load = Arc::clone(&self.setup.load);
        // A large file takes long enough to check to be felt by what else runs on this thread.
        let loaded = tokio::task::spawn_blocking(move || load()).await;
        let new = loaded.map_err(|error| vec![format!("read configuration: {error}")])??;
        let mut diff = diff(&self.config, &new);
        let new = keep_what_needs_a_restart(new, &self.config);
        let fresh: HashSet<&str> = diff.added.iter().chain(&diff.changed).map(String::as_str).collect();
        let made = make(
            &self.setup.make_work,
            &new,
            new.trackers.iter().filter(|tracker| fresh.contains(tracker.name.as_str())),
        )?;
        if self.setup.ledger.is_stale(&new.database) && diff.pool.is_empty() {
            diff.pool.push("the passwords and certificates it names");
        }
        if !diff.pool.is_empty() {
            let changed = self.setup.ledger.change(&new.database).await;
            changed.map_err(|error| {
                let hint = error.hint.as_ref().map_or_else(String::new, |hint| format!(" ({hint})"));
                vec![format!("database: {error}{hint}")]
            })?;
        }
        if let Some(level) = &diff.level {
            (self.setup.set_level)(level).map_err(|error| vec![error])?;
        }
        self.swap(new, made, &diff);
        Ok(diff)
    }

    /// Cannot fail: everything is built.
    fn swap(&mut self, new: Config, made: HashMap<String, Arc<dyn Work>>, diff: &Diff) {
        if let Some(departed) = &mut self.departed {
            let removed = |tracker: &&Arc<Tracker>| diff.removed.contains(&tracker.name);
            departed.extend(self.config.trackers.iter().filter(removed).cloned());
            departed.retain(|tracker| !diff.added.contains(&tracker.name));
        }
        for name in &diff.removed {
            self.works.remove(name);
        }
        self.works.extend(made);
        self.setup.ledger.bound_spool(new.daemon.spool_max);
        self.config = Arc::new(new);
        self.in_force.send_replace(Arc::clone(&self.config));
        // The works first: a timer that fires for a tracker without a lane would lose its instant.
        let dropped = self.intake.dispatch.replace(self.works.values().cloned().collect());
        if self.begun.is_some() {
            self.scheduler.change(&self.config.trackers, diff, clock::now());
        }
        self.intake.removed(&dropped);
        self.state.configure(&self.config, clock::now());
    }
}

/// The works of these trackers, by name.
///
/// # Errors
/// A line for each tracker that cannot be made to run.
pub(super) fn make<'a>(
    make_work: &MakeWork,
    config: &Config,
    trackers: impl Iterator<Item = &'a Arc<Tracker>>,
) -> Result<HashMap<String, Arc<dyn Work>>, Vec<String>> {
    let mut works = HashMap::new();
    let mut faults = Vec::new();
    for tracker in trackers {
        match make_work(config, tracker) {
            Ok(work) => drop(works.insert(tracker.name.clone(), work)),
            Err(error) => faults.push(format!("tracker \"{}\": {error}", tracker.name)),
        }
    }
    if faults.is_empty() { Ok(works) } else { Err(faults) }
}

fn keep_what_needs_a_restart(new: Config, old: &Config) -> Config {
    Config {
        database: if kept_url(old, &new) { old.database.clone() } else { new.database },
        daemon: config::Daemon {
            drain: new.daemon.drain,
            spool_max: new.daemon.spool_max,
            keep_runs: new.daemon.keep_runs,
            ..old.daemon.clone()
        },
        log: config::Log { level: new.log.level.clone(), ..old.log.clone() },
        ..new
    }
}
