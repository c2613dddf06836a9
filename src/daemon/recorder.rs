//! Outcomes that are not in the ledger yet: failed, missed and skipped runs, written in batches.
//!
//! In: `status::Run` values, and lists of them that are made when they are written, through one bounded queue. Out: ledger rows, by the `Ledger`. While the database is away
//! they wait here; when the queue is full the newest are dropped, counted and told. Must not know: SQL.

use super::ledger::Ledger;
use super::pulse::Pulse;
use crate::status::Run;
use jiff::Timestamp;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Mutex as AsyncMutex, Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Lists that can wait, most of them of one run: about 25 MB.
const QUEUE: usize = 50_000;
/// Runs in all lists: an instant of a long list takes 16 bytes. Twice as many as are listed for one standstill.
const MOST_PENDING: usize = 2_000_000;
/// Runs in one write.
const BATCH: usize = 1_000;
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// A database that stays away, and a full queue, are told again after so long.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// Runs to be written, each made when its turn comes.
type Runs = Box<dyn ExactSizeIterator<Item = Run> + Send>;

/// The way in.
#[derive(Debug, Clone)]
pub struct Sender {
    queue: mpsc::Sender<Runs>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    pending: Mutex<Pending>,
    dropped: AtomicU64,
    /// The database was just seen to be there.
    back: Notify,
}

/// What was taken and is not written yet.
#[derive(Debug, Default)]
struct Pending {
    runs: usize,
    /// No instant of theirs is earlier; what was dropped stays pending for ever.
    oldest: Option<Timestamp>,
    lossy: bool,
}

impl Counts {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    /// Whether there is room.
    fn add(&mut self, runs: usize, oldest: Option<Timestamp>) -> bool {
        self.oldest = self.oldest.into_iter().chain(oldest).min();
        let sum = self.runs.checked_add(runs).filter(|sum| *sum <= MOST_PENDING);
        self.runs = sum.unwrap_or(self.runs);
        self.lossy |= sum.is_none();
        sum.is_some()
    }

    fn written(&mut self, runs: usize) {
        self.runs -= runs;
        if self.runs == 0 && !self.lossy {
            self.oldest = None;
        }
    }
}

/// The other end, and the runs of the batch that is being written: they outlive a writer that dies.
#[expect(missing_debug_implementations, reason = "the list is opaque")]
pub struct Inbox {
    queue: mpsc::Receiver<Runs>,
    /// The list that was begun.
    list: Runs,
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
    (
        Sender { queue: sender, counts: Arc::clone(&counts) },
        Inbox { queue, list: Box::new(std::iter::empty()), batch: Vec::new(), counts },
    )
}

impl Sender {
    /// Hands a run over without waiting; a full queue drops it, says so in `dropped`, and in the log by and by.
    pub fn send(&self, run: Run) {
        let scheduled_at = run.scheduled_at;
        self.send_all(Some(scheduled_at), std::iter::once(run));
    }

    /// Hands many over at once, which take one place in the queue; all of them, or none. `oldest`: of their instants.
    pub fn send_all(&self, oldest: Option<Timestamp>, runs: impl ExactSizeIterator<Item = Run> + Send + 'static) {
        let (count, counts) = (runs.len(), &self.counts);
        if counts.pending().add(count, oldest) {
            if self.queue.try_send(Box::new(runs)).is_ok() {
                return;
            }
            let mut pending = counts.pending();
            (pending.runs, pending.lossy) = (pending.runs - count, true);
        }
        let before = counts.dropped.fetch_add(count as u64, Ordering::Relaxed);
        let dropped = before + count as u64;
        // Each time they have doubled.
        if before.checked_ilog2() != dropped.checked_ilog2() {
            tracing::error!(dropped, "ledger queue is full: outcomes of runs are lost");
        }
    }

    /// A run has landed by itself: what waits for the database waits no longer, or a later run of its tracker would
    /// be in the ledger for long before an earlier one.
    pub fn landed(&self) {
        if self.pending() > 0 {
            self.counts.back.notify_one();
        }
    }

    /// Runs handed over and not written yet.
    pub fn pending(&self) -> usize {
        self.counts.pending().runs
    }

    /// No run that is not written yet, or was lost, is of an earlier instant.
    pub fn oldest(&self) -> Option<Timestamp> {
        self.counts.pending().oldest
    }

    /// Runs that found the queue full, since the start.
    pub fn dropped(&self) -> u64 {
        self.counts.dropped.load(Ordering::Relaxed)
    }
}

