//! A strict JSON cursor over text: what a plain path walks, and what every body is checked with.
//!
//! In: UTF-8 text. Out: borrowed tokens, digits as written, with the byte at which the text stops being JSON.
//! Values deeper than `MAX_DEPTH` are refused, so that no later stage can run out of stack.
//! Must not know: paths, columns, types.
//!
//! Source: RFC 8259.

use super::value::Value;
use std::borrow::Cow;

/// Containers inside one another; the same limit as `serde_json` has.
pub(super) const MAX_DEPTH: usize = 128;

/// What is not JSON about the text, and at which byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flaw {
    pub(super) what: &'static str,
    pub(super) at: usize,
}

/// A place in a text; copying it remembers the place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

/// A string token without its quotes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quoted<'a> {
    pub(super) raw: &'a str,
    pub(super) escaped: bool,
}

impl<'a> Quoted<'a> {
    /// The characters meant; `None` when a lone surrogate is among them.
    pub(super) fn decode(self) -> Option<Cow<'a, str>> {
        if !self.escaped {
            return Some(Cow::Borrowed(self.raw));
        }
        String::from_utf8(self.wtf8()).ok().map(Cow::Owned)
    }

    /// The characters meant, a lone surrogate in the three bytes UTF-8 would give it.
    pub(super) fn wtf8(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.raw.len());
        let mut rest = self.raw.as_bytes();
        while let Some(stop) = rest.iter().position(|&b| b == b'\\') {
            out.extend_from_slice(&rest[..stop]);
            rest = unescape(&rest[stop + 1..], &mut out);
        }
        out.extend_from_slice(rest);
        out
    }
}

/// Appends what the escape after a backslash means and returns what follows it.
fn unescape<'a>(rest: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    let simple = match rest[0] {
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'u' => {
            let (unit, rest) = (hex4(&rest[1..]), &rest[5..]);
            if (0xD800..0xDC00).contains(&unit) && rest.starts_with(b"\\u") {
                let low = hex4(&rest[2..]);
                if (0xDC00..0xE000).contains(&low) {
                    push_code(0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00), out);
                    return &rest[6..];
                }
            }
            push_code(unit, out);
            return rest;
        }
        other => other,
    };
    out.push(simple);
    &rest[1..]
}

fn hex4(digits: &[u8]) -> u32 {
    digits[..4].iter().fold(0, |sum, &b| sum * 16 + char::from(b).to_digit(16).expect("checked by the cursor"))
}

fn push_code(code: u32, out: &mut Vec<u8>) {
    match char::from_u32(code) {
        Some(c) => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        None => out.extend([0xE0 | (code >> 12) as u8, 0x80 | (code >> 6 & 0x3F) as u8, 0x80 | (code & 0x3F) as u8]),
    }
}

