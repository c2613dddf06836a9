//! One payload out of the spool, landed as its run, whoever asks: the daemon's backlog, or a command.
//!
//! Must not know: files, who asks, when it is tried again.

use super::draft::{Draft, End, Outcome};
use super::plan::Shared;
use super::{Error, Landing, Recipe};
use crate::class::Class;
use crate::config::Retry;
use crate::source::{Payload, Response};
use crate::spool::Entry;
use crate::store::{self, ledger};
use bytes::Bytes;
use std::time::Duration;

/// Attempts of one landing; who asks may ask again.
const RETRY: Retry = Retry { attempts: 2, base: Duration::from_millis(100), max: Duration::from_secs(1) };

/// What became of a payload.
pub(super) enum Fate {
    /// Its run is in the ledger, with its rows.
    Landed(Outcome),
    /// The database could not be had.
    Away(store::Error),
    /// Another process is at its run.
    Elsewhere,
    /// The database is there and does not take it now (a lock, a deadlock); it may another time.
    NotNow(Outcome),
    /// It does not land as it is.
    Failed(Outcome),
}

/// The landing of the payload before, with its plan: most payloads of a tracker share it.
#[derive(Default)]
pub(super) struct Last(Option<(Bytes, Landing)>);

impl Last {
    /// The landing that a kept plan describes.
    ///
    /// # Errors
    /// In words why it describes none.
    pub(super) fn landing(&mut self, plan: &Bytes, shared: &Shared) -> Result<&Landing, String> {
        let landing = match self.0.take() {
            Some((last, landing)) if last == *plan => landing,
            _ => {
                let recipe: Recipe =
                    serde_json::from_slice(plan).map_err(|error| format!("its recipe is not understood: {error}"))?;
                Landing::new(recipe, RETRY, shared)
            }
        };
        Ok(&self.0.insert((plan.clone(), landing)).1)
    }
}

/// Lands a payload, over an outcome without rows that the ledger may have of its run.
///
/// Cancel safety: as a run's.
pub(super) async fn land(landing: &Landing, entry: Entry) -> Fate {
    let response: Response = serde_json::from_value(entry.response).unwrap_or_default();
    let payload = Payload { body: entry.body, response, attempts: u32::try_from(entry.attempt).unwrap_or(1) };
    let mut draft = Draft::new(landing, entry.scheduled_at, entry.kind);
    draft.run.started_at = entry.started_at;
    draft.fetched(&payload).await;
    match landing.land(&draft, &payload, None).await {
        Ok(End::Ended(outcome)) => Fate::Landed(outcome),
        Ok(_) => Fate::Elsewhere,
        Err(Error::Land(error)) if landing.is_away(&error) => Fate::Away(error),
        Err(error @ Error::Land(_)) if error.class() == Class::Retry => Fate::NotNow(draft.into_failure(&error)),
        Err(error) => Fate::Failed(draft.into_failure(&error)),
    }
}

/// Makes sure that the ledger has a failure.
///
/// # Errors
/// As the guard's.
pub(super) async fn record(shared: &Shared, outcome: &Outcome) -> Result<(), store::Error> {
    match outcome.recorded {
        true => Ok(()),
        false => ledger::record(&shared.pool, shared.instance.id(), std::slice::from_ref(&outcome.run)).await,
    }
}
