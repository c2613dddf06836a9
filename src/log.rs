//! Logs: where they go, in which form, and what was lost on the way.
//!
//! ```text
//!  events --level (changed by a reload), of libraries no more than `OTHERS`--+--queue--> journal's fields | text | JSON on stderr
//!                                                                            +--queue--> files, if asked for
//! ```
//!
//! In: `config::Log`. Out: a `Logging` that must live as long as something logs. Must not know: what is logged.

pub mod event;
mod file;
pub(crate) mod journal;
mod queue;

pub use event::Event;

use crate::config::{Log, LogFormat};
use journal::{Entries, Journal};
use queue::Queue;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tracing::Level;
use tracing_subscriber::filter::{EnvFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

/// Tells at INFO of every job it is given, and its tick is none of a user's business.
const QUIET: &str = "tokio_cron_scheduler";

/// Of the libraries this is made of: their debug and trace lines may hold addresses, headers and values.
const OTHERS: Level = Level::INFO;

type Filter = reload::Handle<EnvFilter, Registry>;
type Filtered = tracing_subscriber::layer::Layered<reload::Layer<EnvFilter, Registry>, Registry>;
type Sink = Box<dyn Layer<Filtered> + Send + Sync>;

/// Lines that can wait for stderr or the journal: some 16 MB of the journal's entries.
const QUEUE_LINES: usize = 16_384;

/// The logs of this process. Dropped last in `main`: only then are the last lines written.
#[derive(Debug)]
pub struct Logging {
    filter: Filter,
    told: Told,
    files: Option<file::Files>,
}

/// What goes to stderr or the journal.
#[derive(Debug)]
struct Told {
    queue: Queue,
    errors: Arc<AtomicU64>,
}

/// Log lines that did not arrive, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lost {
    /// Dropped because a queue was full.
    pub dropped_lines: u64,
    /// Writes to files or the journal that failed; their lines went to stderr instead.
    pub write_errors: u64,
}

/// Starts the logs of this process; once.
///
/// # Errors
/// One line: the level is not understood, or the directory cannot be written.
pub fn start(log: &Log) -> Result<Logging, String> {
    let (filter, handle) = reload::Layer::new(parse(&log.level)?);
    let (files, to_files) = match &log.file {
        Some(config) => {
            let (files, writer) = file::open(config)?;
            let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(writer);
            let layer: Sink =
                if log.format == LogFormat::Json { layer.json().flatten_event(true).boxed() } else { layer.boxed() };
            (Some(files), Some(layer))
        }
        None => (None, None),
    };
    let (told, to_stderr) = stderr(log.format);
    let sinks: Vec<Sink> = [Some(to_stderr), to_files].into_iter().flatten().collect();
    tracing_subscriber::registry()
        .with(filter)
        .with(sinks)
        .with(filter_fn(|meta| is_told(meta.target(), *meta.level())))
        .try_init()
        .map_err(|error| format!("start logs: {error}"))?;
    Ok(Logging { filter: handle, told, files })
}

impl Logging {
    /// Takes another level from now on.
    ///
    /// # Errors
    /// One line; the level stays as it is.
    pub fn set_level(&self, level: &str) -> Result<(), String> {
        self.filter.reload(parse(level)?).map_err(|error| format!("set log level: {error}"))
    }

    /// Opens the files anew, by their names, with the next line: somebody may have moved them.
    pub fn reopen(&self) {
        self.files.iter().for_each(file::Files::reopen);
    }

    /// What did not arrive.
    pub fn lost(&self) -> Lost {
        let files = self.files.as_ref().map(file::Files::lost).unwrap_or_default();
        Lost {
            dropped_lines: files.dropped_lines + self.told.queue.dropped(),
            write_errors: files.write_errors + self.told.errors.load(Ordering::Relaxed),
        }
    }
}

/// Whatever the level says.
fn is_told(target: &str, level: Level) -> bool {
    target.starts_with("trackd") || level <= OTHERS
}

fn parse(level: &str) -> Result<EnvFilter, String> {
    let quiet = if level.contains(QUIET) { String::new() } else { format!("{QUIET}=warn,") };
    EnvFilter::builder().parse(format!("{quiet}{level}")).map_err(|error| format!("read log level {level:?}: {error}"))
}

/// A terminal that is stopped and a journald that hangs hold up a thread of their own, and nobody else.
fn stderr(format: LogFormat) -> (Told, Sink) {
    if format == LogFormat::Auto
        && let Some(journal) = journal()
    {
        return journal;
    }
    let (queue, to) = queue::before(std::io::stderr(), QUEUE_LINES, "stderr");
    let text = tracing_subscriber::fmt::layer().with_writer(to);
    let sink = match format {
        LogFormat::Json => text.json().flatten_event(true).boxed(),
        LogFormat::Auto | LogFormat::Pretty => {
            text.with_ansi(std::io::stderr().is_terminal()).with_target(false).boxed()
        }
    };
    (Told { queue, errors: Arc::default() }, sink)
}

/// Whether stderr is a stream of the journal, which its own protocol then stands in for.
///
/// $JOURNAL_STREAM is inherited by children whose stderr goes elsewhere: it counts only when it names our stderr.
pub(crate) fn stderr_is_the_journal() -> bool {
    let stream = std::env::var("JOURNAL_STREAM");
    let stat = rustix::fs::fstat(std::io::stderr().as_fd());
    stream.is_ok_and(|stream| stat.is_ok_and(|stat| is_stream(&stream, stat.st_dev, stat.st_ino)))
}

fn journal() -> Option<(Told, Sink)> {
    if !stderr_is_the_journal() {
        return None;
    }
    let errors = Arc::<AtomicU64>::default();
    let journal = Journal::open(Path::new(journal::SOCKET), Arc::clone(&errors), std::io::stderr()).ok()?;
    let (queue, to) = queue::before(journal, QUEUE_LINES, "journal");
    Some((Told { queue, errors }, Entries(to).boxed()))
}

fn is_stream(stream: &str, device: u64, inode: u64) -> bool {
    stream == format!("{device}:{inode}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_is_used_only_when_it_is_our_stderr() {
        assert!(is_stream("8:1234", 8, 1234));
        for stream in ["", "8", "8:12345", "9:1234", "8:1234 "] {
            assert!(!is_stream(stream, 8, 1234), "{stream}");
        }
    }

    #[test]
    fn the_schedulers_chatter_is_silenced_unless_it_is_asked_for() {
        assert!(parse("debug").unwrap().to_string().contains("tokio_cron_scheduler=warn"));
        assert!(!parse("tokio_cron_scheduler=debug").unwrap().to_string().contains("warn"));
        assert!(parse("trackd=loud").is_err());
    }

    #[test]
    fn of_libraries_no_debug_and_no_trace_is_told_whatever_is_asked_for() {
        assert!(is_told("trackd::store", Level::TRACE) && is_told("hyper", Level::INFO) && is_told("h2", Level::ERROR));
        assert!(!is_told("reqwest::connect", Level::DEBUG) && !is_told("tokio_postgres::query", Level::DEBUG));
    }
}
