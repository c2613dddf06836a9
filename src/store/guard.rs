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
//! That is safe because the last statement before COMMIT must itself succeed, and nothing succeeds in a
//! transaction that an earlier error aborted; COMMIT alone would say "ok" and mean "rolled back".
//! Must not know: what the statements are for.

use super::pool::{Lease, Pool};
use super::{Error, error};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::SinkExt;
use futures_util::future::BoxFuture;
use std::borrow::Cow;
use std::fmt;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, NoTls, Row};

/// What trackd waits beyond the server's own statement timeout before it calls a connection dead.
const GRACE: Duration = Duration::from_secs(5);
/// A roll-back that takes longer closes its connection instead.
const ROLLBACK_DEADLINE: Duration = Duration::from_secs(5);

/// One statement with its parameters, sent unnamed in one round trip: nothing stays on the connection.
#[derive(Debug)]
pub struct Statement {
    sql: Cow<'static, str>,
    params: Vec<(Box<dyn ToSql + Sync + Send>, Type)>,
}

impl Statement {
    /// A statement without parameters.
    pub fn new(sql: impl Into<Cow<'static, str>>) -> Statement {
        Statement { sql: sql.into(), params: Vec::new() }
    }

    /// Adds the next parameter, `$1` first.
    pub fn bind(mut self, value: impl ToSql + Sync + Send + 'static, ty: Type) -> Statement {
        self.params.push((Box::new(value), ty));
        self
    }

    fn params(&self) -> Vec<(&(dyn ToSql + Sync), Type)> {
        self.params.iter().map(|(value, ty)| (&**value as &(dyn ToSql + Sync), ty.clone())).collect()
    }
}

/// A parameter that is already in PostgreSQL's binary form.
#[derive(Debug, Clone)]
pub struct Wire(pub Bytes);

impl ToSql for Wire {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.put_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// Proof that a guard committed. Nothing else makes one.
#[derive(Debug)]
#[must_use = "a receipt is the only proof that the transaction landed"]
pub struct Receipt(());

/// An open transaction. Dropped without `commit`, it is rolled back.
#[derive(Debug)]
pub struct Guard {
    /// Taken by commit and drop only.
    lease: Option<Lease>,
    pool: Pool,
    deferred: Vec<Statement>,
    state: State,
    /// An await is in progress: if the guard is dropped now, a statement may be running in the server.
    busy: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// BEGIN has not been sent.
    Fresh,
    Open,
    /// A statement failed: only a roll-back is possible.
    Failed,
    /// Committed.
    Done,
}

impl Guard {
    pub(super) fn new(lease: Lease, pool: Pool) -> Guard {
        Guard { lease: Some(lease), pool, deferred: Vec::new(), state: State::Fresh, busy: false }
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
        self.flight(false).await
    }

    /// Runs one statement now (after what was deferred) and returns its rows.
    ///
    /// # Errors
    /// As `flush`.
    pub async fn query(&mut self, statement: Statement) -> Result<Vec<Row>, Error> {
        self.flush().await?;
        let limit = self.limit();
        let lease = self.enter("query")?;
        let answer = tokio::time::timeout(limit, lease.client().query_typed(&statement.sql, &statement.params())).await;
        self.leave(flatten_timeout("query", limit, answer))
    }

    /// Runs SQL text of several statements (savepoints, DDL), after what was deferred.
    ///
    /// # Errors
    /// As `flush`.
    pub async fn batch(&mut self, operation: &'static str, sql: &str) -> Result<(), Error> {
        self.flush().await?;
        let limit = self.limit();
        let lease = self.enter(operation)?;
        let answer = tokio::time::timeout(limit, lease.client().batch_execute(sql)).await;
        self.leave(flatten_timeout(operation, limit, answer))
    }

    /// Forgets the error of a statement by rolling back to a savepoint that was set before it.
    ///
    /// # Errors
    /// The savepoint is not there, or the connection broke.
    pub async fn rollback_to(&mut self, savepoint: &str) -> Result<(), Error> {
        if self.state == State::Failed {
            self.state = State::Open;
        }
        self.deferred.clear();
        self.batch("roll back to a savepoint", &format!("ROLLBACK TO SAVEPOINT {savepoint}")).await
    }

