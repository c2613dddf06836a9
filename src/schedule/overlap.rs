//! What a tick does that finds its tracker busy.
//!
//! In: ticks and ends of runs, in any order. Out: start, wait or skip. Must not know: who runs, and how.
//!
//! ```text
//!          tick: Start             tick: Wait
//!   idle ─────────────▶ running ─────────────▶ running, one waits ──┐ tick: Wait, the older one is displaced
//!    ▲                   │   ▲                   │       ▲          │
//!    └──── done: none ───┘   └─── done: that ────┘       └──────────┘
//! ```

use super::Overlap;
use jiff::Timestamp;

/// One tracker: whether it runs, and what waits. Starts idle.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gate {
    running: bool,
    waiting: Option<Timestamp>,
}

/// The answer to a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tick {
    /// Run it now.
    Start,
    /// The latest waits for the run to end; `displaced` will never run and is recorded as skipped.
    Wait {
        /// The older of the two that wanted to wait.
        displaced: Option<Timestamp>,
    },
    /// It will never run and is recorded as skipped.
    Skip,
}

impl Gate {
    /// The instant `at` is due.
    pub fn tick(&mut self, rule: Overlap, at: Timestamp) -> Tick {
        if !self.running {
            self.running = true;
            return Tick::Start;
        }
        match rule {
            Overlap::Skip => Tick::Skip,
            Overlap::Coalesce => {
                let displaced = self.waiting.map(|waiting| waiting.min(at));
                self.waiting = self.waiting.max(Some(at));
                Tick::Wait { displaced }
            }
        }
    }

    /// The run ended: the instant to run now, or none, and the tracker is idle.
    pub fn done(&mut self) -> Option<Timestamp> {
        let next = self.waiting.take();
        self.running = next.is_some();
        next
    }

    /// Whether a run goes on.
    pub fn is_running(&self) -> bool {
        self.running
    }

    /// The instant that waits.
    pub fn waiting(&self) -> Option<Timestamp> {
        self.waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_latest_waits_and_the_displaced_are_named() {
        let mut gate = Gate::default();
        assert_eq!(gate.tick(Overlap::Coalesce, at(1)), Tick::Start);
        assert_eq!(gate.tick(Overlap::Coalesce, at(2)), Tick::Wait { displaced: None });
        assert_eq!(gate.tick(Overlap::Coalesce, at(4)), Tick::Wait { displaced: Some(at(2)) });
        assert_eq!(gate.tick(Overlap::Coalesce, at(3)), Tick::Wait { displaced: Some(at(3)) });
        assert_eq!(gate.done(), Some(at(4)));
        assert!(gate.is_running());
        assert_eq!(gate.done(), None);
        assert_eq!(gate, Gate::default());
    }

    #[test]
    fn skip_lets_nothing_wait() {
        let mut gate = Gate::default();
        assert_eq!(gate.tick(Overlap::Skip, at(1)), Tick::Start);
        assert_eq!(gate.tick(Overlap::Skip, at(2)), Tick::Skip);
        assert_eq!(gate.waiting(), None);
        assert_eq!(gate.done(), None);
        assert_eq!(gate.tick(Overlap::Skip, at(3)), Tick::Start);
    }
}
