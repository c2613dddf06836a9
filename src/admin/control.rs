//! The control socket: who may ask, and what only there can be asked for.
//!
//! ```text
//!  POST /control/reload       reloads; answers when it is over       200, or 422 with every fault
//!  POST /control/rehearsal    what a reload would change             200, or 422 with every fault
//!  POST /control/once         runs trackers now, and waits for them  200, 422 for a wish that cannot be, or 503
//!  POST /control/spool        looks at the spool's files, lands one  200, 422 for a wish that cannot be, 503 or 500
//!  GET  /api/runs             runs of the ledger, newest first       200, or 503
//!  everything the pages have
//! ```
//!
//! Must not know: how it is done, by which closure, and what is in a configuration.

use super::connections::{self, Bounds, Door};
use super::routes;
use super::socket::Socket;
use crate::status::{ByHand, Reload, Run, Status};
use axum::body::{Body, Bytes};
use axum::extract::{Extension, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use std::convert::Infallible;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::unix::UCred;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

/// Who waits for a reload waits longer than a browser.
const BOUNDS: Bounds = Bounds { connections: 32, longest: Duration::from_secs(15 * 60) };
/// Runs in one answer.
pub const RUNS: u32 = 10_000;

type DoReload = dyn Fn(Wish) -> BoxFuture<'static, Option<Reload>> + Send + Sync;
type DoOnce = dyn Fn(String, OnceWish) -> BoxFuture<'static, Result<Vec<ByHand>, Refusal>> + Send + Sync;
type AskSpool = dyn Fn(String, SpoolWish) -> BoxFuture<'static, Result<SpoolAnswer, Refusal>> + Send + Sync;
type ReadRuns = dyn Fn(RunsWish) -> BoxFuture<'static, Result<Vec<Run>, String>> + Send + Sync;

/// What can be asked of a daemon.
#[derive(Clone)]
pub struct Control {
    pub status: watch::Receiver<Arc<Status>>,
    /// Reloads, or says what a reload would do; `None`: the daemon stops.
    pub reload: Arc<DoReload>,
    /// Runs trackers now, and waits for what becomes of them; first who asks, for the log.
    pub once: Arc<DoOnce>,
    /// Looks at the spool, whose directory is the daemon's own, or lands a file of it; first who asks, for the log.
    pub spool: Arc<AskSpool>,
    /// Runs of the ledger, newest first, or why they cannot be read.
    pub runs: Arc<ReadRuns>,
}

/// A reload that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Who asks, for the log.
    pub by: String,
    /// Only says what would change.
    pub rehearsal: bool,
}

/// Trackers to run now.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct OnceWish {
    /// `None`: all, in the order of the file.
    pub trackers: Option<Vec<String>>,
}

/// What is asked of the spool.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpoolWish {
    /// What waits, of one tracker or of all.
    Ls { tracker: Option<String> },
    /// What is not whole.
    Check,
    /// The payload of a file that waits.
    Read { tracker: String, file: PathBuf },
    /// What was set aside, of one tracker or of all.
    Aside { tracker: Option<String> },
    /// To land a file that was set aside, by the plan of its time or by the configuration in force.
    Land { tracker: String, file: PathBuf, current: bool },
}

/// What the spool answers.
pub enum SpoolAnswer {
    /// As JSON.
    Found(serde_json::Value),
    /// A payload: what is known of it, one line of JSON, and its body; in pieces, as it may be large.
    Payload(BoxStream<'static, Bytes>),
}

/// Why what was asked for is not done, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It cannot be done as it was asked for.
    Wish(String),
    /// It cannot be done now.
    Now(String),
    /// It was tried.
    Failed(String),
}

/// Which runs.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct RunsWish {
    pub tracker: Option<String>,
    #[serde(default)]
    pub failed: bool,
    /// At most `RUNS`.
    pub limit: u32,
}

/// Answers on `socket` until it is dropped.
///
/// # Errors
/// No listener: the system is out of file descriptors.
///
/// Cancel safety: safe; every connection ends with the future.
pub async fn serve(socket: &Socket, control: Control) -> io::Result<()> {
    let listener = socket.listener()?;
    let asking = Router::new()
        .route("/control/reload", post(reload))
        .route("/control/rehearsal", post(rehearse))
        .route("/control/once", post(once))
        .route("/control/spool", post(spool))
        .route("/api/runs", get(runs));
    let router = asking.with_state(control.clone()).merge(routes::router(control.status, true));
    let door = Guarded { listener, path: socket.path().to_owned(), router };
    connections::answer(door, BOUNDS, std::future::pending()).await;
    Ok(())
}

/// Who is at the other end, for the log.
#[derive(Clone)]
struct Peer(String);

