//! What the daemon answers of its spool: looks for who may not read the directory, and lands what was set aside for who
//! has neither the configuration nor a way to the database.
//!
//! ```text
//!  ls, check, aside, read   one at a time, on one thread: a disk that hangs takes no more
//!  a payload read           one at a time in memory, until its asker has taken it
//!  land                     one at a time; who goes away rolls back what has not landed
//! ```
//!
//! Must not know: how an answer travels.

use super::super::failure::Failure;
use super::super::replay::Lander;
use super::super::spooled::{self, Payload};
use crate::admin::control::{Refusal, SpoolAnswer, SpoolWish};
use crate::blocking::OneThread;
use crate::config::Config;
use crate::run::{Replay, Shared};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;

/// How long one waits for who was before.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of a payload at a time.
const PIECE: usize = 64 << 10;

/// Where the spool is asked.
#[derive(Debug)]
pub(in crate::cli) struct Desk {
    thread: OneThread,
    in_memory: Arc<Semaphore>,
    lander: Mutex<Lander>,
    /// Whether runs may land.
    open: watch::Receiver<bool>,
}

impl Desk {
    pub(in crate::cli) fn new(shared: &Shared) -> Desk {
        Desk {
            thread: OneThread::new(),
            in_memory: Arc::new(Semaphore::new(1)),
            lander: Mutex::new(Lander::new(Replay::new(shared))),
            open: shared.open.clone(),
        }
    }

    /// Answers by the configuration in force.
    ///
    /// Cancel safety: safe; a look goes on to its end, a landing is a run's.
    ///
    /// # Errors
    /// Why not, for people.
    pub(in crate::cli) async fn answer(
        &self,
        config: Arc<Config>,
        by: &str,
        wish: SpoolWish,
    ) -> Result<SpoolAnswer, Refusal> {
        match wish {
            SpoolWish::Ls { tracker } => found(
                &self.look(move || spooled::waiting(&spooled::dir(&config), Some(&config), tracker.as_deref())).await?,
            ),
            SpoolWish::Check => found(&self.look(move || spooled::check(&spooled::dir(&config))).await?),
            SpoolWish::Aside { tracker } => found(
                &self.look(move || spooled::aside(&spooled::dir(&config), Some(&config), tracker.as_deref())).await?,
            ),
            SpoolWish::Read { tracker, file } => {
                let room = timeout(PATIENCE, Arc::clone(&self.in_memory).acquire_owned()).await;
                let Ok(Ok(room)) = room else { return Err(busy("reads a payload")) };
                match self.look(move || spooled::read(&spooled::dir(&config), &tracker, &file)).await? {
                    Payload::Whole { meta, body } => Ok(pieces(meta, body, room)),
                    Payload::Not(unread) => found(&unread),
                }
            }
            SpoolWish::Land { tracker, file, current } => self.land(&config, by, &tracker, file, current).await,
        }
    }

    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Refusal> {
        let begun = self.thread.start(PATIENCE, look).await.map_err(|_| busy("looks at the spool"))?;
        begun.await.map_err(|error| Refusal::Failed(error.to_string()))?.map_err(Failure::into_refusal)
    }

    async fn land(
        &self,
        config: &Config,
        by: &str,
        tracker: &str,
        file: PathBuf,
        current: bool,
    ) -> Result<SpoolAnswer, Refusal> {
        if !*self.open.borrow() {
            return Err(Refusal::Now("the daemon has not met its database yet".into()));
        }
        let Ok(mut lander) = timeout(PATIENCE, self.lander.lock()).await else { return Err(busy("replays")) };
        let became = lander.land(config, tracker, &file, current).await.map_err(Failure::into_refusal)?;
        let outcome = became.as_ref().map(|became| became.outcome.name());
        tracing::info!(by, tracker, file = %file.display(), outcome, current, "spool: replayed by hand");
        found(&became)
    }
}

fn busy(does: &str) -> Refusal {
    Refusal::Now(format!("somebody else {does} still"))
}

fn found(value: &impl Serialize) -> Result<SpoolAnswer, Refusal> {
    serde_json::to_value(value).map(SpoolAnswer::Found).map_err(|error| Refusal::Failed(error.to_string()))
}

/// The head, and the body in pieces; with the last of them there is room for another payload.
fn pieces(meta: Bytes, body: Bytes, room: OwnedSemaphorePermit) -> SpoolAnswer {
    let head = [meta, Bytes::from_static(b"\n")];
    let body = stream::unfold((body, room), |(mut body, room)| async move {
        (!body.is_empty()).then(|| (body.split_to(body.len().min(PIECE)), (body, room)))
    });
    SpoolAnswer::Payload(stream::iter(head).chain(body).boxed())
}
