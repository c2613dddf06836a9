//! One payload, shaped for any number of tables.
//!
//! In: the body's bytes and what programs see beside it. Out: each table's rows, in stretches, and its tally.
//! Must not know: where the body comes from, where the rows go.

use super::batch::{Stamp, Tally};
use super::path::{Miss, Path, Root};
use super::program::Code;
use super::row::{Pass, Sink};
use super::scan::{Cursor, Flaw};
use super::table::Table;
use super::value::Value;
use super::{jq, json, plain};
use jaq_json::Val;
use std::sync::Arc;

/// What programs see beside the document.
#[derive(Debug, Clone)]
pub struct Globals {
    /// `$run`: id, tracker, scheduled_at, attempt.
    pub run: serde_json::Value,
    /// `$vars`: the configuration's.
    pub vars: Arc<serde_json::Value>,
    /// `$response`: what the source told about the payload.
    pub response: serde_json::Value,
}

/// The body is not of the shape the configuration says. Class: standing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What was expected and got, with the byte where one is known. One line.
    pub message: String,
    /// What to look at next.
    pub hint: Option<String>,
}

/// Shapes one body. Stays in one thread: jq values are not shared between any.
pub struct Shaper<'a> {
    body: &'a [u8],
    globals: &'a Globals,
    checked: bool,
    document: Option<Val>,
    variables: Option<jq::Variables>,
}

impl std::fmt::Debug for Shaper<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shaper").field("bytes", &self.body.len()).finish_non_exhaustive()
    }
}

impl<'a> Shaper<'a> {
    /// Nothing is read before a table asks for it.
    pub fn new(body: &'a [u8], globals: &'a Globals) -> Self {
        Shaper { body, globals, checked: false, document: None, variables: None }
    }

    /// One pass for one table; `sink` gets stretches of about `CHUNK` bytes, in order, and ends the pass by `Break`.
    ///
    /// Shape: rows in the order of the program; a key is there once, its later rows are rejects.
    ///
    /// # Errors
    /// The body is not JSON, or not of the shape the rows program needs: the run fails, and what the sink
    /// got before must not land.
    pub fn table(&mut self, table: &Table, stamp: &Stamp, sink: Sink<'_>) -> Result<Tally, Error> {
        let text = self.text()?;
        let mut pass = Pass::new(table, stamp, self.body.len() / 256, sink);
        match plain::rows_of(table) {
            Some(rows) => self.stream(text, rows, table, &mut pass)?,
            None => self.interpret(text, table, &mut pass)?,
        }
        Ok(pass.finish())
    }

    fn stream(&mut self, text: &str, rows: &Path, table: &Table, pass: &mut Pass<'_>) -> Result<(), Error> {
        let constants = jq::constants(table, self.variables());
        let slots = constants.iter().map(|constant| match constant {
            Ok(value) => Value::of_val(value),
            Err(why) => Value::Fault(why.clone()),
        });
        match plain::walk(text, rows, table, slots.collect(), pass) {
            Ok(()) => self.checked = true,
            Err(plain::Stop::Enough) => {}
            Err(plain::Stop::Flaw(flaw)) => return Err(not_json(text, flaw)),
            Err(plain::Stop::Miss(miss)) => return Err(self.misplaced(text, table, rows, &miss)),
            Err(plain::Stop::Doubled(key)) => {
                let message = format!("rows {}: key {} is there twice", table.rows.source(), json::quoted(&key));
                return Err(Error { message, hint: None });
            }
        }
        Ok(())
    }

    fn interpret(&mut self, text: &str, table: &Table, pass: &mut Pass<'_>) -> Result<(), Error> {
        let document = match self.document.take() {
            Some(document) => document,
            None => json::to_val(text).map_err(|flaw| not_json(text, flaw))?,
        };
        self.checked = true;
        let walked = jq::walk(&document, self.variables(), table, pass);
        self.document = Some(document);
        walked.map_err(|stop| match (stop, &table.rows.code) {
            (jq::Stop::Miss(miss), Code::Plain(path)) => self.misplaced(text, table, path, &miss),
            (jq::Stop::Miss(Miss { found: why, .. }), Code::Jq(_)) => failed(table, why),
            (jq::Stop::Failed(why), _) => failed(table, &why),
        })
    }

