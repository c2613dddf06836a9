//! Encoded rows read back: their fields, and their text.
//!
//! In: `Rows` of this room. Out: tuples, fields, text as psql shows it, JSON for a reject.
//! Must not know: payloads, programs.

use super::batch::Rows;
use super::decimal;
use super::encode::EPOCH_DAYS;
use super::json;
use super::table::{Scalar, Table, Type};
use jiff::civil::Date;
use std::net::IpAddr;
use uuid::Uuid;

/// The fields of one tuple, `None` for null; the two of the stamp come last.
pub fn fields(tuple: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    let count = i16::from_be_bytes([tuple[0], tuple[1]]);
    let mut rest = &tuple[2..];
    (0..count).map(move |_| take_field(&mut rest))
}

/// Text of the first `limit` rows as psql shows it, times in UTC; data columns only, null is `None`.
pub fn texts(table: &Table, rows: &Rows, limit: usize) -> Vec<Vec<Option<String>>> {
    let row = |tuple| {
        let pairs = table.columns.iter().zip(fields(tuple));
        pairs.map(|(column, field)| field.map(|field| text(&column.ty, field))).collect()
    };
    rows.tuples().take(limit).map(row).collect()
}

/// The data columns of a tuple as one JSON object that jsonb takes; numbers keep their digits.
pub fn row_json(table: &Table, tuple: &[u8]) -> String {
    let members = table.columns.iter().zip(fields(tuple)).map(|(column, field)| {
        let value = match field {
            None => "null".into(),
            Some(field) => member(&column.ty, field),
        };
        format!("{}:{value}", json::quoted(&column.name))
    });
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

impl Rows {
    /// The tuples, each with its count of fields in front.
    pub fn tuples(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.data.as_slice();
        std::iter::from_fn(move || {
            let count = i16::from_be_bytes([*rest.first()?, *rest.get(1)?]);
            let mut after = &rest[2..];
            for _ in 0..count {
                take_field(&mut after);
            }
            let (tuple, left) = rest.split_at(rest.len() - after.len());
            rest = left;
            Some(tuple)
        })
    }
}

fn take_field<'r>(rest: &mut &'r [u8]) -> Option<&'r [u8]> {
    let (len, after) = rest.split_first_chunk().expect("a tuple has a length before each field");
    // Only null has a negative length.
    let len = usize::try_from(i32::from_be_bytes(*len)).ok();
    let (field, after) = after.split_at(len.unwrap_or(0));
    *rest = after;
    len.map(|_| field)
}

fn member(ty: &Type, field: &[u8]) -> String {
    if ty.array {
        let items = elements(field).map(|item| item.map_or("null".into(), |item| scalar_member(&ty.scalar, item)));
        return format!("[{}]", items.collect::<Vec<_>>().join(","));
    }
    scalar_member(&ty.scalar, field)
}

fn scalar_member(scalar: &Scalar, field: &[u8]) -> String {
    let text = scalar_text(scalar, field);
    match scalar {
        Scalar::Integer | Scalar::Bigint | Scalar::Jsonb => text,
        Scalar::Boolean => if text == "t" { "true" } else { "false" }.into(),
        // NaN and the infinities are no JSON numbers.
        Scalar::Numeric(_) | Scalar::Double if !text.contains(['N', 'I']) => text,
        _ => json::quoted(&text),
    }
}

/// One field that is not null, as psql shows it.
pub(super) fn text(ty: &Type, field: &[u8]) -> String {
    if !ty.array {
        return scalar_text(&ty.scalar, field);
    }
    let items =
        elements(field).map(|item| item.map_or("NULL".into(), |item| array_item(&scalar_text(&ty.scalar, item))));
    format!("{{{}}}", items.collect::<Vec<_>>().join(","))
}

/// The elements of an array field: ndim, flags, oid, length, lower bound, then fields.
fn elements(field: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    let count = field.get(12..16).map_or(0, |len| i32::from_be_bytes(be(len)));
    let mut rest = field.get(20..).unwrap_or_default();
    (0..count).map(move |_| take_field(&mut rest))
}

fn array_item(text: &str) -> String {
    let plain = !text.is_empty()
        && !text.eq_ignore_ascii_case("null")
        && !text.contains(|c: char| c.is_whitespace() || matches!(c, '"' | '\\' | '{' | '}' | ','));
    if plain { text.into() } else { format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")) }
}

fn be<const N: usize>(field: &[u8]) -> [u8; N] {
    field.try_into().expect("this room encoded the field at its type's width")
}

fn scalar_text(scalar: &Scalar, field: &[u8]) -> String {
    match scalar {
        Scalar::Text => String::from_utf8_lossy(field).into_owned(),
        Scalar::Integer => i32::from_be_bytes(be(field)).to_string(),
        Scalar::Bigint => i64::from_be_bytes(be(field)).to_string(),
        Scalar::Numeric(_) => decimal::text(field).expect("this room encoded the numeric"),
        Scalar::Double => double(f64::from_be_bytes(be(field))),
        Scalar::Boolean => if field == [1] { "t" } else { "f" }.into(),
        Scalar::Date => date(i32::from_be_bytes(be(field))),
        Scalar::Timestamptz(_) => instant(i64::from_be_bytes(be(field))),
        Scalar::Uuid => Uuid::from_bytes(be(field)).to_string(),
        Scalar::Jsonb => String::from_utf8_lossy(&field[1..]).into_owned(),
        Scalar::Inet => inet(field),
        Scalar::Bytea => field.iter().fold(String::from("\\x"), |hex, b| hex + &format!("{b:02x}")),
    }
}

/// As `float8out`: shortest digits, with an exponent outside of 1e-4 to 1e15.
fn double(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.into();
    }
    let scientific = format!("{value:e}");
    match scientific.split_once('e').and_then(|(digits, power)| Some((digits, power.parse::<i32>().ok()?))) {
        Some((digits, power)) if !(-4..15).contains(&power) => {
            format!("{digits}e{}{:02}", if power < 0 { '-' } else { '+' }, power.abs())
        }
        _ => value.to_string(),
    }
}

fn date(days: i32) -> String {
    let since = jiff::Span::new().try_days(i64::from(days) + EPOCH_DAYS);
    let date = since.and_then(|days| jiff::civil::date(1970, 1, 1).checked_add(days));
    date.as_ref().map_or_else(|_| days.to_string(), Date::to_string)
}

/// Civil, for jiff's instants end a day before its years do. Years it has none for are left as microseconds.
fn instant(micros: i64) -> String {
    let since = jiff::Span::new().try_microseconds(micros);
    let epoch = jiff::civil::date(2000, 1, 1).at(0, 0, 0, 0);
    let Ok(at) = since.and_then(|since| epoch.checked_add(since)) else { return micros.to_string() };
    let seconds = at.strftime("%Y-%m-%d %H:%M:%S").to_string();
    let fraction = format!(".{:06}", at.subsec_nanosecond() / 1_000);
    format!("{seconds}{}+00", fraction.trim_end_matches('0').trim_end_matches('.'))
}

fn inet(field: &[u8]) -> String {
    let address = match field[4..] {
        [a, b, c, d] => IpAddr::from([a, b, c, d]),
        _ => IpAddr::from(be::<16>(&field[4..])),
    };
    let whole = if address.is_ipv4() { 32 } else { 128 };
    if field[1] == whole { address.to_string() } else { format!("{address}/{}", field[1]) }
}
