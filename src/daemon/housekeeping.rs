//! What the daemon does for its database besides runs: asks how it is, removes what is too old.
//!
//! ```text
//!  every 30 s                      look --> State
//!  every 5 s, where in doubt       what others ran --> State
//!  at the start, and each hour     tidy --> log
//! ```
//!
//! Must not know: SQL.

use super::ledger::{Chores, Ledger, Tidied};
use super::pulse::Pulse;
use super::state::State;
use crate::clock;
use crate::config::Config;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// Between two looks at the database: also how soon a daemon without runs sees that it is away, or back.
const LOOK: Duration = Duration::from_secs(30);
/// How long it may take to hear what another process, or a person, ran.
const HEAR: Duration = Duration::from_secs(5);
/// Until the start is over.
const SOON: Duration = Duration::from_secs(1);

impl Chores {
    /// What a configuration asks for.
    pub(super) fn of(config: &Config) -> Chores {
        let tables = config.trackers.iter().flat_map(|tracker| &tracker.tables).map(|table| table.name.clone());
        Chores { keep_runs: config.daemon.keep_runs, tables: tables.collect() }
    }
}

/// Asks the database how it is, again and again.
///
/// Cancel safety: safe.
pub(super) async fn look(state: Arc<State>, ledger: Arc<dyn Ledger>, pulse: Arc<Pulse>) {
    loop {
        if state.is_up() {
            let at_work = pulse.work();
            state.looked(ledger.look().await);
            drop(at_work);
            tokio::time::sleep(LOOK).await;
        } else {
            tokio::time::sleep(SOON).await;
        }
    }
}

/// Asks the ledger, again and again, what others ran of those trackers of which it may know more than this process: a
/// tracker whose runs land elsewhere is not stale, and one that somebody mended is not passed over any more.
///
/// Cancel safety: safe.
pub(super) async fn learn(state: Arc<State>, ledger: Arc<dyn Ledger>, pulse: Arc<Pulse>) {
    loop {
        tokio::time::sleep(HEAR).await;
        let _at_work = pulse.work();
        let names = if state.is_up() { state.doubtful(clock::now()) } else { Vec::new() };
        if names.is_empty() {
            continue;
        }
        // A database that is away is told of elsewhere, and asked again.
        for (run, success) in ledger.latest(names).await.unwrap_or_default() {
            state.learned(run, success);
        }
    }
}

