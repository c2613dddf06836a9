//! What happened, told by those who did it: the answers the source gave, the lives of the daemons, the faults.
//!
//! Plain values with times of this process's clock. Must not know: how they came about, the database.

use super::fleet::Millis;
use serde::Serialize;

/// One answer of the source. Its serial number is in every row it carries.
#[derive(Debug, Clone, Serialize)]
pub struct Answer {
    pub serial: u64,
    pub tracker: String,
    /// The scheduled instant it was asked for.
    pub at: Millis,
    /// Who asked.
    pub daemon: usize,
    /// When the request was there.
    pub asked: Millis,
    /// When the last byte was taken from us; `None`: it was not given to its end.
    pub given: Option<Millis>,
    /// Whether it is what the tracker hopes for; the others are rubbish, cut short, or no success.
    pub good: bool,
    /// What kind of answer.
    pub kind: &'static str,
}

/// How a daemon's process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum End {
    /// kill -9.
    Killed,
    /// It was told to stop.
    Stopped,
    /// By itself, which it should not.
    Alone,
}

/// One process of one daemon.
#[derive(Debug, Clone, Serialize)]
pub struct Life {
    pub daemon: usize,
    pub pid: u32,
    pub began: Millis,
    pub ended: Option<(Millis, End)>,
    /// Serial numbers of the answers that were on its disk then.
    pub kept: Vec<u64>,
}

impl Life {
    /// Whether it lived at that moment.
    pub fn spans(&self, moment: Millis) -> bool {
        self.began <= moment && self.ended.is_none_or(|(ended, _)| moment <= ended)
    }
}

/// A fault as it was done.
#[derive(Debug, Clone, Serialize)]
pub struct Injected {
    pub fault: &'static str,
    pub daemon: usize,
    pub began: Millis,
    pub healed: Millis,
    /// When nothing could begin and land because of it.
    pub outage: Option<Outage>,
}

/// From when to when nothing could begin and land.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Outage {
    pub from: Millis,
    pub to: Millis,
    /// On this daemon alone, the others went on; `None`: anywhere.
    pub only: Option<usize>,
}

impl Injected {
    /// Whether it went on at some time from `from` to `to`.
    pub fn touches(&self, from: Millis, to: Millis) -> bool {
        self.began <= to && from <= self.healed
    }
}