/// Writes until `stop`, and then what is in the queue.
///
/// Cancel safety: safe; a batch that was not acknowledged stays in the inbox and is written again, which changes nothing.
pub async fn write(inbox: Arc<AsyncMutex<Inbox>>, ledger: Arc<dyn Ledger>, stop: CancellationToken, pulse: Arc<Pulse>) {
    let mut inbox = {
        let _at_work = pulse.work();
        inbox.lock().await
    };
    let Inbox { queue, list, batch, counts } = &mut *inbox;
    loop {
        fill(batch, list, queue);
        if batch.is_empty() {
            // In this order: what was handed over before the stop is written.
            let next = tokio::select! {
                biased;
                next = queue.recv() => next,
                () = stop.cancelled() => None,
            };
            let Some(next) = next else { return };
            *list = next;
            continue;
        }
        persist(batch, ledger.as_ref(), &counts.back, &stop, &pulse).await;
        counts.pending().written(batch.len());
        batch.clear();
    }
}

/// Takes what is there, up to a full batch.
fn fill(batch: &mut Vec<Run>, list: &mut Runs, queue: &mut mpsc::Receiver<Runs>) {
    while batch.len() < BATCH {
        match list.next() {
            // PostgreSQL's text holds no NUL: one such message must not hold up all the others for ever.
            Some(run) => batch.push(Run { error: run.error.map(|text| text.replace('\0', "\u{fffd}")), ..run }),
            None => match queue.try_recv() {
                Ok(next) => *list = next,
                Err(_) => return,
            },
        }
    }
}

