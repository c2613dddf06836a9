//! When one host may be asked: so many requests at once, so far apart, and not while it does not answer.
//!
//! ```text
//!            MISSES in a row                  the rest is over, somebody asks
//!  answers ------------------> rests (1 s) ----------------------------------> probed
//!     ^                          ^    ^                                          |  |
//!     |                          |    +----- no answer: twice as long, <= 30 s --+  |
//!     +--- any answer -----------+--------------------------------------------------+
//! ```
//!
//! In: the time, who asks, how a request ended. Out: go, wait, or the host rests. It decides by these alone.
//! Must not know: tokio, HTTP, what a clock is.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Requests in a row without an answer, until the host rests.
const MISSES: u32 = 5;
const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(30);

/// One host's state.
#[derive(Debug)]
pub(super) struct Rules {
    /// Requests at the same time.
    most: usize,
    under_way: usize,
    /// When the last request began.
    last: Option<Instant>,
    /// The host asked to be left alone until then.
    paused_until: Option<Instant>,
    /// The distances its trackers ask for, and how many do.
    distances: BTreeMap<Duration, usize>,
    health: Health,
}

#[derive(Debug, Clone, Copy)]
enum Health {
    Answers(Misses),
    Rests { since: Instant, until: Instant, length: Duration },
    Probed { since: Instant, length: Duration },
}

/// Requests in a row that brought no answer.
#[derive(Debug, Clone, Copy, Default)]
struct Misses {
    count: u32,
    since: Option<Instant>,
    /// Who missed first, and whether the row is the host's doing: one address that is slow is no host that is away.
    by: u64,
    hosts: bool,
}

/// Whether a request may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Now; it counts as under way until `Rules::ended`. The probe's outcome decides for the others.
    Go { probe: bool },
    /// Ask again then, or when anything changed.
    Wait(Option<Instant>),
    /// The host does not answer since then, and is asked again then.
    Rests(Rest),
}

/// A rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rest {
    pub(super) since: Instant,
    pub(super) until: Instant,
}

/// Why there was no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Miss {
    /// Nobody is there: the same for everyone who asks.
    Connect,
    /// It took the request and said nothing, which may be this address's trouble alone.
    Silent,
}

/// What people are told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// It begins to rest: how long it has not answered, and for how long it rests.
    Rests { since: Instant, length: Duration },
    /// It answers again, after not doing so since then.
    Answers { since: Instant },
}

impl Rules {
    pub(super) fn new(most: usize) -> Rules {
        Rules {
            most,
            under_way: 0,
            last: None,
            paused_until: None,
            distances: BTreeMap::new(),
            health: Health::Answers(Misses::default()),
        }
    }

    /// A tracker wants so much time between two requests, whoever makes them. The longest of all counts.
    pub(super) fn keep(&mut self, distance: Duration) {
        *self.distances.entry(distance).or_default() += 1;
    }

    /// It is gone.
    pub(super) fn forget(&mut self, distance: Duration) {
        if let Some(count) = self.distances.get_mut(&distance) {
            *count -= 1;
            if *count == 0 {
                self.distances.remove(&distance);
            }
        }
    }

    /// The least time between two requests.
    pub(super) fn distance(&self) -> Duration {
        self.distances.last_key_value().map_or(Duration::ZERO, |(distance, _)| *distance)
    }

    /// Since when it has not answered, while it rests or is probed.
    pub(super) fn away_since(&self) -> Option<Instant> {
        match self.health {
            Health::Answers(_) => None,
            Health::Rests { since, .. } | Health::Probed { since, .. } => Some(since),
        }
    }

    /// May a request go?
    pub(super) fn ask(&mut self, now: Instant) -> Verdict {
        let rested = match self.health {
            Health::Answers(_) => None,
            Health::Probed { .. } => return Verdict::Wait(None),
            Health::Rests { since, until, .. } if now < until => return Verdict::Rests(Rest { since, until }),
            Health::Rests { since, length, .. } => Some(Health::Probed { since, length }),
        };
        if self.under_way >= self.most {
            return Verdict::Wait(None);
        }
        let apart = self.last.map(|last| last + self.distance());
        if let Some(earliest) = apart.max(self.paused_until).filter(|earliest| now < *earliest) {
            return Verdict::Wait(Some(earliest));
        }
        self.health = rested.unwrap_or(self.health);
        self.under_way += 1;
        self.last = Some(now);
        Verdict::Go { probe: rested.is_some() }
    }

