//! A proxy between trackd and PostgreSQL that does, on command, what networks and servers do to connections.
//!
//! It listens on a TCP port of its own on loopback, and forwards to the server's Unix socket.

use super::marked::MARK;
use super::postgres::Database;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

/// What happens to connections, those that exist and those to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Requests reach the server, its answers arrive no more; the connection ends once the server has committed.
    LoseAnswers,
    /// All passes but the answers to COMMIT: these are lost, and their connections end.
    LoseCommits,
    /// Connections stay open, and nothing passes in either direction; new ones are accepted.
    Freeze,
    /// Those that exist are silent for good, whatever comes after; new ones pass: half-open, as behind a firewall that
    /// forgot them.
    Strand,
    /// New connections are accepted and never answered, whatever comes later.
    Swallow,
    /// Every connection ends with a reset, new ones at once.
    Reset,
    /// Each piece waits.
    Delay(Duration),
    /// A connection ends after so many more bytes to the server.
    CutUp(usize),
    /// A connection ends after so many more bytes from the server.
    CutDown(usize),
}

/// A TCP port that forwards to a server's socket.
pub struct Proxy {
    port: u16,
    line: Arc<Line>,
}

struct Line {
    fault: watch::Sender<Fault>,
    /// Bytes before the cut.
    budget: AtomicUsize,
    accepted: AtomicUsize,
    /// Round trips that were begun.
    turns: AtomicUsize,
    /// Connections that were accepted before so many are silent for good.
    stranded: AtomicUsize,
}

impl Proxy {
    pub async fn start(server: PathBuf) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (fault, zero) = (watch::channel(Fault::None).0, || AtomicUsize::new(0));
        let line = Arc::new(Line { fault, budget: zero(), accepted: zero(), turns: zero(), stranded: zero() });
        let shared = line.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = shared.accepted.fetch_add(1, Ordering::SeqCst);
                client.set_nodelay(true).unwrap();
                tokio::spawn(forward(number, client, server.clone(), shared.clone()));
            }
        });
        Proxy { port, line }
    }

    /// The database, through the proxy.
    pub fn url(&self, database: &Database) -> String {
        format!("postgres://postgres:{MARK}-url@127.0.0.1:{}/{}?sslmode=disable", self.port, database.name)
    }

    pub fn set(&self, fault: Fault) {
        if let Fault::CutUp(bytes) | Fault::CutDown(bytes) = fault {
            self.line.budget.store(bytes, Ordering::SeqCst);
        }
        if fault == Fault::Strand {
            self.line.stranded.store(self.accepted(), Ordering::SeqCst);
        }
        self.line.fault.send_replace(fault);
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.line.accepted.load(Ordering::SeqCst)
    }

    /// Round trips so far: what was sent up since something came down is one, however many pieces it has.
    pub fn turns(&self) -> usize {
        self.line.turns.load(Ordering::SeqCst)
    }
}

impl Line {
    /// Waits while nothing may pass on the connection of that number. Returns the fault that holds then.
    async fn lets_pass(&self, number: usize, fault: &mut watch::Receiver<Fault>) -> Fault {
        loop {
            let now = *fault.borrow_and_update();
            let stranded = number < self.stranded.load(Ordering::SeqCst) && now != Fault::Reset;
            if !(stranded || now == Fault::Freeze) || fault.changed().await.is_err() {
                return now;
            }
        }
    }
}

async fn forward(number: usize, client: TcpStream, server: PathBuf, line: Arc<Line>) {
    let mut fault = line.fault.subscribe();
    if *fault.borrow() == Fault::Reset {
        return reset(&client);
    }
    if *fault.borrow() == Fault::Swallow {
        let (mut client, mut nowhere) = (client, tokio::io::sink());
        return drop(tokio::io::copy(&mut client, &mut nowhere).await);
    }
    let Ok(server) = UnixStream::connect(server).await else { return };
    let (mut from_server, mut to_server) = server.into_split();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut up, mut down) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
    let mut asks = false;
    loop {
        if line.lets_pass(number, &mut fault).await == Fault::Reset {
            return reset(to_client.as_ref());
        }
        let (read, is_up) = tokio::select! {
            _ = fault.changed() => continue,
            read = from_client.read(&mut up) => (read, true),
            read = from_server.read(&mut down) => (read, false),
        };
        let Ok(read @ 1..) = read else { return };
        if is_up && !std::mem::replace(&mut asks, is_up) {
            line.turns.fetch_add(1, Ordering::SeqCst);
        }
        asks = is_up;
        // Asked again: these bytes may have been sent after a fault that the wait above did not see.
        let now = line.lets_pass(number, &mut fault).await;
        let passed = match is_up {
            _ if now == Fault::Reset => return reset(to_client.as_ref()),
            true => pass(&up[..read], matches!(now, Fault::CutUp(_)), now, &line, &mut to_server).await,
            false => down_to_client(&down[..read], now, &line, &mut to_client).await,
        };
        if !passed {
            return;
        }
    }
}

async fn down_to_client(bytes: &[u8], now: Fault, line: &Line, to_client: &mut OwnedWriteHalf) -> bool {
    if now == Fault::LoseAnswers {
        // Closed only when the server has said that it committed.
        return !says_commit(bytes);
    }
    if now == Fault::LoseCommits && says_commit(bytes) {
        return false;
    }
    pass(bytes, matches!(now, Fault::CutDown(_)), now, line, to_client).await
}

fn says_commit(bytes: &[u8]) -> bool {
    bytes.windows(7).any(|word| word == b"COMMIT\0")
}

/// Writes what may pass. Returns whether the connection goes on.
async fn pass(bytes: &[u8], counts: bool, now: Fault, line: &Line, to: &mut (impl AsyncWrite + Unpin)) -> bool {
    if let Fault::Delay(time) = now {
        tokio::time::sleep(time).await;
    }
    if !counts {
        return to.write_all(bytes).await.is_ok();
    }
    let before = line.budget.load(Ordering::SeqCst);
    let may = before.min(bytes.len());
    line.budget.store(before - may, Ordering::SeqCst);
    to.write_all(&bytes[..may]).await.is_ok() && may == bytes.len()
}

/// Ends a connection as a peer does that is not there any more.
fn reset(client: &TcpStream) {
    let _ = rustix::net::sockopt::set_socket_linger(client, Some(Duration::ZERO));
}