/// Bytes that a string goes on through: neither quote, nor backslash, nor control.
const PLAIN: [bool; 256] = {
    let mut plain = [true; 256];
    let mut b = 0;
    while b < 0x20 {
        plain[b] = false;
        b += 1;
    }
    plain[b'"' as usize] = false;
    plain[b'\\' as usize] = false;
    plain
};

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Cursor { text, at: 0, depth: 0 }
    }

    /// The whole text is one JSON value.
    pub(super) fn check(text: &'a str) -> Result<(), Flaw> {
        let mut cursor = Cursor::new(text);
        cursor.skip()?;
        cursor.end()
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The text from an earlier place of this cursor to here.
    pub(super) fn since(&self, from: usize) -> &'a str {
        &self.text[from..self.at]
    }

    fn flaw<T>(&self, what: &'static str) -> Result<T, Flaw> {
        let what = if self.at >= self.text.len() { "it ends too early" } else { what };
        Err(Flaw { what, at: self.at.min(self.text.len()) })
    }

    #[inline]
    fn byte(&self) -> u8 {
        // NUL is no JSON outside strings, and inside them it is a control byte: it can stand for the end.
        self.text.as_bytes().get(self.at).copied().unwrap_or(0)
    }

    /// The first byte of the next token; 0 at the end.
    #[inline]
    pub(super) fn peek(&mut self) -> u8 {
        loop {
            let b = self.byte();
            if !matches!(b, b' ' | b'\n' | b'\r' | b'\t') {
                return b;
            }
            self.at += 1;
        }
    }

    /// Nothing but white space is left.
    pub(super) fn end(&mut self) -> Result<(), Flaw> {
        self.peek();
        if self.at < self.text.len() { self.flaw("something follows the document") } else { Ok(()) }
    }

    /// Steps into a container whose first byte was peeked; false when it is empty.
    #[inline]
    pub(super) fn open(&mut self, close: u8) -> Result<bool, Flaw> {
        if self.depth == MAX_DEPTH {
            return self.flaw("it is nested deeper than 128 levels");
        }
        self.at += 1;
        if self.peek() == close {
            self.at += 1;
            return Ok(false);
        }
        self.depth += 1;
        Ok(true)
    }

    /// After a member or an element: whether another one follows.
    #[inline]
    pub(super) fn more(&mut self, close: u8) -> Result<bool, Flaw> {
        match self.peek() {
            b',' => {
                self.at += 1;
                Ok(true)
            }
            b if b == close => {
                self.at += 1;
                self.depth -= 1;
                Ok(false)
            }
            _ if close == b'}' => self.flaw("expected `,` or `}`"),
            _ => self.flaw("expected `,` or `]`"),
        }
    }

    /// A member's key, and the colon.
    #[inline]
    pub(super) fn key(&mut self) -> Result<Quoted<'a>, Flaw> {
        if self.peek() != b'"' {
            return self.flaw("expected a key in quotes");
        }
        let key = self.string()?;
        if self.peek() != b':' {
            return self.flaw("expected `:`");
        }
        self.at += 1;
        Ok(key)
    }

    /// A string whose opening quote is the next byte.
    #[inline]
    pub(super) fn string(&mut self) -> Result<Quoted<'a>, Flaw> {
        self.at += 1;
        let (start, mut escaped) = (self.at, false);
        loop {
            self.pass_plain();
            match self.byte() {
                b'"' => {
                    let raw = self.since(start);
                    self.at += 1;
                    return Ok(Quoted { raw, escaped });
                }
                b'\\' => {
                    escaped = true;
                    self.escape()?;
                }
                _ => return self.flaw("a control character inside a string"),
            }
        }
    }

    #[inline]
    fn pass_plain(&mut self) {
        let rest = &self.text.as_bytes()[self.at..];
        self.at += rest.iter().position(|&b| !PLAIN[usize::from(b)]).unwrap_or(rest.len());
    }

    fn escape(&mut self) -> Result<(), Flaw> {
        self.at += 1;
        match self.byte() {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 1,
            b'u' => {
                for _ in 0..4 {
                    self.at += 1;
                    if !self.byte().is_ascii_hexdigit() {
                        return self.flaw("expected four hexadecimal digits");
                    }
                }
                self.at += 1;
            }
            _ => return self.flaw("no such escape in a string"),
        }
        Ok(())
    }

    #[inline]
    fn digits(&mut self) -> Result<(), Flaw> {
        let start = self.at;
        while self.byte().is_ascii_digit() {
            self.at += 1;
        }
        if self.at == start { self.flaw("expected a digit") } else { Ok(()) }
    }

    /// A number whose first byte, a digit or `-`, is the next one.
    #[inline]
    pub(super) fn number(&mut self) -> Result<&'a str, Flaw> {
        let start = self.at;
        if self.byte() == b'-' {
            self.at += 1;
        }
        if self.byte() == b'0' {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.byte() == b'.' {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.byte(), b'e' | b'E') {
            self.at += 1;
            if matches!(self.byte(), b'+' | b'-') {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(self.since(start))
    }

    pub(super) fn word(&mut self, word: &'static str) -> Result<(), Flaw> {
        for expected in word.bytes() {
            if self.byte() != expected {
                return self.flaw("expected a value");
            }
            self.at += 1;
        }
        Ok(())
    }

    /// Passes one value.
    pub(super) fn skip(&mut self) -> Result<(), Flaw> {
        match self.peek() {
            b'{' => {
                let mut more = self.open(b'}')?;
                while more {
                    self.key()?;
                    self.skip()?;
                    more = self.more(b'}')?;
                }
                Ok(())
            }
            b'[' => {
                let mut more = self.open(b']')?;
                while more {
                    self.skip()?;
                    more = self.more(b']')?;
                }
                Ok(())
            }
            b'"' => self.string().map(drop),
            b'-' | b'0'..=b'9' => self.number().map(drop),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            _ => self.flaw("expected a value"),
        }
    }

    /// Takes one value: a scalar decoded, a container as its text.
    #[inline]
    pub(super) fn value(&mut self) -> Result<Value<'a>, Flaw> {
        Ok(match self.peek() {
            b'-' | b'0'..=b'9' => Value::Number(Cow::Borrowed(self.number()?)),
            b'"' => Value::of_text(self.string()?.decode()),
            b'n' => self.word("null").map(|()| Value::Null)?,
            b't' => self.word("true").map(|()| Value::Bool(true))?,
            b'f' => self.word("false").map(|()| Value::Bool(false))?,
            _ => {
                let start = self.at;
                self.skip()?;
                Value::Json(Cow::Borrowed(self.since(start)))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hostile_nesting_is_refused_not_followed() {
        for open in ["[", "{\"a\":"] {
            let body = open.repeat(1_000_000);
            assert_eq!(Cursor::check(&body).unwrap_err().what, "it is nested deeper than 128 levels");
        }
        let deep = format!("{}{}", "[".repeat(128), "]".repeat(128));
        assert_eq!(Cursor::check(&deep), Ok(()));
    }

    #[test]
    fn surrogates_are_paired_and_lone_ones_are_seen() {
        let decode = |raw| Quoted { raw, escaped: true }.decode();
        assert_eq!(decode(r"a\ud83d\ude00\n\/").as_deref(), Some("a😀\n/"));
        assert_eq!(decode(r"\ud83dx"), None);
        assert_eq!(decode(r"\ud83d\ud83d"), None);
        assert_eq!(decode(r"\u0000").as_deref(), Some("\0"));
    }

    proptest! {
        #[test]
        fn the_cursor_takes_exactly_what_serde_json_takes(text in r#"[\[\]{}",:\\u0-9eE.+\-a-fnrtls \n]{0,24}"#) {
            let theirs = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
            prop_assert_eq!(Cursor::check(&text).is_ok(), theirs, "{:?}", text);
        }

        #[test]
        fn any_text_is_checked_without_panic(text in any::<String>()) {
            let _ = Cursor::check(&text);
        }
    }
}
