//! The spool as its users meet it: kill -9 of a process that puts and removes, ten thousand files of which a hundred
//! are bad, and the commands.

use crate::support::daemon::{Home, PATIENCE, RARELY, file_tracker, stderr, stdout};
use crate::support::postgres::{Server, at_least, count, eventually};
use bytes::Bytes;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use trackd::config::{self, Environment};
use trackd::run::Recipe;
use trackd::spool::{Entry, Loaded, Put, Spool};
use trackd::status::Kind;

const ROOM: u64 = 1 << 30;
/// Names the directory to a child that puts until it is killed.
const CHILD: &str = "TRACKD_TEST_SPOOL";

fn entry(tracker: &str, second: i64) -> Entry {
    let at = Timestamp::from_second(second).unwrap();
    Entry {
        tracker: tracker.to_owned(),
        scheduled_at: at,
        kind: Kind::Scheduled,
        attempt: 1,
        started_at: at,
        fetched_at: at,
        response: serde_json::json!({"status": 200}),
        plan: Bytes::from(format!("plan {}", second / 5)),
        body: Bytes::from(format!("{tracker} {second} ").repeat(usize::try_from(second % 50).unwrap() * 40)),
    }
}

/// Not a test of its own: the child of the next one.
#[test]
fn child_that_puts_and_removes_until_it_is_killed() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let (spool, _) = Spool::open(Path::new(&dir), ROOM).unwrap();
    let tell = |what: &str, entry: &Entry| {
        // In one write, so that a kill cuts no line.
        let line = format!("{what} {} {}\n", entry.tracker, entry.scheduled_at.as_second());
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    };
    let first = 1 + spool.stats().oldest.map_or(0, |at| at.as_second());
    for second in first.. {
        for tracker in ["a", "b"] {
            let entry = entry(tracker, second);
            tell("putting", &entry);
            spool.put(&entry).unwrap();
            tell("put", &entry);
        }
        while spool.stats().entries > 12 {
            let oldest = spool.waiting().remove(0).tracker;
            let key = spool.next(&oldest).unwrap();
            let Loaded::Entry(entry) = spool.load(&key).unwrap() else { panic!("{key:?} is not whole") };
            tell("removing", &entry);
            spool.remove(&key).unwrap();
            tell("removed", &entry);
        }
    }
}

#[test]
fn kill_9_at_any_moment_loses_nothing_acknowledged_and_leaves_nothing_half_there() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("spool");
    // What was told last of each identity, over all lives.
    let mut told: BTreeMap<(String, i64), String> = BTreeMap::new();
    let mut puts = 0;
    for life in 0..40 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "spool::child_that_puts_and_removes_until_it_is_killed", "--nocapture"])
            .env(CHILD, &dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (lines, spin) = (fastrand::usize(0..60), fastrand::u64(0..2000));
        let mut reader = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut note = |line: String| {
            let words: Vec<&str> = line.split(' ').collect();
            let [what, tracker, second] = words[..] else { panic!("life {life}: {line}") };
            puts += usize::from(what == "put");
            told.insert((tracker.to_owned(), second.parse().unwrap()), what.to_owned());
        };
        reader.by_ref().take(1 + lines).for_each(|line| note(line.unwrap()));
        let until = Instant::now() + Duration::from_micros(spin);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        reader.for_each(|line| note(line.unwrap()));
        audit(&dir, &told);
    }
    assert!(puts > 100, "{puts}");
}

/// Opens what a kill left, and compares it with what was told.
fn audit(dir: &Path, told: &BTreeMap<(String, i64), String>) {
    let (spool, aside) = Spool::open(dir, ROOM).unwrap();
    assert_eq!(aside, []);
    let report = trackd::spool::Look::new(dir).check().unwrap();
    assert!(report.bad.is_empty() && report.set_aside.is_empty(), "{report:?}");
    assert_eq!(report.whole, spool.stats().entries);
    let (listed, _) = trackd::spool::Look::new(dir).entries().unwrap();
    let there: BTreeSet<(String, i64)> =
        listed.iter().map(|listed| (listed.tracker.clone(), listed.scheduled_at.as_second())).collect();
    for (identity, last) in told {
        match last.as_str() {
            "put" => assert!(there.contains(identity), "{identity:?} is lost"),
            "removed" => assert!(!there.contains(identity), "{identity:?} came back"),
            _ => {}
        }
    }
    for listed in &listed {
        let identity = (listed.tracker.clone(), listed.scheduled_at.as_second());
        assert!(told.contains_key(&identity), "{identity:?} came from nowhere");
        assert_eq!(spool.put(&entry(&identity.0, identity.1)).unwrap(), Put::Known);
        let trackd::spool::Found::Whole(found, _) =
            trackd::spool::Look::new(dir).read(&listed.tracker, &listed.file).unwrap()
        else {
            panic!()
        };
        assert_eq!(*found, entry(&identity.0, identity.1));
    }
    let files = |dir: PathBuf| std::fs::read_dir(dir).unwrap().count();
    let plans: BTreeSet<Bytes> = there.iter().map(|(tracker, second)| entry(tracker, *second).plan).collect();
    assert_eq!(files(dir.join("plans")), plans.len(), "plans that nothing needs are gone");
}

