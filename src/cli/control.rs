//! Asks the running daemon, over its control socket.
//!
//! ```text
//!  $RUNTIME_DIRECTORY                                      the daemon of this very service
//!  else $XDG_RUNTIME_DIR/trackd, state_dir, /run/trackd,   whichever runs the same configuration file
//!  /run/trackd-NAME
//! ```
//!
//! Must not know: what the answers mean.

use super::failure::Failure;
use crate::admin::socket::NAME;
use crate::config::{self, Environment};
use axum::body::{Body, Bytes};
use axum::http::{Method, Request, StatusCode, header, request};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;

/// Where a service's socket is when it was not this process that systemd told so.
const SYSTEM: &str = "/run/trackd";
/// The most that is read of an answer.
const ANSWER: usize = 256 << 20;

/// How long a daemon may take whose answer the database has, too.
const SOON: Duration = Duration::from_secs(5);

/// A daemon that answers.
#[derive(Debug)]
pub(super) struct Control {
    path: PathBuf,
}

/// Why none is asked.
#[derive(Debug)]
pub(super) enum Away {
    /// None runs with this configuration; where was looked, for people.
    Nowhere(Vec<String>),
    /// One may be there, and does not answer us.
    Mute(PathBuf, String),
}

/// What the daemon said.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    is_json: bool,
    body: Bytes,
}

impl Control {
    /// The daemon that runs this configuration.
    ///
    /// # Errors
    /// There is none, or it lets nobody like us ask.
    pub(super) async fn find(explicit: Option<&Path>) -> Result<Control, Away> {
        let environment = Environment::of_process();
        let config = config::locate(explicit, &environment).ok();
        // The service's own: systemd says which, also where the file is gone.
        let told = environment.runtime_directory();
        let (places, config) = match told {
            Some(dir) => (vec![Place { socket: dir.join(NAME), may_be_closed: false }], None),
            None => (places(config.as_deref(), &environment), config.map(|path| same(&path))),
        };
        let (mut looked, mut mute) = (Vec::new(), None);
        for Place { socket: path, may_be_closed } in &places {
            let control = Control { path: path.clone() };
            match control.config_path().await {
                Ok(theirs) if config.as_ref().is_none_or(|ours| *ours == theirs) => return Ok(control),
                // Another's, or nobody's.
                Ok(_) => looked.push(path.display().to_string()),
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
                    looked.push(path.display().to_string());
                }
                Err(_) if *may_be_closed && is_closed(path) => {
                    looked.push(format!("{} (closed to you)", path.display()))
                }
                Err(error) => mute = mute.or(Some(Away::Mute(path.clone(), error.to_string()))),
            }
        }
        Err(mute.unwrap_or(Away::Nowhere(looked)))
    }

    async fn config_path(&self) -> io::Result<PathBuf> {
        #[derive(Deserialize)]
        struct Head {
            config_path: PathBuf,
        }
        let answer = self.ask(Method::GET, "/api/status").await?;
        if answer.status != StatusCode::OK {
            return Err(io::Error::new(ErrorKind::PermissionDenied, answer.text()));
        }
        Ok(same(&answer.json::<Head>()?.config_path))
    }

    /// Asks once. Waits as long as the daemon does: the caller bounds it.
    ///
    /// # Errors
    /// No connection, or the daemon ended before it had answered.
    pub(super) async fn ask(&self, method: Method, target: &str) -> io::Result<Answer> {
        self.send(Request::builder().method(method).uri(target), Body::empty(), ANSWER).await
    }

    /// Asks for something to be done, and waits for the answer, at most so long. `what` is the command that asks.
    ///
    /// # Errors
    /// The daemon refuses (64 where the wish is at fault, 69 where it cannot be done now), fails, ends, or is silent.
    pub(super) async fn want(
        &self,
        what: &str,
        target: &str,
        wish: &impl Serialize,
        patience: Duration,
    ) -> Result<Answer, Failure> {
        self.want_large(what, target, wish, patience, ANSWER).await
    }

    /// As `want`, for an answer of up to so many bytes.
    pub(super) async fn want_large(
        &self,
        what: &str,
        target: &str,
        wish: &impl Serialize,
        patience: Duration,
        most: usize,
    ) -> Result<Answer, Failure> {
        let request = Request::builder().method(Method::POST).uri(target);
        let request = request.header(header::CONTENT_TYPE, "application/json");
        let body = serde_json::to_vec(wish).map_err(io::Error::from)?;
        let Ok(answer) = tokio::time::timeout(patience, self.send(request, body.into(), most)).await else {
            let waited = humantime::format_duration(patience);
            return Err(Failure::work(format!("{what}: the daemon did not answer within {waited}")));
        };
        let answer = answer.map_err(|error| Failure::work(format!("{what}: the daemon went away: {error}")))?;
        match answer.status {
            StatusCode::OK => Ok(answer),
            StatusCode::UNPROCESSABLE_ENTITY => Err(Failure::usage(answer.text())),
            StatusCode::SERVICE_UNAVAILABLE => Err(Failure::no_daemon(format!("{what}: {}", answer.text()))),
            StatusCode::INTERNAL_SERVER_ERROR => Err(Failure::work(format!("{what}: {}", answer.text()))),
            status => Err(Failure::work(format!("{what}: the daemon answered {status}: {}", answer.text()))),
        }
    }

    async fn send(&self, request: request::Builder, body: Body, most: usize) -> io::Result<Answer> {
        let stream = UnixStream::connect(&self.path).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let request = request.header(header::HOST, "localhost").header(header::CONNECTION, "close");
        let request = request.body(body).map_err(io::Error::other)?;
        let answered = async {
            let response = sender.send_request(request).await.map_err(io::Error::other)?;
            let status = response.status();
            let is_json = response.headers().get(header::CONTENT_TYPE).is_some_and(|ty| ty == "application/json");
            let body = axum::body::to_bytes(Body::new(response.into_body()), most).await.map_err(io::Error::other)?;
            Ok(Answer { status, is_json, body })
        };
        // The connection moves only while it is polled; its own error is the answer's, too.
        let (answer, _) = tokio::join!(answered, connection);
        answer
    }
}

