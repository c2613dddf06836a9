//! What shapes a tracker's payloads and where they land, as a value that can be kept and read again.
//!
//! Must not know: sources, the database.

use crate::config::{Config, OnBadRow, Tracker};
use crate::shape::Table;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::sync::Arc;

/// All of a configuration that a payload of one tracker meets.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Recipe {
    /// The tracker's name.
    pub tracker: String,
    /// Its tables, in the order in which they are written.
    pub tables: Vec<Arc<Table>>,
    /// Its tables and those they refer to, which must be there before the first row.
    pub related: Vec<Arc<Table>>,
    /// `$vars`.
    pub vars: Arc<serde_json::Value>,
    /// Whether rows that do not fit are set aside.
    pub on_bad_row: OnBadRow,
}

impl Recipe {
    /// The recipe of a tracker of this configuration.
    pub fn of(config: &Config, tracker: &Tracker) -> Recipe {
        Recipe {
            tracker: tracker.name.clone(),
            tables: tracker.tables.clone(),
            related: related(config, tracker),
            vars: Arc::clone(&config.vars),
            on_bad_row: tracker.on_bad_row,
        }
    }
}

/// The tracker's tables and all that they refer to.
pub fn related(config: &Config, tracker: &Tracker) -> Vec<Arc<Table>> {
    let by_name = |name: &str| config.trackers.iter().flat_map(|other| &other.tables).find(|table| table.name == name);
    let mut seen = HashSet::new();
    let mut open: Vec<&Arc<Table>> = tracker.tables.iter().collect();
    let mut related = Vec::new();
    while let Some(table) = open.pop() {
        if seen.insert(table.name.as_str()) {
            related.push(table.clone());
            open.extend(table.columns.iter().filter_map(|column| column.references.as_deref()).filter_map(by_name));
        }
    }
    related
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Environment};
    use std::path::Path;

    /// What the shipped configuration has not.
    const FURTHER: &str = r#"
        [[tracker]]
        name = "further"
        every = "1m"
        on_bad_row = "fail"
        file = { path = "x" }
        [[tracker.table]]
        name = "other.further"
        history = "change"
        absent = "keep"
        key = ["k"]
        rows = ".rows[] | select(.a > 1)"
        columns.k = { type = "numeric(4,1)", check = "k > 0", index = true }
        columns.at = { type = "timestamptz", format = "%Y-%m-%d %H:%M", default = "2026-01-01 00:00" }
        columns.ms = { type = "timestamptz", format = "unix_ms" }
        columns.all = "text[]"
        columns.raw = { type = "jsonb", jq = ".", required = true }
    "#;

    #[test]
    fn a_kept_recipe_is_the_same_when_it_is_read_again() {
        let shipped = include_str!("../../config.toml");
        let none = Environment::new(Vec::<(String, String)>::new(), false);
        let mut met = 0;
        for text in [shipped, FURTHER] {
            let config = config::parse(text, Path::new("config.toml"), &none).expect("a configuration");
            for tracker in &config.trackers {
                let recipe = Recipe::of(&config, tracker);
                let kept = serde_json::to_vec(&recipe).expect("written");
                let again: Recipe = serde_json::from_slice(&kept).expect("read");
                assert_eq!(format!("{again:?}"), format!("{recipe:?}"));
                assert_eq!(serde_json::to_vec(&again).expect("written"), kept);
                met += 1;
            }
        }
        assert!(met > 1);
    }
}
