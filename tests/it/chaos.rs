//! The audit of deploy/chaos is not blind: a good end state passes, and each way of doctoring it is found.

#![allow(dead_code, reason = "the programme itself uses the rest")]

#[path = "../chaos/account.rs"]
mod account;
#[path = "../chaos/audit.rs"]
mod audit;
#[path = "../chaos/fleet.rs"]
mod fleet;
#[path = "../chaos/found.rs"]
mod found;
#[path = "../chaos/model.rs"]
mod model;
#[path = "../chaos/power.rs"]
mod power;
#[path = "../chaos/recovery.rs"]
mod recovery;
#[path = "../chaos/truth.rs"]
mod truth;

use audit::{Case, Wrong, audit};
use fleet::{History, Millis, Tracker};
use found::{Found, Proof, Run};
use model::Landed;
use power::{Undone, undone};
use std::path::PathBuf;
use truth::{Answer, End, Injected, Life, Outage};

const PID: u32 = 7;
const LATE: Millis = 100_000;

fn tracker(name: &str, history: History) -> Tracker {
    Tracker {
        name: name.into(),
        history,
        period: 1_000,
        cron: false,
        jitter: 0,
        missed: "all",
        overlap: "coalesce",
        rows: 3,
        deletes: true,
        came: None,
        gone: None,
    }
}

fn run(tracker: &Tracker, at: Millis, status: &str) -> Run {
    Run {
        run_id: format!("{}-{at}", tracker.name),
        tracker: tracker.name.clone(),
        at,
        status: status.into(),
        pid: PID,
        committed: at * 1_000 + 100_000,
        rows_written: 0,
        rows_rejected: 0,
        fetched: status == "succeeded",
        class: None,
        error: (status != "succeeded").then(|| "a reason".into()),
    }
}

fn answer(serial: u64, tracker: &Tracker, at: Millis) -> Answer {
    let (name, given) = (tracker.name.clone(), Some(at + 20));
    Answer { serial, tracker: name, at, daemon: 0, asked: at + 10, given, good: true, kind: "good" }
}

/// Four trackers, 20 instants each: landed but for one that is missed and one whose source failed.
fn good() -> Case {
    let histories = [History::Snapshot, History::Event, History::Change, History::State];
    let trackers: Vec<Tracker> =
        histories.iter().zip(["a", "b", "c", "d"]).map(|(h, name)| tracker(name, *h)).collect();
    let life = Life { daemon: 0, pid: PID, began: 0, ended: Some((LATE, End::Stopped)), kept: vec![] };
    let mut case = Case {
        trackers: trackers.clone(),
        answers: vec![],
        lives: vec![life],
        faults: vec![],
        found: Found::default(),
        spools: true,
    };
    for tracker in &trackers {
        let mut landed = Vec::new();
        let mut runs = Vec::new();
        for at in (1..=20).map(|n| n * 1_000) {
            let status = [(5_000, "missed"), (9_000, "failed")].iter().find(|(other, _)| *other == at);
            runs.push(run(tracker, at, status.map_or("succeeded", |(_, status)| status)));
            if status.is_none() {
                let serial = case.answers.len() as u64 + 1;
                case.answers.push(answer(serial, tracker, at));
                landed.push(Landed { run_id: format!("{}-{at}", tracker.name), at, serial });
            }
        }
        land(&mut case.found, tracker, runs, &landed);
    }
    case
}

fn land(found: &mut Found, tracker: &Tracker, mut runs: Vec<Run>, landed: &[Landed]) {
    let (kept, written) = model::kept(tracker, landed);
    found.kept.insert(tracker.name.clone(), kept);
    for (landed, written) in landed.iter().zip(written) {
        let content = tracker.content(landed.at);
        let run = runs.iter_mut().find(|run| run.run_id == landed.run_id).unwrap();
        run.rows_written = written + content.proof.len() as i64;
        run.rows_rejected = content.bad as i64;
        if content.bad > 0 {
            found.rejects.insert(landed.run_id.clone(), content.bad as i64);
        }
        let row = |k: String| Proof { run_id: landed.run_id.clone(), at: landed.at, k, serial: landed.serial };
        found.proof.entry(tracker.name.clone()).or_default().extend(content.proof.into_iter().map(row));
    }
    found.runs.extend(runs);
}

