//! One value → one field of PostgreSQL's binary form, the only way either path has.
//!
//! In: a `Value` and the column's type. Out: the field's bytes appended, or why the value does not fit.
//! Must not know: JSON documents, programs, rows.
//!
//! Source: PostgreSQL's `*_recv` functions; manual, "Binary Format" of COPY.

use super::decimal::{self, Decimal};
use super::json;
use super::scan::Cursor;
use super::table::{Scalar, TimeFormat, Type};
use super::value::Value;
use jiff::civil::Date;
use jiff::fmt::strtime::BrokenDownTime;
use jiff::fmt::temporal::Pieces;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Unit};
use std::net::IpAddr;
use uuid::Uuid;

/// Days and microseconds from 1970-01-01 to 2000-01-01, PostgreSQL's epoch.
pub(super) const EPOCH_DAYS: i64 = 10_957;
pub(super) const EPOCH_MICROS: i64 = EPOCH_DAYS * DAY_MICROS;
const DAY_MICROS: i64 = 86_400 * 1_000_000;

/// Why a value does not fit its type; "" when kind and text say it all.
pub(super) type Misfit = &'static str;

/// Appends length and bytes of one field; null is length -1. On an error `out` holds a torn field.
#[inline]
pub(super) fn field(ty: &Type, value: &Value<'_>, out: &mut Vec<u8>) -> Result<(), Misfit> {
    if *value == Value::Null {
        out.extend_from_slice(&(-1_i32).to_be_bytes());
        return Ok(());
    }
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    if ty.array {
        array(&ty.scalar, value, out)?
    } else {
        scalar(&ty.scalar, value, out)?
    }
    let len = i32::try_from(out.len() - start - 4).map_err(|_| "longer than 2 GiB")?;
    out[start..start + 4].copy_from_slice(&len.to_be_bytes());
    Ok(())
}

impl Type {
    /// Whether a value of the configuration, a default, becomes one of this type.
    ///
    /// # Errors
    /// As for a row's value: expected, got, why. One line.
    pub fn takes(&self, json: &serde_json::Value) -> Result<(), String> {
        let value = Value::of_config(json);
        field(self, &value, &mut Vec::new()).map_err(|why| told(self, &value, why))
    }
}

/// A misfit in full: `expected integer, got number 1.5 (not a whole number)`.
pub(super) fn told(ty: &Type, value: &Value<'_>, why: Misfit) -> String {
    match value {
        Value::Fault(fault) => fault.clone(),
        value if why.is_empty() => format!("expected {ty}, got {}", value.shown()),
        value => format!("expected {ty}, got {} ({why})", value.shown()),
    }
}

