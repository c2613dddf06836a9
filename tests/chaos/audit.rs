//! The audit: does the database hold the truth, all of it, and once?
//!
//! ```text
//!  instants   each has one ledger row                         none: LOST     two: DOUBLED
//!  runs       rows are there if and only if it succeeded      too few: LOST  too many, of two answers, of none: DOUBLED
//!  tables     events, versions, states as `model` says        missing: LOST  further ones: DOUBLED
//!  answers    landed, or accounted for (`account`)            otherwise: LOST
//! ```
//!
//! In: trackers, what happened, what was found. Out: findings and sums. Pure: doctored states show that it sees
//! (tests/it/chaos.rs).

use super::account::{Account, account};
use super::fleet::{Millis, Tracker};
use super::found::{Found, Proof, Run};
use super::model::{Kept, Landed, kept};
use super::truth::{Answer, Injected, Life};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, HashSet};

/// What is judged.
#[derive(Debug, Clone)]
pub struct Case {
    pub trackers: Vec<Tracker>,
    pub answers: Vec<Answer>,
    pub lives: Vec<Life>,
    pub faults: Vec<Injected>,
    pub found: Found,
    /// Whether trackd keeps payloads on disk while the database is away. Without, such runs fail.
    pub spools: bool,
}

/// What is wrong with a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum Wrong {
    Lost,
    Doubled,
}

/// One thing that is wrong.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    pub wrong: Wrong,
    pub tracker: String,
    pub at: Millis,
    pub what: String,
}

/// The outcome.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    pub findings: Vec<Finding>,
    /// Word and count, in the order of the words.
    pub sums: BTreeMap<String, u64>,
}

impl Verdict {
    fn say(&mut self, wrong: Wrong, tracker: &str, at: Millis, what: String) {
        self.findings.push(Finding { wrong, tracker: tracker.to_owned(), at, what });
    }

    pub fn add(&mut self, word: impl Into<String>, count: usize) {
        *self.sums.entry(word.into()).or_default() += count as u64;
    }

    pub fn count(&self, wrong: Wrong) -> usize {
        self.findings.iter().filter(|finding| finding.wrong == wrong).count()
    }
}

/// Judges it.
pub fn audit(case: &Case) -> Verdict {
    let mut verdict = Verdict::default();
    let answers: HashMap<u64, &Answer> = case.answers.iter().map(|answer| (answer.serial, answer)).collect();
    let mut runs: HashMap<&str, Vec<&Run>> = HashMap::new();
    for run in &case.found.runs {
        runs.entry(&run.tracker).or_default().push(run);
        verdict.add(format!("runs {}", run.status), 1);
    }
    let mut serials = HashMap::new();
    for tracker in &case.trackers {
        let runs = runs.remove(tracker.name.as_str()).unwrap_or_default();
        instants(tracker, &runs, &mut verdict);
        let landed = rows(case, tracker, &runs, &answers, &mut verdict);
        tables(case, tracker, &runs, &landed, &mut verdict);
        serials.extend(landed.into_iter().map(|run| (run.run_id, run.serial)));
    }
    for (tracker, runs) in runs {
        verdict.say(Wrong::Doubled, tracker, runs[0].at, "runs of a tracker that was never configured".into());
    }
    responses(case, &serials, &mut verdict);
    verdict
}

