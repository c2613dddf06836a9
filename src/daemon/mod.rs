//! The daemon: from a configuration to runs at their instants, until it is told to stop.
//!
//! ```text
//!  scheduler --instant--> Intake --> Dispatch --> workers --> Reports --> log, State --> Status --> pages
//!                                                                  \--> recorder --> Ledger
//!  signals --> reload | report | stop          Supervisor owns every task
//! ```
//!
//! In: a `Setup` whose parts (runs, ledger, pages) are opaque. Out: how it ended.
//! Must not know: SQL, HTTP, the command line.

pub mod agenda;
pub mod alert;
mod asks;
pub mod dispatch;
pub mod heartbeat;
mod housekeeping;
pub mod intake;
mod lease;
pub mod ledger;
mod line;
mod lost;
pub mod manual;
mod opening;
mod publish;
pub mod pulse;
pub mod recorder;
mod reload;
pub mod report;
pub mod scheduler;
mod services;
pub mod signal;
pub mod state;
mod states;
mod stop;
pub mod supervisor;
pub mod systemd;
pub mod work;
pub mod worker;

use crate::clock;
use crate::config::{Config, Tracker};
use crate::log::{Event, Lost};
use crate::run::Outcome;
use crate::status::{Phase, Status};
pub use asks::Asker;
use asks::Asks;
use dispatch::Dispatch;
use futures_util::future::BoxFuture;
use intake::Intake;
use jiff::Timestamp;
use ledger::{Ledger, Unusable};
use manual::Manual;
use opening::{Opened, Opening};
use report::Reports;
use scheduler::Scheduler;
use signal::{Asked, Signals};
use state::{Gauges, State};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use supervisor::{Service, Spent, Supervisor};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use work::{Identity, Work};

/// How often the supervisor looks for stuck runs and feeds the watchdog.
const LOOK: Duration = Duration::from_secs(1);
/// Makes the work of one tracker of a configuration, or says in one line why it cannot.
pub type MakeWork = dyn Fn(&Config, &Arc<Tracker>) -> Result<Arc<dyn Work>, String> + Send + Sync;
/// Reads and checks the configuration again: it, or every fault, a line each.
pub type Load = dyn Fn() -> Result<Config, Vec<String>> + Send + Sync;
/// Lands, for ever, payloads that could not land when they came, and says what became of each run.
pub type Backlog = dyn Fn(Tell) -> BoxFuture<'static, ()> + Send + Sync;
/// Is told what became of a run.
pub type Tell = Arc<dyn Fn(Outcome) + Send + Sync>;
/// Takes another `log.level`, or says why not.
pub type SetLevel = dyn Fn(&str) -> Result<(), String> + Send + Sync;
/// Binds another address of the pages; nothing has changed until what it gives is called. Or says why not.
pub type Listen = dyn Fn(Option<SocketAddr>) -> Result<Box<dyn FnOnce() + Send>, String> + Send + Sync;
/// Serves the pages until it is dropped.
pub type Pages = dyn Fn(watch::Receiver<Arc<Status>>) -> BoxFuture<'static, ()> + Send + Sync;
/// Answers on the control socket until it is dropped.
pub type Control = dyn Fn(watch::Receiver<Arc<Status>>, Asker, Arc<Manual>) -> BoxFuture<'static, ()> + Send + Sync;

/// What a daemon is made of.
#[expect(missing_debug_implementations, reason = "its parts are opaque")]
pub struct Setup {
    pub config: Config,
    pub load: Arc<Load>,
    pub make_work: Box<MakeWork>,
    pub ledger: Arc<dyn Ledger>,
    /// Lands payloads that wait for the database; `None`: none wait.
    pub backlog: Option<Box<Backlog>>,
    pub identity: Identity,
    /// `None`: no pages.
    pub pages: Option<Arc<Pages>>,
    /// Takes another address for them.
    pub listen: Box<Listen>,
    /// `None`: only signals command it.
    pub control: Option<Arc<Control>>,
    /// Tells somebody of alerts; cancelled by dropping it.
    pub deliver: Arc<alert::Deliver>,
    /// Further tasks the daemon owns as long as it runs.
    pub services: Vec<Service>,
    /// Takes another `log.level`, or says why not.
    pub set_level: Box<SetLevel>,
    /// Opens log files anew: somebody may have moved them. Waits for nothing.
    pub reopen_logs: Box<dyn Fn() + Send + Sync>,
    /// Log lines that did not arrive.
    pub lost_lines: Box<dyn Fn() -> Lost + Send + Sync>,
}

