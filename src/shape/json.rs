//! JSON text: compact, printable, and of jq values.
//!
//! In: JSON text that was checked, or a jq value. Out: compact JSON text, the same from both ways in.
//! Must not know: columns, types.

use super::decimal::Decimal;
use super::scan::{Cursor, Flaw, MAX_DEPTH};
use super::value;
use jaq_json::{Map, Num, Val};
use std::fmt::Write as _;

/// What the strict forms refuse, because jsonb would fail on it for all rows at once.
pub(super) const UNFIT: &str =
    "jsonb holds no NUL, half surrogate pair, number out of numeric's range, or more than 128 levels";

/// Compact text of one checked value; digits stay, escapes are written as jq writes them.
pub(super) fn compact(text: &str) -> Option<String> {
    let mut writer = Writer { out: String::with_capacity(text.len()), lenient: false };
    writer.copy(&mut Cursor::new(text)).expect("the body was checked").then_some(writer.out)
}

/// The same, with whatever jsonb refuses (NUL, half surrogates, numbers out of range) made harmless.
pub(super) fn printable(text: &str) -> String {
    let mut writer = Writer { out: String::with_capacity(text.len()), lenient: true };
    writer.copy(&mut Cursor::new(text)).expect("the body was checked");
    writer.out
}

/// A string as JSON, harmless.
pub(super) fn quoted(text: &str) -> String {
    let mut writer = Writer { out: String::with_capacity(text.len() + 2), lenient: true };
    writer.string(text.as_bytes());
    writer.out
}

/// Compact text of a jq value; `None` when it is nested too deep or holds half a surrogate pair.
pub(super) fn of_val(val: &Val) -> Option<String> {
    let mut writer = Writer { out: String::new(), lenient: false };
    writer.val(val, 0).then_some(writer.out)
}

/// The same, harmless; what is too deep becomes null.
pub(super) fn printable_val(val: &Val) -> String {
    let mut writer = Writer { out: String::new(), lenient: true };
    writer.val(val, 0);
    writer.out
}

/// Checked text as a jq value.
///
/// # Errors
/// The text is not one JSON value, or is nested too deep.
pub(super) fn to_val(text: &str) -> Result<Val, Flaw> {
    let mut cursor = Cursor::new(text);
    let val = build(&mut cursor)?;
    cursor.end().map(|()| val)
}

fn build(cursor: &mut Cursor<'_>) -> Result<Val, Flaw> {
    Ok(match cursor.peek() {
        b'{' => {
            let mut map = Map::default();
            let mut more = cursor.open(b'}')?;
            while more {
                let key = text_val(cursor.key()?);
                map.insert(key, build(cursor)?);
                more = cursor.more(b'}')?;
            }
            Val::obj(map)
        }
        b'[' => {
            let mut items = Vec::new();
            let mut more = cursor.open(b']')?;
            while more {
                items.push(build(cursor)?);
                more = cursor.more(b']')?;
            }
            Val::Arr(items.into())
        }
        b'"' => text_val(cursor.string()?),
        b'-' | b'0'..=b'9' => number_val(cursor.number()?),
        b't' => cursor.word("true").map(|()| Val::Bool(true))?,
        b'f' => cursor.word("false").map(|()| Val::Bool(false))?,
        _ => cursor.word("null").map(|()| Val::Null)?,
    })
}

fn text_val(quoted: super::scan::Quoted<'_>) -> Val {
    if quoted.escaped { Val::utf8_str(quoted.wtf8()) } else { Val::utf8_str(quoted.raw.as_bytes().to_vec()) }
}

fn number_val(digits: &str) -> Val {
    // An integer would lose the sign of -0; as a decimal it keeps its text.
    let int = if digits == "-0" { None } else { Num::from_str_radix(digits, 10) };
    Val::Num(int.unwrap_or_else(|| Num::Dec(digits.to_owned().into())))
}

struct Writer {
    out: String,
    lenient: bool,
}

/// Each method is false when the strict form met something that cannot be written.
impl Writer {
    fn copy(&mut self, cursor: &mut Cursor<'_>) -> Result<bool, Flaw> {
        match cursor.peek() {
            b'{' => self.copy_all(cursor, b'{', b'}'),
            b'[' => self.copy_all(cursor, b'[', b']'),
            b'"' => Ok(self.token(cursor.string()?)),
            b'-' | b'0'..=b'9' => Ok(self.number(cursor.number()?)),
            _ => {
                let start = cursor.at();
                cursor.skip()?;
                self.out.push_str(cursor.since(start));
                Ok(true)
            }
        }
    }

