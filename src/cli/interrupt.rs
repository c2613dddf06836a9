//! Ctrl-C and SIGTERM for commands that must clean up behind them: a file half written, a server of ours.

use super::failure::Failure;
use tokio::signal::unix::{SignalKind, signal};

/// `work`, dropped when somebody ends it; the caller then closes what it opened.
pub(super) async fn unless_interrupted<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let caught = |kind| signal(kind).map_err(|error| Failure::work(format!("catch signals: {error}")));
    let (mut interrupt, mut terminate, mut hangup) =
        (caught(SignalKind::interrupt())?, caught(SignalKind::terminate())?, caught(SignalKind::hangup())?);
    tokio::select! {
        done = work => done,
        _ = interrupt.recv() => Err(Failure::work("interrupted")),
        _ = terminate.recv() => Err(Failure::work("terminated")),
        _ = hangup.recv() => Err(Failure::work("hung up")),
    }
}
