//! ONE run, top to bottom: claim, fetch, shape, guard { write }, commit, record. The program, on one screen.
//!
//! ```text
//!  claim --> source --Payload--> Shaping --Part--> Guard { Writer, close the claim } --commit--> Receipt --> Outcome
//!    \          \ away: tried again by the source    \ away, refused: to the spool,       \ lost answer: looked up
//!     another process is at it: nothing                landed by the backlog, as the same run
//! ```
//!
//! In: a tracker's plan and an instant. Out: an `Outcome`; a run never fails silently and never panics on purpose.
//! Must not know: the daemon, the pages, the command line.

mod backlog;
mod draft;
mod error;
mod kept;
mod landing;
mod patience;
mod plan;
mod recipe;
mod replay;
mod shaping;

pub use backlog::Backlog;
pub use draft::{End, FreshRows, Outcome};
pub use error::Error;
pub use landing::Landing;
pub use plan::{DryTable, Plan, Shared};
pub use recipe::{Recipe, related};
pub use replay::{Replay, Replayed};

use crate::source::Payload;
use crate::status::Kind;
use crate::store::Receipt;
use crate::store::claim::{self, Claim, Over};
use crate::store::write::{Care, Failure, Written};
use draft::{Draft, Landed};
use jiff::Timestamp;
use shaping::{Bench, Shaping};

impl Plan {
    /// Runs the tracker for one instant.
    ///
    /// Cancel safety: dropping the future aborts the fetch, rolls the guard back and cancels its statement; the claim
    /// stays this process's.
    pub async fn run(&self, scheduled_at: Timestamp, kind: Kind) -> End {
        if self.landing.is_kept(scheduled_at) {
            // Its payload waits: another answer would find its place taken.
            return End::Elsewhere;
        }
        let mut draft = Draft::new(&self.landing, scheduled_at, kind);
        // The database is away, or not open yet: the source is asked all the same, and the run is claimed when it lands.
        let mut claim = None;
        if self.landing.is_open() {
            match self.landing.claim(&draft.run, Over::Running).await {
                Ok(None) => return End::Elsewhere,
                claimed => claim = claimed.ok().flatten(),
            }
        }
        let ended = self.fetch_and_land(&mut draft, claim).await;
        ended.unwrap_or_else(|error| End::Ended(draft.into_failure(&error)))
    }

    async fn fetch_and_land(&self, draft: &mut Draft, claim: Option<Claim>) -> Result<End, Error> {
        self.landing.has_room(claim.is_some())?;
        // No connection is held while the source answers.
        let payload = self.source.fetch(&self.ask(draft)).await.map_err(Error::Fetch)?;
        draft.fetched(&payload).await;
        self.landing.land_or_keep(draft, payload, claim).await
    }
}

impl Landing {
    /// To the spool while the database is away or refuses it, and behind those of its tracker that are there already.
    async fn land_or_keep(&self, draft: &Draft, payload: Payload, claim: Option<Claim>) -> Result<End, Error> {
        let Some(spool) = &self.shared.spool else { return self.land(draft, &payload, claim).await };
        if !self.is_open() || spool.next(&self.recipe.tracker).is_some() {
            return self.keep(spool, draft, payload).await;
        }
        match self.land(draft, &payload, claim).await {
            Err(Error::Land(error)) if self.is_away(&error) => self.keep(spool, draft, payload).await,
            Err(Error::Land(error)) if backlog::is_worth_keeping(&error, &spool.stats()) => {
                // Where there is no room, the run fails for what the database said.
                self.keep(spool, draft, payload).await.or(Err(Error::Land(error)))
            }
            ended => ended,
        }
    }

    /// Lands a payload as its run, as often as it takes.
    async fn land(&self, draft: &Draft, payload: &Payload, mut claim: Option<Claim>) -> Result<End, Error> {
        let mut tries = self.tries();
        loop {
            let failure = match self.try_to(draft, payload, tries.care, &mut claim).await {
                Ok(Some(landed)) => return Ok(landed.into_end(self)),
                // Ours, where the answer to its commit was lost; or another process was first.
                Ok(None) => match self.found(draft).await {
                    // That one has just given it up: what is here takes its place.
                    Err(Error::Recorded(_)) if tries.over_again() => continue,
                    found => return found.map(|landed| landed.unwrap_or(End::Elsewhere)),
                },
                Err(failure) => failure,
            };
            if let Failure::Store(error) = &failure {
                if error.is_unknown_commit()
                    && let Ok(Some(landed)) = self.found(draft).await
                {
                    return Ok(landed);
                }
                // Claimed anew: that waits for a commit still under way, and says so where it landed.
                claim = claim.filter(|_| !claim::is_lost(error) && !error.is_unknown_commit());
            }
            tries.again(self, failure).await?;
        }
    }

    /// One transaction: the rows, and the claim that becomes the outcome. `None`: the run cannot be claimed.
    async fn try_to(
        &self,
        draft: &Draft,
        payload: &Payload,
        care: Care,
        claim: &mut Option<Claim>,
    ) -> Result<Option<Landed>, Failure> {
        let stamp = draft.stamp();
        let globals = draft.globals(self, payload);
        let mut parts = self.bench.start(&self.recipe.tables, &payload.body, &globals, stamp).await?;
        // No connection is held before there is something to write.
        parts.first().await?;
        if claim.is_none() {
            // Whoever gave the run up meanwhile did not know that its payload had come.
            *claim = self.claim(&draft.run, Over::Unlanded).await?;
        }
        let Some(claim) = claim else { return Ok(None) };
        let mut guard = self.begin().await?;
        self.one_at_a_time(&mut guard);
        self.ensure_tables(&mut guard).await?;
        let mut written: Vec<Written> = Vec::with_capacity(self.writers.len());
        for writer in &self.writers {
            let table = writer.write(&mut guard, &stamp, &mut parts, care).await?;
            written.push(self.accept(writer, table)?);
        }
        let run = draft.succeeded(&written);
        guard.defer(claim::close(&run, claim));
        let receipt: Receipt = guard.commit().await?;
        self.tables_stand(&receipt);
        Ok(Some(Landed::new(run, written)))
    }
}
