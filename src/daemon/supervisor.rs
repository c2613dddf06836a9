//! Owns every task of the daemon: starts them, replaces those that die or hang, ends them.
//!
//! ```text
//!  worker    panicked or past its deadline: its run is recorded as failed, a new worker takes the seat
//!  service   (recorder, scheduler, publisher, pages) ended before the stop, or stuck: started again, within a budget
//!  spent     a vital service over its budget: the daemon ends, systemd starts it anew; the pages: stay down
//! ```
//!
//! Must not know: what the tasks do.

use super::dispatch::Dispatch;
use super::pulse::Pulse;
use super::report::Reports;
use super::worker::{self, Seat};
use crate::log::Event;
use futures_util::future::BoxFuture;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, timeout};

/// Restarts of one service within `WINDOW`, or within the time that it takes to be found stuck so often; one more is too
/// many.
const RESTARTS: u32 = 5;
const WINDOW: Duration = Duration::from_secs(60);
/// An aborted task ends at its next await; one that does not is left behind.
const ABORT: Duration = Duration::from_secs(5);

/// A task that serves as long as the daemon runs.
pub struct Service {
    pub name: &'static str,
    /// Whether the daemon is any use without it.
    pub vital: bool,
    /// No part of its work, by its pulse, takes longer unless it is stuck.
    pub longest: Duration,
    /// Makes it, also anew.
    pub make: Box<MakeService>,
}

/// Makes the task of a service, which keeps this pulse.
pub type MakeService = dyn Fn(Arc<Pulse>) -> BoxFuture<'static, ()> + Send;

/// All tasks.
pub struct Supervisor {
    tasks: JoinSet<()>,
    roles: HashMap<Id, Role>,
    seats: Vec<Chair>,
    services: Vec<Posted>,
    dispatch: Arc<Dispatch>,
    reports: Arc<Reports>,
}

#[derive(Debug, Clone, Copy)]
enum Role {
    Worker(usize),
    Service(usize),
}

struct Chair {
    seat: Arc<Seat>,
    task: AbortHandle,
}

struct Posted {
    service: Service,
    task: AbortHandle,
    pulse: Arc<Pulse>,
    restarts: VecDeque<Instant>,
}

/// A vital service died too often.
#[derive(Debug, thiserror::Error)]
#[error("{service} ended or was stuck more than {RESTARTS} times within {}", humantime::format_duration(*window))]
pub struct Spent {
    service: &'static str,
    window: Duration,
}

impl Supervisor {
    /// Seats `workers` workers.
    pub fn new(workers: usize, dispatch: Arc<Dispatch>, reports: Arc<Reports>) -> Supervisor {
        let mut supervisor = Supervisor {
            tasks: JoinSet::new(),
            roles: HashMap::new(),
            seats: Vec::new(),
            services: Vec::new(),
            dispatch,
            reports,
        };
        for place in 0..workers {
            let chair = supervisor.seat_worker(place);
            supervisor.seats.push(chair);
        }
        supervisor
    }

    /// Starts a service.
    pub fn serve(&mut self, service: Service) {
        let place = self.services.len();
        let pulse = Arc::new(Pulse::default());
        let task = self.tasks.spawn((service.make)(Arc::clone(&pulse)));
        self.roles.insert(task.id(), Role::Service(place));
        self.services.push(Posted { service, task, pulse, restarts: VecDeque::new() });
    }

    /// Ends a service.
    pub fn dismiss(&mut self, name: &str) {
        for posted in self.services.iter().filter(|posted| posted.service.name == name) {
            self.roles.remove(&posted.task.id());
            posted.task.abort();
        }
    }

    /// Waits until a task ends, and replaces it.
    ///
    /// Cancel safety: safe; between the end of a task and its replacement there is no await.
    ///
    /// # Errors
    /// A vital service is over its budget.
    pub async fn watch(&mut self) -> Result<(), Spent> {
        match self.tasks.join_next_with_id().await {
            Some(Ok((id, ()))) => self.ended(id, None),
            Some(Err(error)) => self.ended(error.id(), Some(error)),
            None => std::future::pending().await,
        }
    }

    fn ended(&mut self, id: Id, error: Option<JoinError>) -> Result<(), Spent> {
        match self.roles.remove(&id) {
            Some(Role::Worker(place)) => {
                if let Some(error) = error {
                    self.lost(place, &format!("panicked: {}", message(error)));
                    self.seats[place] = self.seat_worker(place);
                }
                Ok(())
            }
            Some(Role::Service(place)) => self.restart(place, &error.map_or_else(|| "it returned".to_owned(), message)),
            None => Ok(()),
        }
    }

