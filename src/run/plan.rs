//! A tracker made ready to run: its source built, its statements written, once for a configuration.
//!
//! Must not know: the daemon, the pages, the command line.

use super::draft::Draft;
use super::landing::Landing;
use super::{Error, Recipe, Shaping};
use crate::config::{self, Config, Tracker};
use crate::shape::{Rows, Table};
use crate::source::{self, Ask, Hosts, Source};
use crate::spool::Spool;
use crate::status::Kind;
use crate::store::Pool;
use crate::store::instance::Instance;
use crate::store::notify::Notifier;
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// What all plans of a process share.
#[derive(Debug, Clone)]
pub struct Shared {
    /// Where runs land.
    pub pool: Pool,
    /// Whom their sources ask.
    pub hosts: Hosts,
    /// This process.
    pub instance: Arc<Instance>,
    /// Who is told of runs that landed.
    pub notifier: Notifier,
    /// Where payloads wait for a database that is away; `None`: nowhere, they are tried again for as long as `retry` says.
    pub spool: Option<Arc<Spool>>,
    /// Whether runs may land. Before the ledger is whole they go to the spool: one that landed would hide the holes
    /// before it.
    pub open: watch::Receiver<bool>,
}

impl Shared {
    /// For a process that ends with its runs: it waits for the database, and keeps nothing.
    pub fn without_spool(pool: Pool, instance: Arc<Instance>, notifier: Notifier) -> Shared {
        Shared { pool, hosts: Hosts::default(), instance, notifier, spool: None, open: watch::channel(true).1 }
    }
}

/// A tracker, ready to run any number of times, by one task at a time.
pub struct Plan {
    pub(super) tracker: Arc<Tracker>,
    pub(super) source: Box<dyn Source>,
    pub(super) landing: Landing,
    template_vars: minijinja::Value,
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan").field("tracker", &self.tracker.name).finish_non_exhaustive()
    }
}

impl Plan {
    /// Makes a tracker of `config` ready. Opens nothing.
    ///
    /// # Errors
    /// The source cannot be built (a header that is no header, a TLS store that cannot be read).
    pub fn new(config: &Config, tracker: &Arc<Tracker>, shared: &Shared) -> Result<Plan, source::Error> {
        Ok(Plan {
            source: source::build(&tracker.source, tracker.timeout, tracker.retry, &shared.hosts)?,
            landing: Landing::new(Recipe::of(config, tracker), tracker.retry, shared),
            template_vars: config::template::value(&config.vars),
            tracker: tracker.clone(),
        })
    }

    /// The tracker.
    pub fn tracker(&self) -> &Arc<Tracker> {
        &self.tracker
    }

    /// What its source shares with others that must not be asked all at once.
    pub fn group(&self) -> Option<&str> {
        self.source.group()
    }

    /// The longest a run of this tracker can take.
    pub fn deadline(&self, statement_timeout: Duration) -> Duration {
        self.tracker.deadline(statement_timeout).saturating_add(self.source.turns())
    }

    /// What the source may depend on.
    pub(super) fn ask(&self, draft: &Draft) -> Ask {
        Ask { context: minijinja::context! { vars => self.template_vars.clone(), run => draft.run_value() } }
    }

    /// The rows that would land, table by table, without a database.
    ///
    /// # Errors
    /// The source gave no payload, or it is not the documented shape.
    pub async fn dry_run(&self, scheduled_at: Timestamp) -> Result<Vec<DryTable>, Error> {
        let mut draft = Draft::new(&self.landing, scheduled_at, Kind::Manual);
        let payload = self.source.fetch(&self.ask(&draft)).await.map_err(Error::Fetch)?;
        draft.fetched(&payload).await;
        let globals = draft.globals(&self.landing, &payload);
        let starting = self.landing.bench.start(&self.tracker.tables, &payload.body, &globals, draft.stamp());
        let mut parts = starting.await.map_err(Error::Shape)?;
        let mut dry = Vec::with_capacity(self.landing.writers.len());
        for writer in &self.landing.writers {
            dry.push(DryTable::collect(writer.table(), &mut parts).await?);
        }
        Ok(dry)
    }
}

/// One table of a dry run.
#[derive(Debug)]
pub struct DryTable {
    /// The table.
    pub table: Arc<Table>,
    /// All good rows.
    pub rows: Rows,
    /// The rows that would be set aside.
    pub tally: crate::shape::Tally,
}

impl DryTable {
    async fn collect(table: &Arc<Table>, parts: &mut Shaping) -> Result<DryTable, Error> {
        use crate::store::write::{Part, Parts as _};
        let mut rows = Rows::default();
        loop {
            match parts.next().await.map_err(Error::Shape)? {
                Part::Rows(more) => {
                    rows.data.extend_from_slice(&more.data);
                    rows.count += more.count;
                }
                Part::End(tally) => return Ok(DryTable { table: table.clone(), rows, tally }),
            }
        }
    }
}
