//! A reload, whoever asks for it: read, check, build, and only then swap.
//!
//! ```text
//!  load --faults--> nothing changed, every fault is logged
//!    \--config--> diff --a key that takes a restart--> nothing changed, each is logged
//!                   \--> works of added and changed trackers --a fault--> nothing changed
//!                                   \--> swap: unchanged ones keep work and timer, running runs go on as they are
//! ```
//!
//! Must not know: how a configuration is read.

use super::asks::{self, Ask};
use super::signal::{Asked, Signals};
use super::work::Work;
use super::{Daemon, LOOK, MakeWork, systemd};
use crate::class::Class;
use crate::clock;
use crate::config::diff::{Diff, diff};
use crate::config::{Config, Tracker};
use crate::log::Event;
use crate::status::{Reload, Status};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{interval, sleep, timeout};

/// How long the status of very many trackers may take to be published.
const PUBLISHED: Duration = Duration::from_secs(2);

/// How long a part of a reload may wait for others (a disk, another database): whoever asked waits for it, and a
/// reload that never ends would be the last.
const LONGEST: Duration = Duration::from_secs(25);

/// What to do about keys that cannot change while trackd runs.
const RESTART: &str =
    "systemctl restart trackd takes all that is configured; or set back what cannot change, and reload";

/// Why a reload is refused.
struct Refused {
    class: Class,
    /// A line each.
    faults: Vec<String>,
    hint: Option<&'static str>,
}

/// A configuration that is checked and whose works are built: nothing of it is in force.
struct Prepared {
    config: Config,
    made: HashMap<String, Arc<dyn Work>>,
    diff: Diff,
}

impl Daemon {
    /// Reloads for all who asked, and tells them; who only asked what a reload would change is told that before.
    /// Returns whether it reloaded.
    pub(super) async fn answer(&mut self, first: Option<Ask>, signals: &mut Signals) -> bool {
        let waiting = self.asks.waiting(first);
        let by = waiting.by();
        if !waiting.rehearsals.is_empty() {
            let outcome = outcome(self.prepare(signals).await.map(|prepared| prepared.diff.to_string()));
            asks::tell(waiting.rehearsals, &outcome);
        }
        if let Some(by) = &by {
            let outcome = self.reload(by, signals).await;
            // Whoever asked for a reload looks there next.
            self.published(|status| status.last_reload.as_ref().is_some_and(|last| last.at >= outcome.at)).await;
            asks::tell(waiting.reloads, &outcome);
        }
        by.is_some()
    }

    /// Reloads, and tells the log, the status and systemd how it went.
    async fn reload(&mut self, by: &str, signals: &mut Signals) -> Reload {
        // Whatever comes of it: who rotates files by their names reloads to have them opened anew.
        (self.setup.reopen_logs)();
        // Before the start is over READY would be a lie, and whoever waits for it goes on too early.
        let is_up = self.state.is_up();
        if is_up {
            systemd::reloading();
        }
        let done = self.try_reload(signals).await;
        match &done {
            Ok(diff) => self.tell_reloaded(by, diff),
            Err(refused) => tell_refused(by, refused),
        }
        let outcome = outcome(done.map(|diff| diff.to_string()));
        self.state.reloaded(outcome.clone());
        self.line.show(&self.snapshot());
        if is_up {
            systemd::ready();
        }
        outcome
    }

    /// Waits until the published status `shows` it.
    pub(super) async fn published(&self, shows: impl Fn(&Status) -> bool) {
        let mut status = self.status.clone();
        let _ = timeout(PUBLISHED, status.wait_for(|status| shows(status))).await;
    }

    fn tell_reloaded(&self, by: &str, diff: &Diff) {
        let (config_generation, event) = (self.intake.dispatch.generation(), Event::Reloaded);
        tracing::info!(by, changes = %diff, config_generation, %event, "configuration reloaded");
    }

