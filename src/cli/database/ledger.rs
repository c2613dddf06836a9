//! The configured database as the daemon's ledger.
//!
//! Must not know: the daemon beyond its `Ledger`.

use super::{Database, MOST_PRUNED, MOST_RECALLED, server};
use crate::class::Class;
use crate::cli::failure::unusable;
use crate::clock;
use crate::config::{self, DatabaseUrl};
use crate::daemon::ledger::{Chores, Latest, Ledger, Memory, Renewed, Tidied, Unusable};
use crate::daemon::work::Due;
use crate::spool;
use crate::status::{self, Run};
use crate::store::instance::Orphan;
use crate::store::{analyze, claim, health, ledger, migrate, prune};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};

impl Ledger for Database {
    fn open(&self) -> BoxFuture<'_, Result<(), Unusable>> {
        async move {
            self.start().await?;
            let is_current = migrate::is_current(&self.pool).await.map_err(|error| unusable(&error))?;
            if !is_current {
                // Who migrates has a session of its own, and there may be one for us in all.
                self.pool.reset();
                for applied in self.migrate().await? {
                    tracing::info!(migration = applied, "schema trackd migrated");
                }
            }
            for error in self.make_tables().await?.into_iter().filter_map(Result::err) {
                match error.class() {
                    // Locked, mostly.
                    Class::Retry => tracing::warn!(error = %error, "tables were not looked at: their runs do"),
                    _ => tracing::error!(error = %error, hint = error.hint(), "tables are not as configured"),
                }
            }
            let predecessor = self.predecessor.get().copied();
            self.instance.begin(&self.pool, predecessor).await.map_err(|error| unusable(&error))
        }
        .boxed()
    }

    fn back(&self, within: Duration) -> BoxFuture<'_, bool> {
        async move {
            let until = Instant::now() + within;
            // One that is there has failed for another reason, which takes its time.
            if self.pool.last_error().is_none() || self.pool.numbers().size > 0 {
                sleep_until(until).await;
                return false;
            }
            if self.pool.begin_within(within).await.is_err() {
                // A login that is refused is not tried before the time is over, unless another one passed.
                self.pool.healed(until.saturating_duration_since(Instant::now())).await;
            }
            self.pool.last_error().is_none()
        }
        .boxed()
    }

    fn meet(&self, trackers: Vec<String>, since: Timestamp) -> BoxFuture<'_, Result<(), Unusable>> {
        async move { ledger::meet(&self.pool, &trackers, since).await.map_err(|error| unusable(&error)) }.boxed()
    }

    fn recall(
        &self,
        trackers: Vec<String>,
        until: Option<Timestamp>,
    ) -> BoxFuture<'_, Result<HashMap<String, Memory>, Unusable>> {
        async move {
            let waits = |tracker: &String| self.spool.get().and_then(|spool| spool.instants(tracker).first().copied());
            let known: Vec<_> = trackers.iter().map(|tracker| (tracker.clone(), waits(tracker))).collect();
            let instants = ledger::instants(&self.pool, self.instance.id(), &known, until, MOST_RECALLED)
                .await
                .map_err(|error| unusable(&error))?;
            let latest = ledger::latest(&self.pool, &trackers).await.map_err(|error| unusable(&error))?;
            let mut memories: HashMap<String, Memory> = HashMap::new();
            for instants in instants {
                let memory = memories.entry(instants.tracker).or_default();
                (memory.dealt_until, memory.recorded) = (Some(instants.whole_until), instants.later);
            }
            if let Some(spool) = self.spool.get() {
                for (tracker, memory) in &mut memories {
                    memory.recorded.extend(spool.instants(tracker));
                    memory.recorded.sort_unstable();
                    memory.recorded.dedup();
                }
            }
            let since = ledger::since(&self.pool, &trackers).await.map_err(|error| unusable(&error))?;
            for (tracker, since) in since {
                memories.entry(tracker).or_default().since = Some(since);
            }
            for (run, success) in latest {
                let memory = memories.entry(run.tracker.clone()).or_default();
                memory.last = Some((run, success));
            }
            Ok(memories)
        }
        .boxed()
    }

    fn latest(&self, trackers: Vec<String>) -> BoxFuture<'_, Result<Vec<Latest>, Unusable>> {
        async move { ledger::latest(&self.pool, &trackers).await.map_err(|error| unusable(&error)) }.boxed()
    }

    fn record<'a>(&'a self, runs: &'a [Run]) -> BoxFuture<'a, Result<(), Unusable>> {
        async move { ledger::record(&self.pool, self.instance.id(), runs).await.map_err(|error| unusable(&error)) }
            .boxed()
    }

    fn reserve<'a>(&'a self, dues: &'a [Due]) -> BoxFuture<'a, Result<(), Unusable>> {
        let runs = dues.iter().map(|due| (&*due.tracker, due.scheduled_at, due.kind)).collect::<Vec<_>>();
        async move {
            claim::reserve(&self.pool, &self.instance, &runs).await.map_err(|error| unusable(&error))?;
            if let Some(id) = self.predecessor.get() {
                // What it had in its memory has its rows now.
                self.instance.forget(&self.pool, *id).await.map_err(|error| unusable(&error))?;
            }
            Ok(())
        }
        .boxed()
    }

    fn renew(&self, whole_until: Timestamp) -> BoxFuture<'_, Result<Renewed, Unusable>> {
        async move {
            let renewed = self.instance.renew(&self.pool, Some(whole_until)).await;
            let is_back = renewed.map_err(|error| unusable(&error))?;
            let others = self.instance.others(&self.pool).await.map_err(|error| unusable(&error))?;
            let due = |orphan: Orphan| Due {
                tracker: orphan.tracker.into(),
                scheduled_at: orphan.scheduled_at,
                kind: orphan.kind,
            };
            // Those that wait here need nobody to take them over.
            let orphans =
                others.orphans.into_iter().filter(|orphan| !self.is_kept(&orphan.tracker, orphan.scheduled_at));
            Ok(Renewed { orphans: orphans.map(due).collect(), next_to_expire: others.next_to_expire, is_back })
        }
        .boxed()
    }

    fn change<'a>(&'a self, database: &'a config::Database) -> BoxFuture<'a, Result<(), Unusable>> {
        async move { self.reconnect(database).await.map_err(|error| unusable(&error)) }.boxed()
    }

    fn is_stale(&self, database: &config::Database) -> bool {
        match &database.url {
            // What is not understood is told by the change.
            DatabaseUrl::Server(url) => server(url.expose(), database).map_or(true, |target| target != self.target()),
            DatabaseUrl::Embedded => false,
        }
    }

    fn gauges(&self) -> (status::Pool, Option<String>) {
        (health::connections(&self.pool), self.pool.last_error().map(|error| error.to_string()))
    }

    fn whole(&self) {
        self.open.send_replace(true);
    }

    fn spool(&self) -> status::Spool {
        self.spool.get().map_or_else(status::Spool::default, |spool| {
            let spool::Stats { entries, oldest, bad, used, limit, .. } = spool.stats();
            status::Spool { entries, used, limit, oldest, bad }
        })
    }

    fn bound_spool(&self, max_bytes: u64) {
        if let Some(spool) = self.spool.get() {
            spool.set_limit(max_bytes);
        }
    }

    fn look(&self) -> BoxFuture<'_, Option<status::Server>> {
        async move {
            self.recount().await;
            // What rests grows old, or lost its server, and nobody may borrow for hours. What is wrong, the next line tells.
            let _ = self.pool.examine().await;
            health::health(&self.pool).await.server
        }
        .boxed()
    }

    fn tidy<'a>(&'a self, chores: &'a Chores) -> BoxFuture<'a, Result<Tidied, Unusable>> {
        async move {
            let mut tidied = Tidied::default();
            if let Some(keep) = chores.keep_runs {
                let pruned = prune::prune(&self.pool, keep, clock::now(), MOST_PRUNED).await;
                let pruned = pruned.map_err(|error| unusable(&error))?;
                (tidied.runs, tidied.rejects) = (pruned.runs, pruned.rejects);
            }
            let analyzed = analyze::analyze(&self.pool, &chores.tables).await.map_err(|error| unusable(&error))?;
            for (table, error) in &analyzed.failed {
                tracing::warn!(table, error = %error, hint = error.hint(), "table not analyzed");
            }
            tidied.analyzed = analyzed.tables;
            Ok(tidied)
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.end().boxed()
    }
}

impl Database {
    /// Counts anew what was set aside: people, and `trackd spool replay`, take it away.
    async fn recount(&self) {
        let Some(spool) = self.spool.get().map(Arc::clone) else { return };
        if let Ok(Err(error)) = spawn_blocking(move || spool.recount_bad()).await {
            tracing::debug!(error = %error, "spool: what was set aside is not counted");
        }
    }
}
