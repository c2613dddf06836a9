//! Log files through tracing-appender, with its losses counted.
//!
//! The appender swallows what a full queue drops and what a full disk refuses: both are counted here, and a refused
//! line goes to stderr. Must not know: what is logged.

use super::Lost;
use crate::config::{LogFile, Rotation};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_appender::rolling;

/// Lines that can wait for the disk: some 20 MB at 300 bytes.
const QUEUE_LINES: usize = 65_536;

/// Open files; dropping it writes what waits, for at most about a second.
#[derive(Debug)]
pub(super) struct Files {
    _guard: WorkerGuard,
    dropped: ErrorCounter,
    write_errors: Arc<AtomicU64>,
}

/// Opens the directory's current file, makes the directory if it is not there.
///
/// # Errors
/// One line.
pub(super) fn open(config: &LogFile) -> Result<(Files, NonBlocking), String> {
    let failed = |error: &dyn std::fmt::Display| format!("open log files in {}: {error}", config.dir.display());
    std::fs::create_dir_all(&config.dir).map_err(|error| failed(&error))?;
    let rotation = match config.rotation {
        Rotation::Minutely => rolling::Rotation::MINUTELY,
        Rotation::Hourly => rolling::Rotation::HOURLY,
        Rotation::Daily => rolling::Rotation::DAILY,
        Rotation::Weekly => rolling::Rotation::WEEKLY,
        Rotation::Never => rolling::Rotation::NEVER,
    };
    let files = rolling::Builder::new()
        .rotation(rotation)
        .filename_prefix("trackd")
        .filename_suffix("log")
        .max_log_files(config.keep)
        .build(&config.dir)
        .map_err(|error| failed(&error))?;
    let write_errors = Arc::new(AtomicU64::new(0));
    let counting = Counting { inner: files, errors: Arc::clone(&write_errors), fallback: io::stderr() };
    // Lossy: a slow disk must not hold up the threads that run trackers.
    let (writer, guard) =
        NonBlockingBuilder::default().lossy(true).buffered_lines_limit(QUEUE_LINES).thread_name("log").finish(counting);
    let dropped = writer.error_counter();
    Ok((Files { _guard: guard, dropped, write_errors }, writer))
}

impl Files {
    pub(super) fn lost(&self) -> Lost {
        Lost {
            dropped_lines: self.dropped.dropped_lines() as u64,
            write_errors: self.write_errors.load(Ordering::Relaxed),
        }
    }
}

/// A writer whose failures are counted, and whose lines then go to another.
struct Counting<W, F> {
    inner: W,
    errors: Arc<AtomicU64>,
    fallback: F,
}

impl<W: Write, F: Write> Write for Counting<W, F> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
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

    #[test]
    fn a_line_a_full_disk_refuses_is_counted_and_goes_elsewhere() {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let errors = Arc::new(AtomicU64::new(0));
        let mut fallback = Vec::new();
        let mut writer = Counting { inner: full, errors: Arc::clone(&errors), fallback: &mut fallback };
        writer.write_all(b"a line\n").unwrap();
        assert_eq!((errors.load(Ordering::Relaxed), fallback.as_slice()), (1, b"a line\n".as_slice()));
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
