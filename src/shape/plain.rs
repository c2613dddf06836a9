//! Plain paths over the bytes: rows without a document tree.
//!
//! In: checked UTF-8 of a body, a table of plain paths only. Out: values into a `Pass`, in one go over the text.
//! Must not know: jq, PostgreSQL.

use super::path::{Path, Root, Step};
use super::program::Code;
use super::row::Pass;
use super::scan::{Cursor, Flaw};
use super::table::Table;
use super::value::Value;
use std::collections::HashSet;
use std::ops::ControlFlow;

/// Why a walk ended before the end of the text.
#[derive(Debug)]
pub(super) enum Stop {
    /// The text is not JSON.
    Flaw(Flaw),
    /// A step of the rows path leads nowhere: which, and what stood there.
    Miss(super::path::Miss),
    /// The rows path goes through a key that is there twice.
    Doubled(String),
    /// The sink has enough.
    Enough,
}

impl From<Flaw> for Stop {
    fn from(flaw: Flaw) -> Self {
        Stop::Flaw(flaw)
    }
}

/// The columns' paths as one tree, so that a row is read once.
#[derive(Debug, Default)]
struct Node<'t> {
    /// Columns that take this value itself.
    here: Vec<usize>,
    /// Columns that take something inside it.
    below: Vec<(usize, &'t Path)>,
    depth: usize,
    fields: Vec<(&'t str, Node<'t>)>,
    items: Vec<(usize, Node<'t>)>,
}

/// The rows path, when this table can be read off the bytes.
pub(super) fn rows_of(table: &Table) -> Option<&Path> {
    let Code::Plain(rows) = &table.rows.code else { return None };
    let columns = table.columns.iter().all(|c| matches!(&c.program.code, Code::Plain(path) if path.single()));
    (rows.root == Root::Input && columns).then_some(rows)
}

impl Table {
    /// Whether its rows and columns are plain paths: shaping takes one pass over the bytes and always ends.
    pub fn is_plain(&self) -> bool {
        rows_of(self).is_some()
    }
}

/// Walks the whole text. `slots` holds a value for each column; those of global variables are in it already.
///
/// # Errors
/// The text is not JSON or the rows path leads nowhere; rows before that place are in the pass.
pub(super) fn walk<'a>(
    text: &'a str,
    rows: &Path,
    table: &Table,
    slots: Vec<Value<'a>>,
    pass: &mut Pass<'_>,
) -> Result<(), Stop> {
    let mut plan = Node::default();
    for (at, column) in table.columns.iter().enumerate() {
        if let Code::Plain(path) = &column.program.code
            && path.root == Root::Input
        {
            plan.add(at, path, &path.steps);
        }
    }
    let mut cursor = Cursor::new(text);
    let mut walk = Walk { steps: &rows.steps, plan, slots, pass };
    walk.rows(0, &mut cursor)?;
    Ok(cursor.end()?)
}

impl<'t> Node<'t> {
    fn add(&mut self, column: usize, path: &'t Path, steps: &'t [Step]) {
        let Some((first, rest)) = steps.split_first() else { return self.here.push(column) };
        self.below.push((column, path));
        let depth = self.depth + 1;
        let new = || Node { depth, ..Node::default() };
        let next = match first {
            Step::Field(name) => find_or_add(&mut self.fields, name.as_str(), new),
            Step::Index(index) => find_or_add(&mut self.items, *index, new),
            Step::Each => unreachable!("a column of a plain table yields one value"),
        };
        next.add(column, path, rest);
    }
}

fn find_or_add<'n, 't, K: PartialEq>(
    nodes: &'n mut Vec<(K, Node<'t>)>,
    key: K,
    new: impl FnOnce() -> Node<'t>,
) -> &'n mut Node<'t> {
    let at = nodes.iter().position(|(known, _)| *known == key).unwrap_or_else(|| {
        nodes.push((key, new()));
        nodes.len() - 1
    });
    &mut nodes[at].1
}

struct Walk<'w, 't, 'a, 'p> {
    steps: &'w [Step],
    plan: Node<'t>,
    slots: Vec<Value<'a>>,
    pass: &'w mut Pass<'p>,
}