/// Tries until it is done: bounded by the stop of the daemon, which wakes it and then aborts it.
async fn persist(batch: &[Run], ledger: &dyn Ledger, back: &Notify, stop: &CancellationToken, pulse: &Pulse) {
    let mut wait = FIRST_WAIT;
    let mut told: Option<Instant> = None;
    let record = async || {
        let _at_work = pulse.work();
        ledger.record(batch).await
    };
    while let Err(error) = record().await {
        if told.is_none_or(|at| at.elapsed() >= TELL_AGAIN) {
            tracing::warn!(runs = batch.len(), %error, "write ledger: outcomes wait for the database");
            told = Some(Instant::now());
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => wait = (wait * 2).min(LONGEST_WAIT),
            () = back.notified() => {}
            () = stop.cancelled(), if wait > FIRST_WAIT => {}
        }
        if stop.is_cancelled() {
            // Seconds are left, not minutes.
            wait = FIRST_WAIT;
        }
    }
    if told.is_some() {
        tracing::info!(runs = batch.len(), "outcomes that waited are in the ledger");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::class::Class;
    use crate::daemon::ledger::{Memory, Unusable};
    use crate::daemon::work::{Due, Identity};
    use crate::status::{Kind, Pool, RunStatus};
    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;
    use std::collections::HashMap;

    /// Fails so many times, then keeps what it is given.
    #[derive(Default)]
    struct Away {
        failures: AtomicU64,
        written: std::sync::Mutex<Vec<Run>>,
    }

    impl Ledger for Away {
        fn open(&self) -> BoxFuture<'_, Result<(), Unusable>> {
            async { Ok(()) }.boxed()
        }
        fn recall(
            &self,
            _: Vec<String>,
            _: Option<jiff::Timestamp>,
        ) -> BoxFuture<'_, Result<HashMap<String, Memory>, Unusable>> {
            async { Ok(HashMap::new()) }.boxed()
        }
        fn record<'a>(&'a self, runs: &'a [Run]) -> BoxFuture<'a, Result<(), Unusable>> {
            async move {
                if self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
                {
                    return Err(Unusable { class: Class::Retry, message: "away".into(), hint: None });
                }
                self.written.lock().unwrap().extend_from_slice(runs);
                Ok(())
            }
            .boxed()
        }
        fn gauges(&self) -> (Pool, Option<String>) {
            (Pool::default(), None)
        }
        fn close(&self) -> BoxFuture<'_, ()> {
            async {}.boxed()
        }
    }

    fn run(second: i64) -> Run {
        let identity = Identity { instance: "test:1".into(), run_id: crate::store::ledger::run_id };
        let at = Timestamp::from_second(second).unwrap();
        let due = Due { tracker: Arc::from("a"), scheduled_at: at, kind: Kind::Scheduled };
        Run { error: Some("a\0b".into()), ..identity.unrun(&due, RunStatus::Failed, at, at) }
    }

    fn instants(ledger: &Away) -> Vec<i64> {
        ledger.written.lock().unwrap().iter().map(|run| run.scheduled_at.as_second()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn outcomes_wait_for_the_database_and_are_written_once_and_in_order() {
        let (sender, inbox) = channel();
        let ledger = Arc::new(Away { failures: 20.into(), ..Away::default() });
        (1..=2_500).for_each(|second| sender.send(run(second)));
        assert_eq!(sender.pending(), 2_500);
        let stop = CancellationToken::new();
        // Stopped from the start: it still writes what it was given.
        stop.cancel();
        write(Arc::new(AsyncMutex::new(inbox)), ledger.clone(), stop, Arc::default()).await;
        assert_eq!(instants(&ledger), (1..=2_500).collect::<Vec<_>>());
        assert_eq!((sender.pending(), sender.dropped()), (0, 0));
        assert_eq!(ledger.written.lock().unwrap()[0].error.as_deref(), Some("a\u{fffd}b"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_writer_that_dies_leaves_its_batch_to_the_next() {
        let (sender, inbox) = channel();
        let inbox = Arc::new(AsyncMutex::new(inbox));
        let ledger = Arc::new(Away { failures: u64::MAX.into(), ..Away::default() });
        sender.send(run(1));
        let stop = CancellationToken::new();
        let first = write(Arc::clone(&inbox), ledger.clone(), stop.clone(), Arc::default());
        assert!(tokio::time::timeout(Duration::from_secs(3600), first).await.is_err(), "it tries as long as it takes");
        ledger.failures.store(0, Ordering::Relaxed);
        sender.send(run(2));
        stop.cancel();
        write(inbox, ledger.clone(), stop, Arc::default()).await;
        assert_eq!(instants(&ledger), [1, 2]);
    }

    /// How long `write` takes from the moment of `wake`, when the database came back in the middle of the longest wait.
    async fn written_after(wake: impl FnOnce(&Sender, &CancellationToken)) -> Duration {
        let (sender, inbox) = channel();
        let ledger = Arc::new(Away { failures: u64::MAX.into(), ..Away::default() });
        let stop = CancellationToken::new();
        sender.send(run(1));
        let writer =
            tokio::spawn(write(Arc::new(AsyncMutex::new(inbox)), ledger.clone(), stop.clone(), Arc::default()));
        tokio::time::sleep(Duration::from_secs(3600)).await;
        ledger.failures.store(0, Ordering::Relaxed);
        let begun = Instant::now();
        wake(&sender, &stop);
        while sender.pending() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        stop.cancel();
        writer.await.unwrap();
        assert_eq!(instants(&ledger), [1]);
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_and_a_run_that_landed_end_the_wait_for_the_database() {
        let soon = FIRST_WAIT * 2;
        assert!(written_after(|_, stop| stop.cancel()).await < soon);
        assert!(written_after(|sender, _| sender.landed()).await < soon);
        assert!(written_after(|_, _| {}).await > soon, "otherwise it waits");
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_takes_one_place_however_long_it_is_and_keeps_its_turn() {
        let (sender, inbox) = channel_of(3);
        let ledger = Arc::new(Away::default());
        sender.send(run(1));
        sender.send_all(None, (2..=150_000).map(run).collect::<Vec<_>>().into_iter());
        sender.send(run(150_001));
        sender.send_all(None, (0..MOST_PENDING).map(|_| run(0)));
        assert_eq!((sender.pending(), sender.dropped()), (150_001, MOST_PENDING as u64));
        let stop = CancellationToken::new();
        stop.cancel();
        write(Arc::new(AsyncMutex::new(inbox)), ledger.clone(), stop, Arc::default()).await;
        assert_eq!(instants(&ledger), (1..=150_001).collect::<Vec<_>>());
        assert_eq!(sender.pending(), 0);
    }

    #[test]
    fn a_full_queue_drops_the_newest_and_counts_them() {
        let (sender, _inbox) = channel_of(2);
        (1..=5).for_each(|second| sender.send(run(second)));
        assert_eq!((sender.pending(), sender.dropped()), (2, 3));
    }

    #[tokio::test]
    async fn the_oldest_that_waits_is_known_until_all_are_written_and_for_ever_where_one_was_lost() {
        let at = |second| Some(Timestamp::from_second(second).unwrap());
        let (sender, inbox) = channel_of(2);
        let (inbox, stop) = (Arc::new(AsyncMutex::new(inbox)), CancellationToken::new());
        stop.cancel();
        assert_eq!(sender.oldest(), None);
        [8, 7].into_iter().for_each(|second| sender.send(run(second)));
        assert_eq!(sender.oldest(), at(7));
        write(Arc::clone(&inbox), Arc::new(Away::default()), stop.clone(), Arc::default()).await;
        assert_eq!(sender.oldest(), None);
        [9, 10, 6].into_iter().for_each(|second| sender.send(run(second)));
        write(inbox, Arc::new(Away::default()), stop, Arc::default()).await;
        assert_eq!((sender.dropped(), sender.oldest()), (1, at(6)));
    }
}