/// What the audit says of a doctored state: `Wrong tracker instant/1000: what`.
fn says(doctor: impl FnOnce(&mut Case)) -> Vec<String> {
    let mut case = good();
    doctor(&mut case);
    let line = |f: &audit::Finding| format!("{:?} {} {}: {}", f.wrong, f.tracker, f.at / 1_000, f.what);
    audit(&case).findings.iter().map(line).collect()
}

fn finds(expected: &str, doctor: impl FnOnce(&mut Case)) {
    let said = says(doctor);
    assert!(said.iter().any(|line| line.contains(expected)), "expected {expected:?}, got {said:#?}");
}

fn row<'a>(case: &'a mut Case, tracker: &str, at: Millis) -> &'a mut Run {
    case.found.runs.iter_mut().find(|run| run.tracker == tracker && run.at == at).unwrap()
}

fn proof<'a>(case: &'a mut Case, tracker: &str) -> &'a mut Vec<Proof> {
    case.found.proof.get_mut(tracker).unwrap()
}

#[test]
fn a_good_state_passes_and_is_counted() {
    let verdict = audit(&good());
    assert_eq!((verdict.count(Wrong::Lost), verdict.count(Wrong::Doubled)), (0, 0), "{:?}", verdict.findings);
    let sum = |word: &str| verdict.sums.get(word).copied();
    assert_eq!((sum("instants"), sum("runs succeeded"), sum("answers landed")), (Some(80), Some(72), Some(72)));
}

#[test]
fn a_ledger_row_that_is_missing_there_twice_off_schedule_or_never_ended_is_found() {
    finds("Lost a 5: the instant has no ledger row", |case| case.found.runs.retain(|run| run.at != 5_000));
    let is_missing = |of: &dyn Fn(&mut Tracker)| {
        let said = says(|case| {
            case.found.runs.retain(|run| (run.tracker.as_str(), run.at) != ("a", 5_000));
            case.answers.retain(|answer| (answer.tracker.as_str(), answer.at) != ("a", 5_000));
            of(&mut case.trackers[0]);
        });
        said.iter().any(|finding| finding.contains("a 5: the instant has no ledger row"))
    };
    let gone = |at: Millis| is_missing(&|tracker| tracker.gone = Some(at));
    assert!(gone(5_000) && !gone(4_999), "whose tracker had gone need not be there");
    let came = |at: Millis| is_missing(&|tracker| tracker.came = Some(at));
    assert!(came(4_000) && !came(4_001), "whose tracker had not come need not be there");
    finds("Lost b 9: the instant has no ledger row", |case| case.found.runs.retain(|run| run.at != 9_000));
    // One that landed: its rows are of no run then, too.
    finds("Doubled a 3: 3 rows of run a-3000, which is not on record", |case| {
        case.found.runs.retain(|run| run.at != 3_000);
    });
    finds("Doubled a 5: 2 ledger rows", |case| {
        let again = row(case, "a", 5_000).clone();
        case.found.runs.push(again);
    });
    finds("Doubled a 5: no instant of its schedule", |case| row(case, "a", 5_000).at = 5_500);
    finds("Lost c 9: never ended", |case| row(case, "c", 9_000).status = "running".into());
    finds("Doubled z 5: runs of a tracker", |case| row(case, "a", 5_000).tracker = "z".into());
}

#[test]
fn rows_and_ledger_that_disagree_are_found() {
    finds("Lost a 3: 1 of 3 rows are missing", |case| drop(proof(case, "a").remove(6)));
    finds("Lost a 3: succeeded, and has no rows", |case| proof(case, "a").retain(|row| row.at != 3_000));
    finds("Doubled a 3: 4 rows, expected 3", |case| {
        let again = proof(case, "a")[6].clone();
        proof(case, "a").push(again);
    });
    finds("Doubled a 3: 3 rows of a run that is on record as failed", |case| {
        row(case, "a", 3_000).status = "failed".into()
    });
    finds("Doubled a 3: rows_written is 4, expected 3", |case| row(case, "a", 3_000).rows_written = 4);
    finds("Lost a 3: rows_written is 2, expected 3", |case| row(case, "a", 3_000).rows_written = 2);
    finds("Doubled a 3: row \"p0\" is stamped 4000", |case| proof(case, "a")[6].at = 4_000);
    finds("Lost a 7: 0 rejected rows in trackd.rejects", |case| case.found.rejects.clear());
    finds("Doubled a 7: 2 rejected rows on record", |case| row(case, "a", 7_000).rows_rejected = 2);
}

