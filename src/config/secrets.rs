//! Which bytes of the file must not be shown: `database.url`, values of headers, texts of `[vars]`.
//!
//! In: the tree of the file. Out: spans to mask. A line that is broken is masked from its `=` on when its words
//! say that it may hold a secret, for then the tree does not.

use super::fault::Fault;
use super::node::{Entry, Node, Place, Value};
use std::ops::Range;

/// The spans, in no order.
pub(super) fn spans(root: &Node, text: &str, syntax: &[Fault]) -> Vec<Range<usize>> {
    let mut spans = Vec::new();
    for entry in children(root) {
        match entry.key.as_str() {
            "database" => {
                children(&entry.node).iter().filter(|e| e.key == "url").for_each(|e| all(&e.node, &mut spans))
            }
            "vars" => all(&entry.node, &mut spans),
            "defaults" | "tracker" => headers(&entry.node, &mut spans),
            _ => {}
        }
    }
    spans.extend(syntax.iter().filter_map(|fault| broken(text, fault)));
    spans
}

fn children(node: &Node) -> &[Entry] {
    match &node.value {
        Value::Table(entries) => entries,
        _ => &[],
    }
}

/// Every text below `headers`, wherever that is.
fn headers(node: &Node, spans: &mut Vec<Range<usize>>) {
    match &node.value {
        Value::List(items) => items.iter().for_each(|item| headers(item, spans)),
        Value::Table(entries) => entries.iter().for_each(|entry| match entry.key.as_str() {
            "headers" => all(&entry.node, spans),
            _ => headers(&entry.node, spans),
        }),
        _ => {}
    }
}

fn all(node: &Node, spans: &mut Vec<Range<usize>>) {
    match &node.value {
        Value::List(items) => items.iter().for_each(|item| all(item, spans)),
        Value::Table(entries) => entries.iter().for_each(|entry| all(&entry.node, spans)),
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
    const WORDS: [&str; 8] = ["url", "header", "auth", "token", "secret", "password", "key", "cookie"];
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
