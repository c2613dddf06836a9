//! Shaping beside landing: batches come out while the next ones are still being shaped.
//!
//! Small bodies with plain paths are shaped on the spot; all others on the tracker's one blocking thread, a few
//! chunks ahead of the COPY that takes them. A program that never ends costs its tracker that thread, nobody else's.
//! Must not know: the database.

use crate::blocking::OneThread;
use crate::shape::{self, Globals, Shaper, Stamp, Table};
use crate::store::write::{Part, Parts};
use bytes::Bytes;
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Bodies up to so many bytes are not worth a thread's wake-up.
const ON_THE_SPOT: usize = 64 * 1024;
/// For programs, which call themselves as deep as their data; only what is used of it takes memory.
const STACK: usize = 64 << 20;
/// Chunks shaped ahead of the one being sent.
const AHEAD: usize = 4;

/// A program that gives nothing for so long is given up: part of `Tracker::deadline`. And so long is waited for the
/// thread of the try or the run before, which finds only at its next chunk that nobody waits for it.
const SILENCE: Duration = Duration::from_secs(30);
type Shaped = Result<Part, shape::Error>;

/// Where a tracker's payloads are shaped.
#[derive(Debug)]
pub(super) struct Bench {
    thread: OneThread,
    silence: Duration,
}

/// The parts of a run's tables, in order, as they become ready.
#[derive(Debug)]
pub(super) struct Shaping {
    ready: VecDeque<Shaped>,
    rest: Option<Rest>,
}

/// What is still being shaped.
#[derive(Debug)]
struct Rest {
    parts: mpsc::Receiver<Shaped>,
    thread: JoinHandle<()>,
    silence: Duration,
}

impl Bench {
    pub(super) fn new() -> Bench {
        Bench { thread: OneThread::new(), silence: SILENCE }
    }

    /// Starts shaping `body` for these tables.
    ///
    /// The blocking thread ends when it is done, or soon after the parts are dropped: its next chunk finds nobody.
    ///
    /// # Errors
    /// The thread is still at an earlier run's program.
    pub(super) async fn start(
        &self,
        tables: &[Arc<Table>],
        body: &Bytes,
        globals: &Arc<Globals>,
        stamp: Stamp,
    ) -> Result<Shaping, shape::Error> {
        if body.len() <= ON_THE_SPOT && tables.iter().all(|table| table.is_plain()) {
            let mut ready = VecDeque::new();
            shape_all(tables, body, globals, stamp, |part| {
                ready.push_back(part);
                ControlFlow::Continue(())
            });
            return Ok(Shaping { ready, rest: None });
        }
        let (sender, parts) = mpsc::channel(AHEAD);
        let (tables, body, globals) = (tables.to_vec(), body.clone(), globals.clone());
        let shaping = move || {
            let send = |part| match sender.blocking_send(part) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            };
            if tables.iter().all(|table| table.is_plain()) {
                shape_all(&tables, &body, &globals, stamp, send);
            } else if let Err(error) = on_deep_stack(&sender, || shape_all(&tables, &body, &globals, stamp, send)) {
                let message = format!("start a thread to shape in: {error}");
                // Nobody waits for it any more: the run is gone.
                let _ = sender.blocking_send(Err(shape::Error { message, hint: None }));
            }
        };
        let thread =
            self.thread.start(self.silence, shaping).await.map_err(|_| endless("an earlier run's program runs on"))?;
        Ok(Shaping { ready: VecDeque::new(), rest: Some(Rest { parts, thread, silence: self.silence }) })
    }
}

impl Shaping {
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
        let Some(Rest { parts, thread, silence }) = &mut self.rest else { return Err(ended()) };
        match tokio::time::timeout(*silence, parts.recv()).await {
            Ok(Some(part)) => part,
            // The thread ended without its last part: it panicked. The panic is this run's.
            Ok(None) => match thread.await {
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                _ => Err(ended()),
            },
            Err(_) => {
                let silence = humantime::format_duration(*silence);
                Err(endless(&format!("its program gave nothing for {silence}")))
            }
        }
    }
}

impl Parts for Shaping {
    async fn next(&mut self) -> Shaped {
        self.take().await
    }
}

/// Does the work on a thread of its own and waits for it; its panic is this thread's.
fn on_deep_stack(sender: &mpsc::Sender<Shaped>, work: impl FnOnce() + Send) -> std::io::Result<()> {
    let waiting = sender.clone();
    let bounded = move || {
        shape::bound_thread(STACK, move || waiting.is_closed());
        work();
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("shape".into()).stack_size(STACK);
        let thread = thread.spawn_scoped(scope, bounded)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok(())
    })
}