/// Writes an entry as docs/spool.md describes the file, by other means than trackd's.
fn by_hand(spool: &Path, tracker: &str, second: i64, recipe: &str, body: &str) -> PathBuf {
    let sha256 = |text: &str| Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let (plan, at) = (sha256(recipe), Timestamp::from_second(second).unwrap());
    let meta = serde_json::json!({
        "tracker": tracker, "scheduled_at": at, "kind": "scheduled", "attempt": 1, "started_at": at, "fetched_at": at,
        "response": {"status": 200}, "body_bytes": body.len(), "plan": plan,
    });
    let rest = format!("{meta}\n{body}");
    let file = format!("trackd-spool 1 {}\n{rest}", sha256(&rest));
    let dir = spool.join("entries").join(tracker);
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::create_dir_all(spool.join("plans")).unwrap();
    if !spool.join("plans").join(&plan).exists() {
        std::fs::write(spool.join("plans").join(&plan), recipe).unwrap();
    }
    let path = dir.join(format!("{}.{}.{}", at.strftime("%Y%m%dT%H%M%S.000000000Z"), file.len(), &plan[..16]));
    std::fs::write(&path, file).unwrap();
    path
}

/// Empties, cuts or flips a file.
fn spoil(path: &Path, number: i32) {
    let mut bytes = std::fs::read(path).unwrap();
    match number % 3 {
        0 => bytes.clear(),
        1 => bytes.truncate(fastrand::usize(1..bytes.len())),
        _ => bytes[fastrand::usize(..) % 150] ^= 4,
    }
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_lands_the_good_of_a_spool_with_bad_files_and_runs_on_beside_it() {
    const NAMES: [&str; 5] = ["p", "q", "r", "s", "t"];
    let database = Server::shared().database().await;
    let trackers: String = NAMES.iter().map(|name| file_tracker(name, "24h")).collect();
    let home = Home::new(&database, &format!("{trackers}{}", file_tracker("live", "200ms")));
    home.put("live.json", r#"{"rows":[{"k":"a","v":1}]}"#);
    let text = std::fs::read_to_string(home.path("config.toml")).unwrap();
    let config =
        config::parse(&text, Path::new("config.toml"), &Environment::new(Vec::<(String, String)>::new(), false));
    let config = config.unwrap();
    for number in 0..1_000 {
        let tracker = &config.trackers[number as usize % NAMES.len()];
        let recipe = serde_json::to_string(&Recipe::of(&config, tracker)).unwrap();
        let body = format!(r#"{{"rows":[{{"k":"a","v":{number}}}]}}"#);
        let path = by_hand(&home.path("state/spool"), &tracker.name, 1_750_000_000 + i64::from(number), &recipe, &body);
        if number % 10 == 7 {
            spoil(&path, number / 10);
        }
    }
    let mut daemon = home.run();
    let client = database.client().await;
    let count = async |sql: &str| client.query_one(sql, &[]).await.map_or(-1, |row| row.get::<_, i64>(0));
    let look = trackd::spool::Look::new(&home.path("state/spool"));
    let patience = Duration::from_secs(120);
    eventually("none that waits", patience, async || look.entries().is_ok_and(|(waiting, _)| waiting.is_empty())).await;
    let live = "SELECT count(*) FROM trackd.runs WHERE tracker = 'live' AND status = 'succeeded'";
    let before = count(live).await;
    eventually("further runs", PATIENCE, async || count(live).await >= before + 2).await;
    let landed =
        "SELECT count(*) FROM trackd.runs WHERE tracker <> 'live' AND status = 'succeeded' AND rows_written = 1";
    assert_eq!(count(landed).await, 900, "{}", daemon.log());
    for name in NAMES {
        let whole = format!("SELECT count(*) FROM {name} JOIN trackd.runs USING (run_id) WHERE v % 10 <> 7");
        assert_eq!(count(&whole).await, if name == "r" { 100 } else { 200 }, "{name}");
    }
    let check = home.trackd(&["spool", "check"]);
    assert_eq!(stdout(&check).lines().filter(|line| line.starts_with("set aside\t")).count(), 100, "{check:?}");
    assert_eq!(home.trackd(&["spool", "replay"]).status.code(), Some(1), "bad files are listed, and left");
    assert_eq!(look.set_aside().unwrap().len(), 100);
    daemon.signal(rustix::process::Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());
    let failed = "SELECT count(*) FROM trackd.runs WHERE status = 'failed' AND error LIKE 'its payload in the spool is not whole: %'";
    assert_eq!(count(failed).await, 100, "the others have their rows, too");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_the_spool_that_are_spoilt_slow_no_tracker_down() {
    let database = Server::shared().database().await;
    let home = Home::new(&database, &file_tracker("a", "200ms"));
    home.put("a.json", r#"{"rows":[{"k":"a","v":1}]}"#);
    for number in 0..8 {
        spoil(&by_hand(&home.path("state/spool"), "a", 1_750_000_000 + i64::from(number), "{}", "{}"), number);
    }
    let mut daemon = home.run();
    let client = database.client().await;
    let failed = "SELECT count(*) FROM trackd.runs WHERE status = 'failed'";
    at_least(&client, failed, 8).await;
    let since = "SELECT count(*) FROM trackd.runs WHERE status = 'succeeded'";
    let before = count(&client, since).await;
    at_least(&client, since, before + 3).await;
    let passed_over = "SELECT count(*) FROM trackd.runs WHERE error LIKE 'standing fault%'";
    assert_eq!(count(&client, passed_over).await, 0, "{}", daemon.log());
    daemon.signal(rustix::process::Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());
    assert!(!daemon.log().contains("standing fault"), "{}", daemon.log());
}

#[test]
fn of_ten_thousand_entries_a_hundred_bad_ones_are_listed_and_set_aside_and_the_good_come_in_order() {
    let home = Home::with("embedded", "");
    let dir = home.path("state/spool");
    let mut bad = BTreeSet::new();
    for number in 0..10_000 {
        let tracker = format!("t{:02}", number % 50);
        let path = by_hand(&dir, &tracker, i64::from(number), "{}", &"x".repeat(200 + number as usize % 900));
        if number % 100 != 7 {
            continue;
        }
        spoil(&path, number / 100);
        bad.insert((tracker, i64::from(number)));
    }
    let check = home.trackd(&["spool", "check", "--json"]);
    assert_eq!((check.status.code(), stdout(&check).lines().count()), (Some(1), 100), "{}", stderr(&check));
    assert!(
        stderr(&check).contains("9900 entries are whole, 100 files are not, 0 were set aside before"),
        "{}",
        stderr(&check)
    );
    let started = Instant::now();
    let (spool, aside) = Spool::open(&dir, ROOM).unwrap();
    let opened = started.elapsed();
    assert_eq!((aside.len(), spool.stats().entries), (0, 10_000), "by name they are all the same");
    assert!(opened < Duration::from_secs(2), "{opened:?}");
    let (mut good, mut met) = (0, BTreeSet::new());
    for waiting in spool.waiting() {
        let mut before = i64::MIN;
        while let Some(key) = spool.next(&waiting.tracker) {
            let second = key.scheduled_at().as_second();
            assert!(before < second, "in order");
            before = second;
            match spool.load(&key).unwrap() {
                Loaded::Entry(_) => good += 1,
                Loaded::SetAside(_) => drop(met.insert((waiting.tracker.clone(), second))),
                Loaded::Gone => panic!("{key:?} is gone"),
            }
            spool.remove(&key).unwrap();
        }
    }
    assert_eq!((good, met), (9_900, bad));
    assert_eq!((spool.stats().entries, spool.stats().bad), (0, 100));
    let check = home.trackd(&["spool", "check"]);
    assert_eq!((check.status.code(), stdout(&check).lines().count()), (Some(1), 101), "{}", stderr(&check));
    assert_eq!(stdout(&check).lines().filter(|line| line.starts_with("set aside\t")).count(), 100);
}

fn shell(dir: &Path, script: &str, file: &Path) -> String {
    let output = Command::new("sh").args(["-c", script, "sh"]).arg(file).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn an_administrator_looks_at_a_file_with_ordinary_tools() {
    let home = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(home.path(), ROOM).unwrap();
    spool.put(&entry("a", 7)).unwrap();
    let (listed, _) = trackd::spool::Look::new(home.path()).entries().unwrap();
    let run = |script: &str| shell(home.path(), script, &listed[0].file);
    assert_eq!(run("tail -n +3 \"$1\"").into_bytes(), entry("a", 7).body);
    let meta: serde_json::Value = serde_json::from_str(&run("sed -n 2p \"$1\"")).unwrap();
    assert_eq!((&meta["tracker"], &meta["response"]["status"]), (&"a".into(), &200.into()));
    assert_eq!(run("tail -n +2 \"$1\" | sha256sum | cut -d' ' -f1"), run("head -n 1 \"$1\" | cut -d' ' -f3"));
    let plan = meta["plan"].as_str().unwrap();
    assert_eq!(std::fs::read(home.path().join("plans").join(plan)).unwrap(), entry("a", 7).plan);
}

fn codes(outputs: &[Output]) -> Vec<Option<i32>> {
    outputs.iter().map(|output| output.status.code()).collect()
}

#[test]
fn the_commands_look_without_a_daemon_and_without_a_spool() {
    let home = Home::with("postgres://nobody@%2Fnonexistent/x", &file_tracker("a", RARELY));
    let run = |args: &[&str]| home.trackd(&[&["spool"], args].concat());
    let outputs = [&["ls"][..], &["ls", "a"], &["ls", "--json"], &["check"], &["export", "--to", "out"]].map(run);
    assert_eq!(codes(&outputs), [Some(0); 5], "{outputs:?}");
    assert_eq!(stdout(&outputs[3]), "0 entries, all whole\n");
    assert_eq!(codes(&[&["ls", "b"][..], &["export"], &[]].map(run)), [Some(64); 3]);
    assert!(!home.path("state/spool").exists(), "nothing is made");
}

#[test]
fn the_commands_look_beside_the_daemon_that_owns_the_spool() {
    let home = Home::with("embedded", &file_tracker("a", RARELY));
    let dir = home.path("state/spool");
    let (spool, _) = Spool::open(&dir, ROOM).unwrap();
    for (tracker, second) in [("b", 7), ("a", 9), ("a", 3)] {
        spool.put(&entry(tracker, second)).unwrap();
    }
    let run = |args: &[&str]| home.trackd(&[&["spool"], args].concat());
    let text = stdout(&run(&["ls"]));
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').take(2).collect()).collect();
    let at = |second: &str| format!("1970-01-01 00:00:{second}Z");
    assert_eq!(rows, [["tracker", "scheduled at"], ["a", &at("03")], ["a", &at("09")], ["b", &at("07")]]);
    let line: serde_json::Value = serde_json::from_str(&stdout(&run(&["ls", "b", "--json"]))).unwrap();
    assert_eq!((&line["tracker"], &line["scheduled_at"]), (&"b".into(), &"1970-01-01T00:00:07Z".into()));
    assert_eq!(line["bytes"], std::fs::metadata(line["file"].as_str().unwrap()).unwrap().len());
    assert_eq!(stdout(&run(&["check"])), "3 entries, all whole\n");
    assert_eq!(stdout(&run(&["export", "a", "--to", "out"])), "2 payloads copied to out\n");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(home.path("out/a")).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert_eq!(files.len(), 4);
    assert_eq!(std::fs::read(&files[0]).unwrap(), entry("a", 3).body);
    let meta: serde_json::Value = serde_json::from_slice(&std::fs::read(&files[1]).unwrap()).unwrap();
    assert_eq!(meta["scheduled_at"], "1970-01-01T00:00:03Z");
    let again = run(&["export", "a", "--to", "out"]);
    assert!(again.status.code() == Some(1) && stderr(&again).contains("nothing is replaced"), "{again:?}");
    // What is not whole is told and left out; the daemon has not met it yet.
    std::fs::write(line["file"].as_str().unwrap(), "x").unwrap();
    let left_out = run(&["export", "--to", "all"]);
    assert_eq!((left_out.status.code(), stdout(&left_out)), (Some(1), "2 payloads copied to all\n".into()));
    let check = run(&["check"]);
    assert_eq!((check.status.code(), stdout(&check).lines().count()), (Some(1), 2), "{check:?}");
    assert!(stdout(&check).contains("waits\t") && stdout(&check).contains("cut: 1 bytes, expected"), "{check:?}");
}

#[test]
fn what_waits_is_looked_at_and_taken_out_although_the_configuration_has_faults_and_nothing_starts() {
    let home = Home::with("postgres://nobody@%2Fnonexistent/x", &file_tracker("a", RARELY));
    let (spool, _) = Spool::open(&home.path("state/spool"), ROOM).unwrap();
    spool.put(&entry("a", 3)).unwrap();
    let good = std::fs::read_to_string(home.path("config.toml")).unwrap();
    let token = "Bearer {{ credential.of_the_daemon_alone }}";
    home.put("config.toml", format!("{good}http = {{ headers = {{ authorization = \"{token}\" }} }}\noops = 1\n"));
    let run = |args: &[&str]| home.trackd(&[&["spool"], args].concat());
    let outputs = [&["ls"][..], &["ls", "a"], &["ls", "z"], &["check"], &["export", "--to", "out"]].map(run);
    assert_eq!(codes(&outputs), [Some(0); 5], "{outputs:?}");
    assert_eq!(outputs[..3].iter().map(|ls| stdout(ls).lines().count()).collect::<Vec<_>>(), [2, 2, 1]);
    assert!(stderr(&outputs[0]).contains(&format!("faults; the spool in {}", home.path("state/spool").display())));
    assert_eq!(stdout(&outputs[4]), "1 payloads copied to out\n");
    // It takes more to land something, and it is told what; not that there is nothing.
    let file = stdout(&run(&["ls"])).lines().nth(1).unwrap().split('\t').nth(3).unwrap().to_owned();
    std::fs::create_dir_all(home.path("state/spool/bad/a")).unwrap();
    std::fs::rename(&file, file.replace("/entries/", "/bad/")).unwrap();
    let faulty = run(&["replay"]);
    assert_eq!((faulty.status.code(), stdout(&faulty)), (Some(78), String::new()), "{faulty:?}");
    home.put("config.toml", good);
    let away = run(&["replay"]);
    assert_eq!((away.status.code(), stdout(&away)), (Some(69), String::new()), "{away:?}");
    std::fs::remove_file(home.path("config.toml")).unwrap();
    assert_eq!(run(&["--config", "config.toml", "ls"]).status.code(), Some(78));
}

#[test]
fn a_name_that_is_no_text_is_shown_as_far_as_it_can_be() {
    let home = Home::with("postgres://nobody@%2Fnonexistent/x", &file_tracker("a", RARELY));
    std::fs::create_dir_all(home.path("state/spool/bad/a")).unwrap();
    std::fs::write(home.path("state/spool/bad/a").join(std::ffi::OsStr::from_bytes(b"odd\xff")), "x").unwrap();
    for command in [&["spool", "check", "--json"][..], &["spool", "replay", "--json"]] {
        let output = home.trackd(command);
        assert!(output.status.code() == Some(1) && stdout(&output).contains("/bad/a/odd\u{fffd}\""), "{output:?}");
    }
}

#[test]
fn a_copy_for_which_there_is_no_room_is_not_left_half() {
    let home = Home::with("postgres://nobody@%2Fnonexistent/x", &file_tracker("a", RARELY));
    let (spool, _) = Spool::open(&home.path("state/spool"), ROOM).unwrap();
    spool.put(&entry("a", 49)).unwrap();
    // A limit of 1 KiB a file, as a disk that is full.
    let limited = ["-c", "trap '' XFSZ; ulimit -f 1; exec \"$0\" spool export --to out", env!("CARGO_BIN_EXE_trackd")];
    let output = Command::new("bash").args(limited).current_dir(home.path("")).env_remove("RUST_LOG").output().unwrap();
    assert!(output.status.code() == Some(1) && stderr(&output).contains("write out/a/1970"), "{output:?}");
    assert_eq!(std::fs::read_dir(home.path("out/a")).unwrap().count(), 0);
}
