//! The pool: bb8 over bb8-postgres, with a deadline on everything and a fair queue in front.
//!
//! ```text
//!  begin --permit (FIFO)--> bb8 --ping, age--> Lease --> Guard
//! ```
//!
//! Three wounds of the parts are bound here: a connect that is accepted and never answered (bb8 would wait for
//! ever: one deadline over the whole connect and one over the ping), unfair borrowing (a first-come-first-served
//! permit in front), and connections that are alive but read-only (the ping asks).
//! Must not know: what the connections are used for.

use super::guard::Guard;
use super::{Error, connect};
use bb8::ManageConnection;
use bb8_postgres::PostgresConnectionManager;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};
use tokio_util::task::TaskTracker;

/// From the first packet to a usable connection.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// A ping that takes longer means a dead connection.
const PING_DEADLINE: Duration = Duration::from_secs(2);
/// A connection used so recently is not pinged again: a busy pool pays no round trip for it.
const FRESH: Duration = Duration::from_secs(1);

/// How a pool behaves; the words are those of `[database]`.
#[derive(Debug, Clone)]
pub struct PoolOptions {
    /// Where to connect to, from `store::connect::parse`.
    pub connect: tokio_postgres::Config,
    /// Connections kept, at least 1.
    pub pool_size: u32,
    /// Further ones under load, closed when they come back and are not needed.
    pub max_overflow: u32,
    /// Longest wait for a connection.
    pub pool_timeout: Duration,
    /// No connection is lent at a greater age.
    pub pool_recycle: Duration,
    /// Whether a connection that rested is asked before it is lent: alive, and writable.
    pub pool_pre_ping: bool,
    /// Longest statement; also bounds what trackd waits for an answer.
    pub statement_timeout: Duration,
}

impl PoolOptions {
    /// The defaults of `[database]` for one address.
    ///
    /// # Errors
    /// Class standing: the string is not understood.
    pub fn new(url: &str) -> Result<PoolOptions, Error> {
        Ok(PoolOptions {
            connect: connect::parse(url)?,
            pool_size: 5,
            max_overflow: 10,
            pool_timeout: Duration::from_secs(30),
            pool_recycle: Duration::from_secs(3600),
            pool_pre_ping: true,
            statement_timeout: Duration::from_secs(60),
        })
    }
}

/// A pool of connections. Cheap to clone; opens nothing before the first borrow.
#[derive(Debug, Clone)]
pub struct Pool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bb8: bb8::Pool<Manager>,
    permits: Arc<Semaphore>,
    waiting: AtomicU32,
    options: PoolOptions,
    last_error: Arc<LastError>,
    /// Owns the roll-backs of guards that were dropped.
    cleanups: TaskTracker,
}

/// The pool at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    /// Connections open or being opened.
    pub size: u32,
    /// Open and not borrowed.
    pub idle: u32,
    /// Tasks that wait for a connection.
    pub waiting: u32,
    /// The most connections there can be.
    pub limit: u32,
}

impl Pool {
    /// A pool that will connect when it is first used.
    pub fn new(options: PoolOptions) -> Pool {
        let limit = options.pool_size.max(1) + options.max_overflow;
        let last_error = Arc::new(LastError::default());
        let manager = Manager {
            inner: PostgresConnectionManager::new(options.connect.clone(), NoTls),
            recycle: options.pool_recycle,
            pre_ping: options.pool_pre_ping,
        };
        let bb8 = bb8::Pool::builder()
            .max_size(limit)
            .connection_timeout(options.pool_timeout.max(Duration::from_millis(1)))
            .max_lifetime(options.pool_recycle.max(Duration::from_millis(1)))
            .idle_timeout(None)
            .test_on_check_out(true)
            // The latest used first: the others grow old and are closed, so that a pool shrinks after a peak.
            .queue_strategy(bb8::QueueStrategy::Lifo)
            .error_sink(Box::new(Sink(last_error.clone())))
            .build_unchecked(manager);
        Pool(Arc::new(Inner {
            bb8,
            permits: Arc::new(Semaphore::new(limit as usize)),
            waiting: AtomicU32::new(0),
            options,
            last_error,
            cleanups: TaskTracker::new(),
        }))
    }

    /// Borrows a connection and opens a guard on it. BEGIN travels with the guard's first statement.
    ///
    /// Cancel safety: safe; a connection that was on its way goes back to the pool.
    ///
    /// # Errors
    /// Class retry after `pool_timeout`, with the last cause the server gave.
    pub async fn begin(&self) -> Result<Guard, Error> {
        Ok(Guard::new(self.borrow().await?, self.clone()))
    }

    async fn borrow(&self) -> Result<Lease, Error> {
        let inner = &*self.0;
        let timeout = inner.options.pool_timeout;
        let waiting = Waiting::new(&inner.waiting);
        let permit = tokio::time::timeout(timeout, inner.permits.clone().acquire_owned())
            .await
            .map_err(|_| Error::timeout("borrow a connection: the pool is exhausted", timeout))?
            .map_err(|_| Error::unavailable("borrow a connection", "the pool is closed"))?;
        let lent = inner.bb8.get_owned().await;
        drop(waiting);
        match lent {
            Ok(connection) => {
                inner.last_error.clear();
                Ok(Lease { connection, pool: self.clone(), _permit: permit })
            }
            Err(bb8::RunError::User(ConnectError::Failed(error))) => Err(error),
            Err(bb8::RunError::User(ConnectError::Retired) | bb8::RunError::TimedOut) => {
                let cause = inner.last_error.get().unwrap_or_else(|| format!("no connection within {timeout:?}"));
                Err(Error::unavailable("borrow a connection", cause))
            }
        }
    }

