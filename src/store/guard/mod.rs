//! The guard: one transaction, rolled back unless committed, whatever happens to the task that holds it.
//!
//! ```text
//!            defer, flush, copy_in, query
//!                 |            \ a statement failed
//!  begin --> Open +------------> Failed --+
//!               \ commit                  | commit: refused
//!                +--> Receipt             |
//!   dropped, cancelled, panicked, failed: cancel what runs, ROLLBACK, then the connection goes back
//! ```
//!
//! Statements are deferred and sent together: a small run is one flight of BEGIN, its statements and COMMIT.
//! Must not know: what the statements are for.

mod copy;
mod cursor;
mod flight;
mod statement;

pub use copy::{CopyIn, CopyOut};
pub use cursor::Cursor;
pub use statement::{Statement, Wire};

use super::Error;
use super::pool::{Lease, Pool};
use super::transaction::TransactionOptions;
use flight::{Commit, Failed, Flight, Landed, fly};
use std::time::{Duration, Instant};
use tokio_postgres::Row;

/// What trackd waits beyond the server's own statement timeout before it calls a connection dead.
const GRACE: Duration = Duration::from_secs(5);
/// A roll-back that takes longer closes its connection instead.
const ROLLBACK_DEADLINE: Duration = Duration::from_secs(5);

/// Proof that a guard committed. Nothing else makes one.
#[derive(Debug)]
#[must_use = "a receipt is the only proof that the transaction landed"]
pub struct Receipt {
    touched: Vec<u64>,
}

impl Receipt {
    /// The rows that each statement touched which travelled with COMMIT, in order.
    pub fn touched(&self) -> &[u64] {
        &self.touched
    }
}

/// An open transaction. Dropped without `commit`, it is rolled back.
#[derive(Debug)]
pub struct Guard {
    /// Taken by commit and drop only.
    lease: Option<Lease>,
    pool: Pool,
    deferred: Vec<Statement>,
    state: State,
    /// An await is in progress since then: if the guard is dropped now, a statement may be running in the server.
    busy: Option<Instant>,
    options: TransactionOptions,
    /// A statement met a serialization failure or a deadlock.
    conflict: bool,
    savepoints: u32,
    cursors: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// BEGIN has not been sent.
    Fresh,
    Open,
    /// A statement failed: only a roll-back is possible.
    Failed,
    /// COMMIT was sent and not answered: nobody here knows whether it landed.
    Unknown,
    /// Committed, or rolled back by the server: nothing is open there.
    Over,
}

impl Guard {
    pub(super) fn new(lease: Lease, pool: Pool, options: TransactionOptions) -> Guard {
        Guard {
            lease: Some(lease),
            pool,
            deferred: Vec::new(),
            state: State::Fresh,
            busy: None,
            options,
            conflict: false,
            savepoints: 0,
            cursors: 0,
        }
    }

    /// Adds a statement to the next flight. Nothing is sent yet.
    pub fn defer(&mut self, statement: Statement) {
        self.deferred.push(statement);
    }

    /// Sends what was deferred, in one flight. Returns the rows each statement touched, in order.
    ///
    /// Cancel safety: dropping the future leaves the guard failed; it can only be rolled back.
    ///
    /// # Errors
    /// The first statement's error; the guard can then only be dropped (or rolled back to a savepoint).
    pub async fn flush(&mut self) -> Result<Vec<u64>, Error> {
        if self.deferred.is_empty() && self.state == State::Open {
            return Ok(Vec::new());
        }
        Ok(self.flight(None, false).await?.touched)
    }

    /// Runs one statement now, in one flight with what was deferred, and returns its rows.
    ///
    /// Cancel safety: as `flush`.
    ///
    /// # Errors
    /// As `flush`.
    pub async fn query(&mut self, statement: Statement) -> Result<Vec<Row>, Error> {
        Ok(self.flight(Some(statement), false).await?.rows)
    }

    /// Runs SQL text of several statements (savepoints, DDL), after what was deferred.
    ///
    /// Only its first statement is looked at: that no other one ends the transaction is the caller's to see to.
    ///
    /// Cancel safety: as `flush`.
    ///
    /// # Errors
    /// As `flush`.
    pub async fn batch(&mut self, operation: &'static str, sql: &str) -> Result<(), Error> {
        self.allow(sql)?;
        self.run(operation, sql).await
    }

    async fn run(&mut self, operation: &'static str, sql: &str) -> Result<(), Error> {
        self.flush().await?;
        let limit = self.limit();
        let lease = self.enter(operation)?;
        let answer = tokio::time::timeout(limit, lease.client().batch_execute(sql)).await;
        self.leave(sql, flatten_timeout(operation, limit, answer))
    }