/// Each instant between the first and the last has one row, and no other has. Of those before its tracker came, which a
/// daemon ran whose clock was slow, none need be there; nor of those after it had gone, of one whose clock was fast, or
/// that did not know of it.
fn instants(tracker: &Tracker, runs: &[&Run], verdict: &mut Verdict) {
    let mut rows: BTreeMap<Millis, Vec<&Run>> = BTreeMap::new();
    for run in runs {
        rows.entry(run.at).or_default().push(run);
    }
    let mut since = rows.range(tracker.came.unwrap_or(Millis::MIN)..).map(|(at, _)| at);
    let first = since.next().copied().unwrap_or(Millis::MAX);
    let last = rows.keys().next_back().copied().unwrap_or(Millis::MIN);
    for at in tracker.instants(first, tracker.gone.map_or(last, |gone| gone.min(last))) {
        verdict.add("instants", 1);
        if !rows.contains_key(&at) {
            verdict.say(Wrong::Lost, &tracker.name, at, "the instant has no ledger row".into());
        }
    }
    for (at, runs) in &rows {
        if runs.len() > 1 {
            verdict.say(Wrong::Doubled, &tracker.name, *at, format!("{} ledger rows", runs.len()));
        }
        if !tracker.has(*at) {
            verdict.say(Wrong::Doubled, &tracker.name, *at, "no instant of its schedule".into());
        }
        if let Some(run) = runs.iter().find(|run| run.status == "running") {
            verdict.say(Wrong::Lost, &tracker.name, *at, format!("never ended, claimed by process {}", run.pid));
        }
    }
}

/// The snapshot's rows of each run. Returns the runs that landed, in the order of their commits.
fn rows(
    case: &Case,
    tracker: &Tracker,
    runs: &[&Run],
    answers: &HashMap<u64, &Answer>,
    verdict: &mut Verdict,
) -> Vec<Landed> {
    let mut proof: HashMap<&str, Vec<&Proof>> = HashMap::new();
    for row in case.found.proof.get(&tracker.name).into_iter().flatten() {
        proof.entry(&row.run_id).or_default().push(row);
    }
    let mut landed = Vec::new();
    let mut in_order = runs.to_vec();
    in_order.sort_by_key(|run| run.committed);
    for run in in_order {
        let rows = proof.remove(run.run_id.as_str()).unwrap_or_default();
        let mut say = |wrong, what: String| verdict.say(wrong, &tracker.name, run.at, what);
        if run.status != "succeeded" {
            if !rows.is_empty() {
                say(Wrong::Doubled, format!("{} rows of a run that is on record as {}", rows.len(), run.status));
            }
            continue;
        }
        let serials: HashSet<u64> = rows.iter().map(|row| row.serial).collect();
        match serials.len() {
            0 => say(Wrong::Lost, "succeeded, and has no rows".into()),
            1 => {}
            _ => say(Wrong::Doubled, format!("rows of {} answers: {serials:?}", serials.len())),
        }
        let Some(&serial) = serials.iter().min() else { continue };
        for (wrong, what) in disagreements(case, tracker, run, &rows, answers.get(&serial).copied()) {
            say(wrong, what);
        }
        landed.push(Landed { run_id: run.run_id.clone(), at: run.at, serial });
    }
    for (run_id, rows) in proof {
        let what = format!("{} rows of run {run_id}, which is not on record", rows.len());
        verdict.say(Wrong::Doubled, &tracker.name, rows[0].at, what);
    }
    landed
}

