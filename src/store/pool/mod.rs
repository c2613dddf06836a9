//! The pool: connections for many borrowers, whatever becomes of the server.
//!
//! ```text
//!  Pool --begin--> Guard          one Core in force; reset and change put another in its place:
//!   |                             who borrowed before keeps what it has, who waits is served by the new one
//!   +-- Core: queue, breaker, bb8 --> Session
//! ```
//!
//! | SQLAlchemy | here |
//! |---|---|
//! | pool_size, max_overflow, pool_timeout, pool_recycle, pool_pre_ping | [`PoolOptions`], the same words |
//! | engine, created lazily | [`Pool::new`]: opens nothing before the first borrow |
//! | engine.dispose() | [`Pool::reset`], [`Pool::close`] |
//! | events | [`Events`] |
//!
//! Must not know: what the connections are used for.

mod breaker;
mod core;
mod events;
mod options;
mod session;
mod statistics;

pub(super) use self::core::Lease;
pub use events::{End, Events, Seen};
pub use options::PoolOptions;
pub(super) use statistics::Counters;
pub use statistics::{BOUNDS, Histogram, Statistics};

use self::core::{Core, Refusal};
use super::guard::{Guard, Statement};
use super::{Error, Target, TransactionOptions};
use session::Watchers;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tokio_postgres::Row;
use tokio_util::task::TaskTracker;

/// A pool of connections. Cheap to clone; all clones are one pool. Opens nothing before the first borrow.
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

struct Shared {
    /// Nothing once it is closed.
    core: RwLock<Option<Arc<Core>>>,
    counters: Arc<Counters>,
    /// Owns the roll-backs of guards that were dropped.
    cleanups: TaskTracker,
    /// Owns the tasks that drive connections.
    drivers: TaskTracker,
}

/// The pool at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Connections open.
    pub size: u32,
    /// Open and not borrowed.
    pub idle: u32,
    /// Tasks that wait for a connection.
    pub waiting: u32,
    /// The most connections there can be.
    pub limit: u32,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pool").field(&self.numbers()).finish()
    }
}

impl Pool {
    /// A pool that will connect when it is first used.
    ///
    /// # Panics
    /// Outside a tokio runtime, as do `reset`, `replace` and `change`: what closes old connections is a task.
    pub fn new(options: PoolOptions) -> Pool {
        let counters = Arc::new(Counters::default());
        let drivers = TaskTracker::new();
        let core =
            Core::new(options.clone(), Watchers { counters: counters.clone(), events: options.events }, &drivers);
        Pool(Arc::new(Shared {
            core: RwLock::new(Some(Arc::new(core))),
            counters,
            cleanups: TaskTracker::new(),
            drivers,
        }))
    }

    /// Borrows a connection and opens a guard on it. BEGIN travels with the guard's first statement.
    ///
    /// While no connection can be made, one borrower at a time tries and all others are refused at once with the last
    /// cause; `begin_within` waits instead.
    ///
    /// Cancel safety: safe; a connection that was on its way goes to the next borrower.
    ///
    /// # Errors
    /// The class of the cause; retry after `pool_timeout`.
    pub async fn begin(&self) -> Result<Guard, Error> {
        self.begin_with(&TransactionOptions::default()).await
    }

    /// As `begin`, with other options than the default.
    ///
    /// Cancel safety: as `begin`.
    ///
    /// # Errors
    /// As `begin`.
    pub async fn begin_with(&self, options: &TransactionOptions) -> Result<Guard, Error> {
        let lease = self.look().await?;
        Ok(Guard::new(lease, self.clone(), *options))
    }

    /// As `begin`, and waits up to `pool_timeout` for a database that is away.
    ///
    /// Cancel safety: as `begin`.
    ///
    /// # Errors
    /// As `begin_within`.
    pub async fn begin_patiently(&self) -> Result<Guard, Error> {
        self.begin_within(self.pool_timeout()).await
    }