    /// A request brought an answer, whatever it says.
    pub(super) fn answered(&mut self) -> Option<Change> {
        let before = std::mem::replace(&mut self.health, Health::Answers(Misses::default()));
        match before {
            Health::Answers(_) => None,
            Health::Rests { since, .. } | Health::Probed { since, .. } => Some(Change::Answers { since }),
        }
    }

    /// A request of this asker brought none.
    pub(super) fn missed(&mut self, now: Instant, asker: u64, miss: Miss, probe: bool) -> Option<Change> {
        match &mut self.health {
            Health::Answers(misses) => {
                let since = misses.add(now, asker, miss);
                (misses.hosts && misses.count >= MISSES).then(|| self.rest(now, since, FIRST_REST))
            }
            Health::Probed { since, length } if probe => {
                let (since, length) = (*since, (*length * 2).min(LONGEST_REST));
                self.rest(now, since, length);
                None
            }
            // It began before the rest did.
            Health::Probed { .. } | Health::Rests { .. } => None,
        }
    }

    /// The host asked for no requests until then.
    pub(super) fn pause(&mut self, until: Instant) {
        self.paused_until = self.paused_until.max(Some(until));
    }

    /// A request is over, or was given up.
    pub(super) fn ended(&mut self, now: Instant, probe: bool) {
        self.under_way -= 1;
        if let (Health::Probed { since, length }, true) = (self.health, probe) {
            // Given up before it brought anything: the next one who asks is the probe.
            self.health = Health::Rests { since, until: now, length };
        }
    }

    fn rest(&mut self, now: Instant, since: Instant, length: Duration) -> Change {
        self.health = Health::Rests { since, until: now + length, length };
        Change::Rests { since, length }
    }
}

