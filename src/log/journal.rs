//! Events → the journal's native protocol: a MESSAGE that says it all, and every value as a field of its own.
//!
//! tracing-journald sends the constant message only: `journalctl -u trackd` then says "run failed", not which and why.
//! Here MESSAGE is the line a terminal would show, and the field `event` of a call of trackd's own becomes MESSAGE_ID.
//! Protocol: <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>.
//!
//! ```text
//!  event --Entries--> queue --a thread: Journal--> /run/systemd/journal/socket
//! ```
//!
//! A journald that stands still (its disk does, mostly) lets nobody send: the thread waits, and who logs does not.
//! Must not know: what is logged.

use super::event::Event as Named;
use std::fmt::{Debug, Write as _};
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_appender::non_blocking::NonBlocking;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Where journald listens.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";
/// Values of an entry too large are cut to so many bytes.
const CUT: usize = 4 << 10;
/// Bytes of an entry: a datagram has to fit what a socket may have on its way.
const LONGEST: usize = 128 << 10;
/// How an entry begins.
const MESSAGE: &[u8] = b"MESSAGE\n";

/// The way to the journal, for one thread: it waits for a journald that stands still.
#[derive(Debug)]
pub(super) struct Journal<F> {
    socket: UnixDatagram,
    path: PathBuf,
    errors: Arc<AtomicU64>,
    /// Takes lines that the journal does not.
    fallback: F,
}

impl<F: Write> Journal<F> {
    /// `errors` counts what the journal refuses, and `fallback` gets.
    ///
    /// # Errors
    /// Nobody listens at `path`.
    pub(super) fn open(path: &Path, errors: Arc<AtomicU64>, fallback: F) -> io::Result<Journal<F>> {
        // Asks whether somebody is there, and waits for nobody, as to send a datagram would.
        UnixDatagram::unbound()?.connect(path)?;
        Ok(Journal { socket: UnixDatagram::unbound()?, path: path.to_owned(), errors, fallback })
    }
}

/// Each `write` is one entry, whole.
impl<F: Write> Write for Journal<F> {
    fn write(&mut self, entry: &[u8]) -> io::Result<usize> {
        // By path each time: a journald that was restarted has another socket there.
        match self.socket.send_to(entry, &self.path) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => {
                self.errors.fetch_add(1, Ordering::Relaxed);
                let line = format!("{} (not in the journal: {error})\n", message(entry));
                let _ = self.fallback.write_all(line.as_bytes());
            }
            Ok(_) => {}
        }
        Ok(entry.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// MESSAGE of an encoded entry: it comes first.
fn message(entry: &[u8]) -> std::borrow::Cow<'_, str> {
    let text = entry.strip_prefix(MESSAGE).and_then(|rest| {
        let (length, text) = rest.split_first_chunk()?;
        text.get(..usize::try_from(u64::from_le_bytes(*length)).ok()?)
    });
    String::from_utf8_lossy(text.unwrap_or_default())
}

/// Events → entries, in a queue before the journal.
#[derive(Debug)]
pub(super) struct Entries(pub(super) NonBlocking);

impl<S: Subscriber> Layer<S> for Entries {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut entry = Entry { is_own: is_own(event.metadata()), ..Entry::default() };
        event.record(&mut entry);
        entry.close(event);
        let whole = entry.encode(usize::MAX);
        let bytes = if whole.len() > LONGEST { entry.encode(CUT) } else { whole };
        // What the queue has no room for, it counts.
        let _ = self.0.clone().write_all(&bytes);
    }
}

/// One entry in the making.
#[derive(Default)]
struct Entry {
    /// The constant message, then the values.
    message: String,
    values: String,
    /// A call of trackd's own: its `event` is one of ours.
    is_own: bool,
    event: Option<Named>,
    fields: Vec<(String, String)>,
}

