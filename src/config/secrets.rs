//! Which bytes of the file must not be shown: what `[database]` holds besides its limits, texts of `[vars]`, addresses
//! and passwords in a table they are not for, and of a request the values of headers and query, the body, and of its
//! URL what stands before `@` and after `?`. Of `[alert]` all but its times: the path of a webhook is often the secret.
//! Of a key that is not known, all: `headrs` holds what it would if it were written well, and nobody knows what `tokn` would.
//!
//! In: the tree of one file, the text of all. Out: spans to mask. A line that is broken is masked from its `=` on when its words
//! say that it may hold a secret, for then the tree does not.

use super::fault::Fault;
use super::node::{Entry, Node, Place, Value};
use std::ops::Range;

/// Keys of `[database]` that hold no secret. Any other is the address, or one that is not known: its line is shown, and
/// `password = "…"` is what people try first.
const OPEN: [&str; 7] = [
    "password_file",
    "pool_size",
    "max_overflow",
    "pool_timeout",
    "pool_recycle",
    "pool_pre_ping",
    "statement_timeout",
];

/// Keys of `[alert]` that hold no secret.
const TIMES: [&str; 3] = ["after", "repeat", "timeout"];

/// The spans, in no order.
pub(super) fn spans(root: &Node, text: &str, syntax: &[Fault]) -> Vec<Range<usize>> {
    let mut spans = Vec::new();
    for entry in children(root) {
        match entry.key.as_str() {
            "database" => {
                let closed = children(&entry.node).iter().filter(|e| !OPEN.contains(&e.key.as_str()));
                closed.for_each(|e| all(&e.node, true, &mut spans));
            }
            "alert" => {
                let closed = children(&entry.node).iter().filter(|e| !TIMES.contains(&e.key.as_str()));
                closed.for_each(|e| all(&e.node, true, &mut spans));
            }
            "vars" => all(&entry.node, false, &mut spans),
            "defaults" | "tracker" => requests(&entry.node, &mut spans),
            _ => misplaced(entry, &mut spans),
        }
    }
    spans.extend(syntax.iter().filter_map(|fault| broken(text, fault)));
    spans
}

/// Words of a line that may hold a secret.
const WORDS: [&str; 12] =
    ["url", "header", "query", "body", "auth", "token", "secret", "password", "key", "cookie", "webhook", "command"];

/// Adds those of entries that no reader knows: their keys are at fault, and need to be seen; their texts need not.
pub(super) fn unknown(entries: &[Entry], spans: &mut Vec<Range<usize>>) {
    // Of an address `requests` knows what may be shown.
    entries.iter().filter(|entry| entry.key != "url").for_each(|entry| all(&entry.node, false, spans));
}

fn children(node: &Node) -> &[Entry] {
    match &node.value {
        Value::Table(entries) => entries,
        _ => &[],
    }
}

/// An address or a password in a table that has none, or above all tables: the fault's line is shown.
fn misplaced(entry: &Entry, spans: &mut Vec<Range<usize>>) {
    match &entry.node.value {
        Value::Table(entries) => entries.iter().for_each(|entry| misplaced(entry, spans)),
        Value::Text(text) if text.contains('@') => all(&entry.node, true, spans),
        _ if entry.key.contains("password") || entry.key.contains("webhook") => all(&entry.node, true, spans),
        _ => {}
    }
}

/// What a request holds, wherever it was put: a key in the wrong table is a fault, and its line is shown.
fn requests(node: &Node, spans: &mut Vec<Range<usize>>) {
    match &node.value {
        Value::List(items) => items.iter().for_each(|item| requests(item, spans)),
        Value::Table(entries) => entries.iter().for_each(|entry| match entry.key.as_str() {
            // Names of the user's own.
            "columns" => {}
            "headers" | "query" | "body" => all(&entry.node, true, spans),
            "url" => url(&entry.node, spans),
            key if key.contains("webhook") || key.contains("token") => all(&entry.node, true, spans),
            _ => requests(&entry.node, spans),
        }),
        _ => {}
    }
}

/// Scheme, host and path may be shown, where each byte of the text is known to stand.
fn url(node: &Node, spans: &mut Vec<Range<usize>>) {
    let (Value::Text(text), Place::File { text: Some(start), .. }) = (&node.value, &node.place) else {
        return all(node, true, spans);
    };
    // As far as the last `@`: a password may hold what should have been escaped.
    let user = text.find("://").map_or(0, |scheme| scheme + 3);
    spans.extend(text.rfind('@').filter(|at| *at > user).map(|at| start + user..start + at));
    spans.extend(text.find('?').map(|query| start + query + 1..start + text.len()));
}

/// Every value below; numbers may be shown where only a text can be a secret.
fn all(node: &Node, numbers: bool, spans: &mut Vec<Range<usize>>) {
    match &node.value {
        Value::List(items) => items.iter().for_each(|item| all(item, numbers, spans)),
        Value::Table(entries) => entries.iter().for_each(|entry| all(&entry.node, numbers, spans)),
        Value::Integer(..) | Value::Float(_) if !numbers => {}
        _ => {
            if let Place::File { span: (start, end), .. } = node.place
                && end >= start + 2
            {
                spans.push(start + 1..end - 1);
            }
        }
    }
}

fn broken(text: &str, fault: &Fault) -> Option<Range<usize>> {
    let Place::File { span, .. } = fault.place else { return None };
    let at = (0..=span.0.min(text.len())).rev().find(|&i| text.is_char_boundary(i))?;
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let end = text[at..].find('\n').map_or(text.len(), |newline| at + newline);
    let line = text[start..end].to_lowercase();
    let table =
        text[..start].lines().rev().find(|line| line.trim_start().starts_with('[')).unwrap_or("").to_lowercase();
    let secret = WORDS.iter().any(|word| line.contains(word)) || table.contains("headers") || table.contains("vars");
    let from = text[start..end].find('=').map_or(start, |equals| start + equals + 1);
    secret.then_some(from..end)
}
