//! Behaviour of `trackd man`: pages for everything there is to read about.

use crate::support::daemon::{Home, stdout};
use std::collections::BTreeSet;

fn pages() -> (tempfile::TempDir, BTreeSet<String>) {
    let dir = tempfile::tempdir().unwrap();
    let made = Home::with("embedded", "").trackd(&["man", dir.path().to_str().unwrap()]);
    assert!(made.status.success(), "{made:?}");
    let names = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names = names.collect();
    (dir, names)
}

#[test]
fn every_subcommand_has_a_page_and_trackd_names_it() {
    let (dir, names) = pages();
    let help = stdout(&Home::with("embedded", "").trackd(&["--help"]));
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let commands: Vec<&str> = commands.filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next()).collect();
    let program = std::fs::read_to_string(dir.path().join("trackd.1")).unwrap();
    assert!(commands.contains(&"run") && commands.contains(&"man"), "{help}");
    for command in commands.iter().filter(|command| **command != "help") {
        assert!(names.contains(&format!("trackd-{command}.1")), "{command}: {names:?}");
        assert!(program.contains(&format!("trackd\\-{command}(1)")), "{command}: {program}");
    }
    for section in ["NAME", "SYNOPSIS", "OPTIONS", "\"EXIT STATUS\"", "ENVIRONMENT", "FILES", "\"SEE ALSO\""] {
        assert!(program.contains(&format!("\n.SH {section}\n")), "{section}: {program}");
    }
}

#[test]
fn every_row_of_the_reference_is_a_term_of_the_page() {
    let (dir, _) = pages();
    let page = std::fs::read_to_string(dir.path().join("trackd.toml.5")).unwrap();
    let reference = include_str!("../../docs/configuration.md");
    let mut terms = 0;
    for row in reference.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| key ")) {
        let term = row.trim_start_matches("| ").split(" |").next().unwrap().replace('-', "\\-");
        assert!(page.contains(&format!("\n.TP\n\\fB{term}\\fR")), "{term}");
        terms += 1;
    }
    assert!(terms > 40, "{terms}");
    for heading in reference.lines().filter_map(|line| line.strip_prefix("## ")) {
        assert!(
            page.contains(&format!("\n.SH {heading}\n")) || page.contains(&format!("\n.SH \"{heading}\"\n")),
            "{heading}"
        );
    }
    assert!(!page.contains("](") && !page.contains("```"), "Markdown is left over");
}
