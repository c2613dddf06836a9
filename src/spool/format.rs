//! What is in an entry's file: bytes ↔ values.
//!
//! ```text
//!  trackd-spool 1 <sha256 of all that follows>      head -1 FILE; tail -n +2 FILE | sha256sum
//!  {"tracker":"leaderboard","scheduled_at":…}       sed -n 2p FILE | jq
//!  the body, as the source gave it                  tail -n +3 FILE
//! ```
//!
//! In: an entry, or a file's bytes. Out: bytes, or the entry, or in words why it is none. Must not know: files.

use super::Entry;
use super::name::{Slot, Tag};
use crate::status::Kind;
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt::Write;

const MAGIC: &str = "trackd-spool";
const VERSION: &str = "1";
/// No head is longer: magic, version, checksum.
const HEAD: usize = 128;

/// The second line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Meta {
    tracker: String,
    scheduled_at: Timestamp,
    kind: Kind,
    attempt: i32,
    started_at: Timestamp,
    fetched_at: Timestamp,
    response: serde_json::Value,
    body_bytes: u64,
    /// SHA-256 of the plan.
    plan: String,
}

/// The first two lines of an entry's file; the body follows them.
pub(super) fn head(entry: &Entry, plan: &str) -> Vec<u8> {
    let meta = Meta {
        tracker: entry.tracker.clone(),
        scheduled_at: entry.scheduled_at,
        kind: entry.kind,
        attempt: entry.attempt,
        started_at: entry.started_at,
        fetched_at: entry.fetched_at,
        response: entry.response.clone(),
        body_bytes: entry.body.len() as u64,
        plan: plan.to_owned(),
    };
    let meta = serde_json::to_string(&meta).expect("all keys are texts and nothing here can fail to be written");
    let mut hash = Sha256::new();
    hash.update(&meta);
    hash.update("\n");
    hash.update(&entry.body);
    format!("{MAGIC} {VERSION} {}\n{meta}\n", hex(hash)).into_bytes()
}

/// An entry's file, checked; the plan is not in it.
#[derive(Debug)]
pub(super) struct Decoded {
    /// Its plan is still empty.
    pub(super) entry: Entry,
    /// SHA-256 of the plan.
    pub(super) plan: String,
    /// The second line, without its end.
    pub(super) meta: Bytes,
}

/// Reads an entry's file.
///
/// # Errors
/// In words: it is not whole, or not what its name says.
pub(super) fn decode(file: &Bytes, tracker: &str, slot: Slot) -> Result<Decoded, String> {
    let length = file.len() as u64;
    match length.cmp(&slot.bytes) {
        _ if length == 0 => return Err(format!("empty, expected {} bytes", slot.bytes)),
        std::cmp::Ordering::Less => return Err(format!("cut: {length} bytes, expected {}", slot.bytes)),
        std::cmp::Ordering::Greater => return Err(format!("too long: more than the expected {} bytes", slot.bytes)),
        std::cmp::Ordering::Equal => {}
    }
    let rest = verified(file)?;
    let (meta, body) = line(&rest, rest.len()).ok_or("line 2 has no end")?;
    let read: Meta =
        serde_json::from_slice(&meta).map_err(|error| format!("line 2 is not an entry's meta: {error}"))?;
    if (read.tracker.as_str(), read.scheduled_at) != (tracker, slot.at) {
        let (name, at) = (&read.tracker, read.scheduled_at);
        return Err(format!("holds tracker {name:?} at {at}, expected {tracker:?} at {}", slot.at));
    }
    if read.body_bytes != body.len() as u64 || Tag::of(&read.plan) != Some(slot.plan) {
        return Err("its meta is not of its body, or of another plan than its name".into());
    }
    let Meta { kind, attempt, started_at, fetched_at, response, plan, .. } = read;
    let (tracker, scheduled_at) = (read.tracker, read.scheduled_at);
    let entry =
        Entry { tracker, scheduled_at, kind, attempt, started_at, fetched_at, response, plan: Bytes::new(), body };
    Ok(Decoded { entry, plan, meta })
}

