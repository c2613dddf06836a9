//! `trackd run`: the daemon, put together from its rooms.

use super::alert;
use super::answers::{self, Desk};
use super::database::Database;
use super::failure::Failure;
use super::pages::Pages;
use super::spooled;
use crate::admin::socket::{Socket, SocketError};
use crate::config::{self, Config, Environment, Tracker};
use crate::daemon::signal::Signals;
use crate::daemon::supervisor::Service;
use crate::daemon::work::{Identity, Work};
use crate::daemon::{self, Setup};
use crate::log;
use crate::log::Event;
use crate::run::{Backlog, End, Plan, Shared};
use crate::schedule::Overlap;
use crate::source::Hosts;
use crate::spool::Spool;
use crate::status::{Kind, Status};
use crate::store::ledger;
use crate::store::notify;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Runs the daemon until it is told to stop.
pub(super) async fn run(explicit: Option<&Path>, signals: Signals) -> Result<(), Failure> {
    let config = super::load(explicit)?;
    let path = config.path.clone();
    let load = move || config::load(&path, &Environment::of_process()).map_err(|faults| faults.lines().collect());
    let environment = Environment::of_process();
    let runtime_dir = environment.runtime_directory().or_else(|| environment.user_runtime_dir());
    let runtime_dir = runtime_dir.unwrap_or_else(|| config.daemon.state_dir.clone());
    daemon(config, &runtime_dir, Arc::new(load), signals).await.map(drop)
}

/// A daemon of this configuration, with its control socket in `runtime_dir`; `load` reads it again at a reload. Returns
/// its last status.
pub(super) async fn daemon(
    config: Config,
    runtime_dir: &Path,
    load: Arc<daemon::Load>,
    signals: Signals,
) -> Result<Arc<Status>, Failure> {
    let logging = Arc::new(log::start(&config.log).map_err(Failure::config)?);
    let (version, path, event) = (env!("CARGO_PKG_VERSION"), config.path.display(), Event::Starting);
    tracing::info!(version, config = %path, trackers = config.trackers.len(), %event, "starting");
    let database = Arc::new(Database::of(&config)?);
    let pages = Pages::bind(config.daemon.listen)?;
    let (notifier, inbox) = notify::channel();
    let spool = spool(&config)?;
    let socket = control_socket(runtime_dir)?;
    database.keep_in(Arc::clone(&spool), &config.daemon.state_dir);
    let (pool, instance) = (database.pool().clone(), Arc::clone(database.instance()));
    let hosts = Hosts::new(config.daemon.per_host);
    let shared = Shared { pool, hosts, instance, notifier, spool: Some(Arc::clone(&spool)), open: database.opened() };
    let backlog = Arc::new(Backlog::new(spool, &shared));
    let desk = Arc::new(Desk::new(&shared));
    let identity = Identity { instance: shared.instance.name().to_owned(), run_id: ledger::run_id };
    let (statement_timeout, pool) = (config.database.statement_timeout, database.pool().clone());
    let (database_pool, watched) = (pool.clone(), Arc::clone(&database));
    let [levels, reopened, lost] = [(); 3].map(|()| Arc::clone(&logging));
    // They wait for others as long as it takes.
    let service = |name, make| Service { name, vital: false, longest: Duration::MAX, make };
    let setup = Setup {
        config,
        load,
        make_work: Box::new(move |config, tracker| work(config, tracker, &shared, statement_timeout)),
        ledger: database,
        backlog: Some(Box::new(move |report| {
            let backlog = Arc::clone(&backlog);
            async move { backlog.work(&*report).await }.boxed()
        })),
        identity,
        pages: Some(pages.serve()),
        listen: pages.change(),
        control: socket.map(|socket| answers::control(socket, database_pool, desk)),
        services: vec![
            service(
                "database",
                Box::new(move |_| {
                    let database = Arc::clone(&watched);
                    async move { database.watch().await }.boxed()
                }),
            ),
            service(
                "notices",
                Box::new(move |_| {
                    let (inbox, pool) = (Arc::clone(&inbox), pool.clone());
                    async move { inbox.tell(&pool).await }.boxed()
                }),
            ),
        ],
        deliver: alert::deliver(),
        set_level: Box::new(move |level| levels.set_level(level)),
        reopen_logs: Box::new(move || reopened.reopen()),
        lost_lines: Box::new(move || lost.lost()),
    };
    let ended = daemon::run(setup, signals).await;
    // Last: what is still to be written to log files is written now.
    drop(logging);
    ended.map_err(|failure| match failure {
        daemon::Failure::Config(lines) => Failure::config(lines.join("\n")),
        daemon::Failure::Ledger(error) => error.into(),
        daemon::Failure::Spent(error) => Failure::work(error.to_string()),
    })
}

/// A daemon that cannot have one runs without, and says so; one whose socket another daemon answers at does not start.
fn control_socket(dir: &Path) -> Result<Option<Arc<Socket>>, Failure> {
    match Socket::bind(dir) {
        Ok(socket) => Ok(Some(Arc::new(socket))),
        Err(error @ SocketError::InUse(_)) => {
            let hint = "stop it, or set RUNTIME_DIRECTORY to a directory of this one's own".to_owned();
            Err(Failure::work(error.to_string()).with_hint(Some(hint)))
        }
        Err(error) => {
            tracing::warn!(%error, "no control socket: `trackd reload` will not find this daemon, SIGHUP does");
            Ok(None)
        }
    }
}

/// The payloads of this state directory that wait for the database.
fn spool(config: &Config) -> Result<Arc<Spool>, Failure> {
    let (spool, bad) = Spool::open(&spooled::dir(config), config.daemon.spool_max).map_err(|error| {
        let failure =
            if error.is_owned() { Failure::work(error.to_string()) } else { Failure::config(error.to_string()) };
        failure.with_hint(error.hint())
    })?;
    for aside in bad {
        tracing::error!(file = %aside.file.display(), reason = aside.reason, event = %Event::PayloadAside, "spool: a file is set aside");
    }
    Ok(Arc::new(spool))
}

fn work(
    config: &Config,
    tracker: &Arc<Tracker>,
    shared: &Shared,
    statement_timeout: Duration,
) -> Result<Arc<dyn Work>, String> {
    let plan = Plan::new(config, tracker, shared).map_err(|error| error.to_string())?;
    Ok(Arc::new(Planned { statement_timeout, plan }))
}

/// A plan as the daemon sees it.
struct Planned {
    plan: Plan,
    statement_timeout: Duration,
}

impl Work for Planned {
    fn name(&self) -> &str {
        &self.plan.tracker().name
    }

    fn group(&self) -> Option<&str> {
        self.plan.group()
    }

    fn overlap(&self) -> Overlap {
        self.plan.tracker().overlap
    }

    fn deadline(&self) -> Duration {
        self.plan.deadline(self.statement_timeout)
    }

    fn run(self: Arc<Self>, scheduled_at: Timestamp, kind: Kind) -> BoxFuture<'static, End> {
        async move { self.plan.run(scheduled_at, kind).await }.boxed()
    }
}
