//! Log files through tracing-appender, with its losses counted.
//!
//! The appender swallows what a full queue drops and what a full disk refuses: both are counted here, and a refused
//! line goes to stderr. It writes on to a file that somebody moved: `reopen` makes it open the name anew, in the thread
//! that writes, so that a disk that hangs holds up nobody else. Must not know: what is logged.

use super::Lost;
use super::queue::{self, Queue};
use crate::config::{LogFile, Rotation};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tracing_appender::non_blocking::NonBlocking;
use tracing_appender::rolling::{self, RollingFileAppender};

/// Lines that can wait for the disk: some 20 MB at 300 bytes.
const QUEUE_LINES: usize = 65_536;

/// Open files; dropping it writes what waits, for at most about a second.
#[derive(Debug)]
pub(super) struct Files {
    queue: Queue,
    write_errors: Arc<AtomicU64>,
    reopen: Arc<AtomicBool>,
}

/// Opens the directory's current file, makes the directory if it is not there.
///
/// # Errors
/// One line.
pub(super) fn open(config: &LogFile) -> Result<(Files, NonBlocking), String> {
    let inner = appender(config)?;
    let (write_errors, reopen) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
    let again = config.clone();
    let counting = Counting {
        inner,
        errors: Arc::clone(&write_errors),
        fallback: io::stderr(),
        asked: Arc::clone(&reopen),
        open: move || appender(&again),
    };
    let (queue, writer) = queue::before(counting, QUEUE_LINES, "log");
    Ok((Files { queue, write_errors, reopen }, writer))
}

fn appender(config: &LogFile) -> Result<RollingFileAppender, String> {
    let failed = |error: &dyn std::fmt::Display| {
        let expected =
            "a directory that trackd may write: of the service /var/log/trackd, or one of ReadWritePaths= in a drop-in";
        format!("log.file.dir: open log files in {}: {error}; expected {expected}", config.dir.display())
    };
    std::fs::create_dir_all(&config.dir).map_err(|error| failed(&error))?;
    let rotation = match config.rotation {
        Rotation::Minutely => rolling::Rotation::MINUTELY,
        Rotation::Hourly => rolling::Rotation::HOURLY,
        Rotation::Daily => rolling::Rotation::DAILY,
        Rotation::Weekly => rolling::Rotation::WEEKLY,
        Rotation::Never => rolling::Rotation::NEVER,
    };
    let files = rolling::Builder::new().rotation(rotation).filename_prefix("trackd").filename_suffix("log");
    files.max_log_files(config.keep).build(&config.dir).map_err(|error| failed(&error))
}

impl Files {
    /// The next line goes to a file that is opened anew.
    pub(super) fn reopen(&self) {
        self.reopen.store(true, Ordering::Relaxed);
    }

    pub(super) fn lost(&self) -> Lost {
        Lost { dropped_lines: self.queue.dropped(), write_errors: self.write_errors.load(Ordering::Relaxed) }
    }
}

/// A writer whose failures are counted, whose lines then go to another, and that is opened anew when asked to.
struct Counting<W, F, O> {
    inner: W,
    errors: Arc<AtomicU64>,
    fallback: F,
    asked: Arc<AtomicBool>,
    open: O,
}

impl<W: Write, F: Write, O: FnMut() -> Result<W, String>> Counting<W, F, O> {
    fn reopen(&mut self) {
        match (self.open)() {
            Ok(inner) => self.inner = inner,
            // The old one goes on. Asked again, it is tried again.
            Err(error) => {
                self.errors.fetch_add(1, Ordering::Relaxed);
                let _ = writeln!(self.fallback, "{error}: lines go to the file as it was");
            }
        }
    }
}

impl<W: Write, F: Write, O: FnMut() -> Result<W, String>> Write for Counting<W, F, O> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.asked.swap(false, Ordering::Relaxed) {
            self.reopen();
        }
        match self.inner.write(line) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                self.errors.fetch_add(1, Ordering::Relaxed);
                self.fallback.write(line)
            }
            written => written,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a disk that is full; `open` is what an opening anew comes to.
    fn full<O>(fallback: &mut Vec<u8>, open: O) -> (Counting<std::fs::File, &mut Vec<u8>, O>, Arc<AtomicU64>)
    where
        O: FnMut() -> Result<std::fs::File, String>,
    {
        let inner = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let errors = Arc::<AtomicU64>::default();
        (Counting { inner, errors: Arc::clone(&errors), fallback, asked: Arc::default(), open }, errors)
    }

    #[test]
    fn a_line_a_full_disk_refuses_is_counted_and_goes_elsewhere() {
        let mut fallback = Vec::new();
        let (mut writer, errors) = full(&mut fallback, || Err("nobody asks".into()));
        writer.write_all(b"a line\n").unwrap();
        assert_eq!((errors.load(Ordering::Relaxed), fallback.as_slice()), (1, b"a line\n".as_slice()));
    }

    #[test]
    fn what_cannot_be_opened_anew_is_counted_and_told_and_no_line_is_lost() {
        let mut fallback = Vec::new();
        let (mut writer, errors) = full(&mut fallback, || Err("open log files in /x: gone".into()));
        writer.asked.store(true, Ordering::Relaxed);
        writer.write_all(b"a line\n").unwrap();
        let told = "open log files in /x: gone: lines go to the file as it was\na line\n";
        assert_eq!((errors.load(Ordering::Relaxed), String::from_utf8(fallback).unwrap().as_str()), (2, told));
    }

    #[test]
    fn a_file_that_was_moved_is_followed_by_a_new_one_once_it_is_reopened() {
        let dir = tempfile::tempdir().unwrap();
        let config = LogFile { dir: dir.path().join("logs"), rotation: Rotation::Never, keep: 3 };
        let (here, moved) = (config.dir.join("trackd.log"), dir.path().join("moved"));
        let mut writer = {
            let (inner, again) = (appender(&config).unwrap(), config.clone());
            let (asked, open) = (Arc::<AtomicBool>::default(), move || appender(&again));
            Counting { inner, errors: Arc::default(), fallback: Vec::<u8>::new(), asked, open }
        };
        writer.write_all(b"first\n").unwrap();
        // With its directory: both are made anew.
        std::fs::rename(&config.dir, &moved).unwrap();
        writer.write_all(b"second\n").unwrap();
        writer.asked.store(true, Ordering::Relaxed);
        writer.write_all(b"third\n").unwrap();
        writer.write_all(b"fourth\n").unwrap();
        let read = |path: &std::path::Path| std::fs::read_to_string(path).unwrap();
        assert_eq!(
            (read(&moved.join("trackd.log")).as_str(), read(&here).as_str()),
            ("first\nsecond\n", "third\nfourth\n")
        );
    }

    #[test]
    fn lines_are_in_the_file_when_it_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let config = LogFile { dir: dir.path().join("logs"), rotation: Rotation::Never, keep: 3 };
        let (files, mut writer) = open(&config).unwrap();
        for _ in 0..100 {
            writer.write_all(b"a line\n").unwrap();
        }
        assert_eq!(files.lost(), Lost::default());
        drop((writer, files));
        let text = std::fs::read_to_string(config.dir.join("trackd.log")).unwrap();
        assert_eq!(text.lines().count(), 100);
    }
}
