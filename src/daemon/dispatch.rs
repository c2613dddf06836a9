//! Due runs on their way to the workers: one lane a tracker, and of a group of trackers only so many at once.
//!
//! ```text
//!  offer --> gate (schedule::overlap) --> next --ready--> take --> running --finish--+
//!  catch_up, by_hand --> backlog ---------^                                          |
//!                   +---------- next: of the backlog and the one that waits ---------+
//! ```
//!
//! A lane runs one thing at a time. `offer` gives back what does not get a place, for the ledger.
//! Must not know: tokio tasks, what a run does.

use super::line::{Group, Line};
use super::work::{Due, Work};
use crate::schedule::Overlap;
use crate::schedule::overlap::{Gate, Tick};
use crate::status::{Kind, TrackerState};
use jiff::Timestamp;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// The lanes of all trackers.
pub struct Dispatch {
    lanes: Mutex<Lanes>,
    /// Told for each run that can begin: a worker that waits takes it.
    ready: Notify,
}

struct Lanes {
    lanes: HashMap<Arc<str>, Lane>,
    /// Lanes with something to run and nothing running.
    ready: Line,
    /// From 1, one more with each `replace`.
    generation: u64,
    stopped: bool,
}

struct Lane {
    /// `None`: the tracker is gone from the configuration, its last run goes on.
    work: Option<Arc<dyn Work>>,
    /// Busy from the tick that starts a run to the end of the last one that followed it.
    gate: Gate,
    /// Waits for a worker.
    next: Option<Due>,
    /// Something runs, and it counts for this group.
    running: Option<Group>,
    /// Caught-up instants, oldest first; bounded by `schedule::missed`. And one by hand.
    backlog: VecDeque<Due>,
}

/// A run a worker has taken: it ends by `Dispatch::finish`.
#[expect(missing_debug_implementations, reason = "the work is opaque")]
pub struct Job {
    pub work: Arc<dyn Work>,
    pub due: Due,
    /// Of the configuration in force when it was taken: its work is of it, or the same in it.
    pub generation: u64,
}

/// What there is for a worker.
enum Start {
    Job(Job),
    Nothing,
    Stopped,
}

/// What became of an offer.
#[derive(Debug, PartialEq, Eq)]
pub enum Offer {
    /// It runs as soon as a worker is free.
    Taken,
    /// It waits; this one, which waited before, does not run.
    Displaced(Due),
    /// Its tracker is busy, and does not wait.
    Refused(Due),
    /// There is no such tracker any more.
    Gone(Due),
    /// The daemon stops: no run begins.
    Stopped,
}

impl Dispatch {
    /// Lanes for `works`.
    pub fn new(works: Vec<Arc<dyn Work>>) -> Dispatch {
        Dispatch::bounded(works, usize::MAX)
    }

    /// Lanes for `works`, of which at most so many of one group run at once.
    pub fn bounded(works: Vec<Arc<dyn Work>>, most_of_a_group: usize) -> Dispatch {
        let ready = Line::new(most_of_a_group);
        let lanes = Lanes { lanes: HashMap::new(), ready, generation: 0, stopped: false };
        let dispatch = Dispatch { lanes: Mutex::new(lanes), ready: Notify::new() };
        dispatch.replace(works);
        dispatch
    }

    /// Takes `works` for the ones from now on; running runs go on as they are.
    ///
    /// Shape: gives back what waited for trackers that are gone.
    pub fn replace(&self, works: Vec<Arc<dyn Work>>) -> Vec<Due> {
        let mut lanes = self.lock();
        lanes.generation += 1;
        let names: HashSet<Arc<str>> = works.iter().map(|work| Arc::from(work.name())).collect();
        for work in works {
            let name: Arc<str> = Arc::from(work.name());
            lanes.lanes.entry(name).or_insert_with(Lane::empty).work = Some(work);
        }
        let mut dropped = Vec::new();
        lanes.lanes.retain(|name, lane| {
            if names.contains(name) {
                return true;
            }
            lane.work = None;
            dropped.extend(lane.clear(name));
            lane.running.is_some()
        });
        dropped
    }

    /// How many configurations were in force so far: the number of the one that is.
    pub fn generation(&self) -> u64 {
        self.lock().generation
    }

