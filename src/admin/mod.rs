//! The admin page: what the daemon shows of itself, over HTTP.
//!
//! ```text
//!  listener --connection, at most CONNECTIONS--> routes --> /healthz /readyz /api/status /
//!                                                              ^
//!                                             watch: the newest Status
//! ```
//!
//! In: status values. Out: responses; nothing can be changed from here. Must not know: the database, trackers, the
//! configuration.

mod page;
mod routes;

use crate::status::Status;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Connections at the same time; further ones wait in the kernel's queue.
const CONNECTIONS: usize = 128;
/// A head that takes longer, or a connection that asks for nothing for so long, is closed.
const HEAD: Duration = Duration::from_secs(5);
/// No connection lives longer: a peer that reads slowly cannot keep its place.
const LONGEST: Duration = Duration::from_secs(60);
/// How long responses on their way may take when the daemon stops.
const LAST: Duration = Duration::from_secs(1);
/// Bytes of a request's head.
const HEAD_BYTES: usize = 16 << 10;

/// Answers on `listener` until `shutdown` is done; responses on their way then get a second.
///
/// Cancel safety: safe; every connection ends with the future.
pub async fn serve(listener: TcpListener, status: watch::Receiver<Arc<Status>>, shutdown: impl Future<Output = ()>) {
    let local = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
    let router = routes::router(status, local);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let stop = CancellationToken::new();
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let next = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            next = accept(&listener, &places) => next,
        };
        match next {
            Ok((stream, place)) => {
                let (router, stop) = (router.clone(), stop.clone());
                connections.spawn(async move {
                    connection(stream, router, stop).await;
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

type Place = tokio::sync::OwnedSemaphorePermit;

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> std::io::Result<(TcpStream, Place)> {
    let place = places.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

async fn connection(stream: TcpStream, router: axum::Router, stop: CancellationToken) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_BYTES);
    let served = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut served = std::pin::pin!(served);
    // A peer's errors are the peer's business: nothing is logged for them.
    tokio::select! {
        _ = &mut served => {}
        () = tokio::time::sleep(LONGEST) => {}
        () = stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(LAST, served).await;
        }
    }
}