impl<'a> Walk<'_, '_, 'a, '_> {
    fn rows(&mut self, at: usize, cursor: &mut Cursor<'a>) -> Result<(), Stop> {
        let Some(step) = self.steps.get(at) else { return self.row(cursor) };
        let found = match (step, cursor.peek()) {
            (Step::Field(name), b'{') => return self.rows_field(name, at, cursor),
            (Step::Index(index), b'[') => return self.rows_index(*index, at, cursor),
            (Step::Each, b'{') => return self.rows_members(at, cursor),
            (Step::Each, b'[') => {
                let mut more = cursor.open(b']')?;
                while more {
                    self.rows(at + 1, cursor)?;
                    more = cursor.more(b']')?;
                }
                return Ok(());
            }
            (Step::Field(_) | Step::Index(_), b'n') => {
                cursor.skip()?;
                return self.rows_of_null(at + 1);
            }
            (_, first) => kind(first),
        };
        // A text that is no JSON is told as that, not as a wrong shape.
        cursor.skip()?;
        Err(Stop::Miss(super::path::Miss { step: at, found }))
    }

    fn rows_field(&mut self, name: &str, at: usize, cursor: &mut Cursor<'a>) -> Result<(), Stop> {
        let mut found = false;
        let mut more = cursor.open(b'}')?;
        while more {
            let key = cursor.key()?;
            if key.raw != name && !(key.escaped && key.wtf8() == name.as_bytes()) {
                cursor.skip()?;
            } else if found {
                return Err(Stop::Doubled(name.to_owned()));
            } else {
                found = true;
                self.rows(at + 1, cursor)?;
            }
            more = cursor.more(b'}')?;
        }
        if found { Ok(()) } else { self.rows_of_null(at + 1) }
    }

    fn rows_index(&mut self, index: usize, at: usize, cursor: &mut Cursor<'a>) -> Result<(), Stop> {
        let mut count = 0;
        let mut more = cursor.open(b']')?;
        while more {
            if count == index {
                self.rows(at + 1, cursor)?
            } else {
                cursor.skip()?
            }
            count += 1;
            more = cursor.more(b']')?;
        }
        if count > index { Ok(()) } else { self.rows_of_null(at + 1) }
    }

    fn rows_members(&mut self, at: usize, cursor: &mut Cursor<'a>) -> Result<(), Stop> {
        let mut keys = HashSet::new();
        let mut more = cursor.open(b'}')?;
        while more {
            let key = cursor.key()?.wtf8();
            if let Some(doubled) = keys.replace(key) {
                return Err(Stop::Doubled(String::from_utf8_lossy(&doubled).into_owned()));
            }
            self.rows(at + 1, cursor)?;
            more = cursor.more(b'}')?;
        }
        Ok(())
    }

    /// As in jq: a path goes on through null, but null has no elements.
    fn rows_of_null(&mut self, at: usize) -> Result<(), Stop> {
        match self.steps[at..].iter().position(|step| *step == Step::Each) {
            Some(each) => Err(Stop::Miss(super::path::Miss { step: at + each, found: "null" })),
            None => self.row(&mut Cursor::new("null")),
        }
    }

    fn row(&mut self, cursor: &mut Cursor<'a>) -> Result<(), Stop> {
        cursor.peek();
        let start = cursor.at();
        self.plan.visit(cursor, &mut self.slots)?;
        self.pass.begin();
        for slot in &self.slots {
            self.pass.field(slot);
        }
        match self.pass.end(|| super::json::printable(cursor.since(start))) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Stop::Enough),
        }
    }
}

impl Node<'_> {
    /// Reads one value and fills the slots of the columns in it.
    fn visit<'a>(&self, cursor: &mut Cursor<'a>, slots: &mut [Value<'a>]) -> Result<(), Flaw> {
        if let ([column], []) = (self.here.as_slice(), self.below.as_slice()) {
            slots[*column] = cursor.value()?;
            return Ok(());
        }
        let first = cursor.peek();
        let start = cursor.at();
        for &(column, path) in &self.below {
            let step = &path.steps[self.depth];
            let fits = matches!((step, first), (Step::Field(_), b'{') | (Step::Index(_), b'[') | (_, b'n'));
            let miss = super::path::Miss { step: self.depth, found: kind(first) };
            slots[column] = if fits { Value::Null } else { Value::Fault(miss.told(path)) };
        }
        match first {
            b'{' if !self.fields.is_empty() => self.members(cursor, slots)?,
            b'[' if !self.items.is_empty() => self.elements(cursor, slots)?,
            _ => cursor.skip()?,
        }
        if !self.here.is_empty() {
            let value = Cursor::new(cursor.since(start)).value()?;
            for &column in &self.here {
                slots[column] = value.clone();
            }
        }
        Ok(())
    }

    fn members<'a>(&self, cursor: &mut Cursor<'a>, slots: &mut [Value<'a>]) -> Result<(), Flaw> {
        // Rows tend to have their fields in one order: the next column is most often the next key's.
        let mut next = 0;
        let mut more = cursor.open(b'}')?;
        while more {
            let key = cursor.key()?;
            let at = if !key.escaped {
                self.find(key.raw, next)
            } else {
                key.decode().and_then(|name| self.find(&name, next))
            };
            match at {
                Some(at) => {
                    next = at + 1;
                    self.fields[at].1.visit(cursor, slots)?;
                }
                None => cursor.skip()?,
            }
            more = cursor.more(b'}')?;
        }
        Ok(())
    }

    #[inline]
    fn find(&self, name: &str, next: usize) -> Option<usize> {
        match self.fields.get(next) {
            Some((expected, _)) if *expected == name => Some(next),
            _ => self.fields.iter().position(|(known, _)| *known == name),
        }
    }

    fn elements<'a>(&self, cursor: &mut Cursor<'a>, slots: &mut [Value<'a>]) -> Result<(), Flaw> {
        let mut count = 0;
        let mut more = cursor.open(b']')?;
        while more {
            match self.items.iter().find(|(index, _)| *index == count) {
                Some((_, node)) => node.visit(cursor, slots)?,
                None => cursor.skip()?,
            }
            count += 1;
            more = cursor.more(b']')?;
        }
        Ok(())
    }
}

/// The kind of value that begins with this byte, in the words of `path::kind`.
fn kind(first: u8) -> &'static str {
    match first {
        b'{' => "an object",
        b'[' => "an array",
        b'"' => "text",
        b't' | b'f' => "a boolean",
        b'n' => "null",
        _ => "a number",
    }
}
