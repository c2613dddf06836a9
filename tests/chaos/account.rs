//! What became of one good answer that was given to its end.
//!
//! An answer in the memory of a process that is killed is gone, and may be: its instant is run again or on record as
//! missed. One that the process had time to put on disk may not. In: the answer and its run. Out: an account. Pure.

use super::audit::Case;
use super::fleet::Millis;
use super::found::Run;
use super::truth::{Answer, End, Injected, Life};

/// So long after an answer was given it has landed or is on disk, while the process runs and the disk holds:
/// one wait for a connection, one statement, and what lies between.
pub const SPOOLED_WITHIN: Millis = 18_000;
/// Without a spool it is in memory for as long as it may be tried: three times that, and a stall of the process.
const GIVEN_UP_WITHIN: Millis = 60_000;
/// So long a source may take to answer: `timeout` of every tracker.
const TIMEOUT: Millis = 3_000;

/// Where an answer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Account {
    For(&'static str),
    Lost(String),
}

/// `serial` is that of the run's rows.
pub fn account(case: &Case, answer: &Answer, run: Option<&Run>, serial: Option<u64>) -> Account {
    if serial == Some(answer.serial) {
        return Account::For("landed");
    }
    if case.found.spooled.contains(&answer.serial) {
        return Account::For("on disk");
    }
    let Some(run) = run else { return died(case, answer, "its instant has no ledger row") };
    if run.committed < answer.asked * 1_000 && run.status != "running" {
        // After a step of the clock an instant comes again. Its truth was on record, and stays.
        return Account::For("asked for again: the instant was on record already");
    }
    match run.status.as_str() {
        // Two attempts of one run, or two daemons: one of them lands.
        "succeeded" if serial.is_some() => Account::For("superseded by another of the same run"),
        "succeeded" => Account::Lost("its run succeeded without rows".to_owned()),
        "failed" => failed(case, answer, run),
        status => died(case, answer, &format!("its instant is on record as {status}")),
    }
}

fn failed(case: &Case, answer: &Answer, run: &Run) -> Account {
    let reason = run.error.as_deref().unwrap_or_default();
    if had_ended(case, answer) {
        return Account::For("given to a process that had ended");
    }
    if asker(case, answer).map(|life| life.pid) != Some(run.pid) {
        return Account::For("superseded by a failure of another process");
    }
    if reason.is_empty() {
        return Account::Lost("its run failed without a reason".to_owned());
    }
    if !run.fetched {
        // The last byte left us, and did not arrive in time: it was slow, stopped, or cut off.
        return Account::For("not received in time, or cut off: the run failed with its reason");
    }
    let given = answer.given.unwrap_or(answer.asked);
    let disk_full = case.faults.iter().any(|fault| fault.fault == "disk-spool" && fault.touches(given, Millis::MAX));
    match run.class.as_deref() {
        Some("retry") if !case.spools => Account::For("given up: the database was away, and there is no spool"),
        Some("retry") if disk_full => Account::For("given up: the database was away, and the spool's disk full"),
        _ => Account::Lost(format!("its run failed after it was received: {reason}")),
    }
}

/// Whether nothing could be kept some moments after an answer was given, or as it was.
fn disk_was_full(case: &Case, given: Millis, within: Millis) -> bool {
    let full = |fault: &&Injected| fault.fault == "disk-spool" && fault.touches(given, given + within);
    case.lives.iter().any(|life| life.daemon > 0) && case.faults.iter().any(|fault| full(&fault))
}

/// Excused only by the death of the process that had it.
fn died(case: &Case, answer: &Answer, but: &str) -> Account {
    let given = answer.given.unwrap_or(answer.asked);
    let life = asker(case, answer);
    if had_ended(case, answer) {
        return Account::For("given to a process that had ended");
    }
    if stood_still(case, answer, given) {
        // By the time it went on, the time for its answer was over, and another daemon had its run.
        return Account::For("not received in time: its process stood still");
    }
    // A process that stands still keeps nothing meanwhile.
    let within = SPOOLED_WITHIN + stalled(case, answer, given);
    if disk_was_full(case, given, within) {
        // Its own outcome says so, unless another daemon was first to put the instant on record.
        return Account::For("given up: the database was away, and the spool's disk full");
    }
    let kept = life.is_some_and(|life| life.kept.contains(&answer.serial));
    match life.and_then(|life| life.ended) {
        Some(_) if kept => Account::Lost(format!("{but}, and it was on disk when its process ended")),
        Some((ended, End::Killed)) if ended - given <= within => Account::For("killed before it landed"),
        Some((ended, End::Killed | End::Stopped)) if !case.spools && ended - given <= GIVEN_UP_WITHIN => {
            Account::For("ended before it landed, without a spool")
        }
        Some((ended, how)) => {
            Account::Lost(format!("{but}, and its process lived {} ms more ({how:?})", ended - given))
        }
        None => Account::Lost(format!("{but}, and its process lived on")),
    }
}

/// How long its process stood still in the time that it had to keep it.
fn stalled(case: &Case, answer: &Answer, given: Millis) -> Millis {
    let stalls = case.faults.iter().filter(|fault| fault.fault == "daemon-stall" && fault.daemon == answer.daemon);
    stalls.filter(|stall| stall.touches(given, given + SPOOLED_WITHIN)).map(|stall| stall.healed - stall.began).sum()
}

/// Whether its process was stopped when it came, and for longer than it would have waited.
fn stood_still(case: &Case, answer: &Answer, given: Millis) -> bool {
    let stalls = case.faults.iter().filter(|fault| fault.fault == "daemon-stall" && fault.daemon == answer.daemon);
    stalls.into_iter().any(|stall| stall.touches(given, given) && stall.healed - answer.asked >= TIMEOUT)
}

/// The process that asked for it.
fn asker<'a>(case: &'a Case, answer: &Answer) -> Option<&'a Life> {
    case.lives.iter().find(|life| life.daemon == answer.daemon && life.spans(answer.asked))
}

/// Whether nobody was there any more to take it.
fn had_ended(case: &Case, answer: &Answer) -> bool {
    let given = answer.given.unwrap_or(answer.asked);
    asker(case, answer).and_then(|life| life.ended).is_some_and(|(ended, _)| ended < given)
}
