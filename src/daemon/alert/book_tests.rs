use super::*;
use crate::status::{Phase, Tracker, TrackerState};

const RULES: Rules = Rules { after: Duration::from_secs(60), repeat: Some(Duration::from_secs(3600)) };
const ONCE: Rules = Rules { repeat: None, ..RULES };

/// A status with a tracker of each name; those of `stale` are.
fn status(names: &[&str], stale: &[&str]) -> Status {
    let tracker = |name: &&str| Tracker {
        name: (*name).to_owned(),
        schedule: String::new(),
        state: TrackerState::Idle,
        next_run: None,
        last: None,
        last_success: Some(Timestamp::UNIX_EPOCH),
        stale_at: Some(Timestamp::UNIX_EPOCH),
        stale: stale.contains(name),
        standing: None,
        failures_in_a_row: 0,
        totals: Default::default(),
        newest: Vec::new(),
    };
    Status { phase: Phase::Running, trackers: names.iter().map(tracker).collect(), ..Status::default() }
}

/// A book, and a clock that is turned by hand.
struct Desk {
    book: Book,
    rules: Rules,
    begun: Instant,
    second: u64,
}

impl Desk {
    fn new(rules: Rules) -> Desk {
        Desk { book: Book::default(), rules, begun: Instant::now(), second: 0 }
    }

    fn now(&self) -> Instant {
        self.begun + Duration::from_secs(self.second)
    }

    fn wall(&self) -> Timestamp {
        Timestamp::from_second(self.second as i64).expect("a time")
    }

    /// At this second these are stale: what is due, as `name: state`, `again` where it was told before.
    fn at(&mut self, second: u64, stale: &[&str]) -> Vec<String> {
        self.second = second;
        self.book.look(&status(&["a", "b"], stale), self.rules, self.now(), self.wall());
        let shown = |notice: &Notice| {
            let again = if notice.repeated { " again" } else { "" };
            format!("{}: {}{again}", notice.subject.tracker.as_deref().unwrap_or("-"), notice.state.as_str())
        };
        self.book.due(self.now()).iter().map(shown).collect()
    }

    fn deliver(&mut self) {
        let due = self.book.due(self.now());
        self.book.delivered(&due, self.rules, self.now(), self.wall());
    }

    fn fail(&mut self) {
        let due = self.book.due(self.now());
        self.book.failed(&due, self.rules, self.now());
    }
}

#[test]
fn a_state_is_told_when_it_has_lasted_again_while_it_lasts_and_when_it_is_over() {
    let mut desk = Desk::new(RULES);
    assert_eq!(desk.at(0, &["a"]), [""; 0]);
    assert_eq!(desk.at(59, &["a"]), [""; 0]);
    assert_eq!(desk.at(60, &["a"]), ["a: firing"]);
    desk.deliver();
    assert_eq!(desk.at(3_659, &["a"]), [""; 0]);
    assert_eq!(desk.book.next(), Some(desk.begun + Duration::from_secs(3_660)));
    assert_eq!(desk.at(3_660, &["a"]), ["a: firing again"]);
    desk.deliver();
    assert_eq!(desk.at(3_700, &[]), ["a: resolved"]);
    desk.deliver();
    assert_eq!((desk.at(9_000, &[]), desk.book.next()), (Vec::new(), None));
}

#[test]
fn what_does_not_last_is_not_told_nor_is_its_end() {
    let mut desk = Desk::new(RULES);
    for second in (0..600).step_by(2) {
        let stale: &[&str] = if second % 60 < 50 { &["a"] } else { &[] };
        assert_eq!(desk.at(second, stale), [""; 0], "{second}");
    }
}

#[test]
fn a_state_that_comes_back_before_its_end_was_told_is_nothing_new() {
    let mut desk = Desk::new(RULES);
    desk.at(0, &["a"]);
    assert_eq!(desk.at(60, &["a"]), ["a: firing"]);
    desk.deliver();
    assert_eq!(desk.at(100, &[]), ["a: resolved"]);
    assert_eq!(desk.at(101, &["a"]), [""; 0]);
    assert_eq!(desk.at(3_701, &["a"]), ["a: firing again"]);
}

#[test]
fn what_could_not_be_told_is_kept_for_the_repeat_and_without_one_until_it_changes() {
    let mut desk = Desk::new(RULES);
    desk.at(0, &["a"]);
    assert_eq!(desk.at(60, &["a"]), ["a: firing"]);
    desk.fail();
    assert_eq!(desk.at(3_659, &["a"]), [""; 0]);
    assert_eq!(desk.at(3_660, &["a"]), ["a: firing"]);
    desk.fail();
    assert_eq!(desk.at(9_000, &[]), [""; 0], "nobody knows that it fired");

    let mut desk = Desk::new(ONCE);
    desk.at(0, &["a"]);
    desk.at(60, &["a"]);
    desk.deliver();
    assert_eq!(desk.book.next(), None);
    assert_eq!(desk.at(90, &[]), ["a: resolved"]);
    desk.fail();
    assert_eq!((desk.at(1_000_000, &[]), desk.book.next()), (Vec::new(), None));
}

#[test]
fn other_rules_tell_what_could_not_be_told_at_once() {
    let mut desk = Desk::new(RULES);
    desk.at(0, &["a", "b"]);
    assert_eq!(desk.at(60, &["a", "b"]), ["a: firing", "b: firing"]);
    desk.fail();
    let short = Rules { after: Duration::ZERO, ..RULES };
    desk.book.reconfigured(short, desk.now());
    assert_eq!(desk.at(60, &["a"]), ["a: firing"]);
}

#[test]
fn what_was_told_before_a_restart_is_repeated_in_its_time_and_its_end_is_told() {
    let mut desk = Desk::new(RULES);
    desk.at(0, &["a", "b"]);
    desk.at(60, &["a", "b"]);
    desk.deliver();
    let kept = desk.book.told();
    assert_eq!(kept.len(), 2);
    desk.second = 660;
    desk.book = Book::recalled(kept, RULES, desk.now(), desk.wall());
    assert_eq!(desk.at(661, &["b"]), ["a: resolved"]);
    desk.deliver();
    assert_eq!(desk.at(3_659, &["b"]), [""; 0]);
    assert_eq!(desk.at(3_660, &["b"]), ["b: firing again"]);
}
