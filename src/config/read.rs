//! Typed readers over the tree: each gives a value, or a fault with its place, and the reading goes on.
//!
//! In: `Node`s. Out: checked plain values. Must not know: which keys there are.

use super::fault::{self, Fault, quote};
use super::node::{self, Entry, Node, Place, Value};
use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Where the faults of one reading are gathered.
#[derive(Debug, Default)]
pub(super) struct Sink {
    faults: RefCell<Vec<Fault>>,
    /// Entries that no reader knows.
    unknown: RefCell<Vec<Entry>>,
}

impl Sink {
    pub(super) fn push(&self, fault: Fault) {
        self.faults.borrow_mut().push(fault);
    }

    /// The value, or none and the fault is kept.
    pub(super) fn keep<T>(&self, result: Result<T, Fault>) -> Option<T> {
        result.map_err(|fault| self.push(fault)).ok()
    }

    /// The faults, and the entries that no reader knows.
    pub(super) fn into_parts(self) -> (Vec<Fault>, Vec<Entry>) {
        (self.faults.into_inner(), self.unknown.into_inner())
    }
}

/// One table being read: what is asked for is known, what is left at `finish` is not.
#[derive(Debug)]
pub(super) struct Fields<'s> {
    /// `database`, `tracker`, "" for the file's top.
    what: &'static str,
    pub(super) place: Place,
    pub(super) entries: Vec<Entry>,
    known: Vec<&'static str>,
    pub(super) sink: &'s Sink,
}

impl<'s> Fields<'s> {
    pub(super) fn new(what: &'static str, node: &Node, sink: &'s Sink) -> Result<Fields<'s>, Fault> {
        Ok(Fields { what, place: node.place.clone(), entries: node.table()?, known: Vec::new(), sink })
    }

    /// The entry of a key, which is known from here on.
    pub(super) fn entry(&mut self, key: &'static str) -> Option<Entry> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.entries.iter().find(|entry| entry.key == key).cloned()
    }

    /// The key's value; none if it is absent or at fault.
    pub(super) fn get<T>(&mut self, key: &'static str, read: impl FnOnce(&Node) -> Result<T, Fault>) -> Option<T> {
        let entry = self.entry(key)?;
        let result = read(&entry.node).map_err(|fault| fault.about(&self.path(key)));
        self.sink.keep(result)
    }

    /// The value of a key that must be there.
    pub(super) fn require<T>(&mut self, key: &'static str, read: impl FnOnce(&Node) -> Result<T, Fault>) -> Option<T> {
        if self.entry(key).is_none() {
            self.fault(format!("missing key `{key}`"));
        }
        self.get(key, read)
    }

    /// Both are known, and only one may be there.
    pub(super) fn exclusive(&mut self, one: &'static str, other: &'static str) {
        let (first, second) = (self.entry(one), self.entry(other));
        match (first, second) {
            (Some(_), Some(second)) => self.sink.push(
                Fault::new(second.place, format!("`{one}` and `{other}` are both given")).hint("remove one of them"),
            ),
            (None, None) => self.fault(format!("missing key: one of `{one}` and `{other}`")),
            _ => {}
        }
    }

    /// A fault of the table as such; it may only follow from a broken line.
    pub(super) fn fault(&self, message: String) {
        let message = if self.what.is_empty() { message } else { format!("{message} in {}", self.what) };
        self.sink.push(Fault::new(self.place.clone(), message).derived());
    }

    /// The keys that were never asked for.
    pub(super) fn finish(self) {
        for entry in &self.entries {
            if !self.known.contains(&entry.key.as_str()) {
                let what = if self.what.is_empty() { "keys".into() } else { format!("keys of {}", self.what) };
                let hint = fault::known(&entry.key, self.known.iter().copied(), &what);
                let message = format!("unknown key `{}`", entry.key.escape_debug());
                self.sink.push(Fault::new(entry.place.clone(), message).hint(hint));
                self.sink.unknown.borrow_mut().push(entry.clone());
            }
        }
    }

    fn path(&self, key: &str) -> String {
        if self.what.is_empty() { key.to_owned() } else { format!("{}.{key}", self.what) }
    }
}

