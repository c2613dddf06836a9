//! Where the pages are: bound at the start, and elsewhere where a reload says so.
//!
//! Must not know: what is on them.

use super::failure::Failure;
use crate::admin;
use crate::daemon;
use futures_util::FutureExt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use tokio::sync::watch;

/// The listener of the pages; `None`: there are none.
#[derive(Debug, Clone)]
pub(super) struct Pages(watch::Sender<Option<Arc<TcpListener>>>);

impl Pages {
    /// Binds `address`. The listener stays: a page that is served again after a fault must not find its address taken.
    ///
    /// # Errors
    /// Another process has it, or it is not this machine's.
    pub(super) fn bind(address: Option<SocketAddr>) -> Result<Pages, Failure> {
        let listener = bind(address).map_err(|error| {
            let hint = "is another trackd running? daemon.listen = \"\" turns the page off".to_owned();
            Failure::work(error).with_hint(Some(hint))
        })?;
        Ok(Pages(watch::channel(listener).0))
    }

    /// Serves them wherever they are, for ever.
    pub(super) fn serve(&self) -> Arc<daemon::Pages> {
        let pages = self.clone();
        Arc::new(move |status| {
            let mut place = pages.0.subscribe();
            async move {
                loop {
                    let listener = place.borrow_and_update().clone();
                    // `pages` holds the other end for as long as this can be called.
                    let elsewhere = async { drop(place.changed().await) };
                    match listener.map(|listener| accepting(&listener)) {
                        Some(Ok(listener)) => admin::serve(listener, status.clone(), elsewhere).await,
                        Some(Err(error)) => return tracing::error!(%error, "status page: no listener"),
                        None => elsewhere.await,
                    }
                }
            }
            .boxed()
        })
    }

    /// Takes another address: bound first, so that a refusal changes nothing.
    pub(super) fn change(&self) -> Box<daemon::Listen> {
        let pages = self.clone();
        Box::new(move |address| {
            let (pages, listener) = (pages.clone(), bind(address)?);
            Ok(Box::new(move || drop(pages.0.send_replace(listener))))
        })
    }
}

fn bind(address: Option<SocketAddr>) -> Result<Option<Arc<TcpListener>>, String> {
    let Some(address) = address else { return Ok(None) };
    let bound = TcpListener::bind(address).and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
    bound.map(|listener| Some(Arc::new(listener))).map_err(|error| format!("listen on {address}: {error}"))
}

fn accepting(listener: &TcpListener) -> io::Result<tokio::net::TcpListener> {
    listener.try_clone().and_then(tokio::net::TcpListener::from_std)
}