fn ended() -> shape::Error {
    shape::Error { message: "shaping ended before its last table".into(), hint: None }
}

fn endless(what: &str) -> shape::Error {
    let hint = "it may never end for this response: repair it and reload; restarting trackd frees its thread";
    shape::Error { message: what.to_owned(), hint: Some(hint.into()) }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Environment};
    use crate::shape::Tally;
    use std::path::Path;

    const INSTANT: Stamp = Stamp { at: jiff::Timestamp::UNIX_EPOCH, run_id: uuid::Uuid::nil() };

    fn tables(rows: &str) -> Vec<Arc<Table>> {
        let text = format!(
            "[[tracker]]\nname = \"t\"\nevery = \"1m\"\nfile = {{ path = \"x\" }}\n[[tracker.table]]\nname = \"t\"\n\
             history = \"snapshot\"\nrows = '''{rows}'''\ncolumns = {{ v = {{ type = \"jsonb\", jq = \".\" }} }}\n"
        );
        let none = Environment::new(Vec::<(String, String)>::new(), false);
        config::parse(&text, Path::new("c.toml"), &none).expect("configuration").trackers[0].tables.clone()
    }

    async fn start(bench: &Bench, rows: &str) -> Result<Shaping, shape::Error> {
        let nothing = serde_json::Value::Null;
        let globals = Globals { run: nothing.clone(), vars: Arc::new(nothing.clone()), response: nothing };
        bench.start(&tables(rows), &Bytes::from_static(b"[1,2,3]"), &Arc::new(globals), INSTANT).await
    }

    async fn tally(mut shaping: Shaping) -> Result<Tally, shape::Error> {
        loop {
            if let Part::End(tally) = shaping.take().await? {
                return Ok(tally);
            }
        }
    }

    #[tokio::test]
    async fn a_program_that_gives_nothing_is_given_up() {
        let bench = Bench { silence: Duration::from_millis(1), ..Bench::new() };
        let mut silent = start(&bench, "last(range(300000))").await.expect("the thread is free");
        let error = silent.first().await.expect_err("given up");
        assert_eq!(error.message, "its program gave nothing for 1ms");
        assert!(error.hint.is_some());
    }

    #[tokio::test]
    async fn a_tracker_whose_program_runs_on_takes_no_second_thread_and_goes_on_when_it_ends() {
        let bench = Bench { silence: Duration::from_millis(1), ..Bench::new() };
        // Nobody takes its chunks, so that it cannot end.
        let first = start(&bench, "range(300000)").await.expect("the thread is free");
        let error = start(&bench, "1 | .").await.expect_err("the thread is taken");
        assert_eq!(error.message, "an earlier run's program runs on");
        drop(first);
        let patient = Bench { silence: Duration::from_secs(60), ..bench };
        let next = start(&patient, "1 | .").await.expect("the thread is free again");
        assert_eq!(tally(next).await.expect("rows").read, 1);
    }

    #[tokio::test]
    async fn a_program_that_calls_itself_without_end_fails_its_run_and_nothing_else() {
        for program in ["def f: f + 1; f", ".[] | def f(g): f(1) + g; f(.)", "def f: \"\\(f)\"; f"] {
            let error = start(&Bench::new(), program).await.expect(program).first().await.expect_err(program);
            assert!(error.message.ends_with("\"the program calls itself too deeply\""), "{program}: {}", error.message);
        }
    }

    #[tokio::test]
    async fn a_program_calls_itself_as_deep_as_data_goes() {
        let program = "[range(500)] | def sum: if length == 0 then 0 else .[0] + (.[1:] | sum) end; sum";
        assert!(start(&Bench::new(), program).await.expect(program).first().await.is_ok());
    }

    #[tokio::test]
    async fn a_program_without_end_ends_when_nobody_waits_for_it() {
        for program in ["last(repeat(1))", "until(false; .)", "def f: .[0] | [.] | f; f", "[recurse([.][0])]"] {
            let Rest { parts, thread, .. } = start(&Bench::new(), program).await.expect(program).rest.expect(program);
            drop(parts);
            tokio::time::timeout(Duration::from_secs(60), thread).await.expect(program).expect(program);
        }
    }
}