impl Node {
    /// "expected …, got …" at this place.
    pub(super) fn fault(&self, message: impl Into<String>) -> Fault {
        Fault::new(self.place.clone(), message)
    }

    fn expected(&self, what: &str) -> Fault {
        self.fault(format!("expected {what}, got {}", self.value.kind()))
    }

    /// A text, as written.
    pub(super) fn text(&self) -> Result<&str, Fault> {
        match &self.value {
            Value::Text(text) | Value::Given(text, _) => Ok(text),
            _ => Err(self.expected("string")),
        }
    }

    /// A text, or a number or boolean as it is written.
    pub(super) fn scalar(&self) -> Result<String, Fault> {
        match &self.value {
            Value::Text(text) | Value::Given(text, _) | Value::Integer(text, 10) | Value::Float(text) => {
                Ok(text.clone())
            }
            Value::Boolean(yes) => Ok(yes.to_string()),
            _ => Err(self.expected("string")),
        }
    }

    /// A whole number in a range.
    pub(super) fn integer(&self, range: RangeInclusive<i64>) -> Result<i64, Fault> {
        let what = || format!("integer from {} to {}", range.start(), range.end());
        match &self.typed().value {
            Value::Integer(digits, radix) => match i64::from_str_radix(digits, *radix) {
                Ok(number) if range.contains(&number) => Ok(number),
                _ => Err(self.fault(format!("expected {}, got {digits}", what()))),
            },
            _ => Err(self.expected(&what())),
        }
    }

    /// true or false.
    pub(super) fn boolean(&self) -> Result<bool, Fault> {
        match self.typed().value {
            Value::Boolean(yes) => Ok(yes),
            _ => Err(self.expected("boolean")),
        }
    }

    /// The items of an array.
    pub(super) fn list(&self) -> Result<Vec<Node>, Fault> {
        match self.typed().value {
            Value::List(items) => Ok(items),
            _ => Err(self.expected("array")),
        }
    }

    /// The entries of a table.
    pub(super) fn table(&self) -> Result<Vec<Entry>, Fault> {
        match self.typed().value {
            Value::Table(entries) => Ok(entries),
            _ => Err(self.expected("table")),
        }
    }

    /// A length of time in a range.
    pub(super) fn duration(&self, range: RangeInclusive<Duration>) -> Result<Duration, Fault> {
        let hint = "a length of time is text with units, such as \"30s\", \"1m 30s\", \"12h\", \"1d\"";
        let text = self.text().map_err(|fault| fault.hint(hint))?;
        let length = humantime::parse_duration(text)
            .map_err(|error| self.fault(format!("{} is not a length of time: {error}", quote(text))).hint(hint))?;
        if range.contains(&length) {
            return Ok(length);
        }
        Err(self.fault(format!(
            "expected {} to {}, got {}",
            length_text(*range.start()),
            length_text(*range.end()),
            quote(text)
        )))
    }

    /// A number of bytes in a range.
    pub(super) fn size(&self, range: RangeInclusive<u64>) -> Result<u64, Fault> {
        let hint = "a size is a number of bytes, or text with a unit, such as \"64MiB\"";
        let text = self.scalar().map_err(|fault| fault.hint(hint))?;
        let size = text
            .parse::<bytesize::ByteSize>()
            .map_err(|_| self.fault(format!("{} is not a size", quote(&text))).hint(hint))?
            .as_u64();
        if range.contains(&size) {
            return Ok(size);
        }
        let show = |bytes: u64| bytesize::ByteSize::b(bytes).display().iec().to_string();
        Err(self.fault(format!("expected {} to {}, got {}", show(*range.start()), show(*range.end()), quote(&text))))
    }