/// What follows the first line, which vouches for it.
fn verified(file: &Bytes) -> Result<Bytes, String> {
    let foreign = || format!("foreign: does not begin with \"{MAGIC} {VERSION}\" and a checksum");
    let (first, rest) = line(file, HEAD).ok_or_else(foreign)?;
    let first = std::str::from_utf8(&first).map_err(|_| foreign())?;
    let (version, sum) =
        first.strip_prefix(MAGIC).and_then(|it| it.strip_prefix(' ')?.split_once(' ')).ok_or_else(foreign)?;
    if version != VERSION {
        return Err(format!("format version {version:?}, expected {VERSION:?}"));
    }
    match sha256(&rest) {
        good if good == sum => Ok(rest),
        other => Err(format!("flipped: line 1 says sha256 {sum:?}, it is {other:?}")),
    }
}

/// The first line, without its end and within `limit` bytes, and the rest.
fn line(bytes: &Bytes, limit: usize) -> Option<(Bytes, Bytes)> {
    let end = bytes.iter().take(limit).position(|&byte| byte == b'\n')?;
    Some((bytes.slice(..end), bytes.slice(end + 1..)))
}

/// In lower-case hexadecimal.
pub(super) fn sha256(bytes: &[u8]) -> String {
    hex(Sha256::new_with_prefix(bytes))
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::behaviour_tests::entry;

    fn file(entry: &Entry) -> (Vec<u8>, Slot) {
        let plan = sha256(&entry.plan);
        let mut file = head(entry, &plan);
        file.extend_from_slice(&entry.body);
        let slot = Slot { at: entry.scheduled_at, bytes: file.len() as u64, plan: Tag::of(&plan).unwrap() };
        (file, slot)
    }

    #[test]
    fn an_entry_comes_back_byte_by_byte() {
        for body in [&b""[..], b"{}", b"\n\n\0\xff\n"] {
            let entry = Entry { body: Bytes::from_static(body), ..entry("a", 7) };
            let (bytes, slot) = file(&entry);
            let decoded = decode(&bytes.into(), "a", slot).unwrap();
            assert_eq!(decoded.plan, sha256(&entry.plan));
            assert_eq!(decoded.entry, Entry { plan: Bytes::new(), ..entry });
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let (bytes, slot) = file(&entry("a", 7));
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            assert!(decode(&flipped.into(), "a", slot).is_err(), "byte {at}");
            assert!(decode(&bytes[..at].to_vec().into(), "a", slot).is_err(), "cut at {at}");
            // Also where its name was made for what is left of it.
            let shorter = Slot { bytes: at as u64, ..slot };
            assert!(decode(&bytes[..at].to_vec().into(), "a", shorter).is_err(), "cut at {at} with its name");
        }
    }

    #[test]
    fn the_reason_says_what_is_wrong() {
        let (bytes, slot) = file(&entry("a", 7));
        let sized = |text: &str| {
            let slot = Slot { bytes: text.len() as u64, ..slot };
            decode(&Bytes::copy_from_slice(text.as_bytes()), "a", slot).unwrap_err()
        };
        let reason = |bytes: &[u8], tracker| decode(&Bytes::copy_from_slice(bytes), tracker, slot).unwrap_err();
        assert_eq!(reason(b"", "a"), format!("empty, expected {} bytes", bytes.len()));
        assert_eq!(reason(&bytes[..9], "a"), format!("cut: 9 bytes, expected {}", bytes.len()));
        assert_eq!(
            reason(&[&bytes[..], b"x"].concat(), "a"),
            format!("too long: more than the expected {} bytes", bytes.len())
        );
        let at = "1970-01-01T00:00:07Z";
        assert_eq!(reason(&bytes, "b"), format!("holds tracker \"a\" at {at}, expected \"b\" at {at}"));
        assert_eq!(sized("{\"a\":1}\n"), "foreign: does not begin with \"trackd-spool 1\" and a checksum");
        assert_eq!(sized("trackd-spool 2 abc\n"), "format version \"2\", expected \"1\"");
        assert!(sized("trackd-spool 1 abc\nx").starts_with("flipped: line 1 says sha256 \"abc\""));
        let signed = |rest: &str| sized(&format!("trackd-spool 1 {}\n{rest}", sha256(rest.as_bytes())));
        assert_eq!(signed("{}"), "line 2 has no end");
        assert!(signed("{}\n").starts_with("line 2 is not an entry's meta: missing field"));
    }
}