    /// A tick: follows the tracker's `overlap` when it is busy.
    pub fn offer(&self, due: Due) -> Offer {
        let mut lanes = self.lock();
        if lanes.stopped {
            return Offer::Stopped;
        }
        let Some(lane) = lanes.lanes.get_mut(&due.tracker) else { return Offer::Gone(due) };
        let Some(work) = &lane.work else { return Offer::Gone(due) };
        match lane.gate.tick(work.overlap(), due.scheduled_at) {
            Tick::Start => {
                let name = Arc::clone(&due.tracker);
                lane.next = Some(due);
                self.make_ready(&mut lanes, name);
                Offer::Taken
            }
            Tick::Wait { displaced: None } => Offer::Taken,
            Tick::Wait { displaced: Some(scheduled_at) } => Offer::Displaced(Due { scheduled_at, ..due }),
            Tick::Skip => Offer::Refused(due),
        }
    }

    /// Instants missed while trackd was down: every one of them waits its turn.
    ///
    /// Shape: one tracker's, oldest first; gives them back when there is no such tracker.
    pub fn catch_up(&self, tracker: &Arc<str>, dues: Vec<Due>) -> Vec<Due> {
        let mut lanes = self.lock();
        if lanes.stopped { Vec::new() } else { self.line_up(&mut lanes, tracker, dues) }
    }

    /// A run that is asked for now: it begins behind what waits. Gives the instant of the run that answers: `at`, or
    /// that of one by hand that waits already. `None`: there is no such tracker, or the daemon stops.
    pub fn by_hand(&self, tracker: &Arc<str>, at: Timestamp) -> Option<Timestamp> {
        let mut lanes = self.lock();
        if lanes.stopped {
            return None;
        }
        let waits = lanes.lanes.get(tracker)?.waits_by_hand();
        let due = Due { tracker: Arc::clone(tracker), scheduled_at: at, kind: Kind::Manual };
        waits.or_else(|| self.line_up(&mut lanes, tracker, vec![due]).is_empty().then_some(at))
    }

    /// Gives them back when there is no such tracker.
    fn line_up(&self, lanes: &mut Lanes, tracker: &Arc<str>, dues: Vec<Due>) -> Vec<Due> {
        let Some(lane) = lanes.lanes.get_mut(tracker).filter(|lane| lane.work.is_some()) else { return dues };
        lane.backlog.extend(dues);
        if !lane.gate.is_running()
            && let Some(first) = lane.backlog.pop_front()
        {
            lane.gate.tick(Overlap::Coalesce, first.scheduled_at);
            lane.next = Some(first);
            self.make_ready(lanes, Arc::clone(tracker));
        }
        Vec::new()
    }

    /// The next run for a worker; `None` once the daemon stops.
    ///
    /// Cancel safety: safe; a run is taken without an await, or not at all.
    pub async fn take(&self) -> Option<Job> {
        loop {
            let mut ready = std::pin::pin!(self.ready.notified());
            // Before the look: what becomes ready after it is told to this worker, too.
            ready.as_mut().enable();
            match self.lock().start() {
                Start::Job(job) => return Some(job),
                Start::Stopped => return None,
                Start::Nothing => {}
            }
            ready.await;
        }
    }

    /// The run of this tracker ended, however it did.
    pub fn finish(&self, tracker: &Arc<str>) {
        let mut lanes = self.lock();
        let Some(lane) = lanes.lanes.get_mut(tracker) else { return };
        let group = lane.running.take();
        let gone = lane.work.is_none();
        lane.next = if gone { None } else { lane.follows(tracker) };
        let follows = lane.next.is_some();
        if gone {
            lanes.lanes.remove(tracker);
        }
        // Behind those of its group that wait already.
        if follows {
            self.make_ready(&mut lanes, Arc::clone(tracker));
        }
        if let Some(group) = group {
            lanes.ready.done(&group);
            if lanes.ready.is_open() {
                self.ready.notify_one();
            }
        }
    }

    /// No run begins from now on. Gives back what waited.
    pub fn stop(&self) -> Vec<Due> {
        let mut lanes = self.lock();
        lanes.stopped = true;
        lanes.ready.clear();
        self.ready.notify_waiters();
        lanes.lanes.iter_mut().flat_map(|(name, lane)| lane.clear(name)).collect()
    }

    /// Runs that wait for a worker or for their tracker.
    pub fn queued(&self) -> usize {
        self.lock().lanes.values().map(Lane::queued).sum()
    }

    /// The earliest instant that waits.
    pub fn oldest_waiting(&self) -> Option<Timestamp> {
        self.lock().lanes.values().filter_map(Lane::oldest).min()
    }

    /// What goes on; idle trackers are left out.
    pub fn states(&self) -> HashMap<Arc<str>, TrackerState> {
        let state = |lane: &Lane| match lane.running.is_some() {
            true => Some(TrackerState::Running),
            false => lane.next.is_some().then_some(TrackerState::Queued),
        };
        let lanes = self.lock();
        lanes.lanes.iter().filter_map(|(name, lane)| Some((Arc::clone(name), state(lane)?))).collect()
    }

