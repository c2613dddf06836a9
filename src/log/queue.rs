//! A queue before a writer that may stand still: a disk, a terminal, a journald that hangs.
//!
//! Who logs never waits: what the queue has no room for is dropped, and counted. A thread of its own writes.
//! Must not know: what is written, and to where.

use std::io::Write;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};

/// A queue at work; dropping it writes what waits, for at most about a second.
#[derive(Debug)]
pub(super) struct Queue {
    _guard: WorkerGuard,
    dropped: ErrorCounter,
}

/// A queue of at most so many lines, and the end that takes them.
pub(super) fn before(writer: impl Write + Send + 'static, lines: usize, thread: &str) -> (Queue, NonBlocking) {
    let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(lines).thread_name(thread);
    let (end, guard) = builder.finish(writer);
    (Queue { _guard: guard, dropped: end.error_counter() }, end)
}

impl Queue {
    /// Lines that were dropped so far.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.dropped_lines() as u64
    }
}
