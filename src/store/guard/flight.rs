//! A flight: statements sent together, answered in order.
//!
//! COMMIT is sent in the same flight. That is safe because nothing succeeds in a transaction that an earlier error
//! aborted: the answers before COMMIT's tell whether it meant "committed". And it is sent only after all of its flight
//! are on their way: a statement that could not be sent must not be missing from what is committed.
//! Must not know: guards.

use super::Statement;
use crate::store::Error;
use futures_util::future::BoxFuture;
use std::task::Poll;
use tokio_postgres::error::{DbError, Severity};
use tokio_postgres::{Client, Row};

/// Why a flight failed.
#[derive(Debug)]
pub(super) struct Failed {
    pub error: Error,
    /// The server has ended the transaction: there is nothing to roll back.
    pub over: bool,
}

/// What travels together, in this order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flight<'a> {
    pub begin: Option<&'a str>,
    pub statements: &'a [Statement],
    /// The last one, whose rows are wanted. Before COMMIT, of built-in types: another type is asked for behind COMMIT,
    /// whose answer nobody has taken then.
    pub question: Option<&'a Statement>,
    pub commit: Option<Commit>,
}

/// What COMMIT ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Commit {
    /// What may have been written: a lost answer leaves that unknown.
    Writes,
    /// What the server let only read.
    Reads,
}

/// What came back.
#[derive(Debug, Default)]
pub(super) struct Landed {
    /// The rows that each statement touched.
    pub touched: Vec<u64>,
    /// The question's.
    pub rows: Vec<Row>,
}

type Sent = Result<(u64, Vec<Row>), tokio_postgres::Error>;
type Answer<'a> = BoxFuture<'a, Sent>;
/// An answer awaited, and what it was if it came already.
type Pending<'a> = (Answer<'a>, Option<Sent>);

/// Sends all of it before it waits for the first answer.
pub(super) async fn fly(client: &Client, flight: Flight<'_>) -> Result<Landed, Failed> {
    let Flight { begin, statements, question, commit } = flight;
    let simply =
        |sql| -> Answer<'_> { Box::pin(async move { client.batch_execute(sql).await.map(|()| (0, Vec::new())) }) };
    let mut answers: Vec<Pending<'_>> = Vec::with_capacity(statements.len() + 3);
    answers.extend(begin.map(|begin| (simply(begin), None)));
    for statement in statements {
        let answer = async move { client.execute_typed(&statement.sql, &statement.params()).await };
        answers.push((Box::pin(async { Ok((answer.await?, Vec::new())) }), None));
    }
    if let Some(question) = question {
        let answer = async move { client.query_typed(&question.sql, &question.params()).await };
        answers.push((Box::pin(async { Ok((0, answer.await?)) }), None));
    }
    // The driver queues a request when its future is first polled: this fixes the order on the wire.
    poll_each(&mut answers).await;
    if let Some(at) = answers.iter().position(|(_, done)| done.as_ref().is_some_and(Result::is_err))
        && let (_, Some(Err(error))) = answers.swap_remove(at)
    {
        // Never sent: a parameter that its type does not take, or a closed connection. COMMIT does not follow.
        return Err(Failed { error: Error::driver("statement", error), over: false });
    }
    if commit.is_some() {
        answers.push((simply("COMMIT"), None));
        let last = answers.len() - 1;
        poll_each(&mut answers[last..]).await;
    }
    let mut landed = land(answers, commit).await?;
    landed.touched = landed.touched.drain(usize::from(begin.is_some())..).take(statements.len()).collect();
    Ok(landed)
}

/// Polls each once, in order.
async fn poll_each(answers: &mut [Pending<'_>]) {
    std::future::poll_fn(|cx| {
        for (answer, done) in &mut *answers {
            if let Poll::Ready(result) = answer.as_mut().poll(cx) {
                *done = Some(result);
            }
        }
        Poll::Ready(())
    })
    .await;
}

/// Takes the answers in order, up to the first failure.
async fn land(answers: Vec<Pending<'_>>, commit: Option<Commit>) -> Result<Landed, Failed> {
    let last = answers.len().saturating_sub(1);
    let mut landed = Landed { touched: Vec::with_capacity(answers.len()), rows: Vec::new() };
    for (i, (answer, done)) in answers.into_iter().enumerate() {
        let result = match done {
            Some(result) => result,
            None => answer.await,
        };
        match result {
            Ok((touched, rows)) => {
                landed.touched.push(touched);
                if !rows.is_empty() {
                    landed.rows = rows;
                }
            }
            Err(error) => return Err(classify(error, commit, commit.is_some() && i == last)),
        }
    }
    Ok(landed)
}

/// A connection lost with COMMIT on the wire leaves the outcome unknown; an answered error does not.
fn classify(error: tokio_postgres::Error, commit: Option<Commit>, at_commit: bool) -> Failed {
    let answered = error.as_db_error().is_some_and(is_answer);
    let error = Error::driver(if at_commit { "commit" } else { "statement" }, error);
    match commit {
        Some(Commit::Writes) if !answered => Failed { error: Error::unknown_commit(error), over: false },
        // COMMIT is behind the failed statement and ends the transaction.
        _ => Failed { error, over: answered && commit.is_some() },
    }
}

/// Whether an error is what became of its statement. One that ends the session is not: a pooler says so much when it
/// lost its server, whatever that did; and two codes say themselves that they do not know.
fn is_answer(db: &DbError) -> bool {
    let ends = match db.parsed_severity() {
        Some(severity) => matches!(severity, Severity::Fatal | Severity::Panic),
        // A pooler does not send it.
        None => db.severity() != "ERROR",
    };
    !ends && !matches!(db.code().code(), "08007" | "40003")
}
