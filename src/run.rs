//! ONE run, top to bottom: fetch, shape, guard { write }, commit, record. The program, on one screen.
//!
//! ```text
//!  source --Payload--> Shaping --Part--> Guard { Writer } --commit--> Receipt --> Outcome
//!     \ away: tried again by the source     \ away: landed again, same run     \ lost answer: looked up
//! ```
//!
//! In: a tracker's plan and an instant. Out: an `Outcome`; a run never fails silently and never panics on purpose.
//! Must not know: the daemon, the pages, the command line.

mod error;
mod plan;
mod shaping;

pub use error::Error;
pub use plan::{DryTable, FreshRows, Outcome, Plan, Shared, related};

use crate::source::Payload;
use crate::status::Kind;
use crate::store::write::{Care, Failure, Written};
use crate::store::{Receipt, ledger};
use jiff::Timestamp;
use plan::{Draft, Landed};
use shaping::{Bench, Shaping};

impl Plan {
    /// Runs the tracker for one instant.
    ///
    /// Cancel safety: dropping the future aborts the fetch, rolls the guard back and cancels its statement.
    pub async fn run(&self, scheduled_at: Timestamp, kind: Kind) -> Outcome {
        let mut draft = Draft::new(self, scheduled_at, kind);
        match self.fetch_and_land(&mut draft).await {
            Ok(landed) => landed.into_outcome(self),
            Err(error) => draft.into_failure(&error),
        }
    }

    async fn fetch_and_land(&self, draft: &mut Draft) -> Result<Landed, Error> {
        // No connection is held while the source answers.
        let payload = self.source.fetch(&self.ask(draft)).await.map_err(Error::Fetch)?;
        draft.fetched(&payload).await;
        let mut tries = self.tries();
        loop {
            let failure = match self.land(draft, &payload, tries.care).await {
                Ok(landed) => return Ok(landed),
                Err(failure) => failure,
            };
            // The row may be there although the answer was lost, or because another instance was first.
            if let Failure::Store(error) = &failure
                && (error.is_unknown_commit() || ledger::is_recorded_already(error))
                && let Ok(Some(run)) = ledger::find(&self.shared.pool, &self.tracker.name, draft.scheduled_at).await
            {
                return Landed::found(run, draft);
            }
            tries.again(self, failure).await?;
        }
    }

    async fn land(&self, draft: &Draft, payload: &Payload, care: Care) -> Result<Landed, Failure> {
        let stamp = draft.stamp();
        let globals = draft.globals(self, payload);
        let mut parts = self.bench.start(&self.tracker.tables, &payload.body, &globals, stamp).await?;
        // No connection is held before there is something to write.
        parts.first().await?;
        let mut guard = self.shared.pool.begin_patiently().await?;
        self.ensure_tables(&mut guard).await?;
        let mut written: Vec<Written> = Vec::with_capacity(self.writers.len());
        for writer in &self.writers {
            let table = writer.write(&mut guard, &stamp, &mut parts, care).await?;
            written.push(self.accept(writer, table)?);
        }
        let run = draft.succeeded(&written);
        guard.defer(ledger::close(&run));
        let receipt: Receipt = guard.commit().await?;
        self.tables_stand(&receipt);
        Ok(Landed::new(run, written))
    }
}
