//! What the room promises, on a real disk.

use super::*;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use tempfile::TempDir;

pub(super) fn entry(tracker: &str, second: i64) -> Entry {
    let at = |second| Timestamp::from_second(second).unwrap();
    Entry {
        tracker: tracker.to_owned(),
        scheduled_at: at(second),
        kind: Kind::CatchUp,
        attempt: 2,
        started_at: at(second + 1),
        fetched_at: at(second + 2),
        response: serde_json::json!({"status": 200, "headers": {"etag": "\"x\""}, "url": "http://h/"}),
        plan: Bytes::from(format!("plan of {tracker}")),
        body: Bytes::from(format!("{{\"at\": {second}}}\n")),
    }
}

const ROOM: u64 = 1 << 30;

fn home() -> (TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("state/spool");
    (home, dir)
}

fn opened() -> (TempDir, PathBuf, Spool) {
    let (home, dir) = home();
    let spool = open(&dir);
    (home, dir, spool)
}

fn open(dir: &Path) -> Spool {
    let (spool, aside) = Spool::open(dir, ROOM).unwrap();
    assert_eq!(aside, []);
    spool
}

/// Lands all of a tracker: what was whole, and what was set aside.
fn drain(spool: &Spool, tracker: &str) -> (Vec<Entry>, Vec<SetAside>) {
    let (mut whole, mut aside) = (Vec::new(), Vec::new());
    while let Some(key) = spool.next(tracker) {
        match spool.load(&key).unwrap() {
            Loaded::Entry(entry) => {
                spool.remove(&key).unwrap();
                whole.push(*entry);
            }
            Loaded::SetAside(bad) => aside.push(bad),
            Loaded::Gone => panic!("nobody removes beside us"),
        }
    }
    (whole, aside)
}

fn seconds(entries: &[Entry]) -> Vec<i64> {
    entries.iter().map(|entry| entry.scheduled_at.as_second()).collect()
}

fn file_of(dir: &Path, entry: &Entry) -> PathBuf {
    let (listed, _) = Look::new(dir).entries().unwrap();
    let of = |listed: &&Listed| (&listed.tracker, listed.scheduled_at) == (&entry.tracker, entry.scheduled_at);
    listed.iter().find(of).unwrap().file.clone()
}

fn files(dir: PathBuf) -> usize {
    std::fs::read_dir(dir).unwrap().count()
}

#[test]
fn a_payload_comes_back_with_all_that_makes_its_run_also_after_a_restart() {
    let (_home, dir) = home();
    let put = [entry("a", 2), entry("B/../é", 1), entry("a", 1), Entry { body: Bytes::new(), ..entry("a", 3) }];
    let spool = open(&dir);
    for entry in &put {
        assert_eq!(spool.put(entry).unwrap(), Put::Stored);
    }
    drop(spool);
    let spool = open(&dir);
    let (a, bad) = drain(&spool, "a");
    assert_eq!((a.as_slice(), bad), (&[put[2].clone(), put[0].clone(), put[3].clone()][..], vec![]));
    assert_eq!(drain(&spool, "B/../é").0, [put[1].clone()]);
    assert_eq!(files(dir.join("plans")), 0, "a plan goes with the last entry that needs it");
    assert_eq!(spool.stats(), Stats { entries: 0, bytes: 0, oldest: None, bad: 0, used: 0, limit: ROOM });
}

#[test]
fn trackers_wait_by_their_oldest_instant_and_each_in_order() {
    let (_home, dir, spool) = opened();
    for (tracker, second) in [("b", 9), ("a", 5), ("c", 7), ("a", 8), ("b", 1)] {
        spool.put(&entry(tracker, second)).unwrap();
    }
    let waiting = |spool: &Spool| -> Vec<(String, i64, u64)> {
        spool.waiting().into_iter().map(|w| (w.tracker, w.oldest.as_second(), w.entries)).collect()
    };
    let expected = [("b".to_owned(), 1, 2), ("a".into(), 5, 2), ("c".into(), 7, 1)];
    assert_eq!(waiting(&spool), expected);
    let stats = spool.stats();
    assert_eq!((stats.entries, stats.bytes, stats.oldest), (5, 5 * 4096, Timestamp::from_second(1).ok()));
    assert_eq!(stats.used, 5 * 4096 + 3 * 4096, "with the plans");
    drop(spool);
    let spool = open(&dir);
    assert_eq!((waiting(&spool), spool.stats()), (expected.into(), stats));
    assert_eq!(spool.next("nobody"), None);
    assert!(spool.has("a", Timestamp::from_second(8).unwrap()) && !spool.has("a", Timestamp::from_second(9).unwrap()));
}

