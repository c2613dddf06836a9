//! Work that may block or never end: on a thread of its own, one at a time for each owner.
//!
//! A thread cannot be stopped. Without this, a disk that hangs or a program that never ends would take one thread more
//! at each run, until none is left for anybody. Must not know: what the work is.

use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, spawn_blocking};

/// An owner's one thread. Clones share it.
#[derive(Debug, Clone)]
pub struct OneThread(Arc<Semaphore>);

/// The thread is still at earlier work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

impl OneThread {
    /// A thread that is free; nothing is started.
    pub fn new() -> OneThread {
        OneThread(Arc::new(Semaphore::new(1)))
    }

    /// Starts `work` as soon as the thread is free, and holds the thread until `work` ends, whoever waits for it.
    ///
    /// Cancel safety: safe; work that did not start never will, work that did goes on.
    ///
    /// # Errors
    /// `Busy` if earlier work does not end within `patience`.
    pub async fn start<T: Send + 'static>(
        &self,
        patience: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>, Busy> {
        let free = tokio::time::timeout(patience, self.0.clone().acquire_owned());
        let Ok(Ok(held)) = free.await else { return Err(Busy) };
        Ok(spawn_blocking(move || {
            let _held = held;
            work()
        }))
    }
}

impl Default for OneThread {
    fn default() -> Self {
        OneThread::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[tokio::test]
    async fn abandoned_work_keeps_its_thread_and_takes_no_second_one() {
        let thread = OneThread::new();
        let (end, ended) = mpsc::channel::<()>();
        let abandoned = thread.start(Duration::ZERO, move || ended.recv()).await;
        drop(abandoned);
        assert_eq!(thread.start(Duration::from_millis(1), || ()).await.err(), Some(Busy));
        assert!(OneThread::new().start(Duration::ZERO, || ()).await.is_ok(), "another owner has another thread");
        end.send(()).unwrap();
        let next = thread.start(Duration::from_secs(30), || 7).await;
        assert_eq!(next.expect("free again").await.unwrap(), 7);
    }
}
