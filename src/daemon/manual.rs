//! Runs that are asked for by hand: now, through the lanes and workers of all others, and told to whoever asked.
//!
//! ```text
//!  Manual::run --names--> Dispatch::by_hand --instant--> lane --> worker --> Reports --> Hands::tell --> who waits
//! ```
//!
//! Of a tracker at most one waits for its turn: whoever asks for it meanwhile is told of that one, so that asking again
//! and again makes no queue. Who goes away takes nothing along: what was begun goes on as any other run.
//! Must not know: who asks, what a run does.

use super::intake::Intake;
use super::state::State;
use super::work::Due;
use crate::clock;
use crate::config::Config;
use crate::status::ByHand;
use jiff::Timestamp;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::{Instant, timeout_at};

/// Askers at the same time: further ones are refused, so that there is always room to ask for something else.
const ASKERS: usize = 8;
/// Runs in one wish.
const MOST: usize = 10_000;
/// How long somebody waits for the runs; they go on all the same.
pub const LONGEST: Duration = Duration::from_secs(10 * 60);

/// Why nothing was begun.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotRun {
    #[error("no tracker \"{name}\" in the configuration in force, {file}: it has {known}; trackd reload reads it anew")]
    Unknown { name: String, file: String, known: String },
    #[error("{0} runs were asked for at once, expected at most {MOST}")]
    TooMany(usize),
    #[error("{ASKERS} others wait for runs by hand already")]
    Busy,
    #[error("the daemon is starting")]
    Starting,
}

/// Begins runs by hand.
#[derive(Debug)]
pub struct Manual {
    intake: Arc<Intake>,
    state: Arc<State>,
    in_force: watch::Receiver<Arc<Config>>,
    askers: Semaphore,
}

/// Who waits for which run.
#[derive(Debug, Default)]
pub struct Hands(Mutex<Waiting>);

type Waiting = HashMap<(Arc<str>, Timestamp), Vec<oneshot::Sender<ByHand>>>;

impl Manual {
    pub(super) fn new(intake: Arc<Intake>, state: Arc<State>, in_force: watch::Receiver<Arc<Config>>) -> Manual {
        Manual { intake, state, in_force, askers: Semaphore::new(ASKERS) }
    }

    /// Runs these trackers, or all, and waits for what becomes of them, for `LONGEST` at most.
    ///
    /// Shape: one each, in the order of the names, or of the file.
    ///
    /// # Errors
    /// Nothing was begun.
    ///
    /// Cancel safety: what was begun goes on.
    pub async fn run(&self, by: &str, names: Option<Vec<String>>) -> Result<Vec<ByHand>, NotRun> {
        let _place = self.askers.try_acquire().map_err(|_| NotRun::Busy)?;
        if !self.state.is_up() {
            return Err(NotRun::Starting);
        }
        let names = self.chosen(names)?;
        tracing::info!(by, trackers = names.len(), "runs by hand");
        let begun: Vec<_> = names.into_iter().map(|name| (self.begin(&name), name)).collect();
        self.intake.reports.moved();
        let (end, mut told) = (Instant::now() + LONGEST, Vec::with_capacity(begun.len()));
        for (outcome, name) in begun {
            told.push(match outcome {
                Some(outcome) => match timeout_at(end, outcome).await {
                    Ok(Ok(by_hand)) => by_hand,
                    Ok(Err(_)) => ByHand::NotBegun(name.to_string()),
                    Err(_) => ByHand::Unfinished(name.to_string()),
                },
                None => ByHand::NotBegun(name.to_string()),
            });
        }
        Ok(told)
    }

    /// The configuration in force.
    pub fn in_force(&self) -> Arc<Config> {
        Arc::clone(&self.in_force.borrow())
    }

    fn chosen(&self, names: Option<Vec<String>>) -> Result<Vec<Arc<str>>, NotRun> {
        let config = self.in_force();
        let known = || config.trackers.iter().map(|tracker| tracker.name.as_str());
        let names = names.unwrap_or_else(|| known().map(str::to_owned).collect());
        if names.len() > MOST {
            return Err(NotRun::TooMany(names.len()));
        }
        if let Some(name) = names.iter().find(|name| known().all(|known| known != name.as_str())) {
            let (file, known) = (config.path.display().to_string(), known().collect::<Vec<_>>().join(", "));
            return Err(NotRun::Unknown { name: name.clone(), file, known });
        }
        Ok(names.into_iter().map(Arc::from).collect())
    }

    /// `None`: the daemon stops, or the tracker is gone since.
    fn begin(&self, name: &Arc<str>) -> Option<oneshot::Receiver<ByHand>> {
        self.intake.reports.hands.wait(name, || self.intake.dispatch.by_hand(name, clock::now()))
    }
}

impl Hands {
    /// Waits for the run whose instant `begin` gives.
    fn wait(&self, tracker: &Arc<str>, begin: impl FnOnce() -> Option<Timestamp>) -> Option<oneshot::Receiver<ByHand>> {
        // Held while it begins: a run that ends at once finds who waits for it.
        let mut waiting = self.lock();
        let at = begin()?;
        let (answer, outcome) = oneshot::channel();
        let answers = waiting.entry((Arc::clone(tracker), at)).or_default();
        answers.retain(|answer| !answer.is_closed());
        answers.push(answer);
        Some(outcome)
    }

    /// Tells those who wait for this run. One that went away is no fault.
    pub fn tell(&self, tracker: &str, at: Timestamp, by_hand: impl Fn() -> ByHand) {
        let mut waiting = self.lock();
        // Nobody waits, mostly, and runs are many.
        if waiting.is_empty() {
            return;
        }
        for answer in waiting.remove(&(Arc::from(tracker), at)).into_iter().flatten() {
            let _ = answer.send(by_hand());
        }
    }

    /// These do not begin any more.
    pub fn drop_waiting(&self, dues: &[Due]) {
        let mut waiting = self.lock();
        for due in dues {
            waiting.remove(&(Arc::clone(&due.tracker), due.scheduled_at));
        }
    }

    /// Nothing panics while it holds the lock but for want of memory: a poisoned lock is whole.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
