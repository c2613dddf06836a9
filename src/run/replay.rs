//! Payloads that a person brings back, landed one by one.
//!
//! Must not know: files, the command line.

use super::kept::{self, Fate, Last};
use super::plan::Shared;
use crate::spool::Entry;
use crate::status::Run;
use crate::store;

/// Lands entries of a spool, whatever became of their runs before.
pub struct Replay {
    shared: Shared,
    last: Last,
}

impl std::fmt::Debug for Replay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replay").finish_non_exhaustive()
    }
}

/// What became of an entry.
#[derive(Debug)]
pub enum Replayed {
    /// Its run is in the ledger with its rows: now, or already.
    Landed(Run),
    /// It does not land; in words why. The ledger says so, too.
    Failed(String),
    /// Another process is at its run.
    Elsewhere,
}

impl Replay {
    /// For a process that lands into this database.
    pub fn new(shared: &Shared) -> Replay {
        Replay { shared: Shared { spool: None, ..shared.clone() }, last: Last::default() }
    }

    /// Lands an entry as its run, shaped by its plan.
    ///
    /// Cancel safety: as a run's; the claim stays this process's.
    ///
    /// # Errors
    /// The database is away: what became of it is not known, and it may be tried again.
    pub async fn land(&mut self, entry: Entry) -> Result<Replayed, store::Error> {
        let landing = match self.last.landing(&entry.plan, &self.shared) {
            Ok(landing) => landing,
            Err(reason) => return Ok(Replayed::Failed(reason)),
        };
        match kept::land(landing, entry).await {
            Fate::Landed(outcome) => Ok(Replayed::Landed(outcome.run)),
            Fate::Elsewhere => Ok(Replayed::Elsewhere),
            Fate::Away(error) => Err(error),
            Fate::NotNow(outcome) | Fate::Failed(outcome) => {
                kept::record(&self.shared, &outcome).await?;
                Ok(Replayed::Failed(outcome.run.error.unwrap_or_default()))
            }
        }
    }
}
