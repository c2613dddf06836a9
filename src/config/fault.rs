//! All faults of a configuration, each with its place, and how they are shown.
//!
//! In: faults as the reader finds them. Out: rustc-like reports, or one line each for the journal. What `secrets`
//! finds is masked in the lines that are shown. Must not know: which keys there are.

use super::files::Files;
use super::node::Place;
use annotate_snippets::{AnnotationKind, Element, Level, Origin, Renderer, Snippet};
use std::fmt;
use std::ops::Range;

/// One fault. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub(super) place: Place,
    /// Where the other of two stands, and what it is: "first here".
    other: Option<Box<(Place, &'static str)>>,
    /// The key it is about.
    key: Option<String>,
    message: String,
    hint: Option<String>,
    /// May only be there because something near it is broken.
    pub(super) derived: bool,
}

impl Fault {
    pub(super) fn new(place: Place, message: impl Into<String>) -> Fault {
        Fault { place, other: None, key: None, message: message.into(), hint: None, derived: false }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Fault {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn other(mut self, place: Place, what: &'static str) -> Fault {
        self.other = Some(Box::new((place, what)));
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

/// Every fault of one configuration, in the order of its files; at least one.
#[derive(Clone, PartialEq, Eq)]
pub struct Faults {
    /// What was read, secrets masked.
    files: Files,
    list: Vec<Fault>,
}

impl Faults {
    /// Sorts, drops doubles, masks `secrets` (bytes of all files).
    pub(super) fn new(files: Files, mut list: Vec<Fault>, secrets: &[Range<usize>]) -> Faults {
        // A fault of the defaults is met again in each tracker; the sort is stable, and the defaults were read first.
        list.sort_by(|a, b| (&a.place, &a.message).cmp(&(&b.place, &b.message)));
        list.dedup_by(|a, b| a.place == b.place && a.message == b.message);
        Faults { files: files.masked(secrets), list }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Never true of a value that was returned as an error.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The faults, in the order of the files.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.list.iter()
    }

    /// `config.toml:12:3: message; hint`, one line a fault.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.list.iter().map(|fault| {
            let mut line = format!("{}: {}", self.place(&fault.place), fault.message());
            if let Some((place, what)) = fault.other.as_deref() {
                line.push_str(&format!(", {what}: {}", self.place(place)));
            }
            if let Some(hint) = &fault.hint {
                line.push_str(&format!("; {hint}"));
            }
            line
        })
    }

    fn place(&self, place: &Place) -> String {
        match place {
            Place::Whole => self.files.main().display().to_string(),
            Place::Variable(name) => name.to_string(),
            Place::File { span, .. } => self.files.place(span.0),
        }
    }

    /// The report for people, and a last line that counts.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let mut report = String::new();
        for fault in &self.list {
            let title = Level::ERROR.primary_title(fault.message());
            let mut group = title.element(self.shown(&fault.place, AnnotationKind::Primary, None));
            if let Some((place, what)) = fault.other.as_deref() {
                group = group.element(self.shown(place, AnnotationKind::Context, Some(what)));
            }
            if let Some(hint) = &fault.hint {
                group = group.element(Level::HELP.message(hint.as_str()));
            }
            report.push_str(&renderer.render(&[group]));
            report.push_str("\n\n");
        }
        let plural = if self.list.len() == 1 { "fault" } else { "faults" };
        report.push_str(&format!("{} {plural} in {}\n", self.list.len(), self.names().join(", ")));
        report
    }

    /// A place as a report shows it.
    fn shown<'f>(&'f self, place: &Place, kind: AnnotationKind, label: Option<&'f str>) -> Element<'f> {
        match place {
            Place::Whole => Origin::path(self.files.main().to_string_lossy()).into(),
            Place::Variable(name) => Origin::path(format!("environment variable {name}")).into(),
            Place::File { span: (start, end), .. } => {
                let file = self.files.of(*start);
                let span = on_one_line(file.text, (start - file.start, end - file.start));
                Snippet::source(file.text)
                    .path(file.path.to_string_lossy())
                    .annotation(kind.span(span).label(label))
                    .into()
            }
        }
    }

    /// The files that have faults; the main file for those that are in none.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for fault in &self.list {
            let path = match &fault.place {
                Place::File { span, .. } => self.files.of(span.0).path,
                _ => self.files.main(),
            };
            let name = path.display().to_string();
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
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