    fn copy_all(&mut self, cursor: &mut Cursor<'_>, open: u8, close: u8) -> Result<bool, Flaw> {
        let mut whole = true;
        self.out.push(char::from(open));
        let mut more = cursor.open(close)?;
        while more {
            if open == b'{' {
                whole &= self.token(cursor.key()?);
                self.out.push(':');
            }
            whole &= self.copy(cursor)?;
            more = cursor.more(close)?;
            self.out.push_str(if more { "," } else { "" });
        }
        self.out.push(char::from(close));
        Ok(whole)
    }

    fn token(&mut self, quoted: super::scan::Quoted<'_>) -> bool {
        if quoted.escaped {
            return self.string(&quoted.wtf8());
        }
        self.out.push('"');
        self.out.push_str(quoted.raw);
        self.out.push('"');
        true
    }

    fn number(&mut self, digits: &str) -> bool {
        // jsonb holds a number as numeric, and one out of its range would fail the whole COPY.
        let fits =
            digits.len() < 64 && !digits.contains(['e', 'E']) || Decimal::parse(digits).is_some_and(|d| d.fits());
        match (fits, self.lenient) {
            (true, _) => self.out.push_str(digits),
            (false, true) => self.out.extend(["\"", digits, "\""]),
            (false, false) => {}
        }
        fits
    }

    fn string(&mut self, bytes: &[u8]) -> bool {
        let mut whole = true;
        self.out.push('"');
        for chunk in bytes.utf8_chunks() {
            for c in chunk.valid().chars() {
                whole &= c != '\0';
                self.char(c);
            }
            whole &= chunk.invalid().is_empty();
            self.out.push_str(if chunk.invalid().is_empty() { "" } else { "\u{FFFD}" });
        }
        self.out.push('"');
        whole
    }

    fn char(&mut self, c: char) {
        match c {
            '"' => self.out.push_str("\\\""),
            '\\' => self.out.push_str("\\\\"),
            '\n' => self.out.push_str("\\n"),
            '\r' => self.out.push_str("\\r"),
            '\t' => self.out.push_str("\\t"),
            '\0' => self.out.push('\u{FFFD}'),
            c if c < ' ' => write!(self.out, "\\u{:04x}", u32::from(c)).expect("a String takes everything"),
            c => self.out.push(c),
        }
    }

    fn val(&mut self, val: &Val, depth: usize) -> bool {
        match val {
            Val::Null => self.out.push_str("null"),
            Val::Bool(b) => self.out.push_str(if *b { "true" } else { "false" }),
            Val::Num(Num::Float(f)) if f.is_nan() => self.out.push_str("null"),
            // As jq prints infinities.
            Val::Num(Num::Float(f)) if f.is_infinite() => {
                self.out.push_str(if *f > 0.0 { "1.7976931348623157e308" } else { "-1.7976931348623157e308" });
            }
            Val::Num(num) => return self.number(&value::digits(num)),
            Val::TStr(bytes) | Val::BStr(bytes) => return self.string(bytes),
            Val::Arr(_) | Val::Obj(_) if depth == MAX_DEPTH => {
                self.out.push_str("null");
                return false;
            }
            Val::Arr(items) => return self.items(items, depth + 1),
            Val::Obj(map) => return self.members(map, depth + 1),
        }
        true
    }

    fn items(&mut self, items: &[Val], depth: usize) -> bool {
        let mut whole = true;
        self.out.push('[');
        for (i, item) in items.iter().enumerate() {
            self.out.push_str(if i > 0 { "," } else { "" });
            whole &= self.val(item, depth);
        }
        self.out.push(']');
        whole
    }

    fn members(&mut self, map: &Map, depth: usize) -> bool {
        let mut whole = true;
        self.out.push('{');
        for (i, (key, item)) in map.iter().enumerate() {
            self.out.push_str(if i > 0 { "," } else { "" });
            match key {
                Val::TStr(bytes) | Val::BStr(bytes) => whole &= self.string(bytes),
                // jaq lets a program make other keys; JSON does not.
                other => whole &= self.string(other.to_string().as_bytes()),
            }
            self.out.push(':');
            whole &= self.val(item, depth);
        }
        self.out.push('}');
        whole
    }
}
