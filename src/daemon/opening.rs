//! Opening the ledger, however long the database is away.
//!
//! In: the ledger. Out: what it remembers of every tracker. Must not know: what is done with it.

use super::ledger::{Ledger, Memory, Unusable};
use super::state::State;
use super::systemd;
use crate::class::Class;
use crate::status::Phase;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(15);
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// Opens it and asks for the past of every tracker, as often as it takes.
///
/// Cancel safety: safe; it is opened again from the beginning.
///
/// # Errors
/// Class standing at the first attempt: a person must act before this can work. Later the daemon is up, and stays.
pub(super) async fn open(ledger: Arc<dyn Ledger>, state: Arc<State>) -> Result<HashMap<String, Memory>, Unusable> {
    let mut wait = FIRST_WAIT;
    let mut told: Option<Instant> = None;
    loop {
        let error = match ledger.open().await {
            Ok(()) => match ledger.recall(state.names()).await {
                Ok(memories) => return Ok(memories),
                Err(error) => error,
            },
            Err(error) => error,
        };
        if told.is_none() {
            if error.class == Class::Standing {
                return Err(error);
            }
            // Up, if not well: systemd must not kill it for a database that is late.
            state.phase(Phase::Degraded);
            systemd::ready();
        }
        if told.is_none_or(|at| at.elapsed() >= TELL_AGAIN) {
            tracing::warn!(error = %error, hint = error.hint, "database is away: no run begins before it is back");
            told = Some(Instant::now());
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}