    /// As `begin`, and waits up to `patience` for a database that is away.
    ///
    /// A cause that a person must mend is told at once. Takes no longer than the longer of `patience` and `pool_timeout`.
    ///
    /// Cancel safety: as `begin`.
    ///
    /// # Errors
    /// The last cause.
    pub async fn begin_within(&self, patience: Duration) -> Result<Guard, Error> {
        let asked = Instant::now();
        let mut limit = self.pool_timeout();
        loop {
            let (error, pause) = match self.borrow(limit).await {
                Ok(lease) => return Ok(Guard::new(lease, self.clone(), TransactionOptions::default())),
                Err(refused) => refused,
            };
            let Some(pause) = pause.filter(|_| error.class() == crate::class::Class::Retry) else { return Err(error) };
            self.healed(pause.min(patience.saturating_sub(asked.elapsed()))).await;
            let left = patience.saturating_sub(asked.elapsed());
            if left.is_zero() {
                return Err(error);
            }
            limit = self.pool_timeout().min(left);
        }
    }

    /// Asks one question, in a transaction of its own that may only read and one round trip, and returns its rows: of
    /// types of the server's own.
    ///
    /// Cancel safety: safe; it only reads.
    ///
    /// # Errors
    /// As `begin`, and as the guard's `commit`.
    pub async fn query(&self, statement: Statement) -> Result<Vec<Row>, Error> {
        let reads = TransactionOptions { read_only: true, ..TransactionOptions::default() };
        let (rows, _receipt) = self.begin_with(&reads).await?.commit_with(statement).await?;
        Ok(rows)
    }

    /// Borrows a connection to look at the server, for who leaves nothing on it.
    pub(super) async fn look(&self) -> Result<Lease, Error> {
        self.borrow(self.pool_timeout()).await.map_err(|(error, _)| error)
    }

    /// Looks at the connections that rest as a borrower would, and gives them back: those that are too old, broken,
    /// silent, or on a server that takes no writes any more are closed and replaced while nobody waits for them.
    ///
    /// Stops as soon as somebody waits for a connection. Counts as so many borrows.
    ///
    /// Cancel safety: safe.
    ///
    /// # Errors
    /// No connection can be made.
    pub async fn examine(&self) -> Result<(), Error> {
        // All at once: of those given back, the last would be lent again and again.
        let mut seen = Vec::new();
        for _ in 0..self.numbers().idle {
            if self.numbers().waiting > 0 {
                break;
            }
            seen.push(self.look().await?);
        }
        Ok(())
    }

    fn pool_timeout(&self) -> Duration {
        self.core().map_or(Duration::ZERO, |core| core.options.pool_timeout)
    }

    /// Waits until a connection could be made, whoever made it, at most `pause`.
    ///
    /// Cancel safety: safe.
    pub async fn healed(&self, pause: Duration) {
        let Some(core) = self.core() else { return };
        let mut causes = core.breaker.subscribe();
        // Elapsed: the next try is this one's.
        let _ = timeout(pause, causes.wait_for(Option::is_none)).await;
    }

    /// A lease, or the cause and how long to wait before it is worth asking again.
    async fn borrow(&self, limit: Duration) -> Result<Lease, (Error, Option<Duration>)> {
        self.counted(limit, self.lend()).await
    }

    /// Waits for a lease up to `limit`, and counts what comes of it.
    async fn counted(
        &self,
        limit: Duration,
        lending: impl Future<Output = Result<Lease, Refusal>>,
    ) -> Result<Lease, (Error, Option<Duration>)> {
        let counters = &self.0.counters;
        counters.asked.add();
        let asking = Asking(Some(counters));
        let lent = timeout(limit, lending).await;
        asking.answered();
        let (counter, error, again) = match lent {
            Ok(Ok(lease)) => {
                counters.lent.add();
                return Ok(lease);
            }
            Ok(Err(Refusal::Open(error, left))) => (&counters.refused, error, Some(left)),
            Ok(Err(Refusal::Failed(error))) => (&counters.failed, error, Some(Duration::ZERO)),
            Ok(Err(Refusal::Retired)) => {
                (&counters.refused, Error::unavailable("borrow a connection", "the pool is closed"), None)
            }
            Err(_) => (&counters.timed_out, Error::unavailable("borrow a connection", self.wait_was_for(limit)), None),
        };
        counter.add();
        Err((error, again))
    }

    /// Why a wait of this length was in vain.
    fn wait_was_for(&self, limit: Duration) -> String {
        match (self.last_error(), self.numbers().size) {
            (Some(error), _) => error.to_string(),
            (None, 0) => format!("no server answered a connect within {limit:?}"),
            (None, size) => format!("all {size} were in use for {limit:?}: pool_size and max_overflow allow no more"),
        }
    }

