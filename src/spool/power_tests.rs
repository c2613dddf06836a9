//! Loss of power, and of room, at any operation of a story: what was acknowledged is there, nothing else is half there.

use super::behaviour_tests::entry;
use super::disk_tests::{CRASHES, Crash, Flaw, Model};
use super::*;
use std::collections::BTreeMap;
use std::io;

/// What the story has promised so far.
#[derive(Debug, Default, Clone)]
struct Promised {
    /// `put` returned.
    put: Vec<Entry>,
    /// `remove` was begun: there or not.
    removing: Vec<Entry>,
    /// `put` was begun: there or not, but whole.
    begun: Vec<Entry>,
}

/// Two trackers, a plan of their own and a shared one, removals down to the last that needs a plan, and a put after.
fn story(model: &Model, spool: &Spool, promised: &mut Promised) -> Result<(), Error> {
    let shared = |tracker: &str, second| Entry { plan: Bytes::from_static(b"shared"), ..entry(tracker, second) };
    let entries = [entry("a", 1), entry("a", 2), shared("a", 3), shared("b", 1), shared("b", 2)];
    for entry in entries {
        put(model, spool, promised, entry)?;
    }
    for tracker in ["a", "a", "b", "a", "b"] {
        let key = spool.next(tracker).unwrap();
        let of_key = |entry: &Entry| entry.tracker == key.tracker() && entry.scheduled_at == key.scheduled_at();
        let at = promised.put.iter().position(of_key).unwrap();
        let entry = promised.put.remove(at);
        promised.removing.push(entry);
        spool.remove(&key)?;
    }
    put(model, spool, promised, shared("b", 4))
}

fn put(model: &Model, spool: &Spool, promised: &mut Promised, entry: Entry) -> Result<(), Error> {
    promised.begun.push(entry.clone());
    model.put(spool, &entry)?;
    promised.begun.pop();
    promised.put.push(entry);
    Ok(())
}

/// What is not as promised, on a disk after a crash.
fn broken(model: &Model, promised: &Promised) -> Option<String> {
    let spool = model.open();
    let mut there = Vec::new();
    for waiting in spool.waiting() {
        while let Some(key) = spool.next(&waiting.tracker) {
            match spool.load(&key).unwrap() {
                Loaded::Entry(entry) => there.push(*entry),
                other => return Some(format!("a crash left what is not whole: {other:?}")),
            }
            spool.remove(&key).unwrap();
        }
    }
    let lost = promised.put.iter().find(|entry| !there.contains(entry));
    let known = [&promised.put, &promised.removing, &promised.begun];
    let foreign = there.iter().find(|entry| !known.iter().any(|list| list.contains(entry)));
    let left = model.list(Path::new("/plans")).unwrap();
    match (lost, foreign, spool.stats()) {
        (Some(lost), _, _) => Some(format!("{} at {} is lost", lost.tracker, lost.scheduled_at)),
        (_, Some(foreign), _) => Some(format!("{} at {} came from nowhere", foreign.tracker, foreign.scheduled_at)),
        (.., Stats { used: 0, bad: 0, .. }) if left.is_empty() => None,
        (.., stats) => Some(format!("{left:?} left in plans/, {stats:?}")),
    }
}

/// Tells the story with a flaw, the power off after each operation and each kind of crash; the first promise broken.
fn tell(flaw: Option<Flaw>) -> (Option<String>, usize) {
    let mut crashes = 0;
    for off_after in 0.. {
        let model = Model::new();
        (model.state().off_after, model.state().flaw) = (Some(off_after), flaw);
        let mut promised = Promised::default();
        let opened = Spool::open_on(Box::new(model.clone()), Path::new("/"), 1 << 30, None);
        let ended = opened.and_then(|(spool, _)| story(&model, &spool, &mut promised)).is_ok();
        let last = model.state().done.last().cloned().unwrap_or_default();
        for crash in CRASHES {
            let model = model.fork();
            model.crash(crash);
            crashes += 1;
            if let Some(broken) = broken(&model, &promised) {
                return (Some(format!("{crash:?} at \"{last}\": {broken}")), crashes);
            }
        }
        if ended {
            break;
        }
    }
    (None, crashes)
}

/// The syncs of the story without a crash: what each is of.
fn syncs() -> Vec<String> {
    let model = Model::new();
    story(&model, &model.open(), &mut Promised::default()).unwrap();
    let done = model.state().done.clone();
    done.into_iter().filter(|done| done.starts_with("sync")).collect()
}

#[test]
fn what_was_acknowledged_survives_a_crash_at_any_operation_and_nothing_else_is_half_there() {
    let (broken, crashes) = tell(None);
    assert_eq!(broken, None);
    assert!(crashes > 500, "{crashes}");
}