struct Guarded {
    listener: UnixListener,
    path: PathBuf,
    router: Router,
}

impl Door for Guarded {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<(UnixStream, Router)> {
        let (stream, _) = self.listener.accept().await?;
        let peer = stream.peer_cred()?;
        let who = name(&peer);
        let file = std::fs::metadata(&self.path).map(|file| (file.mode(), file.gid())).ok();
        if may_ask((peer.uid(), peer.gid()), rustix::process::geteuid().as_raw(), file) {
            return Ok((stream, self.router.clone().layer(Extension(Peer(who)))));
        }
        tracing::warn!(by = who, "control socket: refused");
        let why = "not allowed: root, trackd's own user and its group may ask here\n";
        Ok((stream, Router::new().fallback(async move || (StatusCode::FORBIDDEN, why))))
    }
}

/// Whether the user and group may ask a daemon that runs as `own`, at a socket file of this mode and group.
///
/// The kernel connects only those the mode lets in. Of these the group's members cannot be told by their credentials,
/// which name one group of many, so the mode has to say that there are no others.
fn may_ask((user, group): (u32, u32), own: u32, file: Option<(u32, u32)>) -> bool {
    const OTHERS_WRITE: u32 = 0o002;
    let let_in = |(mode, owning): (u32, u32)| mode & OTHERS_WRITE == 0 || group == owning;
    user == 0 || user == own || file.is_some_and(let_in)
}

/// "uid 1000, process 4711". In a user namespace of systemd's (`PrivateUsers=`) all but root and the own are 65534.
fn name(peer: &UCred) -> String {
    let process = peer.pid().map_or_else(String::new, |pid| format!(", process {pid}"));
    format!("uid {}{process}", peer.uid())
}

async fn reload(State(control): State<Control>, Extension(Peer(by)): Extension<Peer>) -> Response {
    reloaded((control.reload)(Wish { by, rehearsal: false }).await)
}

async fn rehearse(State(control): State<Control>, Extension(Peer(by)): Extension<Peer>) -> Response {
    reloaded((control.reload)(Wish { by, rehearsal: true }).await)
}

fn reloaded(outcome: Option<Reload>) -> Response {
    match outcome {
        Some(reload) if reload.ok => Json(reload).into_response(),
        Some(refused) => (StatusCode::UNPROCESSABLE_ENTITY, Json(refused)).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "the daemon stops\n").into_response(),
    }
}

async fn once(
    State(control): State<Control>,
    Extension(Peer(by)): Extension<Peer>,
    Json(wish): Json<OnceWish>,
) -> Response {
    match (control.once)(by, wish).await {
        Ok(runs) => Json(runs).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

async fn spool(
    State(control): State<Control>,
    Extension(Peer(by)): Extension<Peer>,
    Json(wish): Json<SpoolWish>,
) -> Response {
    match (control.spool)(by, wish).await {
        Ok(SpoolAnswer::Found(found)) => Json(found).into_response(),
        Ok(SpoolAnswer::Payload(pieces)) => Body::from_stream(pieces.map(Ok::<_, Infallible>)).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Refusal::Wish(why) => (StatusCode::UNPROCESSABLE_ENTITY, why).into_response(),
            Refusal::Now(why) => (StatusCode::SERVICE_UNAVAILABLE, why).into_response(),
            Refusal::Failed(why) => (StatusCode::INTERNAL_SERVER_ERROR, why).into_response(),
        }
    }
}

async fn runs(State(control): State<Control>, Query(wish): Query<RunsWish>) -> Response {
    match (control.runs)(RunsWish { limit: wish.limit.min(RUNS), ..wish }).await {
        Ok(runs) => Json(runs).into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why).into_response(),
    }
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for SpoolAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SpoolAnswer::Found(found) => f.debug_tuple("Found").field(found).finish(),
            SpoolAnswer::Payload(_) => f.debug_tuple("Payload").finish_non_exhaustive(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::may_ask;

    #[test]
    fn root_the_own_user_and_whom_the_mode_lets_in_may_ask() {
        const OWN: u32 = 990;
        let (tight, open) = (Some((0o140_660, 980)), Some((0o140_666, 980)));
        for peer in [(0, 0), (OWN, 1), (1000, 1000)] {
            assert!(may_ask(peer, OWN, tight), "{peer:?}");
        }
        for peer in [(0, 0), (OWN, 1), (1000, 980)] {
            assert!(may_ask(peer, OWN, open), "{peer:?}");
        }
        assert!(!may_ask((1000, 1000), OWN, open), "a socket that was opened to all still asks who it is");
        assert!(!may_ask((1000, 1000), OWN, None), "a socket whose file is gone");
    }
}