/// How the rows of a run that landed differ from the answer they are of.
fn disagreements(
    case: &Case,
    tracker: &Tracker,
    run: &Run,
    rows: &[&Proof],
    answer: Option<&Answer>,
) -> Vec<(Wrong, String)> {
    let mut wrong = Vec::new();
    match answer {
        None => wrong.push((Wrong::Doubled, "rows of an answer that nobody gave".to_owned())),
        Some(answer) if answer.tracker != tracker.name || answer.at != run.at => {
            wrong.push((
                Wrong::Doubled,
                format!("rows of answer {} to {} {}", answer.serial, answer.tracker, answer.at),
            ));
        }
        Some(answer) if !answer.good => {
            wrong.push((Wrong::Doubled, format!("rows of answer {}, which was {}", answer.serial, answer.kind)));
        }
        Some(_) => {}
    }
    let content = tracker.content(run.at);
    let there: HashSet<&str> = rows.iter().map(|row| row.k.as_str()).collect();
    let expected: HashSet<&str> = content.proof.iter().map(String::as_str).collect();
    let missing = expected.difference(&there).count();
    if missing > 0 {
        wrong.push((Wrong::Lost, format!("{missing} of {} rows are missing", expected.len())));
    }
    if rows.len() + missing > expected.len() {
        wrong.push((Wrong::Doubled, format!("{} rows, expected {}", rows.len(), expected.len())));
    }
    if let Some(row) = rows.iter().find(|row| row.at != run.at) {
        wrong.push((Wrong::Doubled, format!("row {:?} is stamped {}", row.k, row.at)));
    }
    let rejects = case.found.rejects.get(&run.run_id).copied().unwrap_or(0);
    for (what, count) in [("on record", run.rows_rejected), ("in trackd.rejects", rejects)] {
        let kind = if count < content.bad as i64 { Wrong::Lost } else { Wrong::Doubled };
        if count != content.bad as i64 {
            wrong.push((kind, format!("{count} rejected rows {what}, expected {}", content.bad)));
        }
    }
    wrong
}

/// The other table, and how many rows each run says it wrote.
fn tables(case: &Case, tracker: &Tracker, runs: &[&Run], landed: &[Landed], verdict: &mut Verdict) {
    let mut there = case.found.kept.get(&tracker.name).cloned().unwrap_or_default();
    there.sort();
    let (expected, written) = kept(tracker, landed);
    for (wrong, row) in differences(&expected, &there) {
        let word = if wrong == Wrong::Lost { "missing" } else { "not expected" };
        verdict.say(wrong, &tracker.name, row.from, format!("{word} in {}_kept: {row:?}", tracker.name));
    }
    let on_record: HashMap<&str, &Run> = runs.iter().map(|run| (run.run_id.as_str(), *run)).collect();
    for (landed, kept) in landed.iter().zip(written) {
        let run = on_record[landed.run_id.as_str()];
        let expected = tracker.rows as i64 + kept;
        if run.rows_written != expected {
            let wrong = if run.rows_written < expected { Wrong::Lost } else { Wrong::Doubled };
            let what = format!("rows_written is {}, expected {expected}", run.rows_written);
            verdict.say(wrong, &tracker.name, run.at, what);
        }
    }
}

/// What is in one only, of two sorted lists; with its number where it is there more often.
fn differences(expected: &[Kept], there: &[Kept]) -> Vec<(Wrong, Kept)> {
    let mut counts: BTreeMap<&Kept, i64> = BTreeMap::new();
    expected.iter().for_each(|row| *counts.entry(row).or_default() -= 1);
    there.iter().for_each(|row| *counts.entry(row).or_default() += 1);
    let differs = |(row, count): (&Kept, i64)| match count {
        0 => None,
        ..0 => Some((Wrong::Lost, row.clone())),
        _ => Some((Wrong::Doubled, row.clone())),
    };
    counts.into_iter().filter_map(differs).collect()
}

/// Every good answer that was given to its end landed, or is accounted for.
fn responses(case: &Case, serials: &HashMap<String, u64>, verdict: &mut Verdict) {
    let runs: HashMap<(&str, Millis), &Run> =
        case.found.runs.iter().map(|run| ((run.tracker.as_str(), run.at), run)).collect();
    for answer in &case.answers {
        verdict.add("answers begun", 1);
        if !answer.good || answer.given.is_none() {
            continue;
        }
        verdict.add("good answers given", 1);
        let run = runs.get(&(answer.tracker.as_str(), answer.at)).copied();
        match account(case, answer, run, run.and_then(|run| serials.get(&run.run_id).copied())) {
            Account::For(how) => verdict.add(format!("answers {how}"), 1),
            Account::Lost(why) => {
                let what = format!("answer {} is nowhere: {why}", answer.serial);
                verdict.say(Wrong::Lost, &answer.tracker, answer.at, what);
            }
        }
    }
}