#[test]
fn a_second_payload_of_an_instant_keeps_the_first() {
    let (_home, dir, spool) = opened();
    let second = Entry { body: Bytes::from_static(b"later"), plan: Bytes::from_static(b"other"), ..entry("a", 1) };
    assert_eq!(spool.put(&entry("a", 1)).unwrap(), Put::Stored);
    assert_eq!(spool.put(&second).unwrap(), Put::Known);
    drop(spool);
    let spool = open(&dir);
    assert_eq!(spool.put(&second).unwrap(), Put::Known);
    assert_eq!(spool.stats().entries, 1);
    assert_eq!(drain(&spool, "a").0, [entry("a", 1)]);
}

#[test]
fn a_first_payload_that_is_not_whole_makes_way_for_a_second() {
    let (_home, dir, spool) = opened();
    spool.put(&entry("a", 1)).unwrap();
    std::fs::write(file_of(&dir, &entry("a", 1)), "").unwrap();
    let Put::Replaced(aside) = spool.put(&entry("a", 1)).unwrap() else { panic!("not replaced") };
    assert!(aside.reason.starts_with("empty") && aside.file.starts_with(dir.join("bad/a")), "{aside:?}");
    assert_eq!(drain(&spool, "a").0, [entry("a", 1)]);
}

#[test]
fn two_daemons_cannot_own_one_spool() {
    let (_home, dir, spool) = opened();
    let error = Spool::open(&dir, ROOM).unwrap_err();
    assert!(error.is_owned());
    assert_eq!(error.to_string(), format!("open spool {}: owned by process {}", dir.display(), std::process::id()));
    drop(spool);
    open(&dir);
}

#[test]
fn nobody_else_may_read_it() {
    let (_home, dir) = home();
    open(&dir).put(&entry("a", 1)).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let file = file_of(&dir, &entry("a", 1));
    assert_eq!((mode(&dir), mode(file.parent().unwrap()), mode(&file)), (0o700, 0o700, 0o600));
    assert_ne!(mode(dir.parent().unwrap()) & 0o011, 0, "who passes through the state directory still does");
}

#[test]
fn a_full_spool_says_so_and_removes_nothing() {
    let (_home, dir) = home();
    let limit = 3 * 4096;
    let (spool, _) = Spool::open(&dir, limit).unwrap();
    spool.put(&entry("a", 1)).unwrap();
    spool.put(&entry("a", 2)).unwrap();
    let error = spool.put(&entry("a", 3)).unwrap_err();
    let full = Full { used: limit, bad: 0, limit, needed: 4096, disk: false };
    assert_eq!(error.as_full(), Some(&full));
    assert_eq!(error.to_string(), "spool: full: 12288 bytes used of 12288, 4096 needed");
    let error = spool.put(&entry("b", 3)).unwrap_err();
    assert_eq!(error.as_full().map(|full| full.needed), Some(8192), "a plan takes room, too");
    assert_eq!((spool.stats().entries, spool.stats().used), (2, limit));
    spool.set_limit(limit + 8192);
    assert_eq!(spool.put(&entry("b", 3)).unwrap(), Put::Stored);
    assert_eq!(seconds(&drain(&spool, "a").0), [1, 2]);
}