/// Tidies the database whenever it is time, by the newest configuration.
///
/// Cancel safety: safe; what was not done is done the next time.
pub(super) async fn tidy(
    time: Arc<Notify>,
    config: watch::Receiver<Arc<Config>>,
    ledger: Arc<dyn Ledger>,
    pulse: Arc<Pulse>,
) {
    loop {
        time.notified().await;
        let _at_work = pulse.work();
        let chores = Chores::of(&config.borrow());
        match ledger.tidy(&chores).await {
            Ok(Tidied { runs: 0, rejects: 0, analyzed }) if analyzed.is_empty() => {}
            Ok(Tidied { runs, rejects, analyzed }) => {
                tracing::info!(
                    runs_removed = runs,
                    rejects_removed = rejects,
                    analyzed = analyzed.len(),
                    "housekeeping"
                )
            }
            // The next hour tries again; a database that is away is told of elsewhere.
            Err(error) => tracing::warn!(error = %error, hint = error.hint, "housekeeping failed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::class::Class;
    use crate::daemon::ledger::{Latest, Memory, Unusable};
    use crate::daemon::state::Gauges;
    use crate::status::{Kind, Phase, Pool, Run, RunStatus};
    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;
    use jiff::Timestamp;
    use std::collections::HashMap;
    use tokio::sync::mpsc;

    /// Tells what it is asked to tidy, and fails.
    struct Fails(mpsc::UnboundedSender<Chores>);

    impl Ledger for Fails {
        fn open(&self) -> BoxFuture<'_, Result<(), Unusable>> {
            async { Ok(()) }.boxed()
        }
        fn recall(
            &self,
            _: Vec<String>,
            _: Option<jiff::Timestamp>,
        ) -> BoxFuture<'_, Result<HashMap<String, Memory>, Unusable>> {
            async { Ok(HashMap::new()) }.boxed()
        }
        fn record<'a>(&'a self, _: &'a [Run]) -> BoxFuture<'a, Result<(), Unusable>> {
            async { Ok(()) }.boxed()
        }
        fn gauges(&self) -> (Pool, Option<String>) {
            (Pool::default(), None)
        }
        fn tidy<'a>(&'a self, chores: &'a Chores) -> BoxFuture<'a, Result<Tidied, Unusable>> {
            self.0.send(chores.clone()).expect("somebody listens");
            async { Err(Unusable { class: Class::Retry, message: "away".into(), hint: None }) }.boxed()
        }
        fn close(&self) -> BoxFuture<'_, ()> {
            async {}.boxed()
        }
    }

    /// Knows of a success of tracker `a` at this instant, and is asked.
    struct Knows(Timestamp, mpsc::UnboundedSender<Vec<String>>);

    impl Ledger for Knows {
        fn open(&self) -> BoxFuture<'_, Result<(), Unusable>> {
            async { Ok(()) }.boxed()
        }
        fn recall(
            &self,
            _: Vec<String>,
            _: Option<Timestamp>,
        ) -> BoxFuture<'_, Result<HashMap<String, Memory>, Unusable>> {
            async { Ok(HashMap::new()) }.boxed()
        }
        fn latest(&self, names: Vec<String>) -> BoxFuture<'_, Result<Vec<Latest>, Unusable>> {
            let _ = self.1.send(names);
            let run = Run::begun(uuid::Uuid::nil(), "a", self.0, Kind::Scheduled, "other:1", self.0);
            async move { Ok(vec![(Run { status: RunStatus::Succeeded, ..run }, Some(self.0))]) }.boxed()
        }
        fn record<'a>(&'a self, _: &'a [Run]) -> BoxFuture<'a, Result<(), Unusable>> {
            async { Ok(()) }.boxed()
        }
        fn gauges(&self) -> (Pool, Option<String>) {
            (Pool::default(), None)
        }
        fn close(&self) -> BoxFuture<'_, ()> {
            async {}.boxed()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_another_process_ran_is_heard_and_a_tracker_in_no_doubt_is_not_asked_for() {
        let tracker = |name: &str| {
            format!(
                "[[tracker]]\nname = \"{name}\"\nevery = \"1s\"\nfresh_within = \"1h\"\nfile = {{ path = \"x\" }}\n\
                 [[tracker.table]]\nname = \"{name}\"\nhistory = \"snapshot\"\nrows = \".\"\ncolumns = {{ v = \"text\" }}\n"
            )
        };
        let text = ["a", "b"].map(tracker).concat();
        let config = crate::config::parse(&text, std::path::Path::new("c.toml"), &Default::default()).expect("good");
        let now = clock::now();
        let state = Arc::new(State::new(&config, "test:1", now));
        state.phase(Phase::Running);
        let failed = Run::begun(uuid::Uuid::nil(), "a", now, Kind::Scheduled, "test:1", now);
        state.remember(Run { error_class: Some(Class::Standing), ..failed }, None);
        state.elsewhere("a");
        let shown = || {
            let status = state.snapshot(Gauges::default(), now);
            (status.standing, status.trackers[0].failures_in_a_row, status.trackers[0].last_success)
        };
        assert_eq!(shown(), (1, 1, None));
        let (asked, mut names) = mpsc::unbounded_channel();
        let later = now.checked_add(Duration::from_secs(1)).expect("a time");
        let service = tokio::spawn(learn(Arc::clone(&state), Arc::new(Knows(later, asked)), Arc::default()));
        assert_eq!(names.recv().await.expect("it was asked"), ["a"]);
        tokio::time::sleep(3 * HEAR).await;
        assert_eq!(shown(), (0, 0, Some(later)));
        assert!(names.try_recv().is_err(), "it is in no doubt any more");
        service.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn each_time_follows_the_configuration_in_force_and_a_failure_is_not_the_last() {
        let config = |text: &str| {
            let config = crate::config::parse(text, std::path::Path::new("c.toml"), &Default::default());
            Arc::new(config.expect("a configuration"))
        };
        let (asked, mut tidied) = mpsc::unbounded_channel();
        let (newest, in_force) = watch::channel(config(""));
        let time = Arc::new(Notify::new());
        let service = tokio::spawn(tidy(Arc::clone(&time), in_force, Arc::new(Fails(asked)), Arc::default()));
        time.notify_one();
        let first = tidied.recv().await.expect("it was asked");
        assert_eq!(first.keep_runs, Some(Duration::from_secs(90 * 86_400)));
        newest.send_replace(config("[daemon]\nkeep_runs = \"forever\""));
        time.notify_one();
        assert_eq!(tidied.recv().await.expect("again").keep_runs, None);
        service.abort();
    }
}
