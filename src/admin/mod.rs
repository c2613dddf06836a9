//! What the daemon shows of itself over HTTP: pages for browsers on TCP, and a control socket for `trackd` itself.
//!
//! ```text
//!  TCP listener ---+                      +--> /healthz /readyz /api/status /metrics /  (both)
//!                  +--connection--> routes+
//!  trackd.sock ----+  few, short          +--> /control/…                           (the socket only)
//! ```
//!
//! In: status values, and what else may be asked for as closures. Out: responses. Nothing can be changed over TCP.
//! Must not know: the database, trackers, the configuration.

mod connections;
pub mod control;
mod metrics;
mod page;
mod patient;
mod routes;
pub mod socket;

use crate::status::Status;
use axum::Router;
use connections::{Bounds, Door};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const BOUNDS: Bounds = Bounds { connections: 128, longest: Duration::from_secs(60) };

/// Answers on `listener` until `shutdown` is done; responses on their way then get a second.
///
/// Cancel safety: safe; every connection ends with the future.
pub async fn serve(listener: TcpListener, status: watch::Receiver<Arc<Status>>, shutdown: impl Future<Output = ()>) {
    let local = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
    let pages = Pages { listener, router: routes::router(status, local) };
    connections::answer(pages, BOUNDS, shutdown).await;
}

struct Pages {
    listener: TcpListener,
    router: Router,
}

impl Door for Pages {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, Router)> {
        let (stream, _) = self.listener.accept().await?;
        Ok((stream, self.router.clone()))
    }
}