    /// Starts a binary `COPY … FROM STDIN`, after what was deferred.
    ///
    /// # Errors
    /// As `flush`.
    pub async fn copy_in(&mut self, sql: &str) -> Result<CopyIn<'_>, Error> {
        self.flush().await?;
        let limit = self.limit();
        let lease = self.enter("copy")?;
        let answer = tokio::time::timeout(limit, lease.client().copy_in::<_, Bytes>(sql)).await;
        let mut sink = Box::pin(self.leave(flatten_timeout("copy", limit, answer))?);
        let header = Bytes::from_static(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
        sink.feed(header).await.map_err(|error| Error::driver("copy", error))?;
        Ok(CopyIn { guard: self, sink, finished: false })
    }

    /// Commits: what was deferred and COMMIT travel in one flight.
    ///
    /// Cancel safety: if the future is dropped after COMMIT was sent, the outcome is unknown, as with a lost answer.
    ///
    /// # Errors
    /// Rolled back, or `is_unknown_commit` when the connection was lost after COMMIT was sent.
    pub async fn commit(mut self) -> Result<Receipt, Error> {
        if self.deferred.is_empty() {
            // In an aborted transaction this fails, where COMMIT would say "ok" after a roll-back.
            self.deferred.push(Statement::new("SELECT 1"));
        }
        self.flight(true).await?;
        self.state = State::Done;
        Ok(Receipt(()))
    }

    async fn flight(&mut self, commit: bool) -> Result<Vec<u64>, Error> {
        let statements = std::mem::take(&mut self.deferred);
        let begin = (self.state == State::Fresh).then(|| begin_sql(self.pool.options().statement_timeout));
        let limit = self.limit();
        let lease = self.enter("statement")?;
        let answers = tokio::time::timeout(limit, fly(lease.client(), begin.as_deref(), &statements, commit)).await;
        let answers = answers.map_err(|_| match commit {
            true => Error::unknown_commit(Error::timeout("commit", limit)),
            false => Error::timeout("statement", limit),
        });
        self.leave(answers.and_then(|answers| answers))
    }

    /// What one await may take at most.
    fn limit(&self) -> Duration {
        self.pool.options().statement_timeout + GRACE
    }

    /// Marks the guard busy and open before an await; `leave` takes it back after.
    fn enter(&mut self, operation: &'static str) -> Result<&Lease, Error> {
        // Still busy: the future of an earlier statement was dropped, and nobody knows how far it came.
        if self.busy || matches!(self.state, State::Failed | State::Done) {
            self.state = State::Failed;
            return Err(Error::aborted(operation));
        }
        self.state = State::Open;
        self.busy = true;
        self.lease.as_ref().ok_or_else(|| Error::aborted(operation))
    }

