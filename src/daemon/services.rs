//! Which services the daemon is made of, and which of them it cannot do without.
//!
//! Must not know: what they do.

use super::manual::Manual;
use super::pulse::Pulse;
use super::supervisor::Service;
use super::{Daemon, Tell, alert, housekeeping, lease, publish, recorder, states};
use crate::status::Status;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, watch};

/// Whether the daemon is any use without a service.
const VITAL: bool = true;
const OF_USE: bool = false;
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
        self.post("recorder", VITAL, DATABASE, move |pulse| {
            Box::pin(recorder::write(Arc::clone(&inbox), Arc::clone(&ledger), stop.clone(), pulse))
        });
        let scheduler = Arc::clone(&self.scheduler);
        self.post("scheduler", VITAL, INSTANT, move |pulse| Box::pin(Arc::clone(&scheduler).run(pulse)));
        let (state, publish, gauges) = (Arc::clone(&self.state), Arc::new(publish), self.gauges());
        self.post("status", VITAL, INSTANT, move |pulse| {
            Box::pin(publish::publish(Arc::clone(&state), Arc::clone(&publish), Arc::clone(&gauges), pulse))
        });
        let (state, ledger) = (Arc::clone(&self.state), Arc::clone(&self.setup.ledger));
        self.post("health", OF_USE, DATABASE, move |pulse| {
            Box::pin(housekeeping::look(Arc::clone(&state), Arc::clone(&ledger), pulse))
        });
        let (state, ledger) = (Arc::clone(&self.state), Arc::clone(&self.setup.ledger));
        self.post("learning", OF_USE, DATABASE, move |pulse| {
            Box::pin(housekeeping::learn(Arc::clone(&state), Arc::clone(&ledger), pulse))
        });
        let (time, config) = (self.scheduler.chores(), self.in_force.subscribe());
        let ledger = Arc::clone(&self.setup.ledger);
        self.post("housekeeping", OF_USE, CHORES, move |pulse| {
            Box::pin(housekeeping::tidy(Arc::clone(&time), config.clone(), Arc::clone(&ledger), pulse))
        });
        let (state, ledger) = (Arc::clone(&self.state), Arc::clone(&self.setup.ledger));
        let (intake, config) = (Arc::clone(&self.intake), self.in_force.subscribe());
        let whole_until = lease::whole_until(&self.scheduler, &self.intake.dispatch, &self.recorder);
        self.post("lease", VITAL, DATABASE, move |pulse| {
            let (state, ledger, intake) = (Arc::clone(&state), Arc::clone(&ledger), Arc::clone(&intake));
            Box::pin(lease::keep(state, ledger, intake, config.clone(), Arc::clone(&whole_until), pulse))
        });
        if let Some(backlog) = self.setup.backlog.take() {
            let reports = Arc::clone(&self.intake.reports);
            // Of which configuration its plan is, the payload does not say.
            let tell: Tell = Arc::new(move |outcome| reports.ended(outcome, None));
            self.post("backlog", OF_USE, DATABASE, move |_| backlog(Arc::clone(&tell)));
        }
        let status = self.status.clone();
        self.post("states", OF_USE, INSTANT, move |pulse| Box::pin(states::tell(status.clone(), pulse)));
        let (status, config) = (self.status.clone(), self.in_force.subscribe());
        let deliver = Arc::clone(&self.setup.deliver);
        self.post("alerts", OF_USE, DATABASE, move |pulse| {
            Box::pin(alert::tell(status.clone(), config.clone(), Arc::clone(&deliver), pulse))
        });
        for service in std::mem::take(&mut self.setup.services) {
            self.supervisor.serve(service);
        }
        if let Some(pages) = self.setup.pages.clone() {
            let status = self.status.clone();
            self.post("pages", OF_USE, INSTANT, move |_| pages(status.clone()));
        }
        if let Some(control) = self.setup.control.clone() {
            let manual = Manual::new(Arc::clone(&self.intake), Arc::clone(&self.state), self.in_force.subscribe());
            let (status, asker, manual) = (self.status.clone(), self.asker.clone(), Arc::new(manual));
            self.post("control socket", OF_USE, INSTANT, move |_| {
                control(status.clone(), asker.clone(), Arc::clone(&manual))
            });
        }
    }

    /// A service; `longest` is as in `Service`.
    fn post(
        &mut self,
        name: &'static str,
        vital: bool,
        longest: Duration,
        make: impl Fn(Arc<Pulse>) -> BoxFuture<'static, ()> + Send + 'static,
    ) {
        self.supervisor.serve(Service { name, vital, longest, make: Box::new(make) });
    }
}
