//! Behaviour of the daemon with work that panics and hangs, in this process and without a database.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use trackd::clock;
use trackd::config::{self, Environment};
use trackd::daemon::ledger::{Ledger, Memory, Unusable};
use trackd::daemon::signal::Signals;
use trackd::daemon::work::{Identity, Work};
use trackd::daemon::{self, Setup};
use trackd::log::Lost;
use trackd::run::{End, Outcome};
use trackd::schedule::Overlap;
use trackd::status::{Kind, Pool, Run, RunStatus};
use trackd::store::ledger::run_id;

/// Keeps what it is given, in memory.
#[derive(Default)]
struct Remembers(Mutex<Vec<Run>>);

impl Ledger for Remembers {
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
    fn record<'a>(&'a self, runs: &'a [Run]) -> BoxFuture<'a, Result<(), Unusable>> {
        async {
            self.0.lock().unwrap().extend_from_slice(runs);
            Ok(())
        }
        .boxed()
    }
    fn gauges(&self) -> (Pool, Option<String>) {
        (Pool::default(), None)
    }
    fn close(&self) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }
}

/// Panics, hangs or works, as its name says.
struct Named(String, Identity);

impl Work for Named {
    fn name(&self) -> &str {
        &self.0
    }
    fn overlap(&self) -> Overlap {
        Overlap::Coalesce
    }
    fn deadline(&self) -> Duration {
        Duration::from_millis(300)
    }
    fn run(self: Arc<Self>, scheduled_at: Timestamp, kind: Kind) -> BoxFuture<'static, End> {
        async move {
            match self.0.as_str() {
                "panics" => panic!("on purpose"),
                "hangs" => std::future::pending().await,
                _ => {}
            }
            let due = trackd::daemon::work::Due { tracker: Arc::from(self.0.as_str()), scheduled_at, kind };
            let now = clock::now();
            let run = self.1.unrun(&due, RunStatus::Succeeded, now, now);
            End::Ended(Outcome { run, fresh: Vec::new(), recorded: false })
        }
        .boxed()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_panics_or_hangs_is_replaced_and_its_run_recorded_as_failed() {
    let tracker = |name: &str| {
        format!(
            "[[tracker]]\nname = \"{name}\"\nevery = \"200ms\"\nfile = {{ path = \"x\" }}\n[[tracker.table]]\nname = \"{name}\"\n\
             history = \"snapshot\"\nkey = [\"k\"]\nrows = \".\"\ncolumns = {{ k = \"text\" }}\n"
        )
    };
    // Two workers for three trackers: one that is not replaced stops everything.
    let text = format!(
        "[daemon]\nworkers = 2\nlisten = \"\"\ndrain = \"1s\"\n{}",
        ["panics", "hangs", "works"].map(tracker).concat()
    );
    let config =
        config::parse(&text, Path::new("config.toml"), &Environment::new(Vec::<(String, String)>::new(), false))
            .unwrap();
    let ledger = Arc::new(Remembers::default());
    let identity = Identity { instance: "test:1".into(), run_id };
    let who = identity.clone();
    let setup = Setup {
        config,
        load: Arc::new(|| Err(Vec::new())),
        make_work: Box::new(move |_, tracker| Ok(Arc::new(Named(tracker.name.clone(), who.clone())))),
        ledger: ledger.clone(),
        identity,
        backlog: None,
        pages: None,
        listen: Box::new(|_| Ok(Box::new(|| ()))),
        control: None,
        deliver: Arc::new(|_, _, _| async { Ok(()) }.boxed()),
        services: Vec::new(),
        set_level: Box::new(|_| Ok(())),
        reopen_logs: Box::new(|| ()),
        lost_lines: Box::new(Lost::default),
    };
    let mut signals = Signals::install().unwrap();
    signals.stop_in(Duration::from_secs(5));
    let status = daemon::run(setup, signals).await.expect("it ends as it was told");
    let runs = ledger.0.lock().unwrap();
    let of = |tracker: &str, words: &str| {
        runs.iter()
            .filter(|run| {
                run.tracker == tracker
                    && run.status == RunStatus::Failed
                    && run.error.as_deref().is_some_and(|error| error.contains(words))
            })
            .count()
    };
    assert!(of("panics", "panicked: on purpose") >= 5, "{runs:#?}");
    assert!(of("hangs", "") >= 2, "{runs:#?}");
    let worked = runs.iter().filter(|run| run.tracker == "works" && run.status == RunStatus::Succeeded).count();
    assert!(worked >= 5, "the others go on: {worked}");
    let works = status.trackers.iter().find(|tracker| tracker.name == "works").unwrap();
    assert_eq!(works.totals.succeeded, worked as u64);
}