    /// Replaces workers whose run is past its deadline, and services that are stuck.
    ///
    /// # Errors
    /// A vital service is over its budget.
    pub fn replace_stuck(&mut self) -> Result<(), Spent> {
        self.replace_stuck_workers(Instant::now());
        self.replace_stuck_services(Instant::now())
    }

    fn replace_stuck_workers(&mut self, now: Instant) {
        for place in 0..self.seats.len() {
            let Some(sitting) = self.seats[place].seat.rise_if_stuck(now) else { continue };
            let task = &self.seats[place].task;
            self.roles.remove(&task.id());
            // It ends at its next await. One that never awaits keeps its thread: no more can be done from here.
            task.abort();
            let (tracker, scheduled_at, why) = (&*sitting.due.tracker, sitting.due.scheduled_at, sitting.stuck());
            tracing::warn!(tracker, %scheduled_at, why, event = %Event::RunStuck, "run is stuck: given up");
            self.reports.ended(sitting.cut_off(&self.reports.identity, why), Some(sitting.generation));
            self.dispatch.finish(&sitting.due.tracker);
            self.seats[place] = self.seat_worker(place);
        }
    }

    fn replace_stuck_services(&mut self, now: Instant) -> Result<(), Spent> {
        for place in 0..self.services.len() {
            let Posted { service, task, pulse, .. } = &self.services[place];
            // One that was dismissed, or stays down, has no role any more.
            if pulse.is_stuck(now, service.longest) && self.roles.remove(&task.id()).is_some() {
                task.abort();
                let why = format!("no progress within {}", humantime::format_duration(service.longest));
                self.restart(place, &why)?;
            }
        }
        Ok(())
    }

    /// Waits until all workers are done; the dispatch is stopped. Services go on.
    ///
    /// Cancel safety: safe.
    pub async fn drained(&mut self) {
        while self.roles.values().any(|role| matches!(role, Role::Worker(_))) {
            // A service that dies now is not worth a restart.
            let (id, error) = match self.tasks.join_next_with_id().await {
                Some(Ok((id, ()))) => (id, None),
                Some(Err(error)) => (error.id(), Some(error)),
                None => return,
            };
            if let (Some(Role::Worker(place)), Some(error)) = (self.roles.remove(&id), error) {
                self.lost(place, &format!("panicked: {}", message(error)));
            }
        }
    }

    /// Aborts the runs that go on, and waits until they are rolled back. Returns how many there were.
    pub async fn cut_off(&mut self, why: &str) -> usize {
        let mut count = 0;
        for place in 0..self.seats.len() {
            self.seats[place].task.abort();
            count += usize::from(self.lost(place, why));
        }
        if timeout(ABORT, self.drained()).await.is_err() {
            tracing::warn!("a run does not end although it was aborted");
        }
        count
    }

    /// Ends every task that is left.
    pub async fn end(mut self) {
        self.roles.clear();
        let _ = timeout(ABORT, self.tasks.shutdown()).await;
    }

    /// Ends one service by its own rules: the caller told it to stop. Returns whether it did, within `at_most`.
    pub async fn await_service(&mut self, name: &str, at_most: Duration) -> bool {
        let Some(id) = self.services.iter().find(|posted| posted.service.name == name).map(|posted| posted.task.id())
        else {
            return true;
        };
        let ended = async {
            while self.roles.contains_key(&id) {
                match self.tasks.join_next_with_id().await {
                    Some(Ok((ended, ()))) => self.roles.remove(&ended),
                    Some(Err(error)) => self.roles.remove(&error.id()),
                    None => return,
                };
            }
        };
        timeout(at_most, ended).await.is_ok()
    }

    /// Reports the run of a worker that will not; false where it had none.
    fn lost(&self, place: usize, error: &str) -> bool {
        let Some(sitting) = self.seats[place].seat.rise() else { return false };
        self.reports.ended(sitting.cut_off(&self.reports.identity, error.to_owned()), Some(sitting.generation));
        self.dispatch.finish(&sitting.due.tracker);
        true
    }

    fn seat_worker(&mut self, place: usize) -> Chair {
        let seat = Arc::new(Seat::default());
        let work = worker::work(Arc::clone(&self.dispatch), Arc::clone(&seat), Arc::clone(&self.reports));
        let task = self.tasks.spawn(work);
        self.roles.insert(task.id(), Role::Worker(place));
        Chair { seat, task }
    }