#[test]
fn bad_files_take_room_until_somebody_removes_them() {
    let (_home, dir, spool) = opened();
    spool.put(&entry("a", 1)).unwrap();
    std::fs::write(file_of(&dir, &entry("a", 1)), "x").unwrap();
    assert_eq!(drain(&spool, "a").1.len(), 1);
    let full = |spool: &Spool| {
        spool.set_limit(1);
        spool.put(&entry("a", 2)).unwrap_err().as_full().unwrap().clone()
    };
    assert_eq!(full(&spool).bad, 8192);
    assert!(spool.put(&entry("a", 2)).unwrap_err().hint().unwrap().contains("bad/"));
    drop(spool);
    let spool = open(&dir);
    assert_eq!((spool.stats().bad, full(&spool).bad), (1, 8192), "with its reason");
    assert_eq!(files(dir.join("plans")), 1, "who mends it needs its plan");
    drop(spool);
    std::fs::remove_dir_all(dir.join("bad/a")).unwrap();
    let spool = open(&dir);
    assert_eq!((spool.stats().bad, spool.stats().used, files(dir.join("plans"))), (0, 0, 0));
}

#[test]
fn what_is_no_whole_entry_is_set_aside_with_its_reason_and_the_others_come() {
    let (_home, dir, spool) = opened();
    (1..=7).for_each(|second| assert_eq!(spool.put(&entry("a", second)).unwrap(), Put::Stored));
    let file = |second| file_of(&dir, &entry("a", second));
    let change = |second, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = std::fs::read(file(second)).unwrap();
        change(&mut bytes);
        std::fs::write(file(second), bytes).unwrap();
    };
    change(1, &|bytes| bytes.clear());
    change(2, &|bytes| bytes.truncate(300));
    change(3, &|bytes| *bytes.last_mut().unwrap() ^= 1);
    change(4, &|bytes| bytes.fill(0));
    // Whole, but of another instant.
    std::fs::copy(file(7), file(5)).unwrap();
    let (whole, aside) = drain(&spool, "a");
    assert_eq!(seconds(&whole), [6, 7]);
    for (aside, reason) in
        aside.iter().zip(["empty, expected", "cut: 300 bytes", "flipped: line 1", "foreign: does", "holds tracker"])
    {
        assert!(aside.reason.starts_with(reason), "{aside:?}");
        assert!(aside.file.starts_with(dir.join("bad/a")) && aside.file.exists());
        let beside = std::fs::read_to_string(format!("{}.reason", aside.file.display())).unwrap();
        assert_eq!(beside, format!("{}\n", aside.reason));
    }
    assert_eq!((aside.len(), spool.stats().bad, spool.stats().entries), (5, 5, 0));
    assert_eq!(Look::new(&dir).set_aside().unwrap(), aside);
    drop(spool);
    let spool = open(&dir);
    assert_eq!((spool.stats().bad, spool.stats().entries), (5, 0));
}

#[test]
fn what_people_take_from_bad_is_no_longer_counted_and_a_name_that_is_there_twice_keeps_its_plan() {
    let (_home, dir, spool) = opened();
    for _ in 0..2 {
        spool.put(&entry("a", 1)).unwrap();
        spool.set_aside(&spool.next("a").unwrap(), "its run failed: …".into()).unwrap();
    }
    let (listed, others) = Bad::new(&dir).files().unwrap();
    assert_eq!((listed.len(), others.len(), spool.stats().bad), (2, 0, 2));
    drop(spool);
    let spool = open(&dir);
    Bad::new(&dir).landed(&listed[0].tracker, &listed[0].file).unwrap();
    Bad::new(&dir).stays(&listed[1].tracker, &listed[1].file, "another\nreason").unwrap();
    let before = spool.stats().used;
    spool.recount_bad().unwrap();
    assert_eq!((spool.stats().bad, spool.stats().used), (1, before - 2 * 4096));
    assert_eq!(Look::new(&dir).set_aside().unwrap()[0].reason, "another reason");
    drop(spool);
    let spool = open(&dir);
    let Found::Whole(found, _) = Bad::new(&dir).read(&listed[1].tracker, &listed[1].file).unwrap() else {
        panic!("its plan is gone")
    };
    assert_eq!((*found, spool.stats().bad), (entry("a", 1), 1));
    Bad::new(&dir).landed(&listed[1].tracker, &listed[1].file).unwrap();
    assert_eq!(files(dir.join("bad/a")), 0);
}