    /// Runs that go on.
    pub fn running(&self) -> usize {
        self.lock().lanes.values().filter(|lane| lane.running.is_some()).count()
    }

    fn make_ready(&self, lanes: &mut Lanes, name: Arc<str>) {
        let Some(group) = lanes.lanes.get(&name).map(|lane| lane.group(&name)) else { return };
        lanes.ready.push(&group, name);
        self.ready.notify_one();
    }

    /// No code panics while it holds the lock for long enough to leave it half-changed: a poisoned lock is whole.
    fn lock(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lanes {
    /// Takes the next run.
    fn start(&mut self) -> Start {
        if self.stopped {
            return Start::Stopped;
        }
        while let Some((group, name)) = self.ready.next() {
            let generation = self.generation;
            if let Some(job) = self.lanes.get_mut(&name).and_then(|lane| lane.start(&group, generation)) {
                return Start::Job(job);
            }
            // The lane is gone, or was emptied, since it became ready.
            self.ready.done(&group);
        }
        Start::Nothing
    }
}

impl Lane {
    fn empty() -> Lane {
        Lane { work: None, gate: Gate::default(), next: None, running: None, backlog: VecDeque::new() }
    }

    fn start(&mut self, group: &Group, generation: u64) -> Option<Job> {
        let (Some(work), None) = (self.work.clone(), &self.running) else { return None };
        let due = self.next.take()?;
        self.running = Some(group.clone());
        Some(Job { work, due, generation })
    }

    fn group(&self, name: &Arc<str>) -> Group {
        let shared = self.work.as_ref().and_then(|work| work.group());
        shared.map_or_else(|| Group::Alone(Arc::clone(name)), |group| Group::Shared(Arc::from(group)))
    }

    /// The scheduled instant that waited for the run to end; with none, the lane is idle.
    fn waits(&mut self, name: &Arc<str>) -> Option<Due> {
        let scheduled_at = self.gate.done()?;
        Some(Due { tracker: Arc::clone(name), scheduled_at, kind: Kind::Scheduled })
    }

    /// What runs after the run that ended: the earliest instant, so that no run hides an earlier one that is to come.
    fn follows(&mut self, name: &Arc<str>) -> Option<Due> {
        let waits_first = |first: &Due| self.gate.waiting().is_some_and(|waiting| waiting < first.scheduled_at);
        match self.backlog.front() {
            Some(first) if !waits_first(first) => self.backlog.pop_front(),
            _ => self.waits(name),
        }
    }

    fn waits_by_hand(&self) -> Option<Timestamp> {
        let mut waits = self.next.iter().chain(&self.backlog);
        waits.find(|due| due.kind == Kind::Manual).map(|due| due.scheduled_at)
    }

    fn oldest(&self) -> Option<Timestamp> {
        let dues = self.next.iter().chain(self.backlog.front()).map(|due| due.scheduled_at);
        dues.chain(self.gate.waiting()).min()
    }

    fn queued(&self) -> usize {
        self.backlog.len() + usize::from(self.next.is_some()) + usize::from(self.gate.waiting().is_some())
    }

    /// Empties it of all that does not run yet.
    fn clear(&mut self, name: &Arc<str>) -> Vec<Due> {
        let mut dues: Vec<Due> = self.next.take().into_iter().chain(self.backlog.drain(..)).collect();
        if self.gate.waiting().is_some() {
            dues.extend(self.waits(name));
        }
        if self.running.is_none() {
            // Nothing will ever finish here: a tracker that comes back must find its gate open.
            self.gate = Gate::default();
        }
        dues
    }
}

impl std::fmt::Debug for Dispatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dispatch").field("queued", &self.queued()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::End;
    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;
    use jiff::Timestamp;
    use std::time::Duration;

    struct Named(&'static str, Overlap);

    /// Of the group of its first letter, if its name is longer.
    impl Work for Named {
        fn name(&self) -> &str {
            self.0
        }
        fn group(&self) -> Option<&str> {
            (self.0.len() > 1).then(|| &self.0[..1])
        }
        fn overlap(&self) -> Overlap {
            self.1
        }
        fn deadline(&self) -> Duration {
            Duration::MAX
        }
        fn run(self: Arc<Self>, _: Timestamp, _: Kind) -> BoxFuture<'static, End> {
            std::future::pending().boxed()
        }
    }

    fn works(names: &[&'static str]) -> Vec<Arc<dyn Work>> {
        names.iter().map(|name| Arc::new(Named(name, Overlap::Coalesce)) as Arc<dyn Work>).collect()
    }

    fn due(tracker: &str, second: i64, kind: Kind) -> Due {
        Due { tracker: Arc::from(tracker), scheduled_at: Timestamp::from_second(second).unwrap(), kind }
    }

    fn tick(tracker: &str, second: i64) -> Due {
        due(tracker, second, Kind::Scheduled)
    }

    /// What a free worker gets now.
    fn take(dispatch: &Dispatch) -> Option<Due> {
        dispatch.take().now_or_never().map(|job| job.expect("the dispatch goes on").due)
    }

    #[test]
    fn a_tracker_never_runs_beside_itself_and_others_are_not_held_up() {
        let dispatch = Dispatch::new(works(&["a", "b"]));
        assert_eq!(dispatch.offer(tick("a", 1)), Offer::Taken);
        assert_eq!(take(&dispatch), Some(tick("a", 1)));
        assert_eq!(dispatch.offer(tick("a", 2)), Offer::Taken);
        assert_eq!(dispatch.offer(tick("b", 2)), Offer::Taken);
        assert_eq!(dispatch.offer(tick("a", 3)), Offer::Displaced(tick("a", 2)));
        assert_eq!((take(&dispatch), take(&dispatch)), (Some(tick("b", 2)), None));
        assert_eq!((dispatch.running(), dispatch.queued()), (2, 1));
        dispatch.finish(&Arc::from("a"));
        assert_eq!(take(&dispatch), Some(tick("a", 3)));
    }

    #[test]
    fn a_run_by_hand_waits_its_turn_and_who_asks_meanwhile_gets_the_same() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let (dispatch, a) = (Dispatch::new(works(&["a"])), Arc::from("a"));
        assert_eq!(dispatch.by_hand(&a, at(5)), Some(at(5)));
        assert_eq!(dispatch.by_hand(&a, at(6)), Some(at(5)), "it has not begun");
        assert_eq!(take(&dispatch), Some(due("a", 5, Kind::Manual)));
        assert_eq!(dispatch.by_hand(&a, at(7)), Some(at(7)), "that one began before it was asked for");
        assert_eq!((dispatch.by_hand(&a, at(8)), dispatch.queued(), take(&dispatch)), (Some(at(7)), 1, None));
        dispatch.finish(&a);
        assert_eq!(take(&dispatch), Some(due("a", 7, Kind::Manual)));
        assert_eq!(dispatch.by_hand(&Arc::from("b"), at(9)), None);
        assert_eq!(dispatch.by_hand(&a, at(9)), Some(at(9)));
        assert_eq!(dispatch.stop(), [due("a", 9, Kind::Manual)]);
        assert_eq!(dispatch.by_hand(&a, at(10)), None);
    }

    #[test]
    fn a_group_has_only_so_many_workers_and_another_group_overtakes() {
        let dispatch = Dispatch::bounded(works(&["a1", "a2", "a3", "b1", "c"]), 2);
        for name in ["a1", "a2", "a3", "b1", "c"] {
            dispatch.offer(tick(name, 1));
        }
        let taken: Vec<_> = std::iter::from_fn(|| take(&dispatch)).map(|due| due.tracker).collect();
        assert_eq!(taken.join(" "), "a1 b1 c a2");
        assert_eq!((dispatch.running(), dispatch.queued()), (4, 1));
        dispatch.finish(&Arc::from("b1"));
        assert_eq!(take(&dispatch), None);
        dispatch.offer(tick("a1", 2));
        dispatch.finish(&Arc::from("a1"));
        assert_eq!(take(&dispatch), Some(tick("a3", 1)), "it waited longer than a1's next");
        dispatch.replace(works(&["a1"]));
        dispatch.finish(&Arc::from("a3"));
        assert_eq!(take(&dispatch), Some(tick("a1", 2)), "a tracker that is gone leaves its place");
    }

    #[tokio::test]
    async fn a_worker_that_waits_is_told_of_every_run_that_can_begin() {
        let dispatch = Arc::new(Dispatch::bounded(works(&["a1", "a2", "b"]), 1));
        let waits = || {
            tokio::spawn({
                let dispatch = Arc::clone(&dispatch);
                async move { dispatch.take().await.map(|job| job.due.tracker) }
            })
        };
        let workers = [waits(), waits(), waits()];
        tokio::task::yield_now().await;
        for name in ["a1", "a2", "b"] {
            dispatch.offer(tick(name, 1));
        }
        let mut taken = Vec::new();
        let mut workers = Vec::from(workers);
        while taken.len() < 3 {
            let next = futures_util::future::select_all(workers);
            let (name, _, rest) = tokio::time::timeout(Duration::from_secs(5), next).await.expect("a worker is told");
            workers = rest;
            let name = name.unwrap().unwrap();
            // Only its end makes room for the other of its group.
            dispatch.finish(&name);
            taken.push(name);
        }
        taken.sort();
        assert_eq!(taken.join(" "), "a1 a2 b");
    }

    #[test]
    fn with_skip_nothing_waits() {
        let dispatch = Dispatch::new(vec![Arc::new(Named("a", Overlap::Skip))]);
        assert_eq!(dispatch.offer(tick("a", 1)), Offer::Taken);
        assert_eq!(dispatch.offer(tick("a", 2)), Offer::Refused(tick("a", 2)));
    }

    #[test]
    fn caught_up_instants_run_in_their_order_before_what_waits() {
        let dispatch = Dispatch::new(works(&["a"]));
        let missed: Vec<Due> = (1..=3).map(|second| due("a", second, Kind::CatchUp)).collect();
        assert_eq!(dispatch.catch_up(&Arc::from("a"), missed.clone()), []);
        assert_eq!(dispatch.offer(tick("a", 4)), Offer::Taken);
        let mut ran = Vec::new();
        let state = |state| HashMap::from([(Arc::from("a"), state)]);
        assert_eq!(dispatch.states(), state(TrackerState::Queued));
        while let Some(due) = take(&dispatch) {
            ran.push(due);
            assert_eq!(dispatch.states(), state(TrackerState::Running));
            dispatch.finish(&Arc::from("a"));
        }
        assert_eq!(ran, [missed, vec![tick("a", 4)]].concat());
        assert_eq!((dispatch.running(), dispatch.queued(), dispatch.states()), (0, 0, HashMap::new()));
    }

    #[test]
    fn an_instant_that_waits_runs_before_later_ones_that_are_caught_up() {
        let dispatch = Dispatch::new(works(&["a"]));
        dispatch.offer(tick("a", 1));
        take(&dispatch);
        dispatch.offer(tick("a", 2));
        dispatch.catch_up(&Arc::from("a"), vec![due("a", 4, Kind::CatchUp)]);
        dispatch.finish(&Arc::from("a"));
        assert_eq!(take(&dispatch), Some(tick("a", 2)));
        dispatch.finish(&Arc::from("a"));
        assert_eq!(take(&dispatch), Some(due("a", 4, Kind::CatchUp)));
        dispatch.finish(&Arc::from("a"));
        assert_eq!(dispatch.offer(tick("a", 5)), Offer::Taken);
        assert_eq!(take(&dispatch), Some(tick("a", 5)), "the lane was idle");
    }

    #[test]
    fn a_removed_tracker_gives_back_what_waits_and_ends_with_its_run() {
        let dispatch = Dispatch::new(works(&["a", "b"]));
        dispatch.offer(tick("a", 1));
        take(&dispatch);
        dispatch.offer(tick("a", 2));
        dispatch.offer(tick("b", 2));
        assert_eq!(dispatch.replace(works(&["b"])), [tick("a", 2)]);
        assert_eq!(dispatch.offer(tick("a", 3)), Offer::Gone(tick("a", 3)));
        assert_eq!((dispatch.running(), take(&dispatch)), (1, Some(tick("b", 2))));
        dispatch.finish(&Arc::from("a"));
        assert_eq!(dispatch.running(), 1);
    }

    #[test]
    fn a_tracker_that_comes_back_while_it_runs_waits_for_that_run_and_loses_no_instant() {
        let dispatch = Dispatch::new(works(&["a"]));
        dispatch.offer(tick("a", 1));
        take(&dispatch);
        dispatch.replace(Vec::new());
        dispatch.replace(works(&["a"]));
        assert_eq!(dispatch.offer(tick("a", 2)), Offer::Taken);
        assert_eq!(take(&dispatch), None, "it would run beside itself");
        dispatch.finish(&Arc::from("a"));
        assert_eq!(take(&dispatch), Some(tick("a", 2)));
    }

    #[test]
    fn a_stopped_dispatch_gives_back_what_waits_and_lets_workers_go() {
        let dispatch = Dispatch::new(works(&["a", "b"]));
        dispatch.offer(tick("a", 1));
        assert_eq!(dispatch.stop(), [tick("a", 1)]);
        assert!(dispatch.take().now_or_never().expect("no wait").is_none());
        assert_eq!(dispatch.offer(tick("b", 2)), Offer::Stopped);
        assert_eq!(dispatch.stop(), []);
    }
}