impl Misses {
    /// Counts one. Returns when the row began.
    fn add(&mut self, now: Instant, asker: u64, miss: Miss) -> Instant {
        let first = self.count == 0;
        self.hosts |= miss == Miss::Connect || !first && asker != self.by;
        self.by = if first { asker } else { self.by };
        self.count = self.count.saturating_add(1);
        *self.since.get_or_insert(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Verdict::{Go, Wait};

    const MS: Duration = Duration::from_millis(1);
    const SECOND: Duration = Duration::from_secs(1);
    const FREE: Verdict = Go { probe: false };
    const PROBE: Verdict = Go { probe: true };

    /// A host that has not answered since `at`, and rests from then on.
    fn resting(at: Instant) -> Rules {
        let mut rules = Rules::new(4);
        let changes: Vec<_> = (0..MISSES).filter_map(|_| fails(&mut rules, at, FREE)).collect();
        assert_eq!(changes, [Change::Rests { since: at, length: FIRST_REST }]);
        rules
    }

    /// Asks, is let go as expected, and finds nobody.
    fn fails(rules: &mut Rules, at: Instant, expected: Verdict) -> Option<Change> {
        assert_eq!(rules.ask(at), expected);
        let change = rules.missed(at, 1, Miss::Connect, expected == PROBE);
        rules.ended(at, expected == PROBE);
        change
    }

    #[test]
    fn so_many_requests_go_at_once_and_the_next_when_one_ends() {
        let (mut rules, now) = (Rules::new(2), Instant::now());
        assert_eq!([rules.ask(now), rules.ask(now), rules.ask(now)], [FREE, FREE, Wait(None)]);
        rules.ended(now, false);
        assert_eq!([rules.ask(now), rules.ask(now)], [FREE, Wait(None)]);
    }

    #[test]
    fn requests_keep_the_longest_distance_that_is_asked_for() {
        let (mut rules, now) = (Rules::new(9), Instant::now());
        rules.keep(500 * MS);
        rules.keep(SECOND);
        rules.keep(SECOND);
        assert_eq!([rules.ask(now), rules.ask(now)], [FREE, Wait(Some(now + SECOND))]);
        assert_eq!(rules.ask(now + 999 * MS), Wait(Some(now + SECOND)));
        assert_eq!([rules.ask(now + SECOND), rules.ask(now + SECOND)], [FREE, Wait(Some(now + 2 * SECOND))]);
        rules.forget(SECOND);
        assert_eq!(rules.distance(), SECOND, "another tracker asks for it too");
        rules.forget(SECOND);
        assert_eq!(rules.ask(now + 1500 * MS), FREE);
        rules.forget(500 * MS);
        assert_eq!([rules.ask(now + 1500 * MS), rules.ask(now + 1500 * MS)], [FREE, FREE]);
    }

    #[test]
    fn a_host_that_asks_for_a_pause_has_it_and_no_shorter_one_cuts_it() {
        let (mut rules, now) = (Rules::new(9), Instant::now());
        rules.pause(now + 5 * SECOND);
        rules.pause(now + SECOND);
        assert_eq!(rules.ask(now + SECOND), Wait(Some(now + 5 * SECOND)));
        assert_eq!(rules.ask(now + 5 * SECOND), FREE);
    }

    #[test]
    fn an_answer_between_ends_the_row() {
        let (mut rules, now) = (Rules::new(4), Instant::now());
        for _ in 0..3 {
            for _ in 1..MISSES {
                assert_eq!(fails(&mut rules, now, FREE), None);
            }
            assert_eq!(rules.answered(), None);
        }
    }

    #[test]
    fn one_address_that_hangs_is_no_host_that_is_away() {
        let (mut rules, now) = (Rules::new(99), Instant::now());
        for _ in 0..3 * MISSES {
            assert_eq!(rules.ask(now), FREE);
            assert_eq!(rules.missed(now, 7, Miss::Silent, false), None);
        }
        assert_eq!(rules.ask(now), FREE);
        let rests = Some(Change::Rests { since: now, length: FIRST_REST });
        assert_eq!(rules.missed(now, 8, Miss::Silent, false), rests, "another one hangs too");
    }

    #[test]
    fn after_the_rest_one_request_probes_and_the_others_wait_for_it() {
        let now = Instant::now();
        let (mut rules, later) = (resting(now), now + FIRST_REST);
        assert_eq!(rules.ask(later - MS), Verdict::Rests(Rest { since: now, until: later }));
        assert_eq!([rules.ask(later), rules.ask(later), rules.ask(later)], [PROBE, Wait(None), Wait(None)]);
        assert_eq!(rules.answered(), Some(Change::Answers { since: now }));
        rules.ended(later, true);
        assert_eq!([rules.ask(later), rules.ask(later)], [FREE, FREE]);
    }

    #[test]
    fn each_rest_is_twice_as_long_up_to_the_longest() {
        let now = Instant::now();
        let (mut rules, mut at) = (resting(now), now + FIRST_REST);
        for expected in [2, 4, 8, 16, 30, 30] {
            assert_eq!(fails(&mut rules, at, PROBE), None, "said once");
            let rest = Rest { since: now, until: at + expected * SECOND };
            assert_eq!(rules.ask(at), Verdict::Rests(rest));
            at = rest.until;
        }
    }

    #[test]
    fn a_probe_that_is_given_up_leaves_the_next_one_to_probe() {
        let now = Instant::now();
        let (mut rules, later) = (resting(now), now + FIRST_REST);
        assert_eq!(rules.ask(later), PROBE);
        rules.ended(later, true);
        assert_eq!([rules.ask(later), rules.ask(later)], [PROBE, Wait(None)]);
    }

    #[test]
    fn a_request_from_before_the_rest_neither_prolongs_it_nor_is_its_answer_lost() {
        let now = Instant::now();
        let mut rules = Rules::new(9);
        assert_eq!([rules.ask(now), rules.ask(now)], [FREE, FREE]);
        for _ in 0..MISSES {
            fails(&mut rules, now, FREE);
        }
        let rest = Verdict::Rests(Rest { since: now, until: now + FIRST_REST });
        assert_eq!(rules.missed(now + 500 * MS, 2, Miss::Silent, false), None);
        assert_eq!(rules.ask(now + 500 * MS), rest);
        assert_eq!(rules.answered(), Some(Change::Answers { since: now }));
        assert_eq!(rules.ask(now + 500 * MS), FREE);
    }
}