    fn restart(&mut self, place: usize, why: &str) -> Result<(), Spent> {
        let posted = &mut self.services[place];
        let (service, now) = (posted.service.name, Instant::now());
        let window = WINDOW.max(posted.service.longest.saturating_mul(2 * RESTARTS));
        posted.restarts.retain(|at| now.duration_since(*at) < window);
        posted.restarts.push_back(now);
        if posted.restarts.len() <= RESTARTS as usize {
            tracing::warn!(service, why, restarts = posted.restarts.len(), event = %Event::ServiceReplaced, "service ended: started again");
            posted.pulse = Arc::default();
            posted.task = self.tasks.spawn((posted.service.make)(Arc::clone(&posted.pulse)));
            self.roles.insert(posted.task.id(), Role::Service(place));
            return Ok(());
        }
        tracing::error!(service, why, event = %Event::ServiceDown, "service ended too often: it stays down");
        if posted.service.vital { Err(Spent { service, window }) } else { Ok(()) }
    }
}

fn message(error: JoinError) -> String {
    let text = error.to_string();
    let Ok(panic) = error.try_into_panic() else { return text };
    let said = panic.downcast_ref::<&str>().map(|said| (*said).to_owned());
    said.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".to_owned())
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supervisor").field("tasks", &self.tasks.len()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("name", &self.name).field("vital", &self.vital).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::recorder;
    use crate::daemon::state::State;
    use crate::daemon::work::Identity;
    use jiff::Timestamp;
    use std::sync::atomic::{AtomicU32, Ordering};

    const LONGEST: Duration = Duration::from_secs(10);

    fn supervisor() -> Supervisor {
        let config = crate::config::parse("", std::path::Path::new("c.toml"), &Default::default());
        let state = State::new(&config.expect("an empty file is a configuration"), "test:1", Timestamp::UNIX_EPOCH);
        let identity = Identity { instance: "test:1".into(), run_id: crate::store::ledger::run_id };
        let reports = Arc::new(Reports::new(identity, Arc::new(state), recorder::channel().0));
        Supervisor::new(0, Arc::new(Dispatch::new(Vec::new())), reports)
    }

    /// A service that waits for ever, at work or at rest, and counts its starts.
    fn waits(vital: bool, at_work: bool) -> (Service, Arc<AtomicU32>) {
        let starts = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&starts);
        let make = Box::new(move |pulse: Arc<Pulse>| -> BoxFuture<'static, ()> {
            count.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move {
                let _at_work = at_work.then(|| pulse.work());
                std::future::pending().await
            })
        });
        (Service { name: "waits", vital, longest: LONGEST, make }, starts)
    }

    /// Lets tasks begin, and time pass in which one that is at work is stuck.
    async fn too_long() {
        tokio::time::sleep(LONGEST + Duration::from_secs(1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_is_stuck_is_replaced_and_one_that_rests_is_not() {
        let mut supervisor = supervisor();
        let ((stuck, stuck_starts), (rests, rests_starts)) = (waits(false, true), waits(true, false));
        supervisor.serve(stuck);
        supervisor.serve(rests);
        supervisor.replace_stuck().unwrap();
        let starts = || (stuck_starts.load(Ordering::Relaxed), rests_starts.load(Ordering::Relaxed));
        assert_eq!(starts(), (1, 1));
        for restarts in 1..=RESTARTS {
            too_long().await;
            supervisor.replace_stuck().unwrap();
            supervisor.replace_stuck().unwrap();
            assert_eq!(starts(), (1 + restarts, 1));
        }
        too_long().await;
        supervisor.replace_stuck().expect("the daemon can do without it");
        assert_eq!(starts(), (1 + RESTARTS, 1), "it stays down");
    }

    #[tokio::test(start_paused = true)]
    async fn a_vital_service_that_is_stuck_again_and_again_ends_the_daemon() {
        let mut supervisor = supervisor();
        supervisor.serve(waits(true, true).0);
        for _ in 0..RESTARTS {
            too_long().await;
            supervisor.replace_stuck().unwrap();
        }
        too_long().await;
        let spent = supervisor.replace_stuck().unwrap_err().to_string();
        assert_eq!(spent, "waits ended or was stuck more than 5 times within 1m 40s");
    }
}