    /// Runs `work` as a part that can fail by itself: on `Err` it is undone, and the guard goes on.
    ///
    /// Cancel safety: dropping the future leaves the guard failed; it can only be rolled back.
    ///
    /// # Errors
    /// What `work` returned, or the connection broke.
    pub async fn savepoint<T, E, F>(&mut self, work: F) -> Result<T, E>
    where
        E: From<Error>,
        F: AsyncFnOnce(&mut Guard) -> Result<T, E>,
    {
        self.savepoints += 1;
        let name = format!("trackd_{}", self.savepoints);
        self.run("set a savepoint", &format!("SAVEPOINT {name}")).await?;
        let mut part = Part { guard: self, ended: false };
        let done = match work(part.guard).await {
            Ok(value) => part.guard.flush().await.map(|_| value).map_err(E::from),
            failed => failed,
        };
        let done = match done {
            Ok(value) => {
                let released = part.guard.run("release a savepoint", &format!("RELEASE SAVEPOINT {name}")).await;
                released.map(|()| value).map_err(E::from)
            }
            Err(error) => {
                // What `work` says goes before what undoing it may say; that shows with the next statement.
                let _ = part.guard.rollback_to(&name).await;
                Err(error)
            }
        };
        part.ended = true;
        done
    }

    /// Forgets the error of a statement by rolling back to a savepoint that was set before it.
    ///
    /// Cancel safety: as `flush`.
    ///
    /// # Errors
    /// The savepoint is not there, or the connection broke.
    pub async fn rollback_to(&mut self, savepoint: &str) -> Result<(), Error> {
        if self.state == State::Failed {
            self.state = State::Open;
        }
        self.deferred.clear();
        self.run("roll back to a savepoint", &format!("ROLLBACK TO SAVEPOINT {savepoint}")).await
    }

    /// Commits: what was deferred and COMMIT travel in one flight.
    ///
    /// Cancel safety: if the future is dropped after COMMIT was sent, the outcome is unknown, as with a lost answer.
    ///
    /// # Errors
    /// Rolled back, or `is_unknown_commit` when the connection was lost after COMMIT was sent, unless it may only read.
    pub async fn commit(mut self) -> Result<Receipt, Error> {
        if self.deferred.is_empty() {
            // In an aborted transaction this fails, where COMMIT would say "ok" after a roll-back.
            self.deferred.push(Statement::new("SELECT 1"));
        }
        let Landed { touched, .. } = self.end(None).await?;
        Ok(Receipt { touched })
    }

    /// As `commit`, with a last statement before COMMIT whose rows are wanted: of types of the server's own.
    ///
    /// Cancel safety: as `commit`.
    ///
    /// # Errors
    /// As `commit`.
    pub async fn commit_with(mut self, statement: Statement) -> Result<(Vec<Row>, Receipt), Error> {
        let Landed { touched, rows } = self.end(Some(statement)).await?;
        Ok((rows, Receipt { touched }))
    }

    async fn end(&mut self, question: Option<Statement>) -> Result<Landed, Error> {
        let landed = self.flight(question, true).await?;
        self.state = State::Over;
        self.pool.counters().committed.add();
        Ok(landed)
    }

    /// Rolls back now, and waits for it; dropping the guard does the same without waiting.
    ///
    /// Cancel safety: safe; the roll-back goes on.
    pub async fn rollback(mut self) {
        if let Some(cleanup) = self.cleanup() {
            // A task of its own, owned by the pool: dropped here, it still ends.
            let _ = tokio::spawn(self.pool.cleanups().track_future(cleanup)).await;
        }
    }

    /// Whether a statement met a serialization failure or a deadlock: the same transaction may pass when it is begun
    /// anew.
    pub fn met_conflict(&self) -> bool {
        self.conflict
    }

    async fn flight(&mut self, question: Option<Statement>, commit: bool) -> Result<Landed, Error> {
        let statements = std::mem::take(&mut self.deferred);
        for statement in statements.iter().chain(&question) {
            self.allow(&statement.sql)?;
        }
        let begin = (self.state == State::Fresh).then(|| self.options.begin(self.statement_timeout()));
        let limit = self.limit();
        // Sent at the first poll: whenever this future is dropped, COMMIT may be on its way.
        let commit = commit.then_some(if self.options.read_only { Commit::Reads } else { Commit::Writes });
        let unsure = commit == Some(Commit::Writes);
        let lease = self.enter_as(if unsure { State::Unknown } else { State::Open }, "statement")?;
        let flight = Flight { begin: begin.as_deref(), statements: &statements, question: question.as_ref(), commit };
        let flown = tokio::time::timeout(limit, fly(lease.client(), flight)).await;
        let (answer, over) = match flown {
            Ok(Ok(landed)) => (Ok(landed), false),
            Ok(Err(Failed { error, over })) => (Err(error), over),
            Err(_) if unsure => (Err(Error::unknown_commit(Error::timeout("commit", limit))), false),
            Err(_) => (Err(Error::timeout("statement", limit)), false),
        };
        let shown = question.as_ref().or(statements.first()).map_or("BEGIN", |statement| &statement.sql);
        let left = self.leave(shown, answer);
        if over && self.busy.is_none() {
            self.state = State::Over;
            self.pool.counters().rolled_back.add();
        }
        left
    }