    /// From the configuration in force, whichever that is when it is this one's turn.
    async fn lend(&self) -> Result<Lease, Refusal> {
        loop {
            let core = self.core().ok_or(Refusal::Retired)?;
            match core.lend().await {
                Err(Refusal::Retired) if self.core().is_some() => {}
                lent => return lent,
            }
        }
    }

    fn core(&self) -> Option<Arc<Core>> {
        self.0.core.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another core in force, made from the one that is, or none. A closed pool stays closed.
    ///
    /// All under one lock: of two at a time none may bring back what the other took away.
    fn exchange(&self, next: impl FnOnce(&Core) -> Option<Arc<Core>>) -> Option<Arc<Core>> {
        let mut place = self.0.core.write().unwrap_or_else(PoisonError::into_inner);
        let old = place.clone()?;
        *place = next(&old);
        drop(place);
        old.retire();
        Some(old)
    }

    /// Closes every connection that rests, and every other one when it comes back; the next borrow connects anew.
    ///
    /// For a changed password, a failover that was announced, a child after fork.
    pub fn reset(&self) {
        self.exchange(|old| Some(self.core_of(old.options.clone())));
    }

    /// Puts other options in force at once; the next borrow connects.
    pub fn replace(&self, options: PoolOptions) {
        self.exchange(|_| Some(self.core_of(options)));
    }

    /// Puts other options in force, another server included, once a connection there could be made.
    ///
    /// Who borrowed before is not disturbed; there may be more connections than either limit until it gives back.
    ///
    /// Cancel safety: safe; nothing has changed then.
    ///
    /// # Errors
    /// No connection could be made: nothing has changed.
    pub async fn change(&self, options: PoolOptions) -> Result<(), Error> {
        let fresh = self.core_of(options);
        let probed = self.counted(fresh.options.pool_timeout, fresh.lend()).await;
        drop(probed.map_err(|(error, _)| error)?);
        let changed = self.exchange(|_| Some(fresh));
        changed.map(drop).ok_or_else(|| Error::unavailable("change the pool", "it is closed"))
    }

    fn core_of(&self, options: PoolOptions) -> Arc<Core> {
        let watchers = Watchers { counters: self.0.counters.clone(), events: options.events.clone() };
        Arc::new(Core::new(options, watchers, &self.0.drivers))
    }

    /// The numbers of the status page.
    pub fn numbers(&self) -> Numbers {
        let Some(core) = self.core() else { return Numbers::default() };
        let (size, idle) = core.size();
        let waiting = core.waiting.load(std::sync::atomic::Ordering::Relaxed);
        Numbers { size, idle, waiting, limit: core.options.limit() }
    }

    /// What the pool did since it was made.
    pub fn statistics(&self) -> Statistics {
        self.0.counters.get()
    }

    /// Why no connection can be made; `None` while one can.
    pub fn last_error(&self) -> Option<Error> {
        self.core()?.breaker.cause()
    }

    /// Where the pool connects to; `None` once it is closed.
    pub fn target(&self) -> Option<Target> {
        self.core().map(|core| core.options.target.clone())
    }

    pub(super) fn cleanups(&self) -> &TaskTracker {
        &self.0.cleanups
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.0.counters
    }

    /// Lends nothing more, waits until every connection came back, every roll-back is done and every connection is
    /// closed, at most `within`. Returns whether all of that happened.
    ///
    /// Cancel safety: safe, and may be called again.
    pub async fn close(&self, within: Duration) -> bool {
        let old = self.exchange(|_| None);
        self.0.cleanups.close();
        self.0.drivers.close();
        let ended = async {
            if let Some(core) = old {
                core.all_back().await;
            }
            self.0.cleanups.wait().await;
            self.0.drivers.wait().await;
        };
        timeout(within, ended).await.is_ok()
    }
}

/// Counts who gave up waiting.
struct Asking<'a>(Option<&'a Counters>);

impl Asking<'_> {
    fn answered(mut self) {
        self.0 = None;
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if let Some(counters) = self.0 {
            counters.given_up.add();
        }
    }
}
