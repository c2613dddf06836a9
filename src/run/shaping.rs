//! Shaping beside landing: batches come out while the next ones are still being shaped.
//!
//! Small bodies with plain paths are shaped on the spot; all others on a blocking thread, a few chunks ahead of
//! the COPY that takes them (a program that never ends must not hold up a thread of the runtime).
//! Must not know: the database.

use crate::shape::{self, Globals, Shaper, Stamp, Table};
use crate::store::write::{Part, Parts};
use bytes::Bytes;
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Bodies up to so many bytes are not worth a thread's wake-up.
const ON_THE_SPOT: usize = 64 * 1024;
/// Chunks shaped ahead of the one being sent.
const AHEAD: usize = 4;

type Shaped = Result<Part, shape::Error>;

/// The parts of a run's tables, in order, as they become ready.
#[derive(Debug)]
pub(super) struct Shaping {
    ready: VecDeque<Shaped>,
    rest: Option<(mpsc::Receiver<Shaped>, JoinHandle<()>)>,
}

impl Shaping {
    /// Starts shaping `body` for these tables.
    ///
    /// The blocking thread ends when it is done, or soon after this value is dropped: its next chunk finds nobody.
    pub(super) fn start(tables: &[Arc<Table>], body: &Bytes, globals: &Arc<Globals>, stamp: Stamp) -> Shaping {
        if body.len() <= ON_THE_SPOT && tables.iter().all(|table| table.is_plain()) {
            let mut ready = VecDeque::new();
            shape_all(tables, body, globals, stamp, |part| {
                ready.push_back(part);
                ControlFlow::Continue(())
            });
            return Shaping { ready, rest: None };
        }
        let (sender, receiver) = mpsc::channel(AHEAD);
        let (tables, body, globals) = (tables.to_vec(), body.clone(), globals.clone());
        let task = tokio::task::spawn_blocking(move || {
            shape_all(&tables, &body, &globals, stamp, |part| match sender.blocking_send(part) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            });
        });
        Shaping { ready: VecDeque::new(), rest: Some((receiver, task)) }
    }

    /// Waits until the first part is there.
    ///
    /// # Errors
    /// The body is not the documented shape.
    pub(super) async fn first(&mut self) -> Result<(), shape::Error> {
        let part = self.take().await?;
        self.ready.push_front(Ok(part));
        Ok(())
    }

    async fn take(&mut self) -> Shaped {
        if let Some(part) = self.ready.pop_front() {
            return part;
        }
        let Some((receiver, task)) = &mut self.rest else { return Err(ended()) };
        match receiver.recv().await {
            Some(part) => part,
            // The thread ended without its last part: it panicked. The panic is this run's.
            None => match task.await {
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                _ => Err(ended()),
            },
        }
    }
}

impl Parts for Shaping {
    async fn next(&mut self) -> Shaped {
        self.take().await
    }
}

fn ended() -> shape::Error {
    shape::Error { message: "shaping ended before its last table".into(), hint: None }
}

fn shape_all(
    tables: &[Arc<Table>],
    body: &[u8],
    globals: &Globals,
    stamp: Stamp,
    mut send: impl FnMut(Shaped) -> ControlFlow<()>,
) {
    let mut shaper = Shaper::new(body, globals);
    for table in tables {
        let mut gone = false;
        let tally = shaper.table(table, &stamp, &mut |rows| {
            let flow = send(Ok(Part::Rows(rows)));
            gone = flow.is_break();
            flow
        });
        let failed = tally.is_err();
        if gone || send(tally.map(Part::End)).is_break() || failed {
            return;
        }
    }
}