#[test]
fn rows_of_another_answer_of_two_of_none_or_of_rubbish_are_found() {
    finds("Doubled a 3: rows of 2 answers", |case| proof(case, "a")[6].serial = 4);
    let all = |case: &mut Case, serial| {
        proof(case, "a").iter_mut().filter(|row| row.at == 3_000).for_each(|row| row.serial = serial);
    };
    finds("Doubled a 3: rows of answer 4 to a 4000", |case| all(case, 4));
    finds("Lost a 3: answer 3 is nowhere", |case| {
        all(case, 4);
        row(case, "a", 3_000).status = "missed".into();
    });
    finds("Doubled a 3: rows of an answer that nobody gave", |case| case.answers.retain(|answer| answer.serial != 3));
    finds("Doubled a 3: rows of answer 3, which was source-rubbish", |case| {
        (case.answers[2].good, case.answers[2].kind) = (false, "source-rubbish");
    });
}

#[test]
fn events_versions_and_states_that_differ_from_the_model_are_found() {
    for (tracker, history) in [("b", History::Event), ("c", History::Change), ("d", History::State)] {
        let kept = |case: &mut Case| std::mem::take(case.found.kept.get_mut(tracker).unwrap());
        finds(&format!("missing in {tracker}_kept"), |case| {
            let rows = kept(case);
            *case.found.kept.get_mut(tracker).unwrap() = rows[1..].to_vec();
        });
        finds(&format!("not expected in {tracker}_kept"), |case| {
            let mut rows = kept(case);
            rows.push(rows[0].clone());
            *case.found.kept.get_mut(tracker).unwrap() = rows;
        });
        finds(&format!("missing in {tracker}_kept"), |case| {
            let mut rows = kept(case);
            match history {
                History::Change => rows[0].to = None,
                _ => rows[0].serial = Some(1),
            }
            *case.found.kept.get_mut(tracker).unwrap() = rows;
        });
    }
}

/// One more answer to tracker a, for the instant of a run that failed, was missed, or landed another.
fn further(case: &mut Case, at: Millis) -> &mut Answer {
    let tracker = case.trackers[0].clone();
    let serial = case.answers.len() as u64 + 1;
    case.answers.push(answer(serial, &tracker, at));
    case.answers.last_mut().unwrap()
}

#[test]
fn an_answer_that_is_nowhere_is_lost_unless_something_accounts_for_it() {
    assert_eq!(says(|case| _ = further(case, 3_000)), [""; 0], "another attempt of the same run landed");
    finds("Lost a 5: answer 73 is nowhere: its instant is on record as missed", |case| _ = further(case, 5_000));
    let killed = |case: &mut Case, after: Millis| {
        further(case, 5_000);
        case.lives[0].ended = Some((5_020 + after, End::Killed));
    };
    assert_eq!(says(|case| killed(case, 100)), [""; 0], "its process was killed at once");
    finds("Lost a 5: answer 73 is nowhere", |case| killed(case, 60_000));
    finds("on record as missed, and it was on disk when its process ended", |case| {
        killed(case, 100);
        case.lives[0].kept.push(73);
    });
    assert_eq!(says(|case| further(case, 5_000).given = None), [""; 0], "it was not given to its end");
    assert_eq!(
        says(|case| {
            further(case, 5_000);
            case.found.spooled.push(73);
        }),
        [""; 0],
        "it is on disk"
    );
    // A run that failed before it had an answer accounts for one that did not arrive, not for one it had.
    let again = |case: &mut Case| {
        let late = further(case, 5_000);
        late.asked = 5_200;
        late.given = Some(5_210);
    };
    assert_eq!(says(again), [""; 0], "its instant was on record already");
    assert_eq!(says(|case| _ = further(case, 9_000)), [""; 0]);
    let had_it = |case: &mut Case| {
        further(case, 9_000);
        let run = row(case, "a", 9_000);
        (run.fetched, run.class) = (true, Some("retry".into()));
    };
    finds("Lost a 9: answer 73 is nowhere: its run failed after it was received", had_it);
    finds("Lost a 9: answer 73 is nowhere: its run failed without a reason", |case| {
        further(case, 9_000);
        row(case, "a", 9_000).error = None;
    });
    assert_eq!(
        says(|case| {
            had_it(case);
            case.lives[0].ended = Some((8_999, End::Killed));
            case.answers.iter_mut().for_each(|answer| answer.asked = answer.asked.min(8_998));
        }),
        [""; 0],
        "it was gone when the answer came"
    );
    let full = Injected { fault: "disk-spool", daemon: 0, began: 0, healed: 9_500, outage: None };
    assert_eq!(
        says(|case| {
            had_it(case);
            case.faults.push(full);
        }),
        [""; 0],
        "there was no room for it"
    );
}

