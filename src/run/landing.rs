//! What it takes to shape and land payloads of one tracker, ready for any number of them.
//!
//! Must not know: where payloads come from, the daemon, the pages, the command line.

use super::draft::{Draft, End, Landed};
use super::plan::Shared;
use super::{Bench, Error, Recipe};
use crate::class::Class;
use crate::config::{OnBadRow, Retry};
use crate::shape::History;
use crate::source;
use crate::status::Run;
use crate::store::claim::{self, Claim, Over};
use crate::store::write::{Care, Failure, Writer, Written};
use crate::store::{self, Guard, Receipt, ledger, tables};
use bytes::Bytes;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Longest wait for a claim: the source is asked without one then.
const CLAIM_PATIENCE: Duration = Duration::from_secs(2);

/// A recipe, ready to land payloads, by one task at a time.
pub struct Landing {
    pub(super) recipe: Recipe,
    pub(super) shared: Shared,
    pub(super) bench: Bench,
    pub(super) writers: Vec<Writer>,
    retry: Retry,
    tables_stand: AtomicBool,
    /// The recipe as it is kept.
    pub(super) kept: OnceLock<Bytes>,
}

impl std::fmt::Debug for Landing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Landing").field("tracker", &self.recipe.tracker).finish_non_exhaustive()
    }
}

impl Landing {
    pub(super) fn new(recipe: Recipe, retry: Retry, shared: &Shared) -> Landing {
        let writers = recipe.tables.iter().map(|table| Writer::new(table.clone())).collect();
        let (bench, tables_stand, kept) = (Bench::new(), AtomicBool::new(false), OnceLock::new());
        Landing { recipe, shared: shared.clone(), bench, writers, retry, tables_stand, kept }
    }

    /// Claims the run; `None` when it is, or was, another's.
    pub(super) async fn claim(&self, run: &Run, over: Over) -> Result<Option<Claim>, store::Error> {
        claim::claim(&self.shared.pool, &self.shared.instance, run, over, CLAIM_PATIENCE).await
    }

    /// Whether runs may land.
    pub(super) fn is_open(&self) -> bool {
        *self.shared.open.borrow()
    }

    /// Whether the database could not be had: not reached, or it lets nobody in, whatever the reason.
    pub(super) fn is_away(&self, error: &store::Error) -> bool {
        error.is_away() || self.shared.pool.last_error().is_some()
    }

    /// With a spool nobody waits for a database that is away.
    pub(super) async fn begin(&self) -> Result<Guard, store::Error> {
        match &self.shared.spool {
            Some(_) => self.shared.pool.begin().await,
            None => self.shared.pool.begin_patiently().await,
        }
    }

    /// What the ledger says of a run that may have landed; `None` when it has not ended.
    pub(super) async fn found(&self, draft: &Draft) -> Result<Option<End>, Error> {
        let found = ledger::settled(&self.shared.pool, draft.run.run_id).await.map_err(Error::Land)?;
        found.map(|run| Landed::found(run, draft).map(|landed| landed.into_end(self))).transpose()
    }

    pub(super) fn tries(&self) -> Tries {
        Tries { made: 1, care: Care::Sets, tables_again: true, overs: 0 }
    }

    /// What a run writes of versions and states depends on what is there: two instants of one tracker, on two daemons or
    /// from two spools, must not look at the same time. Held to the end of the transaction; no round trip of its own.
    pub(super) fn one_at_a_time(&self, guard: &mut Guard) {
        if self.recipe.tables.iter().any(|table| table.history != History::Snapshot) {
            guard.defer(claim::turn(&self.recipe.tracker));
        }
    }

    /// Makes or extends the tables in the run's own transaction, until one such transaction committed.
    pub(super) async fn ensure_tables(&self, guard: &mut Guard) -> Result<(), Failure> {
        if !self.tables_stand.load(Ordering::Acquire) {
            tables::ensure(guard, &self.recipe.related).await?;
        }
        Ok(())
    }

    pub(super) fn tables_stand(&self, _proof: &Receipt) {
        self.tables_stand.store(true, Ordering::Release);
    }

    /// Refuses a table with bad rows where the tracker asks for all or nothing.
    pub(super) fn accept(&self, writer: &Writer, written: Written) -> Result<Written, Failure> {
        match (&self.recipe.on_bad_row, &written.first_reject) {
            (OnBadRow::Fail, Some(reject)) => Err(Failure::BadRow {
                table: writer.table().name.clone(),
                reject: reject.clone(),
                rejected: written.rejected,
            }),
            _ => Ok(written),
        }
    }
}

/// How often, and how, a payload is landed again.
pub(super) struct Tries {
    made: u32,
    pub(super) care: Care,
    tables_again: bool,
    overs: u32,
}

/// So often a run is claimed from whoever gave it up just when it was claimed here.
const MOST_OVERS: u32 = 3;

impl Tries {
    /// Whether an outcome without rows, which was put on record meanwhile, is claimed over once more.
    pub(super) fn over_again(&mut self) -> bool {
        self.overs += 1;
        self.overs <= MOST_OVERS
    }

    /// Waits for the next try, or gives the failure back when there is none.
    pub(super) async fn again(&mut self, landing: &Landing, failure: Failure) -> Result<(), Error> {
        let Failure::Store(error) = &failure else { return Err(failure.into()) };
        if landing.shared.spool.is_some() && landing.is_away(error) {
            return Err(failure.into());
        }
        match error.class() {
            // The server refused a row that looked good: find it, set it aside, land the others.
            Class::Row if self.care == Care::Sets && landing.recipe.on_bad_row == OnBadRow::Reject => {
                self.care = Care::Halves;
                Ok(())
            }
            // Somebody changed a table since it was checked: check again, once.
            Class::Standing if self.tables_again && matches!(error.sqlstate(), Some("42P01" | "42703")) => {
                self.tables_again = false;
                landing.tables_stand.store(false, Ordering::Release);
                Ok(())
            }
            Class::Retry if self.made < landing.retry.attempts => {
                tokio::time::sleep(source::backoff(&landing.retry, self.made)).await;
                self.made += 1;
                Ok(())
            }
            _ => Err(failure.into()),
        }
    }
}