/// The running daemon, for what can be done without it, too; `None`: none runs, or it does not answer, and why is on
/// stderr.
pub(super) async fn running(explicit: Option<&Path>) -> Option<Control> {
    let mute = match tokio::time::timeout(SOON, Control::find(explicit)).await {
        Ok(Ok(control)) => return Some(control),
        // Nobody to be missed.
        Ok(Err(Away::Nowhere(_))) => return None,
        Ok(Err(Away::Mute(path, why))) => format!("the daemon at {} does not answer: {why}", path.display()),
        Err(_) => format!("the daemon does not answer within {SOON:?}"),
    };
    super::print::diagnostic(format!("trackd: {mute}; done here"));
    None
}

/// What the running daemon says, soon; `None`, and why on stderr, where the database has to be asked instead.
pub(super) async fn prefer<T>(explicit: Option<&Path>, ask: impl AsyncFnOnce(Control) -> io::Result<T>) -> Option<T> {
    let asked = async {
        match Control::find(explicit).await {
            Ok(control) => ask(control).await.map_err(|error| error.to_string()),
            Err(Away::Nowhere(_)) => Err("no daemon runs with this configuration".to_owned()),
            Err(Away::Mute(path, why)) => Err(format!("the daemon at {} does not answer: {why}", path.display())),
        }
    };
    match tokio::time::timeout(SOON, asked).await.unwrap_or_else(|_| Err("the daemon does not answer".to_owned())) {
        Ok(answer) => Some(answer),
        Err(why) => {
            super::print::diagnostic(format!("trackd: {why}; from the database"));
            None
        }
    }
}

impl Answer {
    /// The value it holds.
    ///
    /// # Errors
    /// It holds another: a daemon of another version.
    pub(super) fn json<T: DeserializeOwned>(&self) -> io::Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| {
            io::Error::new(ErrorKind::InvalidData, format!("the daemon is of another version: {error}"))
        })
    }

    /// Whether it says that it holds one.
    pub(super) fn is_json(&self) -> bool {
        self.is_json
    }

    pub(super) fn into_body(self) -> Bytes {
        self.body
    }

    /// As one line.
    pub(super) fn text(&self) -> String {
        super::print::harmless(String::from_utf8_lossy(&self.body).trim_end())
    }
}

impl From<Away> for Failure {
    fn from(away: Away) -> Failure {
        match away {
            Away::Nowhere(places) => {
                Failure::no_daemon(format!("no daemon runs with this configuration: looked at {}", places.join(", ")))
            }
            Away::Mute(path, why) => {
                let hint = "root, trackd's own user and the members of its group may ask".to_owned();
                Failure::work(format!("ask the daemon at {}: {why}", path.display())).with_hint(Some(hint))
            }
        }
    }
}

/// Where a daemon may answer.
struct Place {
    socket: PathBuf,
    /// Whether to take no notice where the directory lets nobody like us in. The state of a service never does; its socket
    /// is elsewhere, in a directory that is there as long as the service runs.
    may_be_closed: bool,
}

fn places(config: Option<&Path>, environment: &Environment) -> Vec<Place> {
    let state = config.map_or_else(|| environment.state_dir(), |path| config::state_dir(path, environment));
    let place = |dir: PathBuf| Place { socket: dir.join(NAME), may_be_closed: dir == state };
    let places = environment.user_runtime_dir().into_iter().chain([state.clone(), SYSTEM.into()]).chain(instances());
    places.map(place).collect()
}

/// Whether its directory lets us see nothing.
fn is_closed(path: &Path) -> bool {
    path.symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
}

/// Where the sockets of `trackd@NAME.service` are.
fn instances() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/run").into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("trackd-"))
        .map(|entry| entry.path())
        .collect()
}

/// One name for one file, also where it was named by a link or is gone.
fn same(path: &Path) -> PathBuf {
    path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_owned())
}
