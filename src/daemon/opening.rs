//! Opening the ledger, however long the database is away, and making it whole for the time nobody looked.
//!
//! ```text
//!  open --> recall --> deal out what passed --> a row for each instant that will not run --> Opened
//!    \---------\-------- away --------------------/   from the beginning, as often as it takes
//! ```
//!
//! The rows go straight to the ledger, before anything runs: a night of missed instants is more than any queue
//! holds, and a run that landed first would hide the holes before it from the next start.
//! In: the ledger and the trackers. Out: what each has to catch up. Must not know: what is done with it.

use super::intake::Intake;
use super::ledger::{Ledger, Memory, Unusable};
use super::state::State;
use super::work::Due;
use crate::class::Class;
use crate::clock;
use crate::config::Tracker;
use crate::schedule::jitter::jitter;
use crate::schedule::missed::{Span, catch_up, share};
use crate::status::{Kind, Run};
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(15);
const TELL_AGAIN: Duration = Duration::from_secs(60);
/// Rows in one write.
const BATCH: usize = 1_000;
/// Once more, where this took longer; each time there is less to write.
const SOON: SignedDuration = SignedDuration::from_secs(2);
const MOST_PASSES: usize = 5;
/// Instants are whole milliseconds.
const JUST_BEFORE: SignedDuration = SignedDuration::from_millis(1);

/// The ledger is whole up to `at`.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) at: Timestamp,
    pub(super) pasts: Vec<Past>,
    /// Instants recorded as missed.
    pub(super) missed: usize,
    /// Older ones without a row; a lower bound.
    uncounted: u64,
}

/// One tracker's past.
#[derive(Debug)]
pub(super) struct Past {
    pub(super) tracker: Arc<Tracker>,
    pub(super) last: Option<(Run, Option<Timestamp>)>,
    /// Since when it is followed.
    pub(super) since: Option<Timestamp>,
    /// Missed instants to run, oldest first.
    pub(super) runs: Vec<Timestamp>,
    /// All instants up to this one are dealt with; `None`: it never ran.
    dealt_until: Option<Timestamp>,
    /// Later ones that are dealt with, upwards.
    recorded: Vec<Timestamp>,
    /// Instants after this one are left to its timer.
    pub(super) begins: Timestamp,
}

/// What an opening needs.
#[derive(Clone)]
pub(super) struct Opening {
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) state: Arc<State>,
    pub(super) intake: Arc<Intake>,
    pub(super) trackers: Vec<Arc<Tracker>>,
    /// Since when those that are new are followed.
    pub(super) since: Timestamp,
    /// From then on instants run, although the ledger is not open: it is made whole up to there.
    pub(super) begun: Option<Timestamp>,
    /// Told when the database turns out to be away.
    pub(super) away: Arc<Notify>,
}

impl Opening {
    /// Opens the ledger and makes it whole, as often as it takes.
    ///
    /// Cancel safety: safe; begun again, it finds what it wrote.
    ///
    /// # Errors
    /// Class standing before the daemon is up: a person must act before this can work. Later it stays.
    pub(super) async fn open(self) -> Result<Opened, Unusable> {
        let mut wait = FIRST_WAIT;
        // Where instants run already, it was told before.
        let mut told = self.begun.map(|_| (Instant::now(), Class::Retry));
        loop {
            let error = match self.try_open().await {
                Ok(opened) => return Ok(opened),
                Err(error) => error,
            };
            if !self.state.is_up() && error.class == Class::Standing {
                return Err(error);
            }
            if told.is_none_or(|(at, class)| at.elapsed() >= TELL_AGAIN || class != error.class) {
                match error.class {
                    Class::Standing => {
                        tracing::error!(error = %error, hint = error.hint, "database cannot be used: payloads are kept until it can");
                    }
                    _ => {
                        tracing::warn!(error = %error, hint = error.hint, "database is away: payloads are kept until it is back");
                    }
                }
                told = Some((Instant::now(), error.class));
            }
            self.state.away(error.to_string());
            self.away.notify_one();
            let is_back = self.ledger.back(wait).await;
            wait = if is_back { FIRST_WAIT } else { (wait * 2).min(LONGEST_WAIT) };
        }
    }

