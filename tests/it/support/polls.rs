//! Drops a future after so many polls: every point at which it can be cancelled, one after another.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;

/// Polls `work` at most `polls` times; `None` when it was dropped before its end.
pub async fn at_most<T>(work: impl Future<Output = T>, polls: u32) -> Option<T> {
    let mut work = pin!(work);
    let mut left = polls;
    std::future::poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        work.as_mut().poll(cx).map(Some)
    })
    .await
}
