//! Outcomes that are not in the ledger yet: failed, missed and skipped runs, written in batches.
//!
//! In: `status::Run` values, through one bounded queue. Out: ledger rows, by the `Ledger`. While the database is away
//! they wait here; when the queue is full the newest are dropped, counted and told. Must not know: SQL.

use super::ledger::Ledger;
use crate::status::Run;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Runs that can wait: about 25 MB of them.
const QUEUE: usize = 50_000;
/// Runs in one write.
const BATCH: usize = 1_000;
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// A database that stays away, and a full queue, are told again after so long.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// The way in.
#[derive(Debug, Clone)]
pub struct Sender {
    queue: mpsc::Sender<Run>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Taken and not written yet.
    pending: AtomicUsize,
    dropped: AtomicU64,
}

/// The other end, and the runs of the batch that is being written: they outlive a writer that dies.
#[derive(Debug)]
pub struct Inbox {
    queue: mpsc::Receiver<Run>,
    batch: Vec<Run>,
    counts: Arc<Counts>,
}

/// A queue.
pub fn channel() -> (Sender, Inbox) {
    channel_of(QUEUE)
}

fn channel_of(bound: usize) -> (Sender, Inbox) {
    let (sender, queue) = mpsc::channel(bound);
    let counts = Arc::new(Counts::default());
    (Sender { queue: sender, counts: Arc::clone(&counts) }, Inbox { queue, batch: Vec::new(), counts })
}

impl Sender {
    /// Hands a run over without waiting; a full queue drops it, says so in `dropped`, and in the log by and by.
    pub fn send(&self, mut run: Run) {
        // PostgreSQL's text holds no NUL: one such message must not hold up all the others for ever.
        run.error = run.error.map(|text| text.replace('\0', "\u{fffd}"));
        self.counts.pending.fetch_add(1, Ordering::Relaxed);
        if self.queue.try_send(run).is_err() {
            self.counts.pending.fetch_sub(1, Ordering::Relaxed);
            let before = self.counts.dropped.fetch_add(1, Ordering::Relaxed);
            if before.is_power_of_two() || before == 0 {
                tracing::error!(dropped = before + 1, "ledger queue is full: outcomes of runs are lost");
            }
        }
    }

    /// Runs handed over and not written yet.
    pub fn pending(&self) -> usize {
        self.counts.pending.load(Ordering::Relaxed)
    }

    /// Runs that found the queue full, since the start.
    pub fn dropped(&self) -> u64 {
        self.counts.dropped.load(Ordering::Relaxed)
    }
}

/// Writes until `stop`, and then what is in the queue.
///
/// Cancel safety: safe; a batch that was not acknowledged stays in the inbox and is written again, which changes nothing.
pub async fn write(inbox: Arc<Mutex<Inbox>>, ledger: Arc<dyn Ledger>, stop: CancellationToken) {
    let mut inbox = inbox.lock().await;
    let Inbox { queue, batch, counts } = &mut *inbox;
    loop {
        if batch.is_empty() {
            // In this order: what was handed over before the stop is written.
            let taken = tokio::select! {
                biased;
                taken = queue.recv_many(batch, BATCH) => taken,
                () = stop.cancelled() => 0,
            };
            if taken == 0 {
                return;
            }
        }
        persist(batch, ledger.as_ref()).await;
        counts.pending.fetch_sub(batch.len(), Ordering::Relaxed);
        batch.clear();
    }
}

/// Tries until it is done: bounded by the stop of the daemon, which aborts it.
async fn persist(batch: &[Run], ledger: &dyn Ledger) {
    let mut wait = FIRST_WAIT;
    let mut told: Option<Instant> = None;
    while let Err(error) = ledger.record(batch).await {
        if told.is_none_or(|at| at.elapsed() >= TELL_AGAIN) {
            tracing::warn!(runs = batch.len(), %error, "write ledger: outcomes wait for the database");
            told = Some(Instant::now());
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
    if told.is_some() {
        tracing::info!(runs = batch.len(), "outcomes that waited are in the ledger");
    }
}
