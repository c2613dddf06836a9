//! All faults of a configuration, each with its place, and how they are shown.
//!
//! In: faults as the reader finds them. Out: rustc-like reports, or one line each for the journal. What `secrets`
//! finds is masked in the lines that are shown. Must not know: which keys there are.

use super::node::Place;
use annotate_snippets::{AnnotationKind, Level, Origin, Renderer, Snippet};
use std::fmt;
use std::ops::Range;

/// One fault. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub(super) place: Place,
    /// The key it is about.
    key: Option<String>,
    message: String,
    hint: Option<String>,
    /// May only be there because something near it is broken.
    pub(super) derived: bool,
}

impl Fault {
    pub(super) fn new(place: Place, message: impl Into<String>) -> Fault {
        Fault { place, key: None, message: message.into(), hint: None, derived: false }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Fault {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn derived(mut self) -> Fault {
        self.derived = true;
        self
    }

    /// Says which key it is about, once.
    pub(super) fn about(mut self, key: &str) -> Fault {
        self.key.get_or_insert_with(|| key.to_owned());
        self
    }

    /// What is wrong: one line, lower case.
    pub fn message(&self) -> String {
        match &self.key {
            Some(key) => format!("`{key}`: {}", self.message),
            None => self.message.clone(),
        }
    }

    /// What to do about it.
    pub fn help(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

/// Every fault of one configuration, in the order of the file; at least one.
#[derive(Clone, PartialEq, Eq)]
pub struct Faults {
    /// The file, as it was named.
    name: String,
    /// Its text, secrets masked.
    text: String,
    list: Vec<Fault>,
}

impl Faults {
    /// Sorts, drops doubles, masks `secrets` (bytes of `text`).
    pub(super) fn new(name: String, text: &str, mut list: Vec<Fault>, secrets: &[Range<usize>]) -> Faults {
        // A fault of the defaults is met again in each tracker; the sort is stable, and the defaults were read first.
        list.sort_by(|a, b| (&a.place, &a.message).cmp(&(&b.place, &b.message)));
        list.dedup_by(|a, b| a.place == b.place && a.message == b.message);
        Faults { name, text: mask(text, secrets), list }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Never true of a value that was returned as an error.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The faults, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.list.iter()
    }

    /// `config.toml:12:3: message; hint`, one line a fault.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.list.iter().map(|fault| {
            let place = match &fault.place {
                Place::Whole => self.name.clone(),
                Place::Variable(name) => name.to_string(),
                Place::File { span, .. } => {
                    let (line, column) = position(&self.text, span.0);
                    format!("{}:{line}:{column}", self.name)
                }
            };
            match &fault.hint {
                Some(hint) => format!("{place}: {}; {hint}", fault.message()),
                None => format!("{place}: {}", fault.message()),
            }
        })
    }

    /// The report for people, and a last line that counts.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let mut report = String::new();
        for fault in &self.list {
            let title = Level::ERROR.primary_title(fault.message());
            let group = match &fault.place {
                Place::Whole => title.element(Origin::path(self.name.as_str())),
                Place::Variable(name) => title.element(Origin::path(format!("environment variable {name}"))),
                Place::File { span, .. } => title.element(
                    Snippet::source(self.text.as_str())
                        .path(self.name.as_str())
                        .annotation(AnnotationKind::Primary.span(on_one_line(&self.text, *span))),
                ),
            };
            let group = match &fault.hint {
                Some(hint) => group.element(Level::HELP.message(hint.as_str())),
                None => group,
            };
            report.push_str(&renderer.render(&[group]));
            report.push_str("\n\n");
        }
        let plural = if self.list.len() == 1 { "fault" } else { "faults" };
        report.push_str(&format!("{} {plural} in {}\n", self.list.len(), self.name));
        report
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(false).trim_end())
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.lines()).finish()
    }
}

impl std::error::Error for Faults {}

/// "did you mean `x`? known keys: …", for a word that is not among `words`.
pub(super) fn known<'a>(word: &str, words: impl Iterator<Item = &'a str>, what: &str) -> String {
    let words: Vec<&str> = words.collect();
    let list = words.join(", ");
    match nearest(word, &words) {
        Some(near) => format!("did you mean `{near}`? known {what}: {list}"),
        None => format!("known {what}: {list}"),
    }
}

fn nearest<'a>(word: &str, words: &[&'a str]) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(1);
    words
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), *candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// A text of the user inside a message: one line, not endless.
pub(super) fn quote(text: &str) -> String {
    const LONGEST: usize = 60;
    let shown: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    match text.chars().nth(LONGEST) {
        Some(_) => format!("\"{shown}…\""),
        None => format!("\"{shown}\""),
    }
}

/// Line and column, both from 1, the column in characters.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..offset.min(text.len())];
    let line_start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
    let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
    (line, String::from_utf8_lossy(&before[line_start..]).chars().count() + 1)
}

/// The first line of a span: a report shows where, not all of it.
fn on_one_line(text: &str, (start, end): (usize, usize)) -> Range<usize> {
    let start = floor(text, start);
    let end = floor(text, end).max(start);
    let line = text[start..end].find(['\n', '\r']).map_or(end, |newline| start + newline);
    start..line
}

fn floor(text: &str, index: usize) -> usize {
    (0..=index.min(text.len())).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0)
}

/// Each byte of a secret becomes `*`, so that all places stay.
fn mask(text: &str, secrets: &[Range<usize>]) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for secret in secrets {
        let end = secret.end.min(bytes.len());
        for byte in bytes[secret.start.min(end)..end].iter_mut().filter(|byte| !matches!(byte, b'\n' | b'\r')) {
            *byte = b'*';
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