    fn leave<T>(&mut self, answer: Result<T, Error>) -> Result<T, Error> {
        // An own timeout means that the statement may still run: it stays "busy", so that the drop cancels it.
        self.busy = answer.as_ref().is_err_and(Error::is_away);
        if answer.is_err() {
            self.state = State::Failed;
        }
        answer
    }
}

fn begin_sql(statement_timeout: Duration) -> String {
    let ms = statement_timeout.as_millis().max(1);
    format!(
        "BEGIN; SET LOCAL statement_timeout = {ms}; SET LOCAL lock_timeout = {ms}; \
         SET LOCAL idle_in_transaction_session_timeout = {ms}"
    )
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

type Answer<'a> = BoxFuture<'a, Result<u64, tokio_postgres::Error>>;

/// Sends all statements before it waits for the first answer, then takes the answers in order.
async fn fly(client: &Client, begin: Option<&str>, statements: &[Statement], commit: bool) -> Result<Vec<u64>, Error> {
    let mut answers: Vec<(Answer<'_>, Option<Result<u64, tokio_postgres::Error>>)> = Vec::new();
    if let Some(begin) = begin {
        answers.push((Box::pin(async move { client.batch_execute(begin).await.map(|()| 0) }), None));
    }
    for statement in statements {
        let answer = async move { client.execute_typed(&statement.sql, &statement.params()).await };
        answers.push((Box::pin(answer), None));
    }
    if commit {
        answers.push((Box::pin(async { client.batch_execute("COMMIT").await.map(|()| 0) }), None));
    }
    // The driver queues a request when its future is first polled: this loop fixes the order on the wire.
    std::future::poll_fn(|cx| {
        for (answer, done) in &mut answers {
            if let Poll::Ready(result) = answer.as_mut().poll(cx) {
                *done = Some(result);
            }
        }
        Poll::Ready(())
    })
    .await;
    let last = answers.len().saturating_sub(1);
    let mut counts = Vec::with_capacity(statements.len());
    for (i, (answer, done)) in answers.into_iter().enumerate() {
        let result = match done {
            Some(result) => result,
            None => answer.await,
        };
        match result {
            Ok(count) => counts.push(count),
            Err(error) => return Err(classify(error, commit, commit && i == last)),
        }
    }
    Ok(counts.drain(usize::from(begin.is_some())..).take(statements.len()).collect())
}

/// A connection lost with COMMIT on the wire leaves the outcome unknown; an answered error does not.
fn classify(error: tokio_postgres::Error, commit_sent: bool, at_commit: bool) -> Error {
    let answered = error.as_db_error().is_some_and(|db| !db.code().code().starts_with("57P"));
    let error = error::Error::driver(if at_commit { "commit" } else { "statement" }, error);
    if commit_sent && !answered { Error::unknown_commit(error) } else { error }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(mut lease) = self.lease.take() else { return };
        if matches!(self.state, State::Fresh | State::Done) && !self.busy {
            return;
        }
        let busy = self.busy;
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            lease.condemn();
            return;
        };
        let cleanup = async move {
            let rolled_back = tokio::time::timeout(ROLLBACK_DEADLINE, roll_back(lease.client(), busy)).await;
            // The driver does not wait until the server took the cancel: a late one would hit the next borrower's
            // statement, so a connection that was cancelled is not lent again.
            if busy || rolled_back != Ok(true) {
                lease.condemn();
            }
        };
        // Owned by the pool, which waits for it when it closes; the connection goes back only after it.
        runtime.spawn(self.pool.cleanups().track_future(cleanup));
    }
}

/// Cancels what runs, then rolls back: when the answer is there, nothing of the guard is left in the server.
async fn roll_back(client: &Client, busy: bool) -> bool {
    if busy && client.cancel_token().cancel_query(NoTls).await.is_err() {
        return false;
    }
    client.batch_execute("ROLLBACK").await.is_ok()
}

/// A COPY in progress. Dropped without `finish`, it fails and with it the guard.
pub struct CopyIn<'a> {
    guard: &'a mut Guard,
    sink: Pin<Box<tokio_postgres::CopyInSink<Bytes>>>,
    finished: bool,
}

impl fmt::Debug for CopyIn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyIn").field("finished", &self.finished).finish_non_exhaustive()
    }
}

impl CopyIn<'_> {
    /// Sends tuples of the binary format. Returns when the connection took them, not when they are written.
    ///
    /// # Errors
    /// The server refused a row, or the connection broke.
    pub async fn send(&mut self, tuples: Bytes) -> Result<(), Error> {
        let limit = self.guard.limit();
        self.guard.enter("copy")?;
        let sent = tokio::time::timeout(limit, self.sink.send(tuples)).await;
        let sent = match sent {
            // The sink only says "closed" when the server refused: the answer has the reason.
            Ok(Err(_)) => Err(self.reason(limit).await),
            other => flatten_timeout("copy", limit, other),
        };
        self.guard.leave(sent)
    }

    /// Ends the COPY. Returns the rows written.
    ///
    /// # Errors
    /// The server refused a row, or the connection broke.
    pub async fn finish(mut self) -> Result<u64, Error> {
        let limit = self.guard.limit();
        self.guard.enter("copy")?;
        let finish = async {
            self.sink.feed(Bytes::from_static(&[0xff, 0xff])).await?;
            self.sink.as_mut().finish().await
        };
        let answer = flatten_timeout("copy", limit, tokio::time::timeout(limit, finish).await);
        self.finished = true;
        self.guard.leave(answer)
    }

    async fn reason(&mut self, limit: Duration) -> Error {
        match tokio::time::timeout(limit, self.sink.as_mut().finish()).await {
            Ok(Ok(_)) => Error::unavailable("copy", "the connection was closed"),
            Ok(Err(error)) => Error::driver("copy", error),
            Err(_) => Error::timeout("copy", limit),
        }
    }
}

impl Drop for CopyIn<'_> {
    fn drop(&mut self) {
        if !self.finished {
            // The server gets CopyFail, which aborts the transaction.
            self.guard.state = State::Failed;
        }
    }
}
