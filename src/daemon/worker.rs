//! Workers: each takes a due run, runs it, reports its outcome, and takes the next.
//!
//! ```text
//!  worker      take --> sit (the run is published) --> run --> rise --> report
//!  supervisor  panicked, or past its deadline:                 rise --> report as failed, seat a new worker
//! ```
//!
//! Whoever gets the run by `Seat::rise` reports it: exactly one does. Must not know: what a run does.

use super::dispatch::{Dispatch, Job};
use super::report::Reports;
use super::work::{Due, Identity};
use crate::class::Class;
use crate::clock;
use crate::run::{End, Outcome};
use crate::status::RunStatus;
use jiff::Timestamp;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Where a worker says what it runs.
#[derive(Debug, Default)]
pub struct Seat(Mutex<Option<Sitting>>);

/// The run of a worker.
#[derive(Debug, Clone)]
pub struct Sitting {
    pub due: Due,
    pub started_at: Timestamp,
    /// Of the configuration that its work is of.
    pub generation: u64,
    started: Instant,
    deadline: Duration,
}

impl Seat {
    /// Publishes the run before it begins, so that it is known whatever becomes of the worker.
    fn sit(&self, job: &Job) {
        let sitting = Sitting {
            due: job.due.clone(),
            started_at: clock::now(),
            generation: job.generation,
            started: Instant::now(),
            deadline: job.work.deadline(),
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(sitting);
    }

    /// Takes the run off: the caller reports it. `None`: somebody else did.
    pub fn rise(&self) -> Option<Sitting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Takes the run off if it is past its deadline.
    pub fn rise_if_stuck(&self, now: Instant) -> Option<Sitting> {
        let mut seat = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seat.take_if(|sitting| now.duration_since(sitting.started) > sitting.deadline)
    }
}

impl Sitting {
    /// The outcome of a run that was cut off.
    pub fn cut_off(&self, identity: &Identity, error: String) -> Outcome {
        let mut run = identity.unrun(&self.due, RunStatus::Failed, self.started_at, clock::now());
        run.error_class = Some(Class::Retry);
        run.error = Some(error);
        Outcome { run, fresh: Vec::new(), recorded: false }
    }

    /// What is said of a run past its deadline.
    pub fn stuck(&self) -> String {
        format!("no progress within {}", humantime::format_duration(self.deadline))
    }
}

/// Works until the daemon stops.
///
/// Cancel safety: aborting it drops the run (which rolls back); the run stays in `seat` for the supervisor.
pub async fn work(dispatch: Arc<Dispatch>, seat: Arc<Seat>, reports: Arc<Reports>) {
    while let Some(job) = dispatch.take().await {
        seat.sit(&job);
        reports.moved();
        let Job { work, due, generation } = job;
        let ended = work.run(due.scheduled_at, due.kind).await;
        if seat.rise().is_none() {
            // The supervisor gave the run up and seated another worker. The abort comes at the next await, which a
            // run taken here would not survive, and nobody watches this seat any more.
            return;
        }
        // Nobody else would free the lane if the telling panicked: the run is off the seat.
        let _lane = Lane { dispatch: &dispatch, tracker: &due.tracker };
        match ended {
            End::Ended(outcome) => reports.ended(outcome, Some(generation)),
            End::Kept => reports.kept(&due),
            End::Elsewhere => reports.elsewhere(&due),
        }
    }
}

/// The lane of a run that was taken off its seat: freed in any case.
struct Lane<'a> {
    dispatch: &'a Dispatch,
    tracker: &'a Arc<str>,
}

