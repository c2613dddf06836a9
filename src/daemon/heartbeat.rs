//! The heartbeat: tokio-cron-scheduler, one UTC job a second and one for housekeeping, on a thread of its own.
//!
//! Measured limits of that crate shape this file: its ticks drift by up to 0.6 s, many jobs on one second are lost
//! or doubled, and a handler that panics or blocks stops it. So it has two jobs, whose handlers only count and wake, and
//! nothing depends on them being exact: the scheduler arms its own timers for what is due soon, and housekeeping that
//! is lost or doubled is done the next time, or finds nothing to do. Must not know: what happens on a beat.

use std::sync::Arc;
use std::thread;
use tokio::sync::{Notify, oneshot, watch};
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

/// Every second, in UTC: zones are computed by croner, tracker by tracker.
const EACH_SECOND: &str = "* * * * * *";
/// Its queues; one job never fills them.
const CHANNEL: usize = 1024;

/// A heart that beats until it is dropped; its thread then ends within about half a second.
#[derive(Debug)]
pub struct Heart {
    beats: watch::Receiver<u64>,
    _stop: oneshot::Sender<()>,
}

impl Heart {
    /// Starts the thread; `chores` are woken at each time of this cron expression with seconds.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(chore_times: &'static str, chores: Arc<Notify>) -> std::io::Result<Heart> {
        let (count, beats) = watch::channel(0);
        let (stop, stopped) = oneshot::channel();
        thread::Builder::new().name("heartbeat".into()).spawn(move || {
            match beat(count, stopped, chore_times, chores) {
                Ok(()) => {}
                Err(error) => tracing::error!(error = %error, "heartbeat failed: timers go on without it"),
            }
        })?;
        Ok(Heart { beats, _stop: stop })
    }

    /// The next beat; never, when the heart stopped.
    ///
    /// Cancel safety: safe; a beat that came is seen by the next call.
    pub async fn beat(&mut self) {
        if self.beats.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

fn beat(
    count: watch::Sender<u64>,
    stopped: oneshot::Receiver<()>,
    chore_times: &'static str,
    chores: Arc<Notify>,
) -> Result<(), JobSchedulerError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let Ok(runtime) = runtime else { return Err(JobSchedulerError::StartScheduler) };
    runtime.block_on(async move {
        let scheduler = JobScheduler::new_with_channel_size(CHANNEL).await?;
        let job = Job::new_async(EACH_SECOND, move |_, _| {
            count.send_modify(|beats| *beats += 1);
            Box::pin(async {})
        })?;
        scheduler.add(job).await?;
        let job = Job::new_async(chore_times, move |_, _| {
            chores.notify_one();
            Box::pin(async {})
        })?;
        scheduler.add(job).await?;
        scheduler.start().await?;
        // An error means that the heart was dropped, which is the other way to say stop.
        let _ = stopped.await;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    #[tokio::test]
    async fn it_beats_and_wakes_the_chores() {
        let chores = Arc::new(Notify::new());
        let mut heart = Heart::start(EACH_SECOND, Arc::clone(&chores)).expect("a thread");
        let both = async { tokio::join!(heart.beat(), chores.notified()) };
        assert!(timeout(Duration::from_secs(10), both).await.is_ok());
    }
}