    async fn try_open(&self) -> Result<Opened, Unusable> {
        self.ledger.open().await?;
        let mut opened = self.recall().await?;
        for _ in 0..MOST_PASSES {
            self.square(&mut opened, self.begun.unwrap_or_else(clock::now)).await?;
            if self.begun.is_some() || clock::now().duration_since(opened.at) < SOON {
                break;
            }
            // The writing took its time, and more instants have passed meanwhile.
        }
        self.reserve(&opened).await?;
        if opened.uncounted > 0 {
            tracing::warn!(at_least = opened.uncounted, "instants too long ago for a row each were missed");
        }
        Ok(opened)
    }

    async fn recall(&self) -> Result<Opened, Unusable> {
        let names: Vec<String> = self.trackers.iter().map(|tracker| tracker.name.clone()).collect();
        self.ledger.meet(names.clone(), self.since).await?;
        let mut memories = self.ledger.recall(names, self.begun).await?;
        let past = |tracker: &Arc<Tracker>| {
            let Memory { dealt_until, recorded, since, last } = memories.remove(&tracker.name).unwrap_or_default();
            let (tracker, begins) = (Arc::clone(tracker), self.since);
            Past { tracker, last, since, runs: Vec::new(), dealt_until, recorded, begins }
        };
        let pasts = self.trackers.iter().map(past).collect();
        Ok(Opened { at: Timestamp::MIN, pasts, missed: 0, uncounted: 0 })
    }

    /// Makes the ledger whole up to `now`, but for what waits for its jitter then. Done again later, it deals with what
    /// passed since, and with nothing older.
    async fn square(&self, opened: &mut Opened, now: Timestamp) -> Result<(), Unusable> {
        let most_listed = share(self.trackers.len());
        let mut rows = Vec::new();
        for past in &mut opened.pasts {
            past.begins = self.begun.unwrap_or_else(|| past.due_until(now));
            if let Some(last) = past.dealt_until {
                let now = past.begins;
                let span = Span { last, now, recorded: &past.recorded, most_listed };
                let dealt = catch_up(&past.tracker.schedule, &past.tracker.missed, &span);
                rows.extend(self.intake.missed(&past.tracker, dealt.missed));
                opened.uncounted += dealt.uncounted;
                past.dealt_with(dealt.run, now);
            }
            opened.missed += self.write(&mut rows, BATCH).await?;
            // Years of a fast schedule take their time: the supervisor and its watchdog get theirs.
            tokio::task::yield_now().await;
        }
        opened.missed += self.write(&mut rows, 1).await?;
        opened.at = now;
        Ok(())
    }

    /// Last: an opening that is done again deals all of them out again.
    async fn reserve(&self, opened: &Opened) -> Result<(), Unusable> {
        let due = |past: &Past, scheduled_at: Timestamp| Due {
            tracker: past.tracker.name.as_str().into(),
            scheduled_at,
            kind: Kind::CatchUp,
        };
        let pasts = opened.pasts.iter();
        let dues: Vec<Due> = pasts.flat_map(|past| past.runs.iter().map(|at| due(past, *at))).collect();
        self.ledger.reserve(&dues).await
    }

    /// Writes `rows` if there are `enough` of them. Returns how many were written.
    async fn write(&self, rows: &mut Vec<Run>, enough: usize) -> Result<usize, Unusable> {
        if rows.len() < enough {
            return Ok(0);
        }
        for batch in rows.chunks(BATCH) {
            self.ledger.record(batch).await?;
            self.intake.reports.recorded(batch);
        }
        let written = rows.len();
        rows.clear();
        Ok(written)
    }
}

impl Past {
    /// The last instant that is over at `now`: later ones wait for their jitter, or are yet to come.
    fn due_until(&self, now: Timestamp) -> Timestamp {
        let jitter = SignedDuration::try_from(jitter(&self.tracker.name, self.tracker.jitter)).unwrap_or_default();
        let followed = self.dealt_until.max(self.since).unwrap_or(now);
        now.checked_sub(jitter).unwrap_or(now).max(followed).min(now)
    }

