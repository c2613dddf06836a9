//! One connection of a pool, from its making to its end, and the manager that bb8 asks for it.
//!
//! Wounds of the parts that are bound here: bb8-postgres lets nobody own the task that drives a connection, and drops
//! its errors and notices; a connect that is never answered, and a ping that is not, would be waited for without end;
//! a connection may be alive and yet of no use, because its server became a standby.
//! Must not know: who borrows, and what for.

use super::breaker::{Breaker, Connecting};
use super::events::{End, Events, Seen};
use super::options::PoolOptions;
use super::statistics::Counters;
use crate::log::Event;
use crate::store::Error;
use crate::store::connect::{Link, Opened};
use bb8::ManageConnection;
use bb8_postgres::PostgresConnectionManager;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tokio_postgres::{AsyncMessage, Client, NoTls, SimpleQueryMessage};
use tokio_util::task::TaskTracker;

/// Numbers of connections, in this process.
static NUMBER: AtomicU64 = AtomicU64::new(1);

/// A connect that takes longer may never be answered, though others would be.
const LATE: Duration = Duration::from_millis(500);
/// A connection lent for the first time so soon was made for this borrower.
const JUST_MADE: Duration = Duration::from_secs(1);

/// One connection.
pub(in crate::store) struct Session {
    pub(super) client: Client,
    driver: AbortHandle,
    number: u64,
    place: String,
    born: Instant,
    /// No older than this.
    recycle: Duration,
    pub(super) last_used: Instant,
    /// Until it is lent first.
    connecting: Option<Connecting>,
    /// Not to be lent again, and why.
    pub(super) ends: Option<End>,
    watchers: Watchers,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("number", &self.number).field("place", &self.place).finish_non_exhaustive()
    }
}

/// Who is told what becomes of connections.
#[derive(Clone)]
pub(super) struct Watchers {
    pub counters: Arc<Counters>,
    pub events: Option<Arc<dyn Events>>,
}

impl Watchers {
    /// A listener that panics is told of in the log, and harms nobody: it is called where connections are counted.
    pub(super) fn tell(&self, event: impl FnOnce(&dyn Events)) {
        if let Some(events) = &self.events
            && catch_unwind(AssertUnwindSafe(|| event(&**events))).is_err()
        {
            tracing::error!(target: "trackd::store", "a listener of the pool panicked");
        }
    }
}

impl Session {
    pub(super) fn seen(&self) -> Seen<'_> {
        Seen { number: self.number, place: &self.place }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let why = self.ends.unwrap_or_else(|| match self.client.is_closed() {
            true => End::Broken,
            // No reason given: bb8 closed it while it rested, for its age or with its pool.
            false if self.born.elapsed() >= self.recycle => End::Recycled,
            false => End::Reset,
        });
        if why == End::Broken || why == End::Invalid {
            // Its server may still be at work for it: the end of the socket is what tells it to stop.
            self.driver.abort();
        }
        self.watchers.counters.ended(why);
        self.watchers.tell(|events| events.closed(self.seen(), why));
    }
}

/// Makes and checks connections for bb8.
pub(super) struct Manager {
    options: PoolOptions,
    breaker: Arc<Breaker>,
    watchers: Watchers,
    /// Owns the tasks that drive connections.
    drivers: TaskTracker,
    /// Connections made before are not trusted without a new one: a ping was not answered.
    suspect: AtomicU64,
    /// The one late connect that finds out whether others are answered.
    scout: tokio::sync::Mutex<()>,
    /// bb8-postgres, which asks and judges a connection.
    judge: PostgresConnectionManager<NoTls>,
}

/// A connection is not lent; who needs to know why was told.
#[derive(Debug)]
pub(super) struct Unfit;

impl Manager {
    pub(super) fn new(
        mut options: PoolOptions,
        breaker: Arc<Breaker>,
        watchers: Watchers,
        drivers: TaskTracker,
    ) -> Manager {
        if options.needs_write {
            options.target = options.target.for_writing();
        }
        let judge = PostgresConnectionManager::new(tokio_postgres::Config::new(), NoTls);
        Manager {
            options,
            breaker,
            watchers,
            drivers,
            suspect: AtomicU64::new(0),
            scout: tokio::sync::Mutex::default(),
            judge,
        }
    }

    /// Opens a connection, and does not stand or fall with one that is never answered.
    ///
    /// Those that wait for an answer hold all of bb8's places, so that no other is tried when the server is well again.
    /// Of those that are late one at a time tries anew beside its own; once that is answered, it is the next one's turn.
    ///
    /// Cancel safety: safe; what is half open is closed.
    async fn open_in_time(&self) -> Result<Session, Error> {
        let mut first = pin!(self.open());
        if let Ok(opened) = timeout(LATE, first.as_mut()).await {
            return opened;
        }
        let anew = async {
            let _turn = self.scout.lock().await;
            loop {
                if let Some(session) = self.open_beside().await {
                    return session;
                }
            }
        };
        tokio::select! {
            opened = first => opened,
            session = anew => Ok(session),
        }
    }

    /// Another try, which ends within `LATE`, and not sooner when it fails. Why it fails is the first one's to tell.
    async fn open_beside(&self) -> Option<Session> {
        let pace = sleep(LATE);
        match timeout(LATE, self.open()).await {
            Ok(Ok(session)) => Some(session),
            _ => {
                pace.await;
                None
            }
        }
    }

