//! Which services the daemon is made of, and which of them it cannot do without.
//!
//! Must not know: what they do.

use super::pulse::Pulse;
use super::supervisor::Service;
use super::{Daemon, Tell, alert, housekeeping, lease, publish, recorder};
use crate::status::Status;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, watch};

/// Longest part of a service's work: what needs no waiting, …
const INSTANT: Duration = Duration::from_secs(20);
/// … what asks the database, and has limits of its own that are shorter, unless `statement_timeout` was raised far, …
const DATABASE: Duration = Duration::from_secs(15 * 60);
/// … and what tidies it.
const CHORES: Duration = Duration::from_secs(2 * 60 * 60);

impl Daemon {
    pub(super) fn start_services(&mut self, inbox: recorder::Inbox, publish: watch::Sender<Arc<Status>>) {
        let (inbox, ledger, stop) =
            (Arc::new(Mutex::new(inbox)), Arc::clone(&self.setup.ledger), self.stop_recorder.clone());
        self.serve_vital("recorder", DATABASE, move |pulse| {
            Box::pin(recorder::write(Arc::clone(&inbox), Arc::clone(&ledger), stop.clone(), pulse))
        });
        let scheduler = Arc::clone(&self.scheduler);
        self.serve_vital("scheduler", INSTANT, move |pulse| Box::pin(Arc::clone(&scheduler).run(pulse)));
        let (state, publish, gauges) = (Arc::clone(&self.state), Arc::new(publish), self.gauges());
        self.serve_vital("status", INSTANT, move |pulse| {
            Box::pin(publish::publish(Arc::clone(&state), Arc::clone(&publish), Arc::clone(&gauges), pulse))
        });
        let (state, ledger) = (Arc::clone(&self.state), Arc::clone(&self.setup.ledger));
        self.serve_of_use("health", DATABASE, move |pulse| {
            Box::pin(housekeeping::look(Arc::clone(&state), Arc::clone(&ledger), pulse))
        });
        let (state, ledger) = (Arc::clone(&self.state), Arc::clone(&self.setup.ledger));
        self.serve_of_use("learning", DATABASE, move |pulse| {
            Box::pin(housekeeping::learn(Arc::clone(&state), Arc::clone(&ledger), pulse))
        });
        let (time, config) = (self.scheduler.chores(), self.in_force.subscribe());
        let ledger = Arc::clone(&self.setup.ledger);
        self.serve_of_use("housekeeping", CHORES, move |pulse| {
            Box::pin(housekeeping::tidy(Arc::clone(&time), config.clone(), Arc::clone(&ledger), pulse))
        });
        let (state, ledger) = (Arc::clone(&self.state), Arc::clone(&self.setup.ledger));
        let (intake, config) = (Arc::clone(&self.intake), self.in_force.subscribe());
        let whole_until = lease::whole_until(&self.scheduler, &self.intake.dispatch, &self.recorder);
        self.serve_vital("lease", DATABASE, move |pulse| {
            let (state, ledger, intake) = (Arc::clone(&state), Arc::clone(&ledger), Arc::clone(&intake));
            Box::pin(lease::keep(state, ledger, intake, config.clone(), Arc::clone(&whole_until), pulse))
        });
        if let Some(backlog) = self.setup.backlog.take() {
            let reports = Arc::clone(&self.intake.reports);
            let tell: Tell = Arc::new(move |outcome| reports.ended(outcome));
            self.serve_of_use("backlog", DATABASE, move |_| backlog(Arc::clone(&tell)));
        }
        let (status, config) = (self.status.clone(), self.in_force.subscribe());
        let deliver = Arc::clone(&self.setup.deliver);
        self.serve_of_use("alerts", DATABASE, move |pulse| {
            Box::pin(alert::tell(status.clone(), config.clone(), Arc::clone(&deliver), pulse))
        });
        for service in std::mem::take(&mut self.setup.services) {
            self.supervisor.serve(service);
        }
        if let Some(pages) = self.setup.pages.clone() {
            let status = self.status.clone();
            self.serve_of_use("pages", INSTANT, move |_| pages(status.clone()));
        }
        if let Some(control) = self.setup.control.clone() {
            let (status, asker) = (self.status.clone(), self.asker.clone());
            self.serve_of_use("control socket", INSTANT, move |_| control(status.clone(), asker.clone()));
        }
    }

    /// A service without which the daemon is of no use.
    fn serve_vital(
        &mut self,
        name: &'static str,
        longest: Duration,
        make: impl Fn(Arc<Pulse>) -> BoxFuture<'static, ()> + Send + 'static,
    ) {
        self.supervisor.serve(Service { name, vital: true, longest, make: Box::new(make) });
    }

    /// A service that the daemon can do without.
    fn serve_of_use(
        &mut self,
        name: &'static str,
        longest: Duration,
        make: impl Fn(Arc<Pulse>) -> BoxFuture<'static, ()> + Send + 'static,
    ) {
        self.supervisor.serve(Service { name, vital: false, longest, make: Box::new(make) });
    }
}
