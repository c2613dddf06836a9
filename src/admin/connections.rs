//! Connections, whatever they come through: how many, how long, and their end.
//!
//! Must not know: what is answered on them.

use super::patient::Patient;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A head that takes longer, or a connection that asks for nothing for so long, is closed.
const HEAD: Duration = Duration::from_secs(5);
/// A peer that takes no byte of its answer for so long is not there.
const TAKES: Duration = Duration::from_secs(10);
/// How long responses on their way may take when the daemon stops.
const LAST: Duration = Duration::from_secs(1);
/// Bytes of a request's head. What has a body is bounded by the router (2 MiB).
const HEAD_BYTES: usize = 16 << 10;

/// Where connections come from.
pub(super) trait Door: Sync {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection, and what answers it.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Router)>> + Send;
}

/// What a door lets through.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Connections at the same time; further ones wait in the kernel's queue.
    pub(super) connections: usize,
    /// No connection lives longer: a peer that reads slowly cannot keep its place.
    pub(super) longest: Duration,
}

/// Answers until `shutdown` is done; responses on their way then get a second.
///
/// Cancel safety: safe; every connection ends with the future.
pub(super) async fn answer(door: impl Door, bounds: Bounds, shutdown: impl Future<Output = ()>) {
    let places = Arc::new(Semaphore::new(bounds.connections));
    let stop = CancellationToken::new();
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let next = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            next = accept(&door, &places) => next,
        };
        match next {
            Ok((stream, router, place)) => {
                let stop = stop.clone();
                connections.spawn(async move {
                    connection(stream, router, bounds.longest, stop).await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of file descriptors, mostly: without a pause this would spin.
                tracing::warn!(%error, "admin: cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
    stop.cancel();
    while connections.join_next().await.is_some() {}
}

async fn accept<D: Door>(door: &D, places: &Arc<Semaphore>) -> io::Result<(D::Stream, Router, OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, router) = door.accept().await?;
    Ok((stream, router, place))
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    router: Router,
    longest: Duration,
    stop: CancellationToken,
) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_BYTES);
    let served = builder.serve_connection(TokioIo::new(Patient::new(stream, TAKES)), TowerToHyperService::new(router));
    let mut served = std::pin::pin!(served);
    // A peer's errors are the peer's business: nothing is logged for them.
    tokio::select! {
        _ = &mut served => {}
        () = tokio::time::sleep(longest) => {}
        () = stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(LAST, served).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tokio::io::AsyncWriteExt;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_never_reads_does_not_keep_its_place() {
        const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
        let router = Router::new().route("/", get(async || "x".repeat(1 << 20)));
        let (mut peer, stream) = tokio::io::duplex(1 << 10);
        let (begun, longest) = (Instant::now(), Duration::from_secs(900));
        let served = tokio::spawn(connection(stream, router, longest, CancellationToken::new()));
        peer.write_all(REQUEST).await.expect("heard");
        served.await.expect("no panic");
        assert!(begun.elapsed() < 2 * TAKES, "{:?}", begun.elapsed());
    }
}