    /// Everything up to `now` has its row, or is to run and may still be displaced by later instants.
    fn dealt_with(&mut self, runs: Vec<Timestamp>, now: Timestamp) {
        let whole = runs.first().map_or(now, |first| first.checked_sub(JUST_BEFORE).unwrap_or(*first));
        self.dealt_until = Some(whole);
        self.recorded.retain(|at| *at > whole);
        self.runs = runs;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Environment};
    use crate::daemon::dispatch::Dispatch;
    use crate::daemon::recorder;
    use crate::daemon::report::Reports;
    use crate::daemon::work::Identity;
    use crate::schedule::jitter::jitter;
    use crate::schedule::missed::MOST_LISTED;
    use crate::status::Pool;
    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;
    use std::collections::HashMap;
    use std::path::Path;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Remembers one run of each tracker, at the epoch, and keeps what it is given.
    #[derive(Default)]
    struct Kept(Mutex<Vec<i64>>, Mutex<Vec<Due>>);

    impl Ledger for Kept {
        fn open(&self) -> BoxFuture<'_, Result<(), Unusable>> {
            async { Ok(()) }.boxed()
        }
        fn recall(
            &self,
            trackers: Vec<String>,
            _: Option<jiff::Timestamp>,
        ) -> BoxFuture<'_, Result<HashMap<String, Memory>, Unusable>> {
            let memory = || Memory { dealt_until: Some(Timestamp::UNIX_EPOCH), ..Memory::default() };
            let memories = trackers.into_iter().map(|name| (name, memory())).collect();
            async { Ok(memories) }.boxed()
        }
        fn record<'a>(&'a self, runs: &'a [Run]) -> BoxFuture<'a, Result<(), Unusable>> {
            self.0.lock().unwrap().extend(runs.iter().map(|run| run.scheduled_at.as_second()));
            async { Ok(()) }.boxed()
        }
        fn reserve<'a>(&'a self, dues: &'a [Due]) -> BoxFuture<'a, Result<(), Unusable>> {
            self.1.lock().unwrap().extend_from_slice(dues);
            async { Ok(()) }.boxed()
        }
        fn gauges(&self) -> (Pool, Option<String>) {
            (Pool::default(), None)
        }
        fn close(&self) -> BoxFuture<'_, ()> {
            async {}.boxed()
        }
    }

    fn opening(keys: &str) -> (Opening, Arc<Kept>) {
        let text = format!(
            "[[tracker]]\nname = \"a\"\nevery = \"1s\"\n{keys}\nmissed_limit = 3\nfile = {{ path = \"x\" }}\n\
             [[tracker.table]]\nname = \"a\"\nhistory = \"snapshot\"\nrows = \".\"\ncolumns = {{ v = \"text\" }}\n"
        );
        let none = Environment::new(Vec::<(String, String)>::new(), false);
        let config = config::parse(&text, Path::new("c.toml"), &none).expect("configuration");
        let state = Arc::new(State::new(&config, "test:1", Timestamp::UNIX_EPOCH));
        let identity = Identity { instance: "test:1".into(), run_id: crate::store::ledger::run_id };
        let reports = Arc::new(Reports::new(identity, Arc::clone(&state), recorder::channel().0));
        let intake = Arc::new(Intake { dispatch: Arc::new(Dispatch::new(Vec::new())), reports });
        let ledger = Arc::new(Kept::default());
        (
            Opening {
                ledger: ledger.clone(),
                state,
                intake,
                trackers: config.trackers,
                since: Timestamp::UNIX_EPOCH,
                begun: None,
                away: Arc::default(),
            },
            ledger,
        )
    }

    #[tokio::test]
    async fn going_over_the_past_again_deals_with_what_passed_since_and_nothing_older() {
        let second = |second| Timestamp::from_second(second).unwrap();
        for (missed, before, after) in [
            ("once", vec![100_000], vec![100_007]),
            ("all", vec![99_998, 99_999, 100_000], vec![100_005, 100_006, 100_007]),
        ] {
            let (opening, ledger) = opening(&format!("missed = \"{missed}\""));
            let mut opened = opening.recall().await.unwrap();
            opening.square(&mut opened, second(100_000)).await.unwrap();
            let runs = |opened: &Opened| opened.pasts[0].runs.iter().map(|at| at.as_second()).collect::<Vec<_>>();
            assert_eq!(runs(&opened), before);
            let (listed, uncounted) = (std::mem::take(&mut *ledger.0.lock().unwrap()).len(), opened.uncounted);
            assert_eq!((listed, uncounted as usize + listed + before.len()), (MOST_LISTED, 100_000));
            opening.square(&mut opened, second(100_007)).await.unwrap();
            assert_eq!(runs(&opened), after);
            assert_eq!(*ledger.0.lock().unwrap(), (before[0]..after[0]).collect::<Vec<_>>(), "{missed}");
            assert_eq!((opened.missed, opened.uncounted), (listed + 7, uncounted));
        }
    }

    /// Away at six looks, back in the middle of the third and of the sixth wait.
    #[derive(Default)]
    struct Away(AtomicUsize, Kept);

    impl Ledger for Away {
        fn open(&self) -> BoxFuture<'_, Result<(), Unusable>> {
            let looks = self.0.fetch_add(1, Ordering::Relaxed);
            let away = || Unusable { class: Class::Retry, message: "away".into(), hint: None };
            async move { if looks < 6 { Err(away()) } else { Ok(()) } }.boxed()
        }
        fn back(&self, within: Duration) -> BoxFuture<'_, bool> {
            let is_back = self.0.load(Ordering::Relaxed).is_multiple_of(3);
            let wait = if is_back { Duration::from_millis(7) } else { within };
            tokio::time::sleep(wait).map(move |()| is_back).boxed()
        }
        fn recall(
            &self,
            trackers: Vec<String>,
            until: Option<Timestamp>,
        ) -> BoxFuture<'_, Result<HashMap<String, Memory>, Unusable>> {
            self.1.recall(trackers, until)
        }
        fn record<'a>(&'a self, runs: &'a [Run]) -> BoxFuture<'a, Result<(), Unusable>> {
            self.1.record(runs)
        }
        fn gauges(&self) -> (Pool, Option<String>) {
            self.1.gauges()
        }
        fn close(&self) -> BoxFuture<'_, ()> {
            self.1.close()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_database_that_is_back_is_not_waited_for_any_longer() {
        let (opening, _) = opening("missed = \"skip\"");
        let (begun, opening) = (Instant::now(), Opening { ledger: Arc::new(Away::default()), ..opening });
        opening.open().await.unwrap();
        let waits = [250, 500, 7, 250, 500, 7].into_iter().sum();
        assert_eq!(begun.elapsed(), Duration::from_millis(waits));
    }

    #[tokio::test]
    async fn an_instant_that_waits_for_its_jitter_is_left_to_its_timer() {
        let (opening, ledger) = opening("missed = \"skip\"\njitter = \"1h\"");
        let delay = SignedDuration::try_from(jitter("a", Duration::from_secs(3600))).unwrap();
        let mut opened = opening.recall().await.unwrap();
        let now = Timestamp::UNIX_EPOCH + delay + SignedDuration::from_secs(7);
        opening.square(&mut opened, now).await.unwrap();
        assert_eq!(*ledger.0.lock().unwrap(), (1..=7).collect::<Vec<_>>());
        assert_eq!(opened.pasts[0].begins, now - delay);
    }

    #[tokio::test]
    async fn what_is_to_be_caught_up_is_reserved_before_anything_runs() {
        let (opening, ledger) = opening("missed = \"all\"");
        let opened = opening.try_open().await.unwrap();
        let reserved: Vec<Timestamp> = ledger.1.lock().unwrap().iter().map(|due| due.scheduled_at).collect();
        assert_eq!((reserved.len(), reserved), (3, opened.pasts[0].runs.clone()));
    }
}
