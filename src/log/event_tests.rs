//! Each event once, in the catalog, and logged somewhere.

use super::Event;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::process::Command;

const CATALOG: &str = include_str!("../../systemd/trackd.catalog");

/// Id to subject and text.
fn catalog() -> HashMap<&'static str, (&'static str, &'static str)> {
    let mut entries = HashMap::new();
    for entry in CATALOG.split("\n-- ").skip(1) {
        let (id, rest) = entry.split_once('\n').expect("a line after the id");
        let (head, text) = rest.split_once("\n\n").expect("a text");
        let subject = head.lines().find_map(|line| line.strip_prefix("Subject: ")).expect("a subject");
        assert_eq!(entries.insert(id, (subject, text.trim())), None, "{id} twice");
    }
    entries
}

/// All sources but this directory's, without their tests.
fn sources(dir: &Path, text: &mut String) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("src/log") {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = std::fs::read_to_string(path).unwrap();
            text.push_str(source.split("#[cfg(test)]").next().unwrap());
        }
    }
}

#[test]
fn ids_and_words_are_there_once_and_well_formed() {
    let ids: BTreeSet<_> = Event::ALL.iter().map(|event| event.id()).collect();
    let words: BTreeSet<_> = Event::ALL.iter().map(|event| event.word()).collect();
    assert_eq!((ids.len(), words.len()), (Event::ALL.len(), Event::ALL.len()));
    for id in ids {
        assert!(id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{id}");
    }
    for event in Event::ALL {
        assert_eq!(Event::of(event.word()), Some(*event));
    }
}

#[test]
fn an_id_that_is_in_use_stays() {
    // Somebody's filter may hold it.
    assert_eq!(Event::RunFailed.id(), "77678a626fdd49559e44b4d960c1fc7c");
    assert_eq!(Event::ReloadRefused.id(), "0c687774920e4fbfbc5d07a15fec5180");
}

#[test]
fn the_catalog_has_each_event_and_nothing_else() {
    let catalog = catalog();
    let ids: BTreeSet<_> = Event::ALL.iter().map(|event| event.id()).collect();
    assert_eq!(catalog.keys().copied().collect::<BTreeSet<_>>(), ids);
    for (subject, text) in catalog.values() {
        assert!(!subject.is_empty() && text.len() > 80, "{subject}: {text}");
        assert!(text.lines().all(|line| line.len() <= 100), "{subject}");
    }
}

#[test]
fn the_document_names_each_event() {
    let document = include_str!("../../docs/journal.md");
    for event in Event::ALL {
        let row = document.lines().find(|line| line.contains(&format!("| {} |", event.word())));
        assert!(row.is_some_and(|row| row.contains(event.id())), "{event}");
    }
}

#[test]
fn each_event_is_logged_somewhere() {
    let mut text = String::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut text);
    for event in Event::ALL {
        let name = format!("Event::{event:?}");
        let is_used = |(at, _): (usize, _)| !text[at + name.len()..].starts_with(|c: char| c.is_alphanumeric());
        assert!(text.match_indices(&name).any(is_used), "{name} is logged nowhere");
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "whoever runs the tests is to know")]
fn journalctl_takes_the_catalog() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("usr/lib/systemd/catalog");
    std::fs::create_dir_all(&place).unwrap();
    std::fs::create_dir_all(dir.path().join("var/lib/systemd/catalog")).unwrap();
    std::fs::write(place.join("trackd.catalog"), CATALOG).unwrap();
    let root = format!("--root={}", dir.path().display());
    let Ok(updated) = Command::new("journalctl").args([&root, "--update-catalog"]).output() else {
        eprintln!("skipped: journalctl is not installed");
        return;
    };
    assert!(updated.status.success() && updated.stderr.is_empty(), "{updated:?}");
    let listed = Command::new("journalctl").args([&root, "--list-catalog"]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    for event in Event::ALL {
        let (subject, _) = catalog()[event.id()];
        assert!(listed.contains(&format!("{} trackd: {}", event.id(), subject)), "{event}: {listed}");
    }
}
