//! The sign of life that this process's claims hang on, and the runs of processes that gave none.
//!
//! ```text
//!  every third of the lease,            renew --orphans--> Intake (claimed again by whoever comes first),
//!  and when another's is over                              or a row that says why not
//! ```
//!
//! Must not know: SQL.

use super::dispatch::Dispatch;
use super::intake::Intake;
use super::ledger::{Ledger, Unusable};
use super::pulse::Pulse;
use super::recorder;
use super::scheduler::Scheduler;
use super::state::State;
use super::work::Due;
use crate::class::Class;
use crate::clock;
use crate::config::{Config, Tracker};
use crate::schedule::MissedPolicy;
use crate::status::Kind;
use jiff::{SignedDuration, Timestamp};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// For a clock that is read twice.
const JUST_AFTER: Duration = Duration::from_millis(50);
/// After a sign that failed, and until the start is over.
const AGAIN: Duration = Duration::from_millis(500);

/// Up to when all instants have their rows.
pub(super) type WholeUntil = dyn Fn() -> Timestamp + Send + Sync;

/// All instants before are out of this process's hands: neither to be fired, nor waiting, nor to be recorded.
pub(super) fn whole_until(
    scheduler: &Arc<Scheduler>,
    dispatch: &Arc<Dispatch>,
    recorder: &recorder::Sender,
) -> Arc<WholeUntil> {
    /// Instants are whole milliseconds.
    const APART: SignedDuration = SignedDuration::from_millis(1);
    let (scheduler, dispatch, recorder) = (Arc::clone(scheduler), Arc::clone(dispatch), recorder.clone());
    Arc::new(move || {
        // In the order in which an instant goes through: one that moves on meanwhile is met further on.
        let handed = scheduler.handed_until();
        let waiting = [dispatch.oldest_waiting(), recorder.oldest()];
        let before = |at: Timestamp| at.checked_sub(APART).unwrap_or(at);
        waiting.into_iter().flatten().map(before).chain([handed]).min().unwrap_or(handed)
    })
}

/// Renews the lease again and again, and hands orphans on, each once; says which trackers are followed from now on.
///
/// Cancel safety: safe.
pub(super) async fn keep(
    state: Arc<State>,
    ledger: Arc<dyn Ledger>,
    intake: Arc<Intake>,
    mut config: watch::Receiver<Arc<Config>>,
    whole_until: Arc<WholeUntil>,
    pulse: Arc<Pulse>,
) {
    while !state.is_up() {
        tokio::time::sleep(AGAIN).await;
    }
    let mut handed: HashSet<(Arc<str>, Timestamp)> = HashSet::new();
    let mut unmet: Option<(Vec<String>, Timestamp)> = None;
    let mut is_back_told = false;
    // Two signs may be lost.
    let every = config.borrow().daemon.lease / 3;
    loop {
        let at_work = pulse.work();
        if config.has_changed().unwrap_or(false) {
            let names = config.borrow_and_update().trackers.iter().map(|tracker| tracker.name.clone()).collect();
            unmet = Some((names, unmet.map_or_else(clock::now, |(_, since)| since)));
        }
        if let Some((names, since)) = &unmet
            && let Ok(Ok(())) = timeout(every, ledger.meet(names.clone(), *since)).await
        {
            unmet = None;
        }
        let renewed = match timeout(every, ledger.renew(whole_until())).await {
            Ok(Ok(renewed)) => renewed,
            failed => {
                drop(at_work);
                tokio::time::sleep(after(failed.ok().and_then(Result::err), &state, every)).await;
                continue;
            }
        };
        state.refused(None);
        if renewed.is_back && !is_back_told {
            is_back_told = true;
            let hint = "restart trackd: it makes the ledger whole again from where the database is";
            tracing::error!(hint, "the database lacks what it had: a restore, or a failover to a standby that lagged");
        }
        let before = std::mem::take(&mut handed);
        for orphan in renewed.orphans {
            let identity = (Arc::clone(&orphan.tracker), orphan.scheduled_at);
            if !before.contains(&identity) {
                hand(&intake, &config.borrow(), orphan);
            }
            handed.insert(identity);
        }
        drop(at_work);
        // Just after a lease that may be over then: its runs must not wait for a whole round more.
        let next = renewed.next_to_expire.map_or(every, |left| every.min(left + JUST_AFTER));
        // Elapsed: nothing changed, and it is time again.
        if let Ok(Ok(())) = timeout(next, config.changed()).await {
            config.mark_changed();
        }
    }
}

/// How long to wait after a sign that failed. A database that is away is told of by its connections, and back any moment.
/// What it refuses needs a person, who learns of it here; a login is not tried more often than the lease is renewed.
fn after(failed: Option<Unusable>, state: &State, every: Duration) -> Duration {
    let Some(error) = failed.filter(|error| error.class == Class::Standing) else { return AGAIN };
    let hint = error.hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
    state.refused(Some(format!("{}{hint}", error.message)));
    every.max(AGAIN)
}

/// The run begins again, or its row says why it does not.
fn hand(intake: &Intake, config: &Config, orphan: Due) {
    tracing::info!(tracker = &*orphan.tracker, scheduled_at = %orphan.scheduled_at, "a run's process is gone");
    let tracker = config.trackers.iter().find(|tracker| *tracker.name == *orphan.tracker);
    match tracker {
        None => intake.removed(&[orphan]),
        Some(tracker) if orphan.kind != Kind::Manual && runs_again(tracker, orphan.scheduled_at) => {
            intake.catch_up(&tracker.name, &[orphan.scheduled_at]);
        }
        Some(_) => intake.cut_off(&orphan),
    }
}

/// As for an instant that was missed.
fn runs_again(tracker: &Tracker, scheduled_at: Timestamp) -> bool {
    let age = Duration::try_from(clock::now().duration_since(scheduled_at)).unwrap_or_default();
    tracker.missed.policy != MissedPolicy::Skip && age <= tracker.missed.max_age
}
