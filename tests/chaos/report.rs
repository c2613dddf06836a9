//! The report: one table of faults, the sums, what is wrong; and the artefacts for who looks into it.
//!
//! Must not know: how any of it was found.

use super::audit::{Case, Finding, Verdict, Wrong};
use super::fleet::Millis;
use super::found::Run;
use super::plan::FAULTS;
use super::recovery::{Success, p50_and_max, recovery};
use super::truth::Injected;
use serde::Serialize;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

/// What is wrong may show in runs that began so long after a fault's heal.
const AFTER: Millis = 5_000;
/// Findings that are printed; all are in the artefacts.
const SHOWN: usize = 20;

/// The table of faults.
pub fn table(case: &Case, verdict: &Verdict) -> String {
    let mut text = format!(
        "{:<70} {:>5} {:>7} {:>5} {:>8}  {:>22}\n",
        "fault", "times", "runs", "lost", "doubled", "recovery p50, max (of)"
    );
    let successes = successes(case);
    let daemons = case.lives.iter().map(|life| life.daemon + 1).max().unwrap_or(1);
    for fault in FAULTS {
        let own: Vec<&Injected> = case.faults.iter().filter(|injected| injected.fault == fault.name).collect();
        if own.is_empty() {
            continue;
        }
        let under_way = |run: &&Run| own.iter().any(|fault| fault.touches(run.at, run.committed / 1_000));
        let runs = case.found.runs.iter().filter(|run| run.ran()).filter(under_way).count();
        let wrong = |wrong| verdict.findings.iter().filter(|found| found.wrong == wrong && felt(found, &own)).count();
        let recoveries: Vec<Millis> =
            own.iter().filter_map(|fault| recovery(fault, &case.faults, daemons, &successes)).collect();
        let measured = recoveries.len();
        let recovery = p50_and_max(recoveries)
            .map_or("not alone".to_owned(), |(p50, max)| format!("{p50} ms, {max} ms ({measured})"));
        let what = format!("{}: {}", fault.name, fault.what);
        let (lost, doubled) = (wrong(Wrong::Lost), wrong(Wrong::Doubled));
        let _ = writeln!(text, "{what:<70} {:>5} {runs:>7} {lost:>5} {doubled:>8}  {recovery:>22}", own.len());
    }
    let (lost, doubled) = (verdict.count(Wrong::Lost), verdict.count(Wrong::Doubled));
    let (times, runs) = (case.faults.len(), case.found.runs.len());
    let _ = writeln!(
        text,
        "{:<70} {times:>5} {runs:>7} {lost:>5} {doubled:>8}",
        "all (a run counts at every fault it met)"
    );
    text
}

/// Whether it may come from one of these.
fn felt(found: &Finding, faults: &[&Injected]) -> bool {
    faults.iter().any(|fault| fault.touches(found.at - AFTER, found.at + AFTER))
}

fn successes(case: &Case) -> Vec<Success> {
    let asked: HashMap<u64, Millis> = case.answers.iter().map(|answer| (answer.serial, answer.asked)).collect();
    let committed: HashMap<&str, i64> =
        case.found.runs.iter().map(|run| (run.run_id.as_str(), run.committed / 1_000)).collect();
    let mut successes: Vec<Success> = case
        .found
        .proof
        .values()
        .flatten()
        .filter(|row| row.k == "p0")
        .filter_map(|row| {
            Some(Success { began: *asked.get(&row.serial)?, committed: *committed.get(row.run_id.as_str())? })
        })
        .collect();
    successes.sort_by_key(|success| success.began);
    successes
}

/// The sums of the audit.
pub fn sums(verdict: &Verdict) -> String {
    let line = |(word, count): (&String, &u64)| format!("{count:>9}  {word}\n");
    verdict.sums.iter().map(line).collect()
}

/// What is wrong, with all that is known of each run.
pub fn wrongs(case: &Case, verdict: &Verdict) -> String {
    let mut text = String::new();
    for found in verdict.findings.iter().take(SHOWN) {
        let at = jiff::Timestamp::from_millisecond(found.at).map_or_else(|_| found.at.to_string(), |at| at.to_string());
        let _ = writeln!(text, "{:?}: {} {at}: {}", found.wrong, found.tracker, found.what);
        let of = |tracker: &str, at: Millis| tracker == found.tracker && at == found.at;
        for run in case.found.runs.iter().filter(|run| of(&run.tracker, run.at)) {
            let _ = writeln!(text, "    ledger {}", json(run));
            let rows = case.found.proof.get(&run.tracker).into_iter().flatten();
            let rows: Vec<_> = rows.filter(|row| row.run_id == run.run_id).map(|row| row.serial).collect();
            let _ = writeln!(text, "    rows   {}, of answers {:?}", rows.len(), rows.first());
        }
        for answer in case.answers.iter().filter(|answer| of(&answer.tracker, answer.at)) {
            let _ = writeln!(text, "    answer {}", json(answer));
        }
    }
    if verdict.findings.len() > SHOWN {
        let _ = writeln!(text, "and {} more", verdict.findings.len() - SHOWN);
    }
    text
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| error.to_string())
}

/// Everything that was seen, a line each.
pub fn keep(dir: &Path, case: &Case, verdict: &Verdict) -> std::io::Result<()> {
    lines(&dir.join("answers.jsonl"), &case.answers)?;
    lines(&dir.join("faults.jsonl"), &case.faults)?;
    lines(&dir.join("lives.jsonl"), &case.lives)?;
    lines(&dir.join("runs.jsonl"), &case.found.runs)?;
    lines(&dir.join("proof.jsonl"), case.found.proof.values().flatten())?;
    lines(&dir.join("findings.jsonl"), &verdict.findings)
}

fn lines<'a, T: Serialize + 'a>(path: &Path, values: impl IntoIterator<Item = &'a T>) -> std::io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for value in values {
        writeln!(file, "{}", json(value))?;
    }
    file.flush()
}
