//! Log lines that did not arrive, told in the log once it takes lines again: a full disk, a journald that stood still.
//!
//! Must not know: where the log goes.

use super::Daemon;
use crate::log::{Event, Lost};
use std::time::Duration;
use tokio::time::Instant;

/// A disk that stays full is told of at most so often.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// What was told so far, and when.
#[derive(Debug, Default)]
pub(super) struct Told(Lost, Option<Instant>);

impl Daemon {
    /// Tells of lines that were lost since it last did.
    pub(super) fn tell_lost_lines(&mut self) {
        let lost = (self.setup.lost_lines)();
        let Told(told, at) = &self.told_lost;
        if lost != *told && at.is_none_or(|at| at.elapsed() >= TELL_AGAIN) {
            let Lost { dropped_lines, write_errors } = lost;
            let event = Event::LinesLost;
            tracing::warn!(dropped_lines, write_errors, %event, "log lines did not arrive");
            self.told_lost = Told(lost, Some(Instant::now()));
        }
    }
}
