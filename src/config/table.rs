//! `[[tracker.table]]`, and the checks across tables: one writer a table, references that hold.
//!
//! In: a table's node. Out: a `Draft`. Must not know: trackers' other keys, the database.

use super::column;
use super::fault::{self, Fault, quote};
use super::node::{Node, Place};
use super::read::{Fields, Sink};
use super::tracker;
use crate::shape::{Absent, Column, History, OnChange, Program, Table};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// A table as far as it could be read.
#[derive(Debug)]
pub(super) struct Draft {
    /// Its name, where it stands.
    pub(super) name: Option<(String, Place)>,
    /// `None` if anything is missing.
    pub(super) table: Option<Arc<Table>>,
    /// Column, its index, and where `references` stands.
    references: Vec<(usize, Place)>,
}

#[derive(Clone, Copy)]
enum Kind {
    Snapshot,
    Event,
    Change,
    State,
}

/// Reads one table; every fault goes to the sink.
pub(super) fn read(node: &Node, sink: &Sink) -> Draft {
    let Some(mut fields) = sink.keep(Fields::new("table", node, sink).map_err(|fault| fault.about("table"))) else {
        return Draft { name: None, table: None, references: Vec::new() };
    };
    let name = fields.require("name", |node| Ok((table_name(node)?, node.place.clone())));
    let history = history(&mut fields);
    let rows = fields.require("rows", program);
    let columns = fields.require("columns", |node| column::read(node, history, sink)).unwrap_or_default();
    let key = key(&mut fields, history, &columns);
    fields.finish();
    let references =
        columns.iter().enumerate().filter_map(|(i, column)| Some((i, column.references.clone()?))).collect();
    let columns: Option<Vec<Column>> = columns.into_iter().map(|column| column.column).collect();
    let table = match (&name, history, rows, columns) {
        (Some((name, _)), Some(history), Some(rows), Some(mut columns)) => {
            for &index in &key {
                columns[index].required = true;
            }
            Some(Arc::new(Table { name: name.clone(), history, rows, columns, key }))
        }
        _ => None,
    };
    Draft { name, table, references }
}

/// A jq program of the configuration; its fault is placed inside the text.
pub(super) fn program(node: &Node) -> Result<Program, Fault> {
    Program::compile(node.text()?).map_err(|error| Fault::new(node.place.part(error.span), error.message))
}