    /// Refuses what would end the transaction behind the guard's back: what follows it would land by itself.
    fn allow(&mut self, sql: &str) -> Result<(), Error> {
        let Some((what, hint)) = statement::forbidden(sql) else { return Ok(()) };
        self.state = State::Failed;
        let shown: String = sql.chars().take(40).collect();
        Err(Error::refused("statement", format!("{shown:?} {what}"), Some(hint.to_owned())))
    }

    fn statement_timeout(&self) -> Duration {
        let pool = self.lease.as_ref().map_or(Duration::ZERO, |lease| lease.options().statement_timeout);
        self.options.statement_timeout.unwrap_or(pool)
    }

    /// What one await may take at most.
    fn limit(&self) -> Duration {
        self.statement_timeout().saturating_add(GRACE)
    }

    /// Marks the guard busy and open before an await; `leave` takes it back after.
    fn enter(&mut self, operation: &'static str) -> Result<&Lease, Error> {
        self.enter_as(State::Open, operation)
    }

    fn enter_as(&mut self, state: State, operation: &'static str) -> Result<&Lease, Error> {
        // Still busy: the future of an earlier statement was dropped, and nobody knows how far it came.
        if self.busy.is_some() || !matches!(self.state, State::Fresh | State::Open) {
            self.state = State::Failed;
            return Err(Error::aborted(operation));
        }
        self.state = state;
        self.busy = Some(Instant::now());
        self.lease.as_ref().ok_or_else(|| Error::aborted(operation))
    }

    fn leave<T>(&mut self, sql: &str, answer: Result<T, Error>) -> Result<T, Error> {
        self.tell(sql, answer.as_ref().err());
        // An own timeout means that the statement may still run: it stays "busy", so that the drop cancels it.
        if !answer.as_ref().is_err_and(Error::is_away) {
            self.busy = None;
        }
        if let Err(error) = &answer {
            self.state = if error.is_unknown_commit() { State::Unknown } else { State::Failed };
            self.conflict |= error.is_conflict();
        }
        answer
    }

    /// The server still sends what nobody waits for.
    fn interrupted(&mut self) {
        self.state = State::Failed;
        self.busy = Some(Instant::now());
    }

    /// Statements and their times, in the log. Never values.
    fn tell(&self, sql: &str, failed: Option<&Error>) {
        let (Some(since), Some(lease)) = (self.busy, &self.lease) else { return };
        let took = since.elapsed();
        if took >= lease.options().slow_statement {
            let ms = took.as_millis() as u64;
            tracing::warn!(target: "trackd::store", ms, connection = lease.number(), sql, "slow statement");
        } else if tracing::enabled!(target: "trackd::store", tracing::Level::DEBUG) {
            // The code alone: what the server says of a refused row quotes its values.
            let (us, sqlstate) = (took.as_micros() as u64, failed.and_then(Error::sqlstate));
            tracing::debug!(target: "trackd::store", us, connection = lease.number(), sql, sqlstate, "statement");
        }
    }

    /// The roll-back, if there is anything to roll back. Takes the connection out of the guard.
    fn cleanup(&mut self) -> Option<impl Future<Output = ()> + Send + 'static> {
        let mut lease = self.lease.take()?;
        if matches!(self.state, State::Fresh | State::Over) && self.busy.is_none() {
            return None;
        }
        match self.state {
            State::Unknown => self.pool.counters().unknown.add(),
            _ => self.pool.counters().rolled_back.add(),
        }
        let busy = self.busy.is_some();
        // Until it is known to be clean: a runtime that ends drops the roll-back at any await, or takes none.
        lease.condemn();
        if tokio::runtime::Handle::try_current().is_err() {
            return None;
        }
        Some(async move {
            let rolled_back = tokio::time::timeout(ROLLBACK_DEADLINE, roll_back(&lease, busy)).await;
            // The driver does not wait until the server took the cancel: a late one would hit the next borrower's
            // statement, so a connection that was cancelled is not lent again.
            if !busy && rolled_back == Ok(true) {
                lease.spare();
            }
        })
    }
}

/// A part of a guard's work, under way. Dropped before its end, half of it is done: that must not be committed.
struct Part<'a> {
    guard: &'a mut Guard,
    ended: bool,
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.guard.state = State::Failed;
        }
    }
}

fn flatten_timeout<T>(
    operation: &'static str,
    limit: Duration,
    answer: Result<Result<T, tokio_postgres::Error>, tokio::time::error::Elapsed>,
) -> Result<T, Error> {
    match answer {
        Ok(answer) => answer.map_err(|error| Error::driver(operation, error)),
        Err(_) => Err(Error::timeout(operation, limit)),
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(cleanup) = self.cleanup() {
            // Owned by the pool, which waits for it when it closes; the connection goes back only after it.
            tokio::spawn(self.pool.cleanups().track_future(cleanup));
        }
    }
}

/// Cancels what runs, then rolls back: when the answer is there, nothing of the guard is left in the server.
async fn roll_back(lease: &Lease, busy: bool) -> bool {
    let client = lease.client();
    if busy && !lease.options().target.cancel(&client.cancel_token()).await {
        return false;
    }
    client.batch_execute("ROLLBACK").await.is_ok()
}
