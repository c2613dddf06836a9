//! The configuration as a tree in which every value knows its place: a span of a file, or a variable.
//!
//! In: TOML text. Out: `Node`s and the syntax faults. Must not know: which keys there are.

use super::fault::Fault;
use super::files::File;
use std::ops::Range;
use std::sync::Arc;
use toml::de::{DeTable, DeValue};

/// Where a value was written; bytes are those of all files.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// No place inside: the configuration as such.
    Whole,
    /// Bytes of a file.
    File {
        /// Start and end.
        span: (usize, usize),
        /// Where the text of a string begins, if it is written one to one (one line, no escapes).
        text: Option<usize>,
    },
    /// A variable of the environment.
    Variable(Arc<str>),
}

impl Place {
    pub(super) fn span(span: Range<usize>) -> Place {
        Place::File { span: (span.start, span.end), text: None }
    }

    /// The place of a part of this string, as near as is known.
    pub(super) fn part(&self, part: Range<usize>) -> Place {
        match self {
            Place::File { text: Some(start), .. } => Place::span(start + part.start..start + part.end),
            other => other.clone(),
        }
    }
}

/// A value and its place.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// A value; numbers are kept as written.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(String),
    Integer(String, u32),
    Float(String),
    Boolean(bool),
    Datetime(String),
    List(Vec<Node>),
    /// In the order written; keys are unique.
    Table(Vec<Entry>),
    /// The text of a variable, whose type the reader decides; the kind of value it replaces, if any.
    Given(String, Option<&'static str>),
}

/// A key with its value.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) place: Place,
    pub(super) node: Node,
}

impl Value {
    /// TOML's word for it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) | Value::Given(..) => "string",
            Value::Integer(..) => "integer",
            Value::Float(_) => "float",
            Value::Boolean(_) => "boolean",
            Value::Datetime(_) => "datetime",
            Value::List(_) => "array",
            Value::Table(_) => "table",
        }
    }
}

/// The tree of a file, and every syntax fault of it.
pub(super) fn tree(file: File<'_>) -> (Node, Vec<Fault>) {
    let (table, errors) = DeTable::parse_recoverable(file.text);
    let place = |span: Range<usize>| Place::span(span.start + file.start..span.end + file.start);
    let faults = errors
        .iter()
        .map(|error| Fault::new(error.span().map_or(Place::Whole, place), error.message().to_owned()))
        .collect();
    let source = Source { text: file.text, start: file.start };
    let root = Node { place: Place::Whole, value: Value::Table(entries(table.into_inner(), source)) };
    (root, faults)
}

/// What spans of the parser count in, and where that starts in the whole.
#[derive(Clone, Copy)]
struct Source<'s> {
    text: &'s str,
    start: usize,
}

impl Source<'_> {
    fn place(self, span: &Range<usize>, text: Option<usize>) -> Place {
        // The parser puts an empty value at nowhere in place of one that it cannot read: so it is in every file.
        let start = if *span == (0..0) { 0 } else { self.start };
        Place::File { span: (span.start + start, span.end + start), text: text.map(|text| text + start) }
    }
}

/// A single value of TOML, for the text of a variable.
pub(super) fn value(text: &str, place: &Place) -> Option<Node> {
    let parsed = DeValue::parse(text.trim()).ok()?;
    let mut node = node(parsed.into_inner(), 0..0, Source { text, start: 0 });
    relocate(&mut node, place);
    Some(node)
}

fn relocate(node: &mut Node, place: &Place) {
    node.place = place.clone();
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(|item| relocate(item, place)),
        Value::Table(entries) => {
            for entry in entries {
                entry.place = place.clone();
                relocate(&mut entry.node, place);
            }
        }
        _ => {}
    }
}

fn entries(table: DeTable<'_>, source: Source<'_>) -> Vec<Entry> {
    let mut entries: Vec<(usize, Entry)> = table
        .into_iter()
        .map(|(key, value)| {
            let (place, start) = (source.place(&key.span(), None), key.span().start);
            let span = value.span();
            (start, Entry { key: key.into_inner().into_owned(), place, node: node(value.into_inner(), span, source) })
        })
        .collect();
    // toml sorts by name; the order of columns is the order written.
    entries.sort_by_key(|(start, _)| *start);
    entries.into_iter().map(|(_, entry)| entry).collect()
}

fn node(value: DeValue<'_>, span: Range<usize>, source: Source<'_>) -> Node {
    let text = match &value {
        DeValue::String(text) => one_to_one(source.text, &span, text),
        _ => None,
    };
    let place = source.place(&span, text);
    let value = match value {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(number) => Value::Integer(number.as_str().to_owned(), number.radix()),
        DeValue::Float(number) => Value::Float(number.as_str().to_owned()),
        DeValue::Boolean(yes) => Value::Boolean(yes),
        DeValue::Datetime(datetime) => Value::Datetime(datetime.to_string()),
        DeValue::Array(items) => Value::List(
            items
                .into_iter()
                .map(|item| {
                    let span = item.span();
                    node(item.into_inner(), span, source)
                })
                .collect(),
        ),
        DeValue::Table(table) => Value::Table(entries(table, source)),
    };
    Node { place, value }
}

/// Where the string's own text starts in the file, if each byte of it stands there unchanged.
fn one_to_one(source: &str, span: &Range<usize>, text: &str) -> Option<usize> {
    let start = span.start + 1;
    (source.get(start..start + text.len()) == Some(text) && span.len() == text.len() + 2).then_some(start)
}