#[test]
fn what_root_writes_in_the_spool_of_another_account_is_that_accounts() {
    let (_home, dir, spool) = opened();
    spool.put(&entry("a", 1)).unwrap();
    spool.set_aside(&spool.next("a").unwrap(), "its run failed: …".into()).unwrap();
    let (listed, _) = Bad::new(&dir).files().unwrap();
    let owner = |path: &Path| std::fs::metadata(path).map(|it| (it.uid(), it.gid())).unwrap();
    // Without root there is no other account.
    let _ = std::os::unix::fs::chown(dir.join("bad/a"), Some(4711), Some(4712));
    Bad::new(&dir).stays("a", &listed[0].file, "another reason").unwrap();
    let reason = format!("{}.reason", listed[0].file.display());
    assert_eq!(owner(Path::new(&reason)), owner(&dir.join("bad/a")));
}

#[test]
fn a_mended_file_that_is_moved_back_waits_again() {
    let (_home, dir, spool) = opened();
    spool.put(&entry("a", 1)).unwrap();
    let place = file_of(&dir, &entry("a", 1));
    let whole = std::fs::read(&place).unwrap();
    std::fs::write(&place, &whole[1..]).unwrap();
    let bad = drain(&spool, "a").1.remove(0).file;
    drop(spool);
    std::fs::write(&bad, whole).unwrap();
    std::fs::create_dir_all(place.parent().unwrap()).unwrap();
    std::fs::rename(&bad, &place).unwrap();
    assert_eq!(drain(&open(&dir), "a").0, [entry("a", 1)]);
}

#[test]
fn foreign_names_are_set_aside_at_the_start_and_leftovers_of_a_crash_removed() {
    let (_home, dir) = home();
    open(&dir).put(&entry("a", 1)).unwrap();
    let entries = dir.join("entries");
    for name in ["a/notes.txt", "a/.tmp-7", "stray", "a/20251118T103000.000000000Z"] {
        std::fs::write(entries.join(name), "x").unwrap();
    }
    for name in ["Upper", "empty", "a/dir"] {
        std::fs::create_dir(entries.join(name)).unwrap();
    }
    std::fs::write(dir.join("plans/.tmp-3"), "half").unwrap();
    std::fs::write(dir.join("plans").join("0".repeat(64)), "of nobody").unwrap();
    std::fs::create_dir(dir.join("lost+found")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, entries.join("a/pipe"), rustix::fs::Mode::RUSR).unwrap();
    std::os::unix::fs::symlink("/dev/zero", entries.join("a/20251118T103000.000000000Z.9.0f86d081884c7d65")).unwrap();
    let (spool, aside) = Spool::open(&dir, ROOM).unwrap();
    let mut files: Vec<String> =
        aside.iter().map(|aside| aside.file.strip_prefix(dir.join("bad")).unwrap().display().to_string()).collect();
    files.sort();
    let link = "a/20251118T103000.000000000Z.9.0f86d081884c7d65";
    assert_eq!(files, ["Upper", "a/20251118T103000.000000000Z", link, "a/dir", "a/notes.txt", "a/pipe", "stray"]);
    assert!(
        !entries.join("a/.tmp-7").exists() && !dir.join("plans/.tmp-3").exists() && !entries.join("empty").exists()
    );
    assert_eq!(self::files(dir.join("plans")), 1, "a plan that nothing needs is removed");
    assert_eq!(drain(&spool, "a").0, [entry("a", 1)]);
    drop(spool);
    open(&dir);
}

#[test]
fn an_entry_whose_plan_is_not_whole_is_set_aside_and_the_next_put_writes_the_plan_anew() {
    let (_home, dir, spool) = opened();
    let plan = dir.join("plans").join(format::sha256(&entry("a", 1).plan));
    for (second, damage) in [(1, Some("x")), (2, None)] {
        spool.put(&entry("a", second)).unwrap();
        match damage {
            Some(text) => std::fs::write(&plan, text).unwrap(),
            None => std::fs::remove_file(&plan).unwrap(),
        }
        let (whole, aside) = drain(&spool, "a");
        assert!(whole.is_empty() && aside[0].reason.starts_with("its plan "), "{aside:?}");
    }
    spool.put(&entry("a", 3)).unwrap();
    assert_eq!(seconds(&drain(&spool, "a").0), [3]);
}

