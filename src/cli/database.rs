//! The configured database, for commands and for the daemon: an address, a pool, and the server if it is ours.

mod ledger;

use super::failure::{Failure, embedded_unusable, migration_unusable, unusable};
use crate::config::{self, Config, DatabaseUrl};
use crate::daemon::ledger::Unusable;
use crate::run::related;
use crate::shape::Table;
use crate::spool::Spool;
use crate::store::embedded::{Cluster, EmbeddedError};
use crate::store::instance::Instance;
use crate::store::tables::Change;
use crate::store::{self, Error, Pool, PoolOptions, Surroundings, Target, migrate, tables};
use jiff::Timestamp;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long giving up claims at the end may take.
const LEAVE: Duration = Duration::from_secs(10);
/// How long borrowed connections may take to come back at the end.
const CLOSE: Duration = Duration::from_secs(10);
/// How long the start of a server of ours may take to its end before it is stopped.
const SETTLE: Duration = Duration::from_secs(15);
/// Trackers whose tables are made in one transaction: each table is a few locks, and the server has some thousands.
const TOGETHER: usize = 100;
/// Batches of old runs that one hour's housekeeping removes: the rest is the next hour's.
const MOST_PRUNED: u32 = 100;

/// Instants of one tracker that were not run and are recalled: as many as one start can list and run.
const MOST_RECALLED: i64 = 20_000;

/// The database of a configuration. Nothing is opened before `open`.
#[derive(Debug)]
pub(super) struct Database {
    pool: Pool,
    target: Target,
    embedded: Option<Embedded>,
    instance: Arc<Instance>,
    /// Payloads of this process that wait: their runs are dealt with.
    spool: OnceLock<Arc<Spool>>,
    /// Whether runs may land.
    open: watch::Sender<bool>,
    /// The number of the process that had this state directory before: it is gone.
    predecessor: OnceLock<i64>,
    /// For each tracker its tables and those they refer to.
    tables: Vec<Vec<Arc<Table>>>,
}

#[derive(Debug)]
struct Embedded {
    state_dir: PathBuf,
    /// One opens at a time; a start that nobody waits for any more goes on here, and is not forgotten.
    opening: Mutex<Option<JoinHandle<Result<Cluster, EmbeddedError>>>>,
    cluster: watch::Sender<Option<Arc<Cluster>>>,
}

impl Database {
    /// The database of `config`.
    ///
    /// # Errors
    /// The address is not understood, or a private server cannot be had on this machine.
    pub(super) fn of(config: &Config) -> Result<Database, Failure> {
        let state_dir = &config.daemon.state_dir;
        let (conninfo, embedded) = match &config.database.url {
            DatabaseUrl::Server(url) => (url.expose().to_owned(), None),
            DatabaseUrl::Embedded => {
                let conninfo = Cluster::address(state_dir).map_err(|error| embedded_unusable(&error))?;
                let (cluster, _) = watch::channel(None);
                (conninfo, Some(Embedded { state_dir: state_dir.clone(), opening: Mutex::default(), cluster }))
            }
        };
        let target = match &embedded {
            // It is where it is, whatever PG* says.
            Some(_) => Target::parse(&conninfo, None, &Surroundings::default()),
            None => server(&conninfo, &config.database),
        };
        let target = target.map_err(|error| Failure::config(error.to_string()).with_hint(error.hint()))?;
        let pool = Pool::new(options(&config.database, target.clone()));
        let tables = config.trackers.iter().map(|tracker| related(config, tracker)).collect();
        let instance = Arc::new(Instance::new(name(), config.daemon.lease));
        Ok(Database {
            pool,
            target,
            embedded,
            instance,
            spool: OnceLock::new(),
            open: watch::channel(false).0,
            predecessor: OnceLock::new(),
            tables,
        })
    }

    /// Where to borrow connections.
    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// This process among those that share the ledger.
    pub(super) fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// Becomes true when runs may land.
    pub(super) fn opened(&self) -> watch::Receiver<bool> {
        self.open.subscribe()
    }

