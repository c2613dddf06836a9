//! What became of a run that was asked for by hand.
//!
//! Must not know: who asked, how it is told.

use super::Run;
use serde::{Deserialize, Serialize};

/// One run by hand; of those without a run, the tracker's name.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ByHand {
    /// It ended, and this is its row.
    Ended(Box<Run>),
    /// Its payload waits in the spool for the database: it lands later.
    Kept(String),
    /// Another process is at it.
    Elsewhere(String),
    /// It goes on, or still waits for its turn: nobody waits longer.
    Unfinished(String),
    /// The daemon stopped before it began.
    NotBegun(String),
}
