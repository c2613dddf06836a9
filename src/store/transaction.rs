//! A whole transaction by a closure: begun, retried where the server asks for it, committed or rolled back.
//!
//! ```text
//!  begin --> work --Ok--> commit --> value
//!    ^         \--Err--> roll back --> error
//!    +-- serialization failure, deadlock: again, with what the server says now
//! ```
//!
//! Must not know: what the work is.

use super::{Error, Guard, Pool};
use std::time::Duration;

/// What a transaction sees of others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Isolation {
    /// Each statement sees what was committed before it.
    #[default]
    ReadCommitted,
    /// All statements see what was committed before the first.
    RepeatableRead,
    /// As if there were no others at the same time.
    Serializable,
}

/// How a transaction runs. The default: read committed, may write, as long as its statements may take, 3 attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactionOptions {
    /// What it sees of others.
    pub isolation: Isolation,
    /// Whether it only reads.
    pub read_only: bool,
    /// The longest statement; `None`: the pool's.
    pub statement_timeout: Option<Duration>,
    /// The longest that all of `Pool::transaction` may take, all attempts together; `None`: no limit of its own.
    pub deadline: Option<Duration>,
    /// Attempts in all, at least 1, of `Pool::transaction`.
    pub attempts: u32,
}

impl Default for TransactionOptions {
    fn default() -> Self {
        TransactionOptions {
            isolation: Isolation::default(),
            read_only: false,
            statement_timeout: None,
            deadline: None,
            attempts: 3,
        }
    }
}

impl TransactionOptions {
    /// BEGIN and the settings that hold until the transaction ends.
    pub(super) fn begin(&self, statement_timeout: Duration) -> String {
        let isolation = match self.isolation {
            Isolation::ReadCommitted => "",
            Isolation::RepeatableRead => " ISOLATION LEVEL REPEATABLE READ",
            Isolation::Serializable => " ISOLATION LEVEL SERIALIZABLE",
        };
        let access = if self.read_only { " READ ONLY" } else { "" };
        let ms = statement_timeout.as_millis().max(1);
        format!(
            "BEGIN{isolation}{access}; SET LOCAL statement_timeout = {ms}; SET LOCAL lock_timeout = {ms}; \
             SET LOCAL idle_in_transaction_session_timeout = {ms}"
        )
    }
}

impl Pool {
    /// Runs `work` in a transaction: committed when it returns `Ok`, rolled back on `Err`, panic, deadline, and when
    /// the future is dropped.
    ///
    /// `work` may run more than once: after a serialization failure or a deadlock, its own or at commit, it begins
    /// anew on a fresh transaction. What it does beside its guard must bear that.
    ///
    /// To spawn it, let the closure take what it uses by value (`async move |guard: &mut Guard| …`).
    ///
    /// Cancel safety: dropped before COMMIT was sent, nothing has happened; after it, the outcome is unknown.
    ///
    /// # Errors
    /// What `work` returned; the pool's; `is_unknown_commit` when the answer to COMMIT was lost: ask the database
    /// whether it landed before it is tried again.
    pub async fn transaction<T, E, F>(&self, options: TransactionOptions, work: F) -> Result<T, E>
    where
        E: From<Error>,
        F: AsyncFnMut(&mut Guard) -> Result<T, E>,
    {
        let attempts = self.attempts(&options, work);
        match options.deadline {
            None => attempts.await,
            Some(deadline) => match tokio::time::timeout(deadline, attempts).await {
                Ok(done) => done,
                Err(_) => Err(Error::timeout("transaction", deadline).into()),
            },
        }
    }

    async fn attempts<T, E, F>(&self, options: &TransactionOptions, mut work: F) -> Result<T, E>
    where
        E: From<Error>,
        F: AsyncFnMut(&mut Guard) -> Result<T, E>,
    {
        let mut attempt = 1;
        loop {
            let mut guard = self.begin_with(options).await?;
            let done = work(&mut guard).await;
            let conflict = guard.met_conflict();
            let (error, conflict) = match done {
                Err(error) => {
                    drop(guard);
                    (error, conflict)
                }
                Ok(value) => match guard.commit().await {
                    Ok(_receipt) => return Ok(value),
                    Err(error) => {
                        let conflict = error.is_conflict();
                        (error.into(), conflict)
                    }
                },
            };
            if !conflict || attempt >= options.attempts {
                return Err(error);
            }
            self.counters().retried.add();
            // At random: both sides of a deadlock would meet again.
            tokio::time::sleep(Duration::from_millis(10 << attempt.min(6)).mul_f64(fastrand::f64())).await;
            attempt += 1;
        }
    }
}