fn scalar(scalar: &Scalar, value: &Value<'_>, out: &mut Vec<u8>) -> Result<(), Misfit> {
    match scalar {
        Scalar::Text => text(value, out),
        Scalar::Integer => {
            let int = i32::try_from(whole(value)?).map_err(|_| "out of range")?;
            put(out, &int.to_be_bytes())
        }
        Scalar::Bigint => put(out, &whole(value)?.to_be_bytes()),
        Scalar::Numeric(typmod) => decimal::numeric(digits(value)?, *typmod, out),
        Scalar::Double => put(out, &double(value)?.to_be_bytes()),
        Scalar::Boolean => put(out, &[u8::from(boolean(value)?)]),
        Scalar::Date => put(out, &date(string(value)?)?.to_be_bytes()),
        Scalar::Timestamptz(format) => put(out, &instant(format, value)?.to_be_bytes()),
        Scalar::Uuid => put(out, Uuid::parse_str(string(value)?).map_err(|_| "")?.as_bytes()),
        Scalar::Jsonb => jsonb(value, out),
        Scalar::Inet => inet(string(value)?, out),
        Scalar::Bytea => bytea(string(value)?, out),
    }
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Misfit> {
    out.extend_from_slice(bytes);
    Ok(())
}

fn string<'v>(value: &'v Value<'_>) -> Result<&'v str, Misfit> {
    if let Value::Text(text) = value { Ok(text) } else { Err("") }
}

fn digits<'v>(value: &'v Value<'_>) -> Result<&'v str, Misfit> {
    match value {
        Value::Number(digits) => Ok(digits),
        Value::Text(text) => Ok(text.trim()),
        _ => Err(""),
    }
}

fn whole(value: &Value<'_>) -> Result<i64, Misfit> {
    let digits = digits(value)?;
    digits.parse().or_else(|_| Decimal::parse(digits).ok_or("")?.scaled(0, true))
}

fn double(value: &Value<'_>) -> Result<f64, Misfit> {
    let digits = digits(value)?;
    let parsed: f64 = digits.parse().map_err(|_| "")?;
    let overflowed = parsed.is_infinite() && digits.bytes().any(|b| b.is_ascii_digit());
    if overflowed { Err("out of range") } else { Ok(parsed) }
}

fn boolean(value: &Value<'_>) -> Result<bool, Misfit> {
    match value {
        Value::Bool(b) => Ok(*b),
        Value::Text(text) => text.parse().map_err(|_| ""),
        _ => Err(""),
    }
}

fn text(value: &Value<'_>, out: &mut Vec<u8>) -> Result<(), Misfit> {
    match value {
        Value::Text(text) if text.as_bytes().contains(&0) => Err("PostgreSQL holds no NUL character"),
        Value::Text(text) => put(out, text.as_bytes()),
        other => json_text(other, out),
    }
}

fn jsonb(value: &Value<'_>, out: &mut Vec<u8>) -> Result<(), Misfit> {
    out.push(1);
    json_text(value, out)
}

fn json_text(value: &Value<'_>, out: &mut Vec<u8>) -> Result<(), Misfit> {
    match value {
        Value::Null => put(out, b"null"),
        Value::Bool(b) => put(out, if *b { b"true" } else { b"false" }),
        Value::Number(digits) if Decimal::parse(digits).is_some_and(|d| d.fits()) => put(out, digits.as_bytes()),
        Value::Number(_) => Err(json::UNFIT),
        Value::Text(text) if text.as_bytes().contains(&0) => Err(json::UNFIT),
        Value::Text(text) => put(out, json::quoted(text).as_bytes()),
        Value::Json(text) => put(out, json::compact(text).ok_or(json::UNFIT)?.as_bytes()),
        Value::Fault(_) => Err(""),
    }
}

fn date(text: &str) -> Result<i32, Misfit> {
    // Longer texts hold a time of day, which a date would lose without a word.
    let date =
        if text.len() == 10 { text.parse::<Date>().map_err(|_| "")? } else { return Err("expected YYYY-MM-DD") };
    let days = date.since((Unit::Day, jiff::civil::date(2000, 1, 1))).map_err(|_| "out of range")?;
    Ok(days.get_days())
}

fn instant(format: &TimeFormat, value: &Value<'_>) -> Result<i64, Misfit> {
    let unix_micros = match format {
        TimeFormat::Unix => Decimal::parse(digits(value)?).ok_or("not unix seconds")?.scaled(6, false)?,
        TimeFormat::UnixMs => Decimal::parse(digits(value)?).ok_or("not unix milliseconds")?.scaled(3, false)?,
        TimeFormat::Rfc3339 => rfc3339(string(value)?).ok_or("expected RFC 3339 with an offset")?,
        TimeFormat::Pattern(pattern) => micros(patterned(pattern, string(value)?).ok_or("not in the column's format")?),
    };
    let instant = unix_micros.checked_sub(EPOCH_MICROS).ok_or("out of range")?;
    // PostgreSQL's timestamps: 4714-11-24 BC up to, and without, 294277-01-01.
    if (-211_813_488_000_000_000..9_223_371_331_200_000_000).contains(&instant) {
        Ok(instant)
    } else {
        Err("out of range")
    }
}

/// Microseconds since 1970.
fn rfc3339(text: &str) -> Option<i64> {
    text.parse::<Timestamp>().map(micros).ok().or_else(|| last_days(text))
}

/// jiff's instants end a day before the year 9999 does, and `9999-12-31T23:59:59Z` is how many say "never".
fn last_days(text: &str) -> Option<i64> {
    let pieces = Pieces::parse(text).ok()?;
    let offset = pieces.to_numeric_offset()?;
    let at = pieces.date().to_datetime(pieces.time()?);
    let earlier = at.checked_sub(Span::new().days(2)).ok()?.to_zoned(offset.to_time_zone()).ok()?;
    micros(earlier.timestamp()).checked_add(2 * DAY_MICROS)
}

/// Microseconds since 1970, rounded half away from zero.
pub(super) fn micros(at: Timestamp) -> i64 {
    let nanos = at.as_nanosecond();
    let rounded = (nanos + if nanos < 0 { -500 } else { 500 }) / 1_000;
    i64::try_from(rounded).expect("jiff's years, -9999 to 9999, fit in microseconds")
}

fn patterned(pattern: &str, text: &str) -> Option<Timestamp> {
    let parsed = BrokenDownTime::parse(pattern, text).ok()?;
    if parsed.offset().is_some() || parsed.iana_time_zone().is_some() || parsed.timestamp().is_some() {
        return parsed.to_timestamp().ok();
    }
    let civil = parsed
        .to_datetime()
        .or_else(|_| parsed.to_date().map(|date| date.to_datetime(jiff::civil::Time::midnight())))
        .ok()?;
    civil.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

fn inet(text: &str, out: &mut Vec<u8>) -> Result<(), Misfit> {
    let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
    let address: IpAddr = address.parse().map_err(|_| "")?;
    let (family, bytes) = match address {
        IpAddr::V4(v4) => (2, v4.octets().to_vec()),
        IpAddr::V6(v6) => (3, v6.octets().to_vec()),
    };
    let most = bytes.len() as u8 * 8;
    let bits = prefix.map_or(Ok(most), |prefix| prefix.parse().map_err(|_| "not a prefix length"))?;
    if bits > most {
        return Err("not a prefix length");
    }
    out.extend_from_slice(&[family, bits, 0, bytes.len() as u8]);
    put(out, &bytes)
}

fn bytea(text: &str, out: &mut Vec<u8>) -> Result<(), Misfit> {
    const HINT: Misfit = "expected hexadecimal digits after \\x";
    let hex = text.strip_prefix("\\x").filter(|hex| hex.len() % 2 == 0).ok_or(HINT)?;
    for pair in hex.as_bytes().chunks(2) {
        let digit = |b: u8| char::from(b).to_digit(16).ok_or(HINT);
        out.push((digit(pair[0])? * 16 + digit(pair[1])?) as u8);
    }
    Ok(())
}

fn array(scalar: &Scalar, value: &Value<'_>, out: &mut Vec<u8>) -> Result<(), Misfit> {
    let Value::Json(text) = value else { return Err("") };
    if !text.starts_with('[') {
        return Err("");
    }
    let element = Type { scalar: scalar.clone(), array: false };
    let start = out.len();
    for header in [1, 0, oid(scalar), 0, 1] {
        out.extend_from_slice(&i32::to_be_bytes(header));
    }
    let (mut count, mut nulls) = (0_i32, 0_i32);
    let mut cursor = Cursor::new(text);
    let mut more = cursor.open(b']').map_err(|flaw| flaw.what)?;
    while more {
        let item = cursor.value().map_err(|flaw| flaw.what)?;
        nulls |= i32::from(item == Value::Null);
        if matches!(item, Value::Fault(_)) {
            return Err("an element with half a surrogate pair");
        }
        field(&element, &item, out)?;
        count += 1;
        more = cursor.more(b']').map_err(|flaw| flaw.what)?;
    }
    out[start + 4..start + 8].copy_from_slice(&nulls.to_be_bytes());
    out[start + 12..start + 16].copy_from_slice(&count.to_be_bytes());
    if count == 0 {
        // An empty array has no dimension at all.
        out.truncate(start + 12);
        out[start..start + 4].copy_from_slice(&0_i32.to_be_bytes());
    }
    Ok(())
}

/// The type's object id in `pg_type`, fixed since ever.
const fn oid(scalar: &Scalar) -> i32 {
    match scalar {
        Scalar::Text => 25,
        Scalar::Integer => 23,
        Scalar::Bigint => 20,
        Scalar::Numeric(_) => 1700,
        Scalar::Double => 701,
        Scalar::Boolean => 16,
        Scalar::Date => 1082,
        Scalar::Timestamptz(_) => 1184,
        Scalar::Uuid => 2950,
        Scalar::Jsonb => 3802,
        Scalar::Inet => 869,
        Scalar::Bytea => 17,
    }
}
