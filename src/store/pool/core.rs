//! The pool of one configuration: bb8, a fair queue in front of it, and the breaker.
//!
//! ```text
//!  lend --breaker: can anything be had?--> permit (first come, first served) --> bb8 --age, ping--> Lease
//! ```
//!
//! bb8 keeps the connections. It does not serve in order, and it tells a borrower nothing of a connect that failed:
//! both are done here. Must not know: that another configuration may take its place.

use super::breaker::{Breaker, Probe};
use super::events::End;
use super::options::PoolOptions;
use super::session::{Manager, Watchers};
use crate::store::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The connections of one configuration.
pub(super) struct Core {
    bb8: bb8::Pool<Manager>,
    permits: Arc<Semaphore>,
    pub(super) breaker: Arc<Breaker>,
    pub(super) waiting: AtomicU32,
    pub(super) options: PoolOptions,
    watchers: Watchers,
    /// Another configuration is in force: what comes back is closed, who waits is sent there.
    retired: CancellationToken,
}

/// Why nothing was lent.
#[derive(Debug)]
pub(super) enum Refusal {
    /// No connection can be made: told at once, without a try of its own.
    Open(Error, Duration),
    /// Its own try failed.
    Failed(Error),
    /// This configuration is not in force any more.
    Retired,
}

impl Core {
    pub(super) fn new(options: PoolOptions, watchers: Watchers, drivers: &TaskTracker) -> Core {
        let breaker = Arc::new(Breaker::new());
        let manager = Manager::new(options.clone(), breaker.clone(), watchers.clone(), drivers.clone());
        let bb8 = bb8::Pool::builder()
            .max_size(options.limit())
            // The wait is bounded by who waits.
            .connection_timeout(Duration::from_secs(24 * 3600))
            // A failed connect is told, and the next one who asks tries again.
            .retry_connection(false)
            // Its age is judged when it is lent; this closes those that rest.
            .max_lifetime(options.pool_recycle.max(Duration::from_millis(1)))
            .idle_timeout(None)
            .test_on_check_out(true)
            // The latest used first: the others grow old and are closed, so that a pool shrinks after a peak.
            .queue_strategy(bb8::QueueStrategy::Lifo)
            .build_unchecked(manager);
        let permits = Arc::new(Semaphore::new(options.limit() as usize));
        Core { bb8, permits, breaker, waiting: AtomicU32::new(0), options, watchers, retired: CancellationToken::new() }
    }

    /// Lends a connection, in the order of asking.
    ///
    /// Cancel safety: safe; a connection that was on its way goes to the next one.
    pub(super) async fn lend(self: &Arc<Core>) -> Result<Lease, Refusal> {
        let asked = Instant::now();
        let _waiting = Waiting::new(&self.waiting);
        // Before the queue: a dead database must not be queued for.
        drop(self.admit()?);
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| Refusal::Retired)?;
        let mut failures = self.breaker.subscribe();
        let _probe = self.admit()?;
        let session = loop {
            let mut session = tokio::select! {
                biased;
                // Its connect may hang, or its server be gone: that is nothing to wait for any more.
                () = self.retired.cancelled() => return Err(Refusal::Retired),
                lent = self.bb8.get_owned() => lent.map_err(|_| Refusal::Failed(self.cause()))?,
                error = self.nothing_left(&mut failures) => return Err(Refusal::Failed(error)),
            };
            if !self.is_too_many(1) {
                break session;
            }
            // More rest than are kept: several came back at once, or who had asked for them gave up.
            session.ends = Some(End::Overflow);
        };
        let waited = asked.elapsed();
        self.watchers.counters.wait.add(waited);
        self.watchers.tell(|events| events.borrowed(session.seen(), waited));
        Ok(Lease { session, core: self.clone(), since: Instant::now(), _permit: permit })
    }

    /// Goes on if a connection may be made, or if there are some to wait for.
    fn admit(&self) -> Result<Option<Probe<'_>>, Refusal> {
        match self.breaker.admit(Instant::now()) {
            Err(_) if self.may_come() => Ok(None),
            admitted => admitted.map_err(|(error, left)| Refusal::Open(error, left)),
        }
    }

    /// Waits for a failed connect that leaves nothing to wait for. With connections left, one of them will come back.
    async fn nothing_left(&self, failures: &mut watch::Receiver<Option<Error>>) -> Error {
        loop {
            if failures.changed().await.is_err() {
                return self.cause();
            }
            let failed = failures.borrow_and_update().clone();
            if let Some(error) = failed
                && !self.may_come()
            {
                return error;
            }
        }
    }

    /// Whether there are connections that may come back, or that others are about to make.
    fn may_come(&self) -> bool {
        self.bb8.state().connections > 0 || self.breaker.is_connecting()
    }

    fn cause(&self) -> Error {
        self.breaker.cause().unwrap_or_else(|| Error::unavailable("borrow a connection", "none could be made"))
    }

    /// Whether as many rest as are kept, and nobody but `asking` would take one.
    fn is_too_many(&self, asking: u32) -> bool {
        self.waiting.load(Ordering::Relaxed) <= asking && self.size().1 >= self.options.kept()
    }

    /// Connections open, and those that rest.
    pub(super) fn size(&self) -> (u32, u32) {
        let state = self.bb8.state();
        (state.connections, state.idle_connections)
    }

    /// Lends nothing more. Who waits is told so; what is lent is closed when it comes back.
    pub(super) fn retire(&self) {
        self.retired.cancel();
        self.permits.close();
    }

    /// Waits until all that was lent has come back.
    pub(super) async fn all_back(&self) {
        // A closed semaphore hands out nothing, but its permits still come back to it.
        while self.permits.available_permits() < self.options.limit() as usize {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Counts a waiter as long as it waits, also when it is cancelled.
struct Waiting<'a>(&'a AtomicU32);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicU32) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A borrowed connection and its place in the queue.
pub(in crate::store) struct Lease {
    session: bb8::PooledConnection<'static, Manager>,
    core: Arc<Core>,
    since: Instant,
    _permit: OwnedSemaphorePermit,
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.session.fmt(f)
    }
}

impl Lease {
    pub(in crate::store) fn client(&self) -> &Client {
        &self.session.client
    }

    /// The connection's number, for logs.
    pub(in crate::store) fn number(&self) -> u64 {
        self.session.seen().number
    }

    /// How the pool it came from behaves.
    pub(in crate::store) fn options(&self) -> &PoolOptions {
        &self.core.options
    }

    /// The connection is closed when it comes back, whatever its state.
    pub(in crate::store) fn condemn(&mut self) {
        self.session.ends = Some(End::Broken);
    }

    /// It may be lent again after all.
    pub(in crate::store) fn spare(&mut self) {
        self.session.ends = None;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let held = self.since.elapsed();
        self.session.last_used = Instant::now();
        self.core.watchers.counters.returned.add();
        self.core.watchers.counters.hold.add(held);
        self.core.watchers.tell(|events| events.returned(self.session.seen(), held));
        if self.session.ends.is_some() {
            return;
        }
        if self.core.retired.is_cancelled() {
            self.session.ends = Some(End::Reset);
        } else if self.session.client.is_closed() {
            self.session.ends = Some(End::Broken);
        } else if self.core.is_too_many(0) {
            // Overflow ends with the load.
            self.session.ends = Some(End::Overflow);
        }
    }
}