    /// Reads, checks and builds; changes nothing.
    async fn prepare(&mut self, signals: &mut Signals) -> Result<Prepared, Refused> {
        let load = Arc::clone(&self.setup.load);
        // A large file takes long enough to check to be felt by what else runs on this thread.
        let loaded = self.part("read configuration", tokio::task::spawn_blocking(move || load()), signals).await?;
        let new = loaded.map_err(|error| Refused::retry(format!("read configuration: {error}")))?;
        let config = new.map_err(Refused::standing)?;
        let mut diff = diff(&self.config, &config);
        if !diff.restart.is_empty() {
            let faults = diff.restart.iter().map(ToString::to_string).collect();
            return Err(Refused { hint: Some(RESTART), ..Refused::standing(faults) });
        }
        let fresh: HashSet<&str> = diff.added.iter().chain(&diff.changed).map(String::as_str).collect();
        let fresh = config.trackers.iter().filter(|tracker| fresh.contains(tracker.name.as_str()));
        let made = make(&self.setup.make_work, &config, fresh).map_err(Refused::standing)?;
        if self.setup.ledger.is_stale(&config.database) && diff.pool.is_empty() {
            diff.pool.push("the passwords and certificates it names");
        }
        Ok(Prepared { config, made, diff })
    }

    /// Waits for a part that may take long: meanwhile systemd is told that the daemon lives, and signals are heard.
    /// What is given up has changed nothing.
    async fn part<T>(
        &mut self,
        what: &str,
        part: impl Future<Output = T>,
        signals: &mut Signals,
    ) -> Result<T, Refused> {
        let (over, mut look) = (sleep(LONGEST), interval(LOOK));
        tokio::pin!(part, over);
        loop {
            tokio::select! {
                done = &mut part => return Ok(done),
                () = &mut over => return Err(Refused::retry(format!("{what}: not done within {LONGEST:?}"))),
                _ = look.tick() => self.lives(),
                asked = signals.next() => match asked {
                    Asked::Report => self.report(),
                    Asked::Reload => self.asks.hangup(),
                    Asked::Stop => {
                        // Heard again by who stops.
                        signals.stop_in(Duration::ZERO);
                        return Err(Refused::retry(format!("{what}: the daemon stops")));
                    }
                },
            }
        }
    }

    async fn try_reload(&mut self, signals: &mut Signals) -> Result<Diff, Refused> {
        let Prepared { config, made, diff } = self.prepare(signals).await?;
        // Before anything is changed: an address that is taken refuses the whole.
        let listen = (config.daemon.listen != self.config.daemon.listen)
            .then(|| (self.setup.listen)(config.daemon.listen))
            .transpose()
            .map_err(|error| Refused::standing(vec![format!("daemon.listen: {error}")]))?;
        if !diff.pool.is_empty() {
            let ledger = Arc::clone(&self.setup.ledger);
            let changed = self.part("database", ledger.change(&config.database), signals).await?;
            changed.map_err(|error| {
                let hint = error.hint.as_ref().map_or_else(String::new, |hint| format!(" ({hint})"));
                Refused { class: error.class, faults: vec![format!("database: {error}{hint}")], hint: None }
            })?;
        }
        if let Some(level) = &diff.level {
            (self.setup.set_level)(level).map_err(|error| Refused::standing(vec![error]))?;
        }
        if let Some(listen) = listen {
            listen();
        }
        self.swap(config, made, &diff);
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

impl Refused {
    fn retry(fault: String) -> Refused {
        Refused { class: Class::Retry, faults: vec![fault], hint: None }
    }

    fn standing(faults: Vec<String>) -> Refused {
        Refused { class: Class::Standing, faults, hint: None }
    }
}

fn tell_refused(by: &str, Refused { faults, hint, .. }: &Refused) {
    for fault in faults {
        tracing::error!(fault, event = %Event::ConfigFault, "configuration fault");
    }
    let (count, event) = (faults.len(), Event::ReloadRefused);
    tracing::error!(by, faults = count, hint, %event, "reload refused: the old configuration stays in force");
}

fn outcome(done: Result<String, Refused>) -> Reload {
    let at = clock::now();
    match done {
        Ok(message) => Reload { at, ok: true, message, class: None, hint: None },
        Err(Refused { class, faults, hint }) => {
            Reload { at, ok: false, message: faults.join("\n"), class: Some(class), hint: hint.map(str::to_owned) }
        }
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