    /// Where this process keeps payloads that wait. Nobody else owns the spool, so whoever did is gone.
    pub(super) fn keep_in(&self, spool: Arc<Spool>, state_dir: &Path) {
        let _ = self.spool.set(spool);
        let file = state_dir.join("instance");
        let before = std::fs::read_to_string(&file).ok().and_then(|text| text.trim().parse().ok());
        if let Some(id) = before {
            let _ = self.predecessor.set(id);
        }
        // Not written, its claims are free a lease later than they could be.
        if let Err(error) = std::fs::write(&file, format!("{}\n", self.instance.id())) {
            tracing::warn!(file = %file.display(), error = %error, "this process's number is not kept");
        }
    }

    /// Whether a payload of this run waits.
    fn is_kept(&self, tracker: &str, scheduled_at: Timestamp) -> bool {
        self.spool.get().is_some_and(|spool| spool.has(tracker, scheduled_at))
    }

    /// Renews the lease for as long as it is polled.
    pub(super) async fn keep_lease(&self) -> Infallible {
        loop {
            tokio::time::sleep(self.instance.lease() / 3).await;
            if let Err(error) = self.instance.renew(&self.pool, None).await {
                tracing::debug!(error = %error, "lease not renewed");
            }
        }
    }

    /// A pool of its own that a standby will do for.
    pub(super) fn reader(&self) -> Pool {
        Pool::new(PoolOptions { needs_write: false, ..PoolOptions::to(self.target()) })
    }

    /// A pool of its own of one connection, which nobody else borrows.
    pub(super) fn single(&self) -> Pool {
        Pool::new(PoolOptions { pool_size: 1, max_overflow: 0, ..PoolOptions::to(self.target()) })
    }

    /// Where it is.
    pub(super) fn target(&self) -> Target {
        self.pool.target().unwrap_or_else(|| self.target.clone())
    }

    /// Whether there is one: a server of ours is made at its first start.
    pub(super) fn is_made(&self) -> bool {
        self.embedded.as_ref().is_none_or(|embedded| embedded.state_dir.join("postgres/data/PG_VERSION").exists())
    }

    /// Starts the server if it is ours, and brings the schema `trackd` up to date. Returns what was applied.
    ///
    /// # Errors
    /// The database is away, or a person must act.
    pub(super) async fn migrate(&self) -> Result<Vec<String>, Unusable> {
        self.start().await?;
        let applied = migrate::migrate_at(&self.target()).await;
        applied.map_err(|error| migration_unusable(&error))
    }

    /// Starts the server if it is ours and does not run.
    pub(super) async fn start(&self) -> Result<(), Unusable> {
        match &self.embedded {
            Some(embedded) => embedded.open().await,
            None => Ok(()),
        }
    }

    /// Makes and extends all tables, some in one transaction. Returns what was done, or for some why it was refused: a
    /// table that cannot be made is its tracker's trouble, and each run of it fails and says why.
    ///
    /// # Errors
    /// The database is away, or a person must act.
    pub(super) async fn make_tables(&self) -> Result<Vec<Result<Change, store::Error>>, Unusable> {
        let mut done = Vec::new();
        for some in self.tables.chunks(TOGETHER) {
            let mut guard = self.pool.begin().await.map_err(|error| unusable(&error))?;
            match tables::ensure(&mut guard, &some.concat()).await {
                Ok(changes) => {
                    let _receipt = guard.commit().await.map_err(|error| unusable(&error))?;
                    done.extend(changes.into_iter().map(Ok));
                }
                Err(error) if error.is_away() => return Err(unusable(&error)),
                // A lock that somebody holds, too: the others must not wait for it.
                Err(error) => done.push(Err(error)),
            }
        }
        Ok(done)
    }