    async fn open(&self) -> Result<Session, Error> {
        let started = Instant::now();
        let Opened { client, link, place } = self.options.target.open().await?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let driver = self.drivers.spawn(drive(link, number, place.clone())).abort_handle();
        let session = Session {
            client,
            driver,
            number,
            place,
            born: Instant::now(),
            recycle: life(self.options.pool_recycle, fastrand::f64()),
            last_used: Instant::now(),
            connecting: None,
            ends: None,
            watchers: self.watchers.clone(),
        };
        let took = started.elapsed();
        self.watchers.counters.connected.add();
        self.watchers.counters.connect.add(took);
        self.watchers.tell(|events| events.connected(session.seen(), took));
        Ok(session)
    }

    /// Asks the server, within `ping_timeout`.
    async fn ping(&self, client: &mut Client) -> Result<(), Error> {
        let asking = async {
            if !self.options.needs_write {
                return self.judge.is_valid(client).await.map(|()| true);
            }
            let answer = client.simple_query("SHOW transaction_read_only").await?;
            Ok(!answer.iter().any(is_on))
        };
        match timeout(self.options.ping_timeout, asking).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => {
                tracing::warn!(target: "trackd::store", event = %Event::StandbyMet, "a server takes no writes any more: it is a standby");
                Err(Error::standby("ping"))
            }
            Ok(Err(error)) => Err(Error::driver("ping", error)),
            Err(_) => {
                // What swallowed this answer will swallow the others': one wait is enough.
                self.suspect.store(NUMBER.load(Ordering::Relaxed), Ordering::Relaxed);
                Err(Error::timeout("ping", self.options.ping_timeout))
            }
        }
    }

    /// Why a connection that rested must not be lent, as far as can be told without asking the server.
    fn past(&self, session: &Session) -> Option<End> {
        if session.client.is_closed() {
            return Some(End::Broken);
        }
        let suspect = session.number < self.suspect.load(Ordering::Relaxed);
        // Made for who asks now, however short its life: or none would ever be lent.
        let just_made = session.connecting.is_some() && session.born.elapsed() < JUST_MADE;
        let old = session.born.elapsed() >= session.recycle && !just_made;
        suspect.then_some(End::Invalid).or(old.then_some(End::Recycled))
    }
}

impl ManageConnection for Manager {
    type Connection = Session;
    type Error = Unfit;

    async fn connect(&self) -> Result<Session, Unfit> {
        if self.breaker.is_pausing(Instant::now()) {
            // There are others to wait for, or nobody would have been admitted: a server with too many connections
            // must not be asked by every borrower that meets none at rest.
            return Err(Unfit);
        }
        let connecting = self.breaker.connecting();
        match self.open_in_time().await {
            Ok(mut session) => {
                self.breaker.connected();
                session.connecting = Some(connecting);
                Ok(session)
            }
            Err(error) => {
                self.watchers.counters.connect_failed.add();
                self.watchers.tell(|events| events.failed(&error));
                let known = self.breaker.cause().is_some_and(|cause| cause.to_string() == error.to_string());
                if !known {
                    // Each new cause once: it is tried again several times a second.
                    let event = error.is_standby().then(|| tracing::field::display(Event::StandbyMet));
                    tracing::warn!(target: "trackd::store", error = %error, hint = error.hint(), event, "connection failed");
                }
                self.breaker.failed(connecting, error, Instant::now(), fastrand::f64());
                Err(Unfit)
            }
        }
    }

    async fn is_valid(&self, session: &mut Session) -> Result<(), Unfit> {
        let past = self.past(session);
        session.connecting = None;
        if past.is_some() {
            session.ends = past;
            return Err(Unfit);
        }
        if !self.options.pool_pre_ping || session.last_used.elapsed() < self.options.ping_after {
            return Ok(());
        }
        // Cancelled in the middle, the answer is still to come: such a connection is not lent again.
        session.ends = Some(End::Invalid);
        match self.ping(&mut session.client).await {
            Ok(()) => {
                session.ends = None;
                Ok(())
            }
            Err(error) => {
                tracing::info!(target: "trackd::store", connection = session.number, place = session.place, error = %error, "connection not lent");
                Err(Unfit)
            }
        }
    }

    fn has_broken(&self, session: &mut Session) -> bool {
        session.ends.is_some() || self.judge.has_broken(&mut session.client)
    }
}

/// Up to a tenth less than the longest: connections made together must not end together. `chance` is in 0..1.
fn life(longest: Duration, chance: f64) -> Duration {
    longest.saturating_sub(longest.mul_f64(chance / 10.0))
}

fn is_on(message: &SimpleQueryMessage) -> bool {
    matches!(message, SimpleQueryMessage::Row(row) if row.get(0) == Some("on"))
}

/// Reads and writes a connection's socket until either side ends it; tells what the server says unasked.
async fn drive(mut link: Link, number: u64, place: String) {
    while let Some(message) = poll_fn(|cx| link.poll_message(cx)).await {
        match message {
            Ok(AsyncMessage::Notice(notice)) if notice.severity() == "WARNING" => {
                tracing::warn!(target: "trackd::store", connection = number, place, "{}", notice.message());
            }
            Ok(AsyncMessage::Notice(notice)) => {
                tracing::debug!(target: "trackd::store", connection = number, place, "{}", notice.message());
            }
            Ok(_) => {}
            Err(error) => {
                let error = Error::driver("connection lost", error);
                tracing::info!(target: "trackd::store", connection = number, place, "{error}");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_are_spread_over_their_last_tenth() {
        let longest = Duration::from_secs(100);
        assert_eq!([0.0, 0.5, 1.0].map(|chance| life(longest, chance).as_secs()), [100, 95, 90]);
        assert!(life(Duration::MAX, 1.0) > longest);
    }
}
