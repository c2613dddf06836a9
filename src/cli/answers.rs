//! What the daemon answers at its control socket, put together from its rooms.
//!
//! Must not know: who asks, how an answer travels.

mod spool;

use crate::admin;
use crate::admin::control::{Control, OnceWish, Refusal, RunsWish, SpoolWish, Wish};
use crate::admin::socket::Socket;
use crate::daemon;
use crate::daemon::manual::NotRun;
use crate::store::ledger::{self, Query};
use crate::store::pool::Pool;
use futures_util::FutureExt;
pub(super) use spool::Desk;
use std::sync::Arc;

/// Answers on `socket`; reads the ledger through `pool`, and asks for the spool at its desk.
pub(super) fn control(socket: Arc<Socket>, pool: Pool, desk: Arc<Desk>) -> Arc<daemon::Control> {
    let runs = Arc::new(move |wish: RunsWish| {
        let (pool, query) = (pool.clone(), Query { tracker: wish.tracker, failed: wish.failed, limit: wish.limit });
        async move { ledger::recent(&pool, &query).await.map_err(|error| error.to_string()) }.boxed()
    });
    Arc::new(move |status, asker, manual| {
        let socket = Arc::clone(&socket);
        let reload = Arc::new(move |wish: Wish| {
            let asker = asker.clone();
            async move { asker.reload(wish.by, wish.rehearsal).await }.boxed()
        });
        let (desk, daemon) = (Arc::clone(&desk), Arc::clone(&manual));
        let spool = Arc::new(move |by: String, wish: SpoolWish| {
            let (desk, config) = (Arc::clone(&desk), daemon.in_force());
            async move { desk.answer(config, &by, wish).await }.boxed()
        });
        let once = Arc::new(move |by: String, wish: OnceWish| {
            let manual = Arc::clone(&manual);
            async move { manual.run(&by, wish.trackers).await.map_err(refusal) }.boxed()
        });
        let control = Control { status, reload, once, spool, runs: runs.clone() };
        async move {
            if let Err(error) = admin::control::serve(&socket, control).await {
                tracing::error!(%error, "control socket: no listener");
            }
        }
        .boxed()
    })
}

fn refusal(not_run: NotRun) -> Refusal {
    match not_run {
        NotRun::Unknown { .. } | NotRun::TooMany(_) => Refusal::Wish(not_run.to_string()),
        NotRun::Busy | NotRun::Starting => Refusal::Now(not_run.to_string()),
    }
}