impl Drop for Lane<'_> {
    fn drop(&mut self) {
        self.dispatch.finish(self.tracker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::recorder;
    use crate::daemon::state::State;
    use crate::daemon::work::Work;
    use crate::schedule::Overlap;
    use crate::status::Kind;
    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;

    /// Blocks its thread past the deadline: meanwhile the supervisor gives it up.
    struct Blocks(Arc<Seat>, Identity);

    impl Work for Blocks {
        fn name(&self) -> &str {
            "blocks"
        }
        fn overlap(&self) -> Overlap {
            Overlap::Coalesce
        }
        fn deadline(&self) -> Duration {
            Duration::ZERO
        }
        fn run(self: Arc<Self>, _: Timestamp, _: Kind) -> BoxFuture<'static, End> {
            let given_up = self.0.rise().expect("it sits while it runs");
            async move { End::Ended(given_up.cut_off(&self.1, String::new())) }.boxed()
        }
    }

    /// A log that is broken.
    struct Panics;

    impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Panics {
        fn on_event(&self, _: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
            panic!("no log");
        }
    }

    struct Ends(Identity);

    impl Work for Ends {
        fn name(&self) -> &str {
            "ends"
        }
        fn overlap(&self) -> Overlap {
            Overlap::Coalesce
        }
        fn deadline(&self) -> Duration {
            Duration::MAX
        }
        fn run(self: Arc<Self>, at: Timestamp, kind: Kind) -> BoxFuture<'static, End> {
            let run = self.0.unrun(&Due { tracker: "ends".into(), scheduled_at: at, kind }, RunStatus::Failed, at, at);
            async { End::Ended(Outcome { run, fresh: Vec::new(), recorded: false }) }.boxed()
        }
    }

    #[tokio::test]
    async fn a_tracker_goes_on_when_the_telling_of_its_run_panics() {
        use tracing_subscriber::layer::SubscriberExt;
        let identity = Identity { instance: "test:1".into(), run_id: crate::store::ledger::run_id };
        let dispatch = Arc::new(Dispatch::new(vec![Arc::new(Ends(identity.clone()))]));
        let due = |second| Due {
            tracker: Arc::from("ends"),
            scheduled_at: Timestamp::from_second(second).unwrap(),
            kind: Kind::Scheduled,
        };
        dispatch.offer(due(1));
        let config = crate::config::parse("", std::path::Path::new("c.toml"), &Default::default());
        let state = State::new(&config.expect("an empty file is a configuration"), "test:1", Timestamp::UNIX_EPOCH);
        let (recorder, _inbox) = recorder::channel();
        let reports = Arc::new(Reports::new(identity, Arc::new(state), recorder.clone()));
        let _broken = tracing::subscriber::set_default(tracing_subscriber::registry().with(Panics));
        let worker = std::panic::AssertUnwindSafe(work(Arc::clone(&dispatch), Arc::default(), reports));
        assert!(worker.catch_unwind().await.is_err(), "it told nothing");
        assert_eq!((dispatch.running(), recorder.pending()), (0, 1));
        dispatch.offer(due(2));
        assert_eq!(dispatch.take().now_or_never().flatten().expect("the lane is free").due, due(2));
    }

    #[tokio::test]
    async fn a_worker_that_was_given_up_takes_no_further_run() {
        let seat = Arc::new(Seat::default());
        let identity = Identity { instance: "test:1".into(), run_id: crate::store::ledger::run_id };
        let dispatch = Arc::new(Dispatch::new(vec![Arc::new(Blocks(Arc::clone(&seat), identity.clone()))]));
        let due = |second| Due {
            tracker: Arc::from("blocks"),
            scheduled_at: Timestamp::from_second(second).unwrap(),
            kind: Kind::Scheduled,
        };
        dispatch.offer(due(1));
        dispatch.offer(due(2));
        let config = crate::config::parse("", std::path::Path::new("c.toml"), &Default::default());
        let config = config.expect("an empty file is a configuration");
        let state = Arc::new(State::new(&config, "test:1", Timestamp::UNIX_EPOCH));
        let reports = Arc::new(Reports::new(identity, state, recorder::channel().0));
        // The supervisor has finished the lane: the next run is there for the taking.
        let finish = async { dispatch.finish(&Arc::from("blocks")) };
        let worker = work(Arc::clone(&dispatch), seat, reports);
        let ended = tokio::time::timeout(Duration::from_secs(5), async { tokio::join!(worker, finish) }).await;
        assert!(ended.is_ok(), "it works on");
        assert_eq!(dispatch.queued(), 1, "the next run is another worker's");
    }
}
