//! What the source answers: a good body, or one of the ways in which sources fail.
//!
//! In: the fault of the moment, a die that follows from the request, a body. Out: bytes. Pure.

use std::time::Duration;

/// What to do with one request.
#[derive(Debug, Clone)]
pub enum Reply {
    /// These bytes, head and all; the connection stays.
    Whole(Vec<u8>),
    /// These bytes after so long; the connection stays.
    Late(Duration, Vec<u8>),
    /// These bytes, then the connection is closed.
    Cut(Vec<u8>),
    /// These bytes, then this piece over and over while somebody reads.
    Endless(Vec<u8>, Vec<u8>),
    /// Nothing; the connection stays.
    Silence,
}

const FAULTS: [&str; 7] = [
    "source-rubbish",
    "source-500",
    "source-hang",
    "source-redirects",
    "source-truncated",
    "source-retry-after",
    "source-endless",
];

/// The die of one attempt: the same for the same seed, whatever else goes on.
pub fn dice(seed: u64, tracker: &str, at: i64, attempt: u64) -> u64 {
    let text = format!("{seed}/{tracker}/{at}/{attempt}");
    xxhash_rust::xxh3::xxh3_64(text.as_bytes())
}

/// The answer, and what kind it is: "good", or the name of a fault.
pub fn reply(fault: Option<&'static str>, dice: u64, body: &str, target: &str) -> (&'static str, Reply) {
    let fault = match fault {
        Some("source-mixed") => dice.is_multiple_of(3).then(|| FAULTS[(dice / 3 % 7) as usize]),
        other => other,
    };
    let Some(fault) = fault else { return ("good", Reply::Whole(bytes(200, "", body))) };
    let choice = dice / 21;
    if fault == "source-slow" {
        // Sooner than anybody gives up waiting.
        return ("good", Reply::Late(Duration::from_millis(500 + choice % 2_000), bytes(200, "", body)));
    }
    let whole = |status, headers: &str, body| Reply::Whole(bytes(status, headers, body));
    let reply = match fault {
        "source-rubbish" => whole(200, "", ["<html>busy</html>", "{\"proof\": 7}", "[1,2", ""][(choice % 4) as usize]),
        "source-500" => whole(500 + (choice % 5) as u16, "", "sorry"),
        "source-hang" => Reply::Silence,
        "source-redirects" => whole(302, &format!("Location: {target}&again\r\n"), ""),
        "source-truncated" => {
            let bytes = bytes(200, "", body);
            let head = bytes.len() - body.len();
            let keep = head + (choice as usize % body.len().max(1));
            Reply::Cut(bytes[..keep].to_vec())
        }
        "source-retry-after" => whole([429, 503][(choice % 2) as usize], "Retry-After: 1\r\n", "later"),
        _ => Reply::Endless(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
            b"1000\r\n".iter().copied().chain([b' '; 4096]).chain(*b"\r\n").collect(),
        ),
    };
    (fault, reply)
}

fn bytes(status: u16, headers: &str, body: &str) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status} Whatever\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    (head + body).into_bytes()
}
