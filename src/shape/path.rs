//! Plain paths: the part of jq that needs no interpreter.
//!
//! In: program text; later a jq value. Out: the steps, or `None` when the text is more than a path; the values found.
//! Must not know: bytes of a body, columns, types.

use jaq_json::Val;
use std::fmt;
use std::ops::ControlFlow;

/// Where a path begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Root {
    /// `.`
    Input,
    /// A global variable, by its place in `GLOBALS`.
    Global(usize),
}

/// The global variables, in the order their values are given.
pub(super) const GLOBALS: [&str; 3] = ["$run", "$vars", "$response"];

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// `.name`
    Field(String),
    /// `.[0]`
    Index(usize),
    /// `.[]`
    Each,
}

/// A path such as `.leaderboard[]`, `.["x y"].z` or `$vars.season`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) root: Root,
    pub(super) steps: Vec<Step>,
}

impl Path {
    /// Reads a text that is a path and nothing more.
    pub(super) fn parse(text: &str) -> Option<Path> {
        let text = text.trim();
        let (root, mut rest) = match text.strip_prefix('$') {
            None => (Root::Input, text),
            Some(named) => {
                let (name, rest) = name(named)?;
                (Root::Global(GLOBALS.iter().position(|global| global[1..] == *name)?), rest)
            }
        };
        let mut steps = Vec::new();
        if root == Root::Input {
            if rest == "." {
                return Some(Path { root, steps });
            }
            rest.strip_prefix('.')?;
            // `.[0]` is one dot and a bracket; after that brackets stand without one.
            rest = if rest.starts_with(".[") { &rest[1..] } else { rest };
        }
        while !rest.is_empty() {
            let (step, after) = step(rest)?;
            steps.push(step);
            rest = after;
        }
        Some(Path { root, steps })
    }

    /// Whether it yields one value at most.
    pub(super) fn single(&self) -> bool {
        !self.steps.contains(&Step::Each)
    }

    /// The names of the steps as jq values, made once for many walks; they stay in one thread.
    pub(super) fn names(&self) -> Vec<Val> {
        let name = |step: &Step| match step {
            Step::Field(name) => Val::utf8_str(name.clone().into_bytes()),
            Step::Index(_) | Step::Each => Val::Null,
        };
        self.steps.iter().map(name).collect()
    }

    /// Calls `visit` with each value found, in order; it returns whether to go on.
    ///
    /// # Errors
    /// As in jq: a step into something that has no such inside.
    pub(super) fn walk<'v>(
        &self,
        names: &[Val],
        from: &'v Val,
        visit: &mut dyn FnMut(&'v Val) -> ControlFlow<()>,
    ) -> Result<(), Miss> {
        walk(&self.steps, names, 0, from, visit).map(drop)
    }

    /// The path up to, without, a step.
    pub(super) fn before(&self, step: usize) -> String {
        Path { root: self.root, steps: self.steps[..step].to_vec() }.to_string()
    }
}

/// A step that led nowhere: which, and what stood there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Miss {
    pub(super) step: usize,
    pub(super) found: &'static str,
}

impl Miss {
    /// What is wrong, as `.a is a number, expected an object`.
    pub(super) fn told(&self, path: &Path) -> String {
        let (place, wants) = (path.before(self.step), path.steps[self.step].wants());
        match self.found {
            "null" => format!("nothing at {place}, expected {wants}"),
            found => format!("{place} is {found}, expected {wants}"),
        }
    }
}

pub(super) const NULL: &Val = &Val::Null;

fn walk<'v>(
    steps: &[Step],
    names: &[Val],
    at: usize,
    from: &'v Val,
    visit: &mut dyn FnMut(&'v Val) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, Miss> {
    let Some(step) = steps.get(at) else { return Ok(visit(from)) };
    let mut each = |items: &mut dyn Iterator<Item = &'v Val>| {
        for item in items {
            if walk(steps, names, at + 1, item, visit)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    };
    match (step, from) {
        (Step::Each, Val::Arr(items)) => each(&mut items.iter()),
        (Step::Each, Val::Obj(map)) => each(&mut map.values()),
        (Step::Field(_) | Step::Index(_), Val::Null) => each(&mut std::iter::once(NULL)),
        (Step::Field(_), Val::Obj(map)) => each(&mut std::iter::once(map.get(&names[at]).unwrap_or(NULL))),
        (Step::Index(index), Val::Arr(items)) => each(&mut std::iter::once(items.get(*index).unwrap_or(NULL))),
        (_, other) => Err(Miss { step: at, found: kind(other) }),
    }
}

/// The word for what kind of value it is.
pub(super) fn kind(val: &Val) -> &'static str {
    match val {
        Val::Null => "null",
        Val::Bool(_) => "a boolean",
        Val::Num(_) => "a number",
        Val::TStr(_) | Val::BStr(_) => "text",
        Val::Arr(_) => "an array",
        Val::Obj(_) => "an object",
    }
}

/// What a step asks for, as in `expected an array or object`.
impl Step {
    pub(super) fn wants(&self) -> &'static str {
        match self {
            Step::Field(_) => "an object",
            Step::Index(_) => "an array",
            Step::Each => "an array or object",
        }
    }
}

fn step(text: &str) -> Option<(Step, &str)> {
    if let Some(inner) = text.strip_prefix('[') {
        if let Some(rest) = inner.strip_prefix(']') {
            return Some((Step::Each, rest));
        }
        let (step, rest) = if inner.starts_with('"') {
            quoted(inner)?
        } else {
            let (digits, rest) = inner.split_at(inner.find(|c: char| !c.is_ascii_digit())?);
            (Step::Index(digits.parse().ok()?), rest)
        };
        return Some((step, rest.strip_prefix(']')?));
    }
    let inner = text.strip_prefix('.')?;
    if inner.starts_with('"') {
        return quoted(inner);
    }
    let (name, rest) = name(inner)?;
    Some((Step::Field(name.to_owned()), rest))
}

fn name(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    let begins_well = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    begins_well.then(|| text.split_at(end))
}

/// A name in quotes; one with escapes or interpolation is jq's to read.
fn quoted(text: &str) -> Option<(Step, &str)> {
    let (name, rest) = text.strip_prefix('"')?.split_once('"')?;
    (!name.contains('\\')).then(|| (Step::Field(name.to_owned()), rest))
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Root::Global(which) = self.root {
            f.write_str(GLOBALS[which])?;
        } else if !matches!(self.steps.first(), Some(Step::Field(_))) {
            f.write_str(".")?;
        }
        for step in &self.steps {
            match step {
                Step::Field(field) if name(field).is_some_and(|(_, rest)| rest.is_empty()) => write!(f, ".{field}")?,
                Step::Field(field) => write!(f, ".\"{field}\"")?,
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Each => f.write_str("[]")?,
            }
        }
        Ok(())
    }
}

