//! Opening the ledger, however long the database is away, and making it whole for the time nobody looked.
//!
//! ```text
//!  open --> recall --> deal out what passed --> a row for each instant that will not run --> Opened
//!    \---------\-------- away --------------------/   from the beginning, as often as it takes
//! ```
//!
//! The rows go straight to the ledger, before anything runs: a night of missed instants is more than any queue
//! holds, and a run that landed first would hide the holes before it from the next start.
//! In: the ledger and the trackers. Out: what each has to catch up. Must not know: what is done with it.

use super::intake::Intake;
use super::ledger::{Ledger, Memory, Unusable};
use super::state::State;
use super::systemd;
use crate::class::Class;
use crate::clock;
use crate::config::Tracker;
use crate::schedule::missed::{MOST_LISTED, Span};
use crate::status::{Phase, Run};
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(15);
const TELL_AGAIN: Duration = Duration::from_secs(60);
/// Rows in one write.
const BATCH: usize = 1_000;
/// Missed instants that get a row at one start, shared out among the trackers: about half a minute of writing.
const MOST_ROWS: usize = 1_000_000;
/// Once more, where this took longer; each time there is less to write.
const SOON: SignedDuration = SignedDuration::from_secs(2);
const MOST_PASSES: usize = 5;
/// Every tracker may list so many, however many trackers there are.
const FEWEST_LISTED: usize = 100;

/// The ledger is whole up to `at`.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) at: Timestamp,
    pub(super) pasts: Vec<Past>,
    /// Instants recorded as missed.
    pub(super) missed: usize,
}

/// One tracker's past.
#[derive(Debug)]
pub(super) struct Past {
    pub(super) tracker: Arc<Tracker>,
    pub(super) last: Option<(Run, Option<Timestamp>)>,
    /// Missed instants to run, oldest first.
    pub(super) runs: Vec<Timestamp>,
}

/// What an opening needs.
#[derive(Clone)]
pub(super) struct Opening {
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) state: Arc<State>,
    pub(super) intake: Arc<Intake>,
    pub(super) trackers: Vec<Arc<Tracker>>,
}

impl Opening {
    /// Opens the ledger and makes it whole, as often as it takes.
    ///
    /// Cancel safety: safe; begun again, it finds what it wrote.
    ///
    /// # Errors
    /// Class standing before the daemon is up: a person must act before this can work. Later it stays.
    pub(super) async fn open(self) -> Result<Opened, Unusable> {
        let mut wait = FIRST_WAIT;
        let mut told: Option<Instant> = None;
        loop {
            let error = match self.try_open().await {
                Ok(opened) => return Ok(opened),
                Err(error) => error,
            };
            if !self.state.is_up() {
                if error.class == Class::Standing {
                    return Err(error);
                }
                // Up, if not well: systemd must not kill it for a database that is late.
                self.state.phase(Phase::Degraded);
                systemd::ready();
            }
            if told.is_none_or(|at| at.elapsed() >= TELL_AGAIN) {
                tracing::warn!(error = %error, hint = error.hint, "database is away: no run begins before it is back");
                told = Some(Instant::now());
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    async fn try_open(&self) -> Result<Opened, Unusable> {
        self.ledger.open().await?;
        let mut missed = 0;
        for _ in 1..MOST_PASSES {
            let opened = self.square().await?;
            missed += opened.missed;
            if clock::now().duration_since(opened.at) < SOON {
                return Ok(Opened { missed, ..opened });
            }
            // The writing took its time, and more instants have passed meanwhile.
        }
        let opened = self.square().await?;
        Ok(Opened { missed: missed + opened.missed, ..opened })
    }

    /// Makes the ledger whole up to the moment of the call.
    async fn square(&self) -> Result<Opened, Unusable> {
        let names = self.trackers.iter().map(|tracker| tracker.name.clone()).collect();
        let mut memories = self.ledger.recall(names).await?;
        let mut opened = Opened { at: clock::now(), pasts: Vec::with_capacity(self.trackers.len()), missed: 0 };
        let most_listed = (MOST_ROWS / self.trackers.len().max(1)).clamp(FEWEST_LISTED, MOST_LISTED);
        let (mut rows, mut uncounted) = (Vec::new(), 0);
        for tracker in &self.trackers {
            let Memory { dealt_until, recorded, last } = memories.remove(&tracker.name).unwrap_or_default();
            let mut past = Past { tracker: Arc::clone(tracker), last, runs: Vec::new() };
            if let Some(last) = dealt_until {
                let dealt = self.intake.deal(tracker, &Span { last, now: opened.at, recorded: &recorded, most_listed });
                rows.extend(dealt.missed);
                uncounted += dealt.uncounted;
                past.runs = dealt.runs;
            }
            opened.pasts.push(past);
            opened.missed += self.write(&mut rows, BATCH).await?;
            // Years of a fast schedule take their time: the supervisor and its watchdog get theirs.
            tokio::task::yield_now().await;
        }
        opened.missed += self.write(&mut rows, 1).await?;
        if uncounted > 0 {
            tracing::warn!(at_least = uncounted, "instants too long ago for a row each were missed");
        }
        Ok(opened)
    }

    /// Writes `rows` if there are `enough` of them. Returns how many were written.
    async fn write(&self, rows: &mut Vec<Run>, enough: usize) -> Result<usize, Unusable> {
        if rows.len() < enough {
            return Ok(0);
        }
        for batch in rows.chunks(BATCH) {
            self.ledger.record(batch).await?;
            self.intake.reports.recorded(batch);
        }
        let written = rows.len();
        rows.clear();
        Ok(written)
    }
}