#[test]
fn an_answer_to_a_process_that_stood_still_for_longer_than_it_would_have_waited_was_not_received() {
    let stalled = |daemon, healed| {
        move |case: &mut Case| {
            further(case, 5_000);
            case.faults.push(Injected { fault: "daemon-stall", daemon, began: 0, healed, outage: None });
        }
    };
    assert_eq!(says(stalled(0, 9_000)), [""; 0]);
    finds("Lost a 5: answer 73 is nowhere", stalled(0, 6_000));
    finds("Lost a 5: answer 73 is nowhere", stalled(1, 9_000));
}

#[test]
fn a_process_that_stands_still_keeps_nothing_meanwhile_and_has_as_much_longer_for_it() {
    let killed = |healed| {
        move |case: &mut Case| {
            further(case, 5_000);
            case.lives[0].ended = Some((25_000, End::Killed));
            case.faults.push(Injected { fault: "daemon-stall", daemon: 0, began: 10_000, healed, outage: None });
        }
    };
    assert_eq!(says(killed(14_000)), [""; 0]);
    finds("Lost a 5: answer 73 is nowhere", killed(11_000));
}

#[test]
fn without_a_spool_a_run_that_had_its_answer_may_fail_when_the_database_is_away() {
    let failed = |class: &'static str| {
        move |case: &mut Case| {
            case.spools = false;
            further(case, 9_000);
            let run = row(case, "a", 9_000);
            (run.fetched, run.class) = (true, Some(class.into()));
        }
    };
    assert_eq!(says(failed("retry")), [""; 0]);
    let ended = |after: Millis| {
        move |case: &mut Case| {
            case.spools = false;
            further(case, 5_000);
            case.lives[0].ended = Some((5_020 + after, End::Stopped));
        }
    };
    assert_eq!(says(ended(20_000)), [""; 0]);
    finds("Lost a 5: answer 73 is nowhere", ended(90_000));
    finds("Lost a 9: answer 73 is nowhere: its run failed after it was received", failed("standing"));
}

#[test]
fn a_recovery_counts_only_where_nothing_else_is_broken() {
    let outage = |from, to, only: Option<usize>| Injected {
        fault: "x",
        daemon: only.unwrap_or(0),
        began: from,
        healed: to,
        outage: Some(Outage { from, to, only }),
    };
    let fault = |from, to| outage(from, to, None);
    let successes: Vec<recovery::Success> =
        [(5, 8), (12, 15), (14, 14)].map(|(began, committed)| recovery::Success { began, committed }).into();
    let of = |all: &[Injected]| recovery::recovery(&all[0], all, 2, &successes);
    assert_eq!(of(&[fault(0, 10)]), Some(4), "the first to land of those that began after it");
    assert_eq!(of(&[fault(0, 10), fault(8, 11)]), None, "another outage at the heal");
    assert_eq!(of(&[fault(0, 10), fault(13, 20)]), None, "another outage before anything landed");
    assert_eq!(of(&[fault(0, 10), fault(3, 9), fault(14, 20)]), Some(4));
    assert_eq!(of(&[fault(0, 15)]), None, "nothing landed");
    assert_eq!(of(&[fault(0, 10), outage(8, 11, Some(0))]), Some(4), "the other daemon goes on");
    assert_eq!(of(&[fault(0, 10), outage(8, 11, Some(0)), outage(9, 20, Some(1))]), None, "no daemon goes on");
    assert_eq!(recovery::p50_and_max(vec![3, 1, 9]), Some((3, 9)));
}

#[test]
fn a_loss_of_power_undoes_what_was_not_synced_in_order_and_nothing_else() {
    let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
    let whole = "w /s/a/.tmp\ns /s/a/.tmp\nr /s/a/.tmp\t/s/a/1\nd /s/a\n";
    assert_eq!(undone(whole), Undone::default());
    let no_sync = "w /s/a/.tmp\nr /s/a/.tmp\t/s/a/1\nd /s/a\n";
    assert_eq!(undone(no_sync), Undone { empty: paths(&["/s/a/1"]), nameless: Vec::new() });
    let too_soon = "w /s/a/.tmp\ns /s/a/.tmp\nd /s/a\nr /s/a/.tmp\t/s/a/1\nd /s/b\n";
    assert_eq!(undone(too_soon), Undone { empty: Vec::new(), nameless: paths(&["/s/a/1"]) });
}