#[test]
fn a_plan_is_shared_and_goes_with_the_last_that_needs_it() {
    let (_home, dir, spool) = opened();
    let shared = |tracker: &str, second| Entry { plan: Bytes::from_static(b"shared"), ..entry(tracker, second) };
    [shared("a", 1), shared("a", 2), shared("b", 1)].iter().for_each(|entry| drop(spool.put(entry).unwrap()));
    let plans = || files(dir.join("plans"));
    assert_eq!(plans(), 1);
    drain(&spool, "a");
    assert_eq!(plans(), 1);
    drop(spool);
    let spool = open(&dir);
    drain(&spool, "b");
    assert_eq!((plans(), spool.stats().used), (0, 0));
    spool.put(&shared("a", 3)).unwrap();
    assert_eq!(drain(&spool, "a").0, [shared("a", 3)]);
}

#[test]
fn an_entry_that_vanished_is_gone_and_an_index_that_lags_repairs_itself() {
    let (_home, dir, spool) = opened();
    spool.put(&entry("a", 1)).unwrap();
    let key = spool.next("a").unwrap();
    std::fs::remove_dir_all(dir.join("entries/a")).unwrap();
    assert!(matches!(spool.load(&key).unwrap(), Loaded::Gone));
    assert_eq!((spool.next("a"), spool.set_aside(&key, "x".into())), (None, None));
    spool.remove(&key).unwrap();
    // The directory is missing as well: the first try finds that out.
    assert!(spool.put(&entry("a", 2)).is_err());
    assert_eq!(spool.put(&entry("a", 2)).unwrap(), Put::Stored);
    assert_eq!(seconds(&drain(&spool, "a").0), [2]);
}

#[test]
fn who_cannot_land_an_entry_may_set_it_aside() {
    let (_home, _, spool) = opened();
    spool.put(&entry("a", 1)).unwrap();
    let aside = spool.set_aside(&spool.next("a").unwrap(), "no tracker\nof this name".into()).unwrap();
    assert_eq!(aside.reason, "no tracker of this name");
    assert_eq!((spool.next("a"), spool.stats().bad), (None, 1));
    assert_eq!(spool.put(&entry("a", 1)).unwrap(), Put::Stored);
    let again = spool.set_aside(&spool.next("a").unwrap(), "again".into()).unwrap();
    assert_ne!(again.file, aside.file);
    assert!(aside.file.exists() && again.file.exists());
}

#[test]
fn names_that_no_directory_can_have_are_refused() {
    let (_home, _, spool) = opened();
    for tracker in ["".to_owned(), "x".repeat(256)] {
        assert!(spool.put(&entry(&tracker, 1)).unwrap_err().to_string().starts_with("spool tracker \""));
    }
    assert_eq!(spool.stats().used, 0);
}

#[test]
fn many_may_put_and_land_at_the_same_time() {
    let (_home, dir, spool) = opened();
    let names = ["a", "b", "c", "d"];
    let landed = std::thread::scope(|scope| {
        let putters: Vec<_> = names
            .map(|tracker| {
                let spool = &spool;
                let shared = move |second| Entry { plan: Bytes::from_static(b"shared"), ..entry(tracker, second) };
                scope.spawn(move || (0..40).for_each(|second| drop(spool.put(&shared(second)).unwrap())))
            })
            .into();
        let mut landed = 0;
        while landed < names.len() * 40 {
            landed += names
                .iter()
                .map(|tracker| drain(&spool, tracker))
                .map(|(whole, aside)| whole.len() + 1000 * aside.len())
                .sum::<usize>();
            std::thread::yield_now();
            assert!(landed > 0 || putters.iter().any(|putter| !putter.is_finished()) || spool.stats().entries > 0);
        }
        landed
    });
    assert_eq!((landed, spool.stats().used, files(dir.join("plans"))), (160, 0, 0));
}