    fn text(&self) -> Result<&'a str, Error> {
        let text = std::str::from_utf8(self.body).map_err(|fault| {
            let message =
                format!("the body is not JSON: not UTF-8 at byte {} of {}", fault.valid_up_to(), self.body.len());
            let hint = match self.body {
                [0x1F, 0x8B, ..] => "it is gzip, which no content-encoding announced".into(),
                [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => "it is UTF-16".into(),
                body => begins(&String::from_utf8_lossy(&body[..body.len().min(256)])),
            };
            Error { message, hint: Some(hint) }
        })?;
        // Some servers send a byte order mark; jq passes over it too.
        Ok(text.strip_prefix('\u{FEFF}').unwrap_or(text))
    }

    fn variables(&mut self) -> &jq::Variables {
        let globals = self.globals;
        self.variables.get_or_insert_with(|| {
            [&globals.run, &globals.vars, &globals.response]
                .map(|value| json::to_val(&value.to_string()).unwrap_or_default())
        })
    }

    /// A rows path that leads nowhere. A body that is no JSON to its end is told as that instead.
    fn misplaced(&self, text: &str, table: &Table, path: &Path, miss: &Miss) -> Error {
        if let (false, Err(flaw)) = (self.checked, Cursor::check(text)) {
            return not_json(text, flaw);
        }
        let message = format!("rows {}: {}", table.rows.source(), miss.told(path));
        let hint = (path.root == Root::Input).then(|| top_level(text).unwrap_or_default());
        Error { message, hint }
    }
}

fn failed(table: &Table, why: &str) -> Error {
    let hint = "run the program with jq on the same response".to_owned();
    Error { message: format!("rows {}: {why}", table.rows.source()), hint: Some(hint) }
}

fn not_json(text: &str, flaw: Flaw) -> Error {
    let before = &text.as_bytes()[..flaw.at];
    let line = before.iter().filter(|&&b| b == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|&&b| b != b'\n').count() + 1;
    let (what, at, len) = (flaw.what, flaw.at, text.len());
    let message = format!("the body is not JSON: {what} at line {line} column {column} (byte {at} of {len})");
    let cut_off = at == len && !text.trim().is_empty();
    let hint = if cut_off { "the response seems to be cut off".into() } else { begins(text) };
    Error { message, hint: Some(hint) }
}

/// What the body begins with, and what that looks like.
fn begins(text: &str) -> String {
    let text = text.trim_start();
    if text.is_empty() {
        return "it is empty".into();
    }
    let start: String = text.chars().take(40).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let lower = start.to_ascii_lowercase();
    let page = ["<!doctype html", "<html"].iter().any(|tag| lower.starts_with(tag));
    let looks = if page {
        ": an HTML page, not JSON"
    } else if text.starts_with('<') {
        ": XML or HTML, not JSON"
    } else {
        ""
    };
    format!("it starts with `{start}`{looks}")
}

/// The keys of the document, or what it is instead of an object.
fn top_level(text: &str) -> Result<String, Flaw> {
    const SHOWN: usize = 12;
    let mut cursor = Cursor::new(text);
    if cursor.peek() != b'{' {
        return Ok(format!("the document is {}", Value::shown(&cursor.value()?)));
    }
    let (mut keys, mut more) = (Vec::new(), cursor.open(b'}')?);
    while more && keys.len() < SHOWN {
        keys.push(json::quoted(&String::from_utf8_lossy(&cursor.key()?.wtf8())));
        cursor.skip()?;
        more = cursor.more(b'}')?;
    }
    let rest = if more { ", …" } else { "" };
    Ok(if keys.is_empty() {
        "the document is an empty object".into()
    } else {
        format!("it has the keys {}{rest}", keys.join(", "))
    })
}
