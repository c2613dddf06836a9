//! The scripted source: an HTTP server that numbers every answer and remembers those it gave.
//!
//! What it answers depends on the seed, the request and the fault of the moment; never on chance of its own.
//! Must not know: trackd, the database.

use super::answer::{self, Reply};
use super::fleet::{Millis, Tracker};
use super::truth::Answer;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// The longest head of a request.
const HEAD: usize = 16 * 1024;

/// A running source; it ends when dropped.
#[derive(Debug)]
pub struct Source {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    seed: u64,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    trackers: HashMap<String, Tracker>,
    answers: Vec<Answer>,
    /// The name of the fault that goes on.
    fault: Option<&'static str>,
}

impl Source {
    pub async fn start(seed: u64) -> std::io::Result<Source> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { seed, inner: Mutex::default() });
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Source { address, shared, task })
    }

    pub fn url(&self) -> String {
        format!("http://{}/t", self.address)
    }

    /// Answers for this tracker, too.
    pub fn serve(&self, tracker: &Tracker) {
        self.shared.lock().trackers.insert(tracker.name.clone(), tracker.clone());
    }

    /// From now on this fault, or none.
    pub fn set(&self, fault: Option<&'static str>) {
        self.shared.lock().fault = fault;
    }

    /// All answers so far.
    pub fn memory(&self) -> Vec<Answer> {
        self.shared.lock().answers.clone()
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Numbers the answer to a request. `None`: no request of a tracker.
    fn answer(&self, head: &str) -> Option<(u64, Reply)> {
        let asked = Asked::read(head)?;
        let mut inner = self.lock();
        let fault = inner.fault;
        let serial = inner.answers.len() as u64 + 1;
        let body = inner.trackers.get(&asked.tracker)?.body(asked.at, serial);
        let attempts = inner.answers.iter().rev().take(2_000);
        let attempt = attempts.filter(|answer| answer.tracker == asked.tracker && answer.at == asked.at).count();
        let dice = answer::dice(self.seed, &asked.tracker, asked.at, attempt as u64);
        let (kind, reply) = answer::reply(fault, dice, &body, &asked.target);
        let good = kind == "good";
        let Asked { tracker, at, daemon, .. } = asked;
        inner.answers.push(Answer { serial, tracker, at, daemon, asked: now(), given: None, good, kind });
        Some((serial, reply))
    }

    fn given(&self, serial: u64) {
        if let Some(answer) = self.lock().answers.get_mut(serial as usize - 1) {
            answer.given = Some(now());
        }
    }
}

/// What a request says.
struct Asked {
    target: String,
    tracker: String,
    at: Millis,
    daemon: usize,
}

impl Asked {
    fn read(head: &str) -> Option<Asked> {
        let target = head.split(' ').nth(1)?;
        let (path, query) = target.split_once('?')?;
        let at = query.split('&').find_map(|pair| pair.strip_prefix("at="))?.replace("%3A", ":");
        let at: jiff::Timestamp = at.parse().ok()?;
        let named = |line: &str| line.to_ascii_lowercase().strip_prefix("x-daemon: ").map(str::to_owned);
        let daemon = head.lines().find_map(named)?.trim().parse().ok()?;
        let tracker = path.strip_prefix("/t/")?.to_owned();
        Some(Asked { target: target.to_owned(), tracker, at: at.as_millisecond(), daemon })
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Held here, so that every connection ends with the source.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(serve(stream, Arc::clone(&shared)))),
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let mut bytes = Vec::new();
    while let Some(head) = head(&mut stream, &mut bytes).await {
        let Some((serial, reply)) = shared.answer(&head) else { return };
        if !give(&mut stream, reply, || shared.given(serial)).await {
            return;
        }
    }
}

/// One request's head; `None` when the client is gone. Our requests have no body.
async fn head(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            bytes.drain(..end + 4);
            return Some(head);
        }
        if bytes.len() > HEAD || stream.read_buf(bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// Whether the connection goes on.
async fn give(stream: &mut TcpStream, reply: Reply, given: impl FnOnce()) -> bool {
    match reply {
        Reply::Whole(bytes) => {
            let whole = stream.write_all(&bytes).await.is_ok();
            if whole {
                given();
            }
            whole
        }
        Reply::Late(after, bytes) => {
            tokio::time::sleep(after).await;
            let whole = stream.write_all(&bytes).await.is_ok();
            if whole {
                given();
            }
            whole
        }
        Reply::Cut(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
            false
        }
        Reply::Endless(head, piece) => {
            let mut next = stream.write_all(&head).await;
            while next.is_ok() {
                next = stream.write_all(&piece).await;
            }
            false
        }
        // Until the client has enough of it.
        Reply::Silence => {
            let mut byte = [0];
            let _ = stream.read(&mut byte).await;
            false
        }
    }
}

/// Milliseconds since the epoch, by this process's clock.
pub fn now() -> Millis {
    jiff::Timestamp::now().as_millisecond()
}