    /// Keeps a server of ours alive; ends when it cannot.
    pub(super) async fn watch(&self) {
        let Some(embedded) = &self.embedded else { return std::future::pending().await };
        let mut opened = embedded.cluster.subscribe();
        let Ok(cluster) = opened.wait_for(Option::is_some).await.map(|cluster| cluster.clone()) else { return };
        if let Some(cluster) = cluster {
            let error = cluster.watch().await;
            tracing::error!(error = %error, hint = error.hint(), "embedded PostgreSQL stays down");
        }
    }

    /// Puts another address or other limits of the pool in force.
    async fn reconnect(&self, database: &config::Database) -> Result<(), Error> {
        let before = self.target();
        let target = match &database.url {
            DatabaseUrl::Server(url) => server(url.expose(), database)?,
            DatabaseUrl::Embedded => before.clone(),
        };
        let options = options(database, target.clone());
        if target.is_at_the_same_place(&before) && self.pool.last_error().is_some() {
            // The same server, which is away, or no longer takes the password: there is nothing to try the change on.
            self.pool.replace(options);
            return Ok(());
        }
        if target != before {
            migrate::migrate_at(&target).await?;
        }
        self.pool.change(options).await
    }

    /// Closes the pool, and stops the server if it is ours and nobody else uses it.
    pub(super) async fn end(&self) {
        if let Ok(Err(error)) = timeout(LEAVE, self.instance.leave(&self.pool)).await {
            tracing::debug!(error = %error, "claims are free when the lease is over");
        }
        if !self.pool.close(CLOSE).await {
            tracing::warn!(after = ?CLOSE, "connections did not come back");
        }
        if let Some(embedded) = &self.embedded {
            embedded.close().await;
        }
    }
}

impl Embedded {
    /// Cancel safety: safe; the start goes on, and the next call waits for the same one.
    async fn open(&self) -> Result<(), Unusable> {
        let mut opening = self.opening.lock().await;
        if self.cluster.borrow().is_some() {
            return Ok(());
        }
        let task = opening.get_or_insert_with(|| {
            let state_dir = self.state_dir.clone();
            tokio::spawn(async move { Cluster::open(&state_dir).await })
        });
        let opened = task.await;
        *opening = None;
        let opened = opened.map_err(|error| EmbeddedError::retry(format!("start embedded PostgreSQL: {error}")));
        let cluster = opened.and_then(|opened| opened).map_err(|error| embedded_unusable(&error))?;
        self.cluster.send_replace(Some(Arc::new(cluster)));
        Ok(())
    }

    /// Stops the server if nobody else uses it; one that is being started first gets there, or it would be left behind.
    async fn close(&self) {
        let starting = self.opening.lock().await.is_some();
        if starting && timeout(SETTLE, self.open()).await.is_err() {
            tracing::warn!(after = ?SETTLE, "embedded PostgreSQL is still starting: it is left running");
        }
        let cluster = self.cluster.borrow().clone();
        if let Some(cluster) = cluster {
            cluster.close().await;
        }
    }
}

/// `host:pid`.
fn name() -> String {
    let uname = rustix::system::uname();
    format!("{}:{}", uname.nodename().to_string_lossy(), std::process::id())
}

/// The target of a server that is not ours.
fn server(url: &str, database: &config::Database) -> Result<Target, Error> {
    let password = database.password_file.as_deref().map(password).transpose()?;
    Target::parse(url, password.as_deref(), &Surroundings::of_process())
}

/// A password from a file, without the newline that editors end it with.
fn password(file: &Path) -> Result<String, Error> {
    let read = std::fs::read_to_string(file);
    let text = read.map_err(|error| {
        let hint = "a file with the password and nothing else, that trackd may read";
        Error::refused("database.password_file", format!("read {}: {error}", file.display()), Some(hint.into()))
    })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn options(database: &config::Database, target: Target) -> PoolOptions {
    PoolOptions {
        pool_size: database.pool_size,
        max_overflow: database.max_overflow,
        pool_timeout: database.pool_timeout,
        pool_recycle: database.pool_recycle,
        pool_pre_ping: database.pool_pre_ping,
        statement_timeout: database.statement_timeout,
        ..PoolOptions::to(target)
    }
}