#[test]
fn a_sync_left_out_is_found() {
    let told: Vec<(String, bool)> =
        syncs().into_iter().enumerate().map(|(n, sync)| (sync, tell(Some(Flaw::Forgets(n))).0.is_some())).collect();
    let unfound: Vec<&String> = told.iter().filter(|(_, found)| !found).map(|(sync, _)| sync).collect();
    assert!(told.len() > 15 && unfound.is_empty(), "{told:#?}");
}

#[test]
fn a_sync_that_comes_too_late_is_found() {
    let mut told = BTreeMap::new();
    for (number, sync) in syncs().into_iter().enumerate() {
        let kind = match sync.as_str() {
            sync if sync.starts_with("sync /plans/") => "a plan's contents",
            "sync /plans" => "a plan's name",
            sync if sync.contains(".tmp-") => "an entry's contents",
            _ => continue,
        };
        told.entry(kind).or_insert_with(Vec::new).push(tell(Some(Flaw::Defers(number))).0.is_some());
    }
    // Each of them before the entry's name, not only before `put` returns.
    let always = |found: &Vec<bool>| found.iter().all(|found| *found);
    assert!(told.len() == 3 && told.values().all(always), "{told:?}");
}

#[test]
fn an_entry_found_after_a_kill_lasts_once_it_is_known() {
    for off_after in 0.. {
        let model = Model::new();
        model.state().off_after = Some(off_after);
        let opened = Spool::open_on(Box::new(model.clone()), Path::new("/"), 1 << 30, None);
        let ended = opened.and_then(|(spool, _)| spool.put(&entry("a", 1))).is_ok();
        model.crash(Crash::Kill);
        model.open().put(&entry("a", 1)).unwrap();
        for crash in CRASHES {
            let model = model.fork();
            model.crash(crash);
            let promised = Promised { put: vec![entry("a", 1)], ..Promised::default() };
            assert_eq!(broken(&model, &promised), None, "after {:?}, {crash:?}", model.state().done);
        }
        if ended {
            break;
        }
    }
}

#[test]
fn a_disk_without_room_at_any_operation_costs_that_put_only() {
    for full_at in 0.. {
        let model = Model::new();
        let spool = model.open();
        spool.put(&entry("a", 1)).unwrap();
        let before = model.state().done.len();
        model.state().full_at = Some(before + full_at);
        let put = spool.put(&entry("b", 1));
        let ended = model.state().done.len() <= before + full_at;
        match &put {
            Err(error) => {
                let full = error.as_full().unwrap_or_else(|| panic!("{error}"));
                assert_eq!((full.disk, full.needed), (true, 4096));
                assert!(
                    !spool.has("b", entry("b", 1).scheduled_at) && spool.stats().entries == 1,
                    "{:?}",
                    spool.stats()
                );
                assert_eq!(spool.stats().used, 8192, "{:?}", model.state().done);
            }
            Ok(_) => assert!(ended, "{:?}", model.state().done),
        }
        model.state().full_at = None;
        for again in [entry("b", 1), entry("b", 2)] {
            spool.put(&again).unwrap();
        }
        drop(spool);
        let promised = Promised { put: vec![entry("a", 1), entry("b", 1), entry("b", 2)], ..Promised::default() };
        model.crash(Crash::Lose);
        assert_eq!(broken(&model, &promised), None, "{:?}", model.state().done);
        if ended {
            assert!(full_at > 6, "{full_at}");
            break;
        }
    }
}

#[test]
fn an_entry_that_cannot_be_read_now_still_waits_and_one_that_never_can_is_set_aside() {
    use io::ErrorKind as Kind;
    let model = Model::new();
    let spool = model.open();
    spool.put(&entry("a", 1)).unwrap();
    let key = spool.next("a").unwrap();
    for passing in [Kind::OutOfMemory, Kind::WouldBlock, Kind::TimedOut, Kind::Interrupted] {
        model.state().read_fails = Some(passing);
        assert!(spool.load(&key).is_err());
        assert!(matches!(spool.load(&key).unwrap(), Loaded::Entry(_)));
    }
    model.state().read_fails = Some(Kind::PermissionDenied);
    let Loaded::SetAside(aside) = spool.load(&key).unwrap() else { panic!("not set aside") };
    assert!(aside.reason.starts_with("cannot be read"), "{aside:?}");
    assert_eq!(spool.next("a"), None);
}

#[test]
fn what_cannot_be_moved_is_met_once() {
    let model = Model::new();
    let spool = model.open();
    spool.put(&entry("a", 1)).unwrap();
    let key = spool.next("a").unwrap();
    let done = model.state().done.len();
    (model.state().full_at, model.state().read_fails) = (Some(done), Some(io::ErrorKind::PermissionDenied));
    let Loaded::SetAside(aside) = spool.load(&key).unwrap() else { panic!("not set aside") };
    assert!(aside.file.starts_with("/entries") && aside.reason.contains("it stays there"), "{aside:?}");
    assert_eq!((spool.next("a"), spool.stats().bad), (None, 1));
}
