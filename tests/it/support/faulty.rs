//! An HTTP server that misbehaves as told: raw sockets, so that every byte and every cut is the test's own.
//! It can also serve a folder, as any static web server does.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What to do with one request.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// These bytes, head and all; the connection stays.
    Bytes(Vec<u8>),
    /// These bytes, then the connection is closed.
    Cut(Vec<u8>),
    /// These bytes, then this piece over and over while somebody reads.
    Endless(Vec<u8>, Vec<u8>),
    /// These bytes, then one byte each so often, for ever.
    Drip(Vec<u8>, Duration),
    /// These bytes, after so long.
    Late(Vec<u8>, Duration),
    /// Nothing; the connection is closed.
    Close,
    /// Nothing; the connection stays.
    Silence,
}

impl Answer {
    /// A whole response.
    pub(crate) fn new(status: u16, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Answer {
        let body = body.as_ref();
        let mut bytes = head(status, headers, body.len()).into_bytes();
        bytes.extend_from_slice(body);
        Answer::Bytes(bytes)
    }

    /// 200 with this body.
    pub(crate) fn ok(body: impl AsRef<[u8]>) -> Answer {
        Answer::new(200, &[], body)
    }
}

/// Where answers come from.
#[derive(Debug)]
enum Script {
    /// In turn, the last one from then on.
    Turns(VecDeque<Answer>),
    /// `/NAME` is NAME.json of this folder.
    Files(PathBuf),
}

impl Script {
    fn answer(&mut self, request: &str) -> Answer {
        match self {
            Script::Turns(turns) if turns.len() > 1 => turns.pop_front().unwrap_or(Answer::Close),
            Script::Turns(turns) => turns.front().cloned().unwrap_or(Answer::Close),
            Script::Files(folder) => {
                let name = request.split(' ').nth(1).unwrap_or_default().trim_start_matches('/');
                std::fs::read(folder.join(format!("{name}.json")))
                    .map_or_else(|_| Answer::new(404, &[], "no such file"), Answer::ok)
            }
        }
    }
}

/// A response's head with a Content-Length.
pub(crate) fn head(status: u16, headers: &[(&str, &str)], length: usize) -> String {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("HTTP/1.1 {status} Whatever\r\n{headers}Content-Length: {length}\r\n\r\n")
}

#[derive(Debug, Default)]
struct Seen {
    connections: usize,
    requests: Vec<String>,
    /// When each request was there, and how many there were then without an answer, this one included.
    at: Vec<(Instant, usize)>,
    open: usize,
    written: u64,
}

/// A server on a port of its own; it ends when dropped.
#[derive(Debug)]
pub(crate) struct Faulty {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Faulty {
    /// Gives the answers in turn, the last one from then on.
    pub(crate) async fn start(answers: impl IntoIterator<Item = Answer>) -> Faulty {
        Faulty::follow(Script::Turns(answers.into_iter().collect())).await
    }

    /// Serves the .json files of a folder.
    pub(crate) async fn files(folder: &Path) -> Faulty {
        Faulty::follow(Script::Files(folder.to_owned())).await
    }

    async fn follow(script: Script) -> Faulty {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let seen = Arc::new(Mutex::new(Seen::default()));
        let script = Arc::new(Mutex::new(script));
        let task = tokio::spawn(accept(listener, script.clone(), seen.clone()));
        Faulty { address, script, seen, task }
    }

    /// Gives these answers from now on.
    pub(crate) fn turn_to(&self, answers: impl IntoIterator<Item = Answer>) {
        *self.script.lock().expect("script") = Script::Turns(answers.into_iter().collect());
    }

    /// Host and port.
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// When each request was there.
    pub(crate) fn instants(&self) -> Vec<Instant> {
        self.seen.lock().expect("seen").at.iter().map(|(at, _)| *at).collect()
    }

    /// How many requests were without an answer when each was there, itself included.
    pub(crate) fn crowds(&self) -> Vec<usize> {
        self.seen.lock().expect("seen").at.iter().map(|(_, open)| *open).collect()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.seen.lock().expect("seen").connections
    }

    /// Requests read so far, heads and bodies as they came.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.seen.lock().expect("seen").requests.clone()
    }

    /// Bytes the kernel took from us so far.
    pub(crate) fn written(&self) -> u64 {
        self.seen.lock().expect("seen").written
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, script: Arc<Mutex<Script>>, seen: Arc<Mutex<Seen>>) {
    // Held here, so that every connection ends with the server.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        seen.lock().expect("seen").connections += 1;
        connections.spawn(serve(stream, script.clone(), seen.clone()));
    }
}

async fn serve(mut stream: TcpStream, script: Arc<Mutex<Script>>, seen: Arc<Mutex<Seen>>) {
    while let Some(request) = request(&mut stream).await {
        let answer = script.lock().expect("script").answer(&request);
        {
            let mut seen = seen.lock().expect("seen");
            seen.requests.push(request);
            seen.open += 1;
            let open = seen.open;
            seen.at.push((Instant::now(), open));
        }
        if let Answer::Late(_, pause) = &answer {
            tokio::time::sleep(*pause).await;
        }
        if let Answer::Silence = answer {
            // Until the client is gone.
            let _ = stream.read(&mut [0]).await;
        }
        // Before the answer: a client that has it may ask again at once.
        seen.lock().expect("seen").open -= 1;
        if !give(&mut stream, answer, &seen).await {
            return;
        }
    }
}

/// Whether the connection goes on.
async fn give(stream: &mut TcpStream, answer: Answer, seen: &Mutex<Seen>) -> bool {
    match answer {
        Answer::Bytes(bytes) | Answer::Late(bytes, _) => stream.write_all(&bytes).await.is_ok(),
        Answer::Cut(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
            false
        }
        Answer::Endless(head, piece) => {
            let mut next = stream.write_all(&head).await;
            while next.is_ok() {
                next = stream.write_all(&piece).await;
                seen.lock().expect("seen").written += piece.len() as u64;
            }
            false
        }
        Answer::Drip(head, pause) => {
            let mut next = stream.write_all(&head).await;
            while next.is_ok() {
                tokio::time::sleep(pause).await;
                next = stream.write_all(b" ").await;
            }
            false
        }
        Answer::Close | Answer::Silence => false,
    }
}

/// One request with its body, or `None` when the client is gone.
async fn request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let lower = head.to_lowercase();
            let length =
                lower.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return Some(text.into_owned());
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}