    /// One of some words.
    pub(super) fn word<T: Copy>(&self, words: &[(&str, T)]) -> Result<T, Fault> {
        let text = self.text()?;
        words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
            let list: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            let fault = self.fault(format!("expected one of {}, got {}", list.join(", "), quote(text)));
            match fault::known(text, words.iter().map(|(word, _)| *word), "").split_once('?') {
                Some((guess, _)) => fault.hint(format!("{guess}?")),
                None => fault,
            }
        })
    }

    /// As JSON; numbers that JSON's numbers would change are faults.
    pub(super) fn json(&self) -> Result<serde_json::Value, Fault> {
        use serde_json::Value as Json;
        let inexact =
            |text: &str| self.fault(format!("the number {text} does not keep its digits")).hint("write it as a string");
        Ok(match &self.value {
            Value::Given(text, was) => return self.given(text, *was),
            Value::Text(text) | Value::Datetime(text) => Json::from(text.as_str()),
            Value::Boolean(yes) => Json::from(*yes),
            Value::Integer(digits, radix) => match i64::from_str_radix(digits, *radix) {
                Ok(number) => Json::from(number),
                Err(_) => return Err(inexact(digits)),
            },
            Value::Float(text) => exact_float(text).map(Json::Number).ok_or_else(|| inexact(text))?,
            Value::List(items) => Json::Array(items.iter().map(Node::json).collect::<Result<_, _>>()?),
            Value::Table(entries) => Json::Object(
                entries
                    .iter()
                    .map(|entry| Ok((entry.key.clone(), entry.node.json()?)))
                    .collect::<Result<_, Fault>>()?,
            ),
        })
    }

    /// A variable's text as JSON: of the kind it replaces; if it replaces nothing, a number or boolean if it reads so.
    fn given(&self, text: &str, was: Option<&'static str>) -> Result<serde_json::Value, Fault> {
        let parsed = node::value(text, &self.place);
        let number = |kind: &str| matches!(kind, "integer" | "float");
        match (was, parsed) {
            (Some("string" | "datetime"), _) => Ok(text.into()),
            (Some(was), Some(node)) if node.value.kind() == was || number(was) && number(node.value.kind()) => {
                node.json()
            }
            (Some(was), _) => Err(self.expected(&format!("{was} as in the file"))),
            (None, Some(node)) if number(node.value.kind()) || node.value.kind() == "boolean" => node.json(),
            (None, _) => Ok(text.into()),
        }
    }

    /// A variable's text as the TOML value it reads as; anything else as it is.
    fn typed(&self) -> Node {
        match &self.value {
            Value::Given(text, _) => node::value(text, &self.place).unwrap_or_else(|| self.clone()),
            _ => self.clone(),
        }
    }
}

/// Days as days: humantime makes months and odd hours of a year.
fn length_text(length: Duration) -> String {
    const DAY: u64 = 24 * 3600;
    match (length.as_secs() / DAY, length.as_secs() % DAY) {
        (days @ 1.., 0) => format!("{days}d"),
        _ => humantime::format_duration(length).to_string(),
    }
}

/// The JSON number of a float, if printing it gives the digits back.
fn exact_float(text: &str) -> Option<serde_json::Number> {
    let float: f64 = text.parse().ok()?;
    let number = serde_json::Number::from_f64(float)?;
    (digits(text) == digits(&format!("{float:e}"))).then_some(number)
}

/// The significant digits of a number, without sign, point, exponent and outer zeros.
fn digits(text: &str) -> String {
    let mantissa = text.split(['e', 'E']).next().unwrap_or(text);
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    digits.trim_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_float_that_would_lose_digits_is_refused() {
        for text in ["1.5", "-14.469999999999999", "1.50", "100.0", "0.000001", "1e3", "6.02e23"] {
            assert!(exact_float(text).is_some(), "{text}");
        }
        for text in ["0.1234567890123456789", "inf", "nan", "1e999"] {
            assert!(exact_float(text).is_none(), "{text}");
        }
    }
}
