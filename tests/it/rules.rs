//! The import rules of `lib.rs`, enforced on the source text (comments and strings do not count).

use std::path::{Path, PathBuf};

/// A room, words that must not appear in its code, and why.
const RULES: &[(&[&str], &[&str], &str)] = &[
    (
        &["class.rs", "schedule", "shape", "status.rs", "status"],
        &[
            "tokio",
            "tokio_postgres",
            "bb8",
            "reqwest",
            "hyper",
            "tracing",
            "crate::config",
            "crate::store",
            "crate::source",
            "crate::clock",
            "Timestamp::now",
            "SystemTime",
            "Instant::now",
            "std::env",
            "std::fs",
            "std::process",
        ],
        "pure rooms decide by values alone",
    ),
    (
        &["config"],
        &["tokio", "reqwest", "crate::daemon", "crate::store", "crate::source", "crate::run"],
        "configuration is read, not acted on",
    ),
    (
        &["source"],
        &["crate::store", "crate::shape", "crate::daemon", "tokio_postgres"],
        "a source knows no rows and no database",
    ),
    (
        &["store"],
        &["reqwest", "crate::source", "crate::config", "crate::daemon", "crate::run"],
        "the store is a library of its own",
    ),
    (
        &["run.rs", "run"],
        &["crate::daemon", "crate::admin", "crate::cli", "reqwest", "tokio_postgres"],
        "a run does not know who runs it",
    ),
    (
        &["daemon"],
        &["tokio_postgres", "bb8", "reqwest", "axum", "crate::store", "crate::source", "crate::cli"],
        "the daemon runs opaque work",
    ),
    (
        &["admin"],
        &["tokio_postgres", "crate::store", "crate::run", "crate::source", "crate::config"],
        "pages show status values",
    ),
    (
        &["spool"],
        &[
            "tokio",
            "tokio_postgres",
            "bb8",
            "reqwest",
            "hyper",
            "tracing",
            "crate::blocking",
            "crate::clock",
            "crate::config",
            "crate::daemon",
            "crate::run",
            "crate::shape",
            "crate::source",
            "crate::store",
            "std::env",
        ],
        "the spool keeps bytes and names, whatever they are for",
    ),
    (&["blocking.rs"], &["crate"], "a thread does not know what it works at"),
    (&["lockfile.rs"], &["crate::", "tokio"], "a lock does not know what it protects"),
    (
        &[
            "admin",
            "blocking.rs",
            "class.rs",
            "clock.rs",
            "config",
            "daemon",
            "demo",
            "lockfile.rs",
            "log",
            "log.rs",
            "run",
            "run.rs",
            "schedule",
            "shape",
            "source",
            "spool",
            "status.rs",
            "status",
            "store",
        ],
        &["crate::cli"],
        "nothing imports the command line",
    ),
];

/// Allowed in these files only.
const ONLY_IN: &[(&str, &[&str], &str)] = &[
    ("Timestamp::now(", &["clock.rs"], "one place reads the wall clock"),
    ("SystemTime::now(", &[], "one place reads the wall clock"),
    ("process::exit", &[], "main returns its code"),
    (".unwrap()", &[], "an expect says which invariant holds"),
];

/// Lines of a file before its tests.
const LONGEST: usize = 420;

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => files(&path, found),
            false if path.extension().is_some_and(|extension| extension == "rs") => found.push(path),
            false => {}
        }
    }
}

/// Each source file's path below `src`, its text, and its code before the tests, without comments and strings.
fn sources() -> Vec<(String, String, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    files(&src, &mut paths);
    let read = |path: PathBuf| {
        let name = path.strip_prefix(&src).unwrap().display().to_string();
        let text = std::fs::read_to_string(&path).unwrap();
        let code =
            if name.ends_with("_tests.rs") { String::new() } else { code(text.split("#[cfg(test)]").next().unwrap()) };
        (name, text, code)
    };
    paths.into_iter().map(read).collect()
}

fn code(text: &str) -> String {
    let without_comments = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    let line = |line: &str| line.split('"').step_by(2).collect::<Vec<_>>().join("\"\"");
    without_comments.map(line).collect::<Vec<_>>().join("\n")
}

fn is_in(file: &str, room: &str) -> bool {
    file == room || file.starts_with(&format!("{room}/"))
}

#[test]
fn rooms_import_only_what_they_may_know() {
    let mut broken = Vec::new();
    for (file, _, code) in sources() {
        for (rooms, words, why) in RULES {
            if !rooms.iter().any(|room| is_in(&file, room)) {
                continue;
            }
            for (number, line) in code.lines().enumerate() {
                let names = |word: &&&str| {
                    line.match_indices(**word).any(|(at, _)| {
                        let before = line[..at].chars().next_back();
                        let after = line[at + word.len()..].chars().next();
                        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
                            && !after.is_some_and(|c| c.is_alphanumeric() || c == '_')
                    })
                };
                if let Some(word) = words.iter().find(names) {
                    broken.push(format!("src/{file}:{}: mentions {word}, but {why}", number + 1));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn some_things_have_one_place() {
    let mut broken = Vec::new();
    for (file, _, code) in sources() {
        for (word, places, why) in ONLY_IN {
            if code.contains(word) && !places.contains(&file.as_str()) {
                broken.push(format!("src/{file}: {word}: {why}"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for_and_stays_short() {
    let mut broken = Vec::new();
    for (file, text, _) in sources() {
        let lines = text.split("#[cfg(test)]").next().unwrap().lines().count();
        if !text.starts_with("//!") && !file.ends_with("_tests.rs") {
            broken.push(format!("src/{file}: does not open with //!"));
        }
        if lines > LONGEST {
            broken.push(format!("src/{file}: {lines} lines without its tests, at most {LONGEST}"));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_rules_see_what_they_forbid() {
    assert!(code("use tokio::sync; // x\n").contains("tokio"));
    assert!(!code("let a = \"tokio\"; // tokio\n").contains("tokio"));
}

#[test]
fn the_template_unit_is_the_unit_but_for_its_names() {
    let read =
        |name: &str| std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(name)).unwrap();
    let template = read("trackd@.service");
    let (_, template) = template.split_once("[Unit]").unwrap();
    let named = template
        .replace("--config /etc/trackd/%i.toml ", "")
        .replace("trackd-%i", "trackd")
        .replace("trackd %i:", "trackd:");
    assert_eq!(format!("[Unit]{named}"), read("trackd.service"));
}