impl Entry {
    fn add(&mut self, field: &Field, value: String) {
        let name = field.name();
        if name == "message" {
            self.message = value;
            return;
        }
        if name == "event" && self.is_own {
            self.event = Named::of(&value);
        } else if !name.starts_with("log.") {
            // Those are the file and line of events that came through the crate `log`.
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
        if let Some(event) = self.event {
            add("MESSAGE_ID", event.id());
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

fn is_own(meta: &Metadata<'_>) -> bool {
    meta.target().starts_with("trackd")
}

/// journald drops fields whose names hold anything but capitals, digits and `_`, or begin with one of the latter two.
fn field_name(name: &str) -> String {
    let good = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    name.chars().map(good).skip_while(|c| !c.is_ascii_uppercase()).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::log::queue;
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

    /// The only entry that `log` makes.
    fn journaled(log: impl FnOnce()) -> HashMap<String, String> {
        let [entry] = <[_; 1]>::try_from(entries(log)).expect("one entry");
        entry
    }

    /// What a journald gets that listens at a socket of its own.
    pub(crate) fn entries(log: impl FnOnce()) -> Vec<HashMap<String, String>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let journald = UnixDatagram::bind(&path).unwrap();
        // Beside it: only some datagrams wait in a socket. An empty one is sent at the end.
        let listener = std::thread::spawn(move || {
            let mut bytes = vec![0; 1 << 20];
            let received = std::iter::from_fn(|| {
                Some(journald.recv(&mut bytes).unwrap())
                    .filter(|length| *length > 0)
                    .map(|length| decode(&bytes[..length]))
            });
            received.collect()
        });
        let journal = Journal::open(&path, Arc::default(), Vec::new()).unwrap();
        let (queue, to) = queue::before(journal, 1024, "journal");
        tracing::subscriber::with_default(tracing_subscriber::registry().with(Entries(to)), log);
        drop(queue);
        UnixDatagram::unbound().unwrap().send_to(&[], &path).unwrap();
        listener.join().unwrap()
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
    fn an_event_is_found_by_its_id_and_is_not_in_the_line() {
        let entry = journaled(|| tracing::info!(event = %Named::RunSucceeded, tracker = "a", "run succeeded"));
        let field = |name: &str| entry.get(name).map(String::as_str);
        assert_eq!(field("MESSAGE_ID"), Some(Named::RunSucceeded.id()));
        assert_eq!((field("EVENT"), field("MESSAGE")), (Some("run-succeeded"), Some("run succeeded tracker=a")));
    }

    #[test]
    fn an_entry_without_an_event_and_one_of_another_crate_have_no_id() {
        assert_eq!(journaled(|| tracing::info!("a line")).get("MESSAGE_ID"), None);
        let entry = journaled(|| tracing::info!(target: "hyper", event = "ready", "a line"));
        assert_eq!((entry.get("MESSAGE_ID"), entry["MESSAGE"].as_str()), (None, "a line event=ready"));
    }

    #[test]
    fn an_entry_larger_than_a_datagram_arrives_cut() {
        let long = "ö".repeat(1 << 20);
        let entry = journaled(|| tracing::error!(error = long, tracker = "a", "run failed"));
        assert_eq!((entry["ERROR"].len(), entry["TRACKER"].as_str()), (CUT, "a"));
        assert!(entry["MESSAGE"].starts_with("run failed error=öö"), "{}", entry["MESSAGE"].len());
    }

    #[test]
    fn a_journal_that_takes_nothing_holds_nobody_up_and_what_is_dropped_is_counted() {
        const LINES: u64 = 20_000;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let journald = UnixDatagram::bind(&path).unwrap();
        let (done, logged) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let (queue, to) = queue::before(Journal::open(&path, Arc::default(), Vec::new()).unwrap(), 100, "journal");
            let log = || (0..LINES).for_each(|line| tracing::info!(line, "a line"));
            tracing::subscriber::with_default(tracing_subscriber::registry().with(Entries(to)), log);
            done.send(queue.dropped()).unwrap();
        });
        let dropped = logged.recv_timeout(std::time::Duration::from_secs(60)).expect("who logs does not wait");
        let mut bytes = vec![0; 1 << 20];
        let length = journald.recv(&mut bytes).unwrap();
        assert_eq!(decode(&bytes[..length])["LINE"], "0", "what was sent before waits for it");
        assert!((1..LINES).contains(&dropped), "{dropped}");
    }

    #[test]
    fn a_line_that_the_journal_refuses_is_counted_and_goes_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let journald = UnixDatagram::bind(&path).unwrap();
        let errors = Arc::<AtomicU64>::default();
        let mut journal = Journal::open(&path, Arc::clone(&errors), Vec::new()).unwrap();
        drop(journald);
        let entry = Entry { message: "a line\nand another".into(), ..Entry::default() };
        journal.write_all(&entry.encode(usize::MAX)).unwrap();
        let told = String::from_utf8(journal.fallback).unwrap();
        assert!(told.starts_with("a line\nand another (not in the journal: Connection refused"), "{told}");
        assert_eq!(errors.load(Ordering::Relaxed), 1);
        assert!(Journal::open(&path, errors, Vec::new()).is_err(), "nobody listens");
    }

    #[test]
    fn field_names_are_those_that_journald_keeps() {
        assert_eq!(["tracker", "log.target", "_9a", "x-y"].map(field_name), ["TRACKER", "LOG_TARGET", "A", "X_Y"]);
    }
}