/// Why a daemon ended that was not told to.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A tracker cannot be made to run: one line each.
    #[error("{}", .0.join("\n"))]
    Config(Vec<String>),
    /// The ledger needs a person.
    #[error(transparent)]
    Ledger(#[from] Unusable),
    /// A task that everything needs died too often.
    #[error(transparent)]
    Spent(#[from] Spent),
}

/// A daemon at work.
struct Daemon {
    setup: Setup,
    /// The configuration in force.
    config: Arc<Config>,
    works: HashMap<String, Arc<dyn Work>>,
    /// Trackers that left the configuration before the ledger was whole, while it is not: their past is dealt with, too.
    departed: Option<Vec<Arc<Tracker>>>,
    state: Arc<State>,
    intake: Arc<Intake>,
    recorder: recorder::Sender,
    stop_recorder: CancellationToken,
    scheduler: Arc<Scheduler>,
    /// Since when instants run.
    begun: Option<Timestamp>,
    asker: Asker,
    asks: Asks,
    /// Told when the database turns out to be away at the start.
    away: Arc<Notify>,
    /// The same, for services that follow it.
    in_force: watch::Sender<Arc<Config>>,
    supervisor: Supervisor,
    status: watch::Receiver<Arc<Status>>,
    watchdog: systemd::Watchdog,
    start: systemd::Start,
    line: systemd::Line,
    looks: u64,
    told_lost: lost::Told,
}

/// Runs until a signal says stop. Returns the status at the end.
///
/// # Errors
/// `Failure`; everything is stopped and closed then, too.
pub async fn run(setup: Setup, mut signals: Signals) -> Result<Arc<Status>, Failure> {
    let mut daemon = Daemon::new(setup)?;
    let ended = daemon.serve(&mut signals).await;
    let status = daemon.stop(&mut signals).await;
    ended.map(|()| status)
}

impl Daemon {
    fn new(setup: Setup) -> Result<Daemon, Failure> {
        let config = &setup.config;
        let works = reload::make(&setup.make_work, config, config.trackers.iter()).map_err(Failure::Config)?;
        let state = Arc::new(State::new(config, &setup.identity.instance, clock::now()));
        let (recorder, inbox) = recorder::channel();
        let reports = Arc::new(Reports::new(setup.identity.clone(), Arc::clone(&state), recorder.clone()));
        // One worker is always another group's.
        let most_of_a_group = config.daemon.per_host.min(config.daemon.workers.saturating_sub(1));
        let dispatch = Arc::new(Dispatch::bounded(works.values().cloned().collect(), most_of_a_group));
        let intake = Arc::new(Intake { dispatch: Arc::clone(&dispatch), reports: Arc::clone(&reports) });
        let scheduler = Arc::new(Scheduler::new(Arc::clone(&intake)));
        let (publish, status) = watch::channel(Arc::new(state.snapshot(Gauges::default(), clock::now())));
        let config = Arc::new(config.clone());
        let (asker, asks) = asks::channel();
        let mut daemon = Daemon {
            supervisor: Supervisor::new(config.daemon.workers, dispatch, reports),
            works,
            departed: Some(Vec::new()),
            state,
            intake,
            begun: None,
            asker,
            asks,
            away: Arc::default(),
            recorder,
            stop_recorder: CancellationToken::new(),
            scheduler,
            in_force: watch::channel(Arc::clone(&config)).0,
            config,
            status,
            watchdog: systemd::Watchdog::from_environment(),
            start: systemd::Start::now(),
            line: systemd::Line::default(),
            looks: 0,
            told_lost: lost::Told::default(),
            setup,
        };
        daemon.start_services(inbox, publish);
        Ok(daemon)
    }

    async fn serve(&mut self, signals: &mut Signals) -> Result<(), Failure> {
        let (opening, away) = (self.opening().open(), Arc::clone(&self.away));
        tokio::pin!(opening);
        let mut open = false;
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                asked = signals.next() => match asked {
                    Asked::Stop => return Ok(()),
                    Asked::Report => self.report(),
                    Asked::Reload => self.asks.hangup(),
                },
                first = self.asks.next() => {
                    if self.answer(first, signals).await && !open {
                        // What the trackers missed depends on what they are.
                        opening.set(self.opening().open());
                    }
                }
                opened = &mut opening, if !open => {
                    self.begin(opened?).await;
                    open = true;
                }
                () = away.notified(), if self.begun.is_none() => {
                    self.begin_degraded(clock::now()).await;
                    opening.set(self.opening().open());
                }
                watched = self.supervisor.watch() => watched?,
                _ = look.tick() => self.look_around()?,
            }
        }
    }

    fn opening(&self) -> Opening {
        Opening {
            ledger: Arc::clone(&self.setup.ledger),
            state: Arc::clone(&self.state),
            intake: Arc::clone(&self.intake),
            trackers: self.config.trackers.iter().chain(self.departed.iter().flatten()).cloned().collect(),
            since: self.begun.unwrap_or_else(clock::now),
            begun: self.begun,
            away: Arc::clone(&self.away),
        }
    }

    /// Instants after this one run, whatever was before.
    async fn begin_degraded(&mut self, at: Timestamp) {
        self.scheduler.begin(self.config.trackers.iter().map(|tracker| (tracker, at)));
        self.begun = Some(at);
        // Up, if not well: systemd must not kill it for a database that is late.
        self.state.phase(Phase::Degraded);
        self.ready().await;
    }

    async fn ready(&mut self) {
        // Before the other: who waited for it asks for the status or reads the line next.
        self.published(|status| status.phase != Phase::Starting).await;
        self.line.show(&self.snapshot());
        systemd::ready();
    }

    /// The ledger is open and whole: sets the timers, runs what is to be caught up, and says so.
    async fn begin(&mut self, mut opened: Opened) {
        self.setup.ledger.whole();
        self.departed = None;
        let mut caught_up = 0;
        for past in &mut opened.pasts {
            if let Some(since) = past.since {
                self.state.followed(&past.tracker.name, since);
            }
            if let Some((run, success)) = past.last.take() {
                self.state.remember(run, success);
            }
            self.intake.catch_up(&past.tracker.name, &past.runs);
            caught_up += past.runs.len();
        }
        if self.begun.is_none() {
            let followed = opened.pasts.iter().filter(|past| self.works.contains_key(&past.tracker.name));
            self.scheduler.begin(followed.map(|past| (&past.tracker, past.begins)));
            self.begun = Some(opened.at);
        }
        self.state.phase(Phase::Running);
        // A daemon that is started often may never be there at its hour.
        self.scheduler.chores().notify_one();
        self.ready().await;
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"), config = %self.config.path.display(), trackers = self.config.trackers.len(),
            workers = self.config.daemon.workers, caught_up, missed = opened.missed,
            config_generation = self.intake.dispatch.generation(), event = %Event::Ready, "ready"
        );
    }

    fn look_around(&mut self) -> Result<(), Spent> {
        self.looks += 1;
        self.supervisor.replace_stuck()?;
        self.intake.reports.tell_sum();
        self.tell_lost_lines();
        self.lives();
        if self.status.has_changed().unwrap_or(false) {
            self.line.show(&self.status.borrow_and_update());
        }
        Ok(())
    }

    /// Tells systemd so. This loop moves, or it would not be here: what is left to prove is that the scheduler does.
    fn lives(&mut self) {
        self.watchdog.feed(self.scheduler.beats(), Instant::now());
        if !self.state.is_up() {
            self.start.goes_on(Instant::now());
        }
    }

    fn gauges(&self) -> Arc<dyn Fn() -> Gauges + Send + Sync> {
        let (ledger, dispatch) = (Arc::clone(&self.setup.ledger), Arc::clone(&self.intake.dispatch));
        Arc::new(move || {
            let (pool, database_error) = ledger.gauges();
            Gauges {
                workers_busy: dispatch.running(),
                queued: dispatch.queued(),
                states: dispatch.states(),
                database_error,
                pool,
                spool: ledger.spool(),
            }
        })
    }

    fn snapshot(&self) -> Arc<Status> {
        Arc::new(self.state.snapshot((self.gauges())(), clock::now()))
    }

    /// SIGUSR1: everything, an entry for each tracker.
    fn report(&self) {
        let status = self.snapshot();
        tracing::info!(
            phase = ?status.phase, trackers = status.trackers.len(), workers = status.workers, busy = status.workers_busy,
            queued = status.queued, unrecorded = self.recorder.pending(), unrecorded_lost = self.recorder.dropped(),
            succeeded = status.totals.succeeded, failed = status.totals.failed, skipped = status.totals.skipped,
            missed = status.totals.missed, rows_written = status.totals.rows_written, pool_size = status.pool.size,
            pool_borrowed = status.pool.borrowed, pool_waiting = status.pool.waiting, spooled = status.spool.entries,
            spool_used = status.spool.used, spool_bad = status.spool.bad, stale = status.stale, standing = status.standing,
            database_error = status.database_error,
            "status"
        );
        for tracker in &status.trackers {
            let last = tracker.last.as_ref();
            tracing::info!(
                tracker = tracker.name, state = ?tracker.state, next_run = tracker.next_run.map(tracing::field::display),
                last_run = last.map(|run| tracing::field::display(run.scheduled_at)), last_status = last.map(|run| run.status.as_str()),
                last_success = tracker.last_success.map(tracing::field::display), failures_in_a_row = tracker.failures_in_a_row,
                stale = tracker.stale, standing_since = tracker.standing.map(|fault| tracing::field::display(fault.since)),
                error = last.and_then(|run| run.error.as_deref()), "tracker"
            );
        }
    }
}