/// One identifier that needs no quotes.
pub(super) fn is_identifier(text: &str) -> bool {
    text.len() <= 63
        && text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

fn table_name(node: &Node) -> Result<String, Fault> {
    let text = node.text()?;
    let parts: Vec<&str> = text.split('.').collect();
    if parts.len() > 2 || !parts.iter().all(|part| is_identifier(part)) {
        return Err(node
            .fault(format!("expected the name of a table, got {}", quote(text)))
            .hint("small letters, digits and `_`, no digit first, at most 63; with a schema: schema.name"));
    }
    let schema = if parts.len() == 2 { parts[0] } else { "public" };
    if schema == "trackd" || schema == "information_schema" || schema.starts_with("pg_") {
        return Err(node.fault(format!("the schema `{schema}` is not for tables of trackers")));
    }
    Ok(plain(text).to_owned())
}

fn history(fields: &mut Fields<'_>) -> Option<History> {
    let kinds =
        [("snapshot", Kind::Snapshot), ("event", Kind::Event), ("change", Kind::Change), ("state", Kind::State)];
    let kind = fields.require("history", |node| node.word(&kinds));
    let on_change = fields.get("on_change", |node| {
        let value = node.word(&[("ignore", OnChange::Ignore), ("update", OnChange::Update)])?;
        match kind {
            Some(Kind::Event) | None => Ok(value),
            Some(_) => Err(node.fault("only a table with history = \"event\" has it")),
        }
    });
    let absent = fields.get("absent", |node| match kind {
        Some(Kind::Change) => node.word(&[("close", Absent::Close), ("keep", Absent::Keep)]),
        Some(Kind::State) => node.word(&[("keep", Absent::Keep), ("delete", Absent::Delete)]),
        Some(_) => Err(node.fault("only a table with history = \"change\" or \"state\" has it")),
        None => node.word(&[("close", Absent::Close), ("keep", Absent::Keep), ("delete", Absent::Delete)]),
    });
    Some(match kind? {
        Kind::Snapshot => History::Snapshot,
        Kind::Event => History::Event { on_change: on_change.unwrap_or(OnChange::Ignore) },
        Kind::Change => History::Change { absent: absent.unwrap_or(Absent::Close) },
        Kind::State => History::State { absent: absent.unwrap_or(Absent::Keep) },
    })
}

/// The key as indices into the columns.
fn key(fields: &mut Fields<'_>, history: Option<History>, columns: &[column::Draft]) -> Vec<usize> {
    let snapshot = matches!(history, Some(History::Snapshot) | None);
    let sink = fields.sink;
    let read = |node: &Node| {
        let items = node.list()?;
        if items.is_empty() && !snapshot {
            return Err(node.fault("expected at least one column; only a snapshot may have no key"));
        }
        let mut key = Vec::new();
        // Without columns the fault is theirs.
        for item in items.into_iter().filter(|_| !columns.is_empty()) {
            key.extend(sink.keep(key_column(&item, columns, &key).map_err(|fault| fault.about("table.key"))));
        }
        Ok(key)
    };
    let key = if snapshot { fields.get("key", read) } else { fields.require("key", read) };
    key.unwrap_or_default()
}

fn key_column(item: &Node, columns: &[column::Draft], before: &[usize]) -> Result<usize, Fault> {
    let name = item.text()?;
    let Some(index) = columns.iter().position(|column| column.name == name) else {
        let hint = fault::known(name, columns.iter().map(|column| column.name.as_str()), "columns");
        return Err(item.fault(format!("no column is named {}", quote(name))).hint(hint).derived());
    };
    if before.contains(&index) {
        return Err(item.fault(format!("the column `{name}` is named twice")));
    }
    if columns[index].optional {
        return Err(item.fault(format!("the column `{name}` has required = false, but a key is never null")));
    }
    Ok(index)
}

/// One writer a table, and references that name a table's key.
pub(super) fn check_references(trackers: &[tracker::Draft], sink: &Sink) {
    let mut known: HashMap<&str, (&Draft, &str)> = HashMap::new();
    for tracker in trackers {
        let owner = tracker.name.as_ref().map_or("", |(name, _)| name);
        for draft in &tracker.tables {
            let Some((name, place)) = &draft.name else { continue };
            match known.get(name.as_str()) {
                None => drop(known.insert(name, (draft, owner))),
                Some((_, other)) if *other == owner => {
                    sink.push(Fault::new(
                        place.clone(),
                        format!("the table `{name}` is there twice in tracker `{owner}`"),
                    ));
                }
                Some((_, other)) => sink.push(
                    Fault::new(place.clone(), format!("the table `{name}` is written by tracker `{other}` too"))
                        .hint("a table has one writer; give one of them another name"),
                ),
            }
        }
    }
    for draft in trackers.iter().flat_map(|tracker| &tracker.tables) {
        let Some(table) = &draft.table else { continue };
        for (index, place) in &draft.references {
            if let Err(fault) = reference(table, *index, place, &known) {
                sink.push(fault.about("references"));
            }
        }
    }
}

fn reference(table: &Table, index: usize, place: &Place, known: &HashMap<&str, (&Draft, &str)>) -> Result<(), Fault> {
    let column = &table.columns[index];
    let Some(name) = &column.references else { return Ok(()) };
    let Some((target, _)) = known.get(name.as_str()) else {
        let mut names: Vec<&str> = known.keys().copied().collect();
        names.sort_unstable();
        let fault = Fault::new(place.clone(), format!("no table of this configuration is named {}", quote(name)));
        return Err(fault.hint(fault::known(name, names.into_iter(), "tables")).derived());
    };
    // A table at fault has its own words.
    let Some(target) = &target.table else { return Ok(()) };
    let refuse = |why: String| Err(Fault::new(place.clone(), why));
    match (target.history, target.key.as_slice()) {
        (History::Snapshot | History::Change { .. }, _) => {
            refuse(format!("`{name}` has history = \"{}\", expected event or state", target.history.as_str()))
        }
        (History::State { absent: Absent::Delete }, _) => refuse(format!(
            "`{name}` has absent = \"delete\", expected \"keep\": a row that others refer to cannot be deleted"
        )),
        (_, [key]) if target.columns[*key].ty == column.ty => match reaches(target, &table.name, known) {
            true => refuse(format!("`{name}` refers to `{}` in turn, expected no circle", table.name)),
            false => Ok(()),
        },
        (_, [key]) => refuse(format!("the key of `{name}` is {}, expected {}", target.columns[*key].ty, column.ty)),
        (_, key) => refuse(format!("the key of `{name}` has {} columns, expected 1", key.len())),
    }
}

/// Whether following references from `from` leads to the table `goal`.
fn reaches(from: &Table, goal: &str, known: &HashMap<&str, (&Draft, &str)>) -> bool {
    let (mut seen, mut next) = (HashSet::new(), vec![from]);
    while let Some(table) = next.pop() {
        if table.name == goal {
            return true;
        }
        if seen.insert(table.name.as_str()) {
            let targets = table.columns.iter().filter_map(|column| column.references.as_deref());
            next.extend(targets.filter_map(|name| known.get(name)?.0.table.as_deref()));
        }
    }
    false
}

/// `public.x` and `x` are one table, known as `x`.
pub(super) fn plain(name: &str) -> &str {
    name.strip_prefix("public.").unwrap_or(name)
}
