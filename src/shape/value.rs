//! One value on its way into a column, from either path.
//!
//! In: a token of the body, a jq result, or a default. Out: what `encode` reads.
//! Must not know: column types, PostgreSQL.

use super::json;
use jaq_json::{Num, Val};
use std::borrow::Cow;

/// A JSON value, borrowed where it can be; numbers are their digits, containers their text.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) enum Value<'a> {
    #[default]
    Null,
    Bool(bool),
    Number(Cow<'a, str>),
    Text(Cow<'a, str>),
    /// An array or an object, as JSON text.
    Json(Cow<'a, str>),
    /// There is no value to be had: why.
    Fault(String),
}

/// Characters of a value shown in a reason.
const SHOWN: usize = 80;

impl<'a> Value<'a> {
    /// Text, unless a lone surrogate kept it from being any.
    pub(super) fn of_text(text: Option<Cow<'a, str>>) -> Self {
        text.map_or_else(|| Value::Fault("half of a surrogate pair is no character".into()), Value::Text)
    }

    /// A jq result. NaN is null, as jq prints it.
    pub(super) fn of_val(val: &'a Val) -> Self {
        match val {
            Val::Null => Value::Null,
            Val::Bool(b) => Value::Bool(*b),
            Val::Num(Num::Float(f)) if f.is_nan() => Value::Null,
            // The words PostgreSQL has for them; an integer column refuses them as text.
            Val::Num(Num::Float(f)) if f.is_infinite() => {
                Value::Text(Cow::Borrowed(if *f > 0.0 { "Infinity" } else { "-Infinity" }))
            }
            Val::Num(num) => Value::Number(digits(num)),
            Val::TStr(bytes) | Val::BStr(bytes) => Value::of_text(std::str::from_utf8(bytes).ok().map(Cow::Borrowed)),
            Val::Arr(_) | Val::Obj(_) => match json::of_val(val) {
                Some(text) => Value::Json(Cow::Owned(text)),
                None => {
                    let harmless = Value::Json(Cow::Owned(json::printable_val(val)));
                    Value::Fault(format!("got {} ({})", harmless.shown(), json::UNFIT))
                }
            },
        }
    }

    /// A value of the configuration.
    pub(super) fn of_config(value: &'a serde_json::Value) -> Self {
        match value {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(b) => Value::Bool(*b),
            serde_json::Value::Number(number) => Value::Number(Cow::Owned(number.to_string())),
            serde_json::Value::String(text) => Value::Text(Cow::Borrowed(text)),
            container => Value::Json(Cow::Owned(container.to_string())),
        }
    }

    /// Kind and beginning, for a reason: `text "abc"`.
    pub(super) fn shown(&self) -> String {
        match self {
            Value::Null => "null".into(),
            Value::Bool(b) => format!("boolean {b}"),
            Value::Number(digits) => format!("number {}", cut(digits)),
            Value::Text(text) => format!("text {}", json::quoted(&cut(text))),
            Value::Json(text) if text.starts_with('[') => format!("array {}", cut(&json::printable(text))),
            Value::Json(text) => format!("object {}", cut(&json::printable(text))),
            Value::Fault(why) => why.clone(),
        }
    }
}

/// The digits of a jq number, without loss and without needless exponents.
pub(super) fn digits(num: &Num) -> Cow<'_, str> {
    match num {
        Num::Dec(text) => Cow::Borrowed(text.as_str()),
        Num::Int(int) => Cow::Owned(int.to_string()),
        Num::BigInt(int) => Cow::Owned(int.to_string()),
        Num::Float(f) if *f != 0.0 && !(1e-7..1e17).contains(&f.abs()) => Cow::Owned(format!("{f:e}")),
        Num::Float(f) => Cow::Owned(f.to_string()),
    }
}

/// Not more of it than a reason should show.
pub(super) fn cut(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}
