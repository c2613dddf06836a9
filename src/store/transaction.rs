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
use std::sync::atomic::{AtomicBool, Ordering};
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
        // The server's longest is some 25 days.
        let ms = statement_timeout.as_millis().clamp(1, i32::MAX as u128);
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
    /// What `work` returned; the pool's; `is_unknown_commit` when the answer to COMMIT was lost, or had not come when the
    /// deadline passed: ask the database whether it landed before it is tried again.
    pub async fn transaction<T, E, F>(&self, options: TransactionOptions, work: F) -> Result<T, E>
    where
        E: From<Error>,
        F: AsyncFnMut(&mut Guard) -> Result<T, E>,
    {
        let committing = AtomicBool::new(false);
        let attempts = self.attempts(&options, &committing, work);
        let Some(deadline) = options.deadline else { return attempts.await };
        match tokio::time::timeout(deadline, attempts).await {
            Ok(done) => done,
            Err(_) => {
                let late = Error::timeout("transaction", deadline);
                Err(if committing.into_inner() { Error::unknown_commit(late) } else { late }.into())
            }
        }
    }

    /// `committing` tells, whenever the future is dropped, whether COMMIT may have been sent.
    async fn attempts<T, E, F>(
        &self,
        options: &TransactionOptions,
        committing: &AtomicBool,
        mut work: F,
    ) -> Result<T, E>
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
                Ok(value) => {
                    committing.store(true, Ordering::Relaxed);
                    match guard.commit().await {
                        Ok(_receipt) => return Ok(value),
                        Err(error) => {
                            committing.store(false, Ordering::Relaxed);
                            // A conflict that `work` passed over is why the commit was refused.
                            let again = (conflict || error.is_conflict()) && !error.is_unknown_commit();
                            (error.into(), again)
                        }
                    }
                }
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