    /// The numbers of the status page.
    pub fn numbers(&self) -> Numbers {
        let state = self.0.bb8.state();
        Numbers {
            size: state.connections,
            idle: state.idle_connections,
            waiting: self.0.waiting.load(Ordering::Relaxed),
            limit: self.0.options.pool_size + self.0.options.max_overflow,
        }
    }

    /// What the server last said when no connection could be had; `None` after a success.
    pub fn last_error(&self) -> Option<String> {
        self.0.last_error.get()
    }

    pub(super) fn options(&self) -> &PoolOptions {
        &self.0.options
    }

    pub(super) fn cleanups(&self) -> &TaskTracker {
        &self.0.cleanups
    }

    /// Lends nothing more, waits until every connection came back and every roll-back is done, at most `within`.
    ///
    /// Cancel safety: safe, and may be called again. Returns whether all came back.
    pub async fn close(&self, within: Duration) -> bool {
        self.0.permits.close();
        self.0.cleanups.close();
        let limit = self.0.options.pool_size.max(1) + self.0.options.max_overflow;
        let all_back = async {
            self.0.cleanups.wait().await;
            // A closed semaphore hands out nothing, but its permits still come back to it.
            while (self.0.permits.available_permits() as u32) < limit {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(within, all_back).await.is_ok()
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
#[derive(Debug)]
pub(super) struct Lease {
    connection: bb8::PooledConnection<'static, Manager>,
    pool: Pool,
    _permit: OwnedSemaphorePermit,
}

impl Lease {
    pub(super) fn client(&self) -> &Client {
        &self.connection.client
    }

    /// The connection is closed when it comes back, whatever its state.
    pub(super) fn condemn(&mut self) {
        self.connection.condemned = true;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.connection.last_used = Instant::now();
        let numbers = self.pool.numbers();
        // Overflow ends with the load: beyond pool_size nothing rests idle.
        if numbers.waiting == 0 && numbers.idle >= self.pool.0.options.pool_size.max(1) {
            self.connection.condemned = true;
        }
    }
}

/// One connection of the pool.
#[derive(Debug)]
pub(super) struct Session {
    client: Client,
    born: Instant,
    last_used: Instant,
    condemned: bool,
}

#[derive(Debug)]
pub(super) struct Manager {
    inner: PostgresConnectionManager<NoTls>,
    recycle: Duration,
    pre_ping: bool,
}

/// Why a connection is not lent.
#[derive(Debug)]
pub(super) enum ConnectError {
    /// It reached `pool_recycle`, or the server closed it while it rested: nothing is wrong, the next one serves.
    Retired,
    /// The server did not answer as it should.
    Failed(Error),
}

impl ManageConnection for Manager {
    type Connection = Session;
    type Error = ConnectError;

    async fn connect(&self) -> Result<Session, ConnectError> {
        let connecting = tokio::time::timeout(CONNECT_DEADLINE, self.inner.connect());
        let client = connecting
            .await
            .map_err(|_| ConnectError::Failed(Error::timeout("connect to the database", CONNECT_DEADLINE)))?
            .map_err(|error| ConnectError::Failed(Error::driver("connect to the database", error)))?;
        let now = Instant::now();
        Ok(Session { client, born: now, last_used: now, condemned: false })
    }

    async fn is_valid(&self, session: &mut Session) -> Result<(), ConnectError> {
        if session.born.elapsed() > self.recycle || session.client.is_closed() {
            return Err(ConnectError::Retired);
        }
        if !self.pre_ping || session.last_used.elapsed() < FRESH {
            return Ok(());
        }
        let ping = tokio::time::timeout(PING_DEADLINE, session.client.simple_query("SHOW transaction_read_only")).await;
        let answer = match ping {
            Ok(answer) => answer.map_err(|error| ConnectError::Failed(Error::driver("ping", error))),
            Err(_) => Err(ConnectError::Failed(Error::timeout("ping", PING_DEADLINE))),
        };
        match answer {
            Ok(rows) if rows.iter().any(is_on) => {
                session.condemned = true;
                Err(ConnectError::Failed(Error::unavailable("ping", "the server is a read-only standby")))
            }
            Ok(_) => Ok(()),
            Err(error) => {
                session.condemned = true;
                Err(error)
            }
        }
    }

    fn has_broken(&self, session: &mut Session) -> bool {
        session.condemned || session.client.is_closed()
    }
}

fn is_on(message: &SimpleQueryMessage) -> bool {
    matches!(message, SimpleQueryMessage::Row(row) if row.get(0) == Some("on"))
}

/// bb8 tells the cause of a failed connect only to its sink.
#[derive(Debug, Default)]
struct LastError(Mutex<Option<String>>);

impl LastError {
    fn set(&self, text: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }

    fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[derive(Debug, Clone)]
struct Sink(Arc<LastError>);

impl bb8::ErrorSink<ConnectError> for Sink {
    fn sink(&self, error: ConnectError) {
        let ConnectError::Failed(error) = error else { return };
        let text = error.to_string();
        if self.0.get().as_deref() != Some(text.as_str()) {
            // Each new cause once: bb8 tries again several times a second while the server is away.
            tracing::warn!(target: "trackd::store", error = %text, "connection failed");
        }
        self.0.set(text);
    }

    fn boxed_clone(&self) -> Box<dyn bb8::ErrorSink<ConnectError>> {
        Box::new(self.clone())
    }
}
