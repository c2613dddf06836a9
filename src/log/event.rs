//! Names of what an administrator looks for in the log, each with an id that stays.
//!
//! A call that logs one of them says so with the field `event = %Event::…`: text and JSON show its word, the journal
//! turns it into `MESSAGE_ID=`, and `systemd/trackd.catalog` says what it means and what to do. An id that is in use is
//! never changed and never used again for something else. Must not know: where they are logged.

use std::fmt;

/// Declares each event once: its name, its word, and its id as `systemd-id128 new` made it.
macro_rules! events {
    ($($(#[$doc:meta])* $name:ident $word:literal $id:literal)*) => {
        /// What happened.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Event { $($(#[$doc])* $name),* }

        impl Event {
            /// Each of them, once.
            pub const ALL: &[Event] = &[$(Event::$name),*];

            /// One lower-case word, as the field `event` shows it.
            pub const fn word(self) -> &'static str {
                match self { $(Event::$name => $word),* }
            }

            /// 32 lower-case hexadecimal digits.
            pub const fn id(self) -> &'static str {
                match self { $(Event::$name => $id),* }
            }
        }
    };
}

events! {
    /// The process begins.
    Starting "starting" "20a28b7f2f06464db75a86897bbd77db"
    /// The database is open, and instants run.
    Ready "ready" "b1373b9f59404563a9a042627a10858f"
    /// A configuration is in force that was read again.
    Reloaded "reloaded" "1a67c6e2cd38413ab989019f4e0cf65c"
    /// A configuration that was read again has faults: the old one stays in force.
    ReloadRefused "reload-refused" "0c687774920e4fbfbc5d07a15fec5180"
    /// One fault of it.
    ConfigFault "config-fault" "a9502bde4c85431c98bfb4cfe12cf823"
    /// A run landed.
    RunSucceeded "run-succeeded" "931b289f32e347f1835097497a1e40a6"
    /// A run ended without its rows.
    RunFailed "run-failed" "77678a626fdd49559e44b4d960c1fc7c"
    /// An instant was missed, or skipped.
    RunNotTaken "run-not-taken" "30289c3e144644989686c08ae563f4e1"
    /// A tracker has had no success for `fresh_within`.
    TrackerStale "tracker-stale" "b329882034fd434ca4d61f4caabc9e37"
    /// It is fresh again.
    TrackerFresh "tracker-fresh" "0122cbcd434842ad8279a1885bfc2b85"
    /// A tracker fails until somebody changes something.
    FaultStanding "fault-standing" "c6fbbb7f57ed4f29a1eb413507861ecc"
    /// It does not any more.
    FaultHealed "fault-healed" "579efa9d20db4979ba9b2a8d9100f998"
    /// The database is away: payloads wait in the spool.
    Degraded "degraded" "6324957b29b74631a4fff9bcc12c8f2e"
    /// The database is back.
    Recovered "recovered" "be9a57df8d5847a1806b5ee918689c95"
    /// The spool is filling.
    SpoolFilling "spool-filling" "cf3fc76b095e40acad9bc23fa8740dda"
    /// It has drained.
    SpoolDrained "spool-drained" "4c42af698347410bbe439ccfb2a05f65"
    /// A payload cannot land, and is kept for a person.
    PayloadAside "payload-set-aside" "58e7155686f746ae9d75e32c2963afcf"
    /// A server takes no writes: it is a standby.
    StandbyMet "standby-met" "9b17c7115aa1485f97a31988c77147b3"
    /// A run made no progress: it was given up.
    RunStuck "run-replaced" "fca8e645e78a427abbd5fc3bf71a1157"
    /// A service of the daemon ended, or was stuck, and was started again.
    ServiceReplaced "service-replaced" "adb7a7054ce8400399820ed01f915efb"
    /// A service of the daemon ended too often.
    ServiceDown "service-down" "9ed20c8ca9474defa876024f689d9e66"
    /// An alert reached nobody.
    AlertLost "alert-not-delivered" "2c049680f9da4720b21b7f034eb8e6c8"
    /// Log lines did not reach the log files.
    LinesLost "log-lines-lost" "e8402f5404e943ed90f471ff299bbab9"
    /// No new run begins.
    Stopping "stopping" "6e989e4737b0404880b1962c5ac46c4b"
    /// Everything is closed.
    Stopped "stopped" "71479a283771460fb353387312b78a0c"
}

impl Event {
    /// The event of this word.
    pub(super) fn of(word: &str) -> Option<Event> {
        Event::ALL.iter().copied().find(|event| event.word() == word)
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
#[path = "event_tests.rs"]
mod tests;
