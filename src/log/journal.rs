//! Events → the journal's native protocol: a MESSAGE that says it all, and every value as a field of its own.
//!
//! tracing-journald sends the constant message only: `journalctl -u trackd` then says "run failed", not which and why.
//! Here MESSAGE is the line a terminal would show, and MESSAGE_ID finds all entries with one constant message.
//! Protocol: <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>. Must not know: what is logged.

use sha2::{Digest, Sha256};
use std::fmt::{Debug, Write as _};
use std::io::{self, Write as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Where journald listens.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";
/// An entry too large for a datagram is sent again with its values cut to so many bytes.
const CUT: usize = 4 << 10;

/// A way to the journal.
#[derive(Debug)]
pub(super) struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Journal {
    /// # Errors
    /// Nobody listens at `path`.
    pub(super) fn open(path: &Path) -> io::Result<Journal> {
        let journal = Journal { socket: UnixDatagram::unbound()?, path: path.to_owned() };
        // journald ignores an empty entry.
        journal.socket.send_to(&[], &journal.path)?;
        Ok(journal)
    }

    fn send(&self, entry: &Entry) -> io::Result<()> {
        // By path each time: a journald that was restarted has another socket there.
        let sent = match self.socket.send_to(&entry.encode(usize::MAX), &self.path) {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error()) => {
                self.socket.send_to(&entry.encode(CUT), &self.path)
            }
            sent => sent,
        };
        sent.map(drop)
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut entry = Entry::default();
        event.record(&mut entry);
        entry.close(event);
        if let Err(error) = self.send(&entry) {
            // Under systemd stderr is the journal, too: it may be as gone as the socket.
            let _ = writeln!(io::stderr().lock(), "{} (not in the journal: {error})", entry.message);
        }
    }
}

/// One entry in the making.
#[derive(Default)]
struct Entry {
    /// The constant message, then the values.
    message: String,
    values: String,
    fields: Vec<(String, String)>,
}

impl Entry {
    fn add(&mut self, field: &Field, value: String) {
        let name = field.name();
        if name == "message" {
            self.message = value;
            return;
        }
        // The file and line of events that came through the crate `log`.
        if !name.starts_with("log.") {
            let _ = write!(self.values, " {name}={value}");
        }
        self.fields.push((field_name(name), value));
    }

    /// Adds what is known of the event besides its values.
    fn close(&mut self, event: &Event<'_>) {
        let meta = event.metadata();
        let priority = match *meta.level() {
            Level::ERROR => "3",
            Level::WARN => "4",
            Level::INFO => "6",
            Level::DEBUG | Level::TRACE => "7",
        };
        let mut add = |name: &str, value: &str| self.fields.push((name.to_owned(), value.to_owned()));
        add("PRIORITY", priority);
        add("SYSLOG_IDENTIFIER", "trackd");
        add("TARGET", meta.target());
        if meta.target().starts_with("trackd") {
            add("MESSAGE_ID", &message_id(&self.message));
        }
        if let (Some(file), Some(line)) = (meta.file(), meta.line()) {
            add("CODE_FILE", file);
            add("CODE_LINE", &line.to_string());
        }
        self.message.push_str(&std::mem::take(&mut self.values));
    }

    /// Values may hold line feeds: each is sent with its length.
    fn encode(&self, most: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1024);
        let fields = self.fields.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in std::iter::once(("MESSAGE", self.message.as_str())).chain(fields) {
            let end = (0..=most.min(value.len())).rev().find(|&end| value.is_char_boundary(end));
            let value = &value[..end.unwrap_or(0)];
            bytes.extend_from_slice(name.as_bytes());
            bytes.push(b'\n');
            bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
            bytes.extend_from_slice(value.as_bytes());
            bytes.push(b'\n');
        }
        bytes
    }
}

impl Visit for Entry {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add(field, format!("{value:?}"));
    }
}

/// journald drops fields whose names hold anything but capitals, digits and `_`, or begin with one of the latter two.
fn field_name(name: &str) -> String {
    let good = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    name.chars().map(good).skip_while(|c| !c.is_ascii_uppercase()).collect()
}

/// The same for the same constant message, in every version of trackd.
fn message_id(message: &str) -> String {
    let digest = Sha256::digest(format!("trackd\0{message}"));
    digest[..16].iter().fold(String::with_capacity(32), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use tracing_subscriber::layer::SubscriberExt;

    /// What journald would read.
    fn decode(mut bytes: &[u8]) -> HashMap<String, String> {
        let mut fields = HashMap::new();
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            let name = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let length = u64::from_le_bytes(bytes[end + 1..end + 9].try_into().unwrap()) as usize;
            let value = String::from_utf8(bytes[end + 9..end + 9 + length].to_vec()).unwrap();
            assert_eq!(bytes[end + 9 + length], b'\n');
            assert_eq!(fields.insert(name.clone(), value), None, "{name} twice");
            bytes = &bytes[end + 10 + length..];
        }
        fields
    }

    fn journaled(log: impl FnOnce()) -> HashMap<String, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let journald = UnixDatagram::bind(&path).unwrap();
        let journal = Journal::open(&path).unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(journal), log);
        let mut bytes = vec![0; 1 << 20];
        assert_eq!(journald.recv(&mut bytes).unwrap(), 0, "the test at the opening");
        let length = journald.recv(&mut bytes).unwrap();
        decode(&bytes[..length])
    }

    #[test]
    fn an_entry_says_all_in_its_message_and_has_every_value_in_a_field() {
        let error = "fetch: status 503\nREADY=1";
        let entry =
            journaled(|| tracing::warn!(tracker = "a", error, rows_read = 3, hint = None::<&str>, "run failed"));
        assert_eq!(entry["MESSAGE"], format!("run failed tracker=a error={error} rows_read=3"));
        let field = |name: &str| entry.get(name).map(String::as_str);
        assert_eq!((field("TRACKER"), field("ERROR"), field("ROWS_READ")), (Some("a"), Some(error), Some("3")));
        assert_eq!((field("PRIORITY"), field("SYSLOG_IDENTIFIER"), field("HINT")), (Some("4"), Some("trackd"), None));
    }

    #[test]
    fn entries_with_one_constant_message_are_found_by_their_id() {
        let id = |tracker: &str| journaled(|| tracing::info!(tracker, "run succeeded")).remove("MESSAGE_ID").unwrap();
        assert_eq!((id("a"), id("b").len()), (id("b"), 32));
        // Somebody's filter may hold it: it stays.
        assert_eq!(id("a"), message_id("run succeeded"));
        assert_ne!(id("a"), message_id("run failed"));
    }

    #[test]
    fn an_entry_larger_than_a_datagram_arrives_cut() {
        let long = "ö".repeat(1 << 20);
        let entry = journaled(|| tracing::error!(error = long, tracker = "a", "run failed"));
        assert_eq!((entry["ERROR"].len(), entry["TRACKER"].as_str()), (CUT, "a"));
        assert!(entry["MESSAGE"].starts_with("run failed error=öö"), "{}", entry["MESSAGE"].len());
    }

    #[test]
    fn field_names_are_those_that_journald_keeps() {
        assert_eq!(["tracker", "log.target", "_9a", "x-y"].map(field_name), ["TRACKER", "LOG_TARGET", "A", "X_Y"]);
    }
}
