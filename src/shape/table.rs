//! A table as the configuration describes it: columns, types, key, history.
//!
//! Comes in from `config`, already checked; goes out to `shape` (which fills rows) and to
//! `store` (which makes and writes the table). Must not know: tokio, the database client, the clock.

use super::program::Program;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

/// One table a tracker writes, ready to use: nothing left to parse or to default.
///
/// Shape: at least one column; `key` holds indices into `columns`, unique, in the order written;
/// empty only for `History::Snapshot`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Table {
    /// Name in PostgreSQL, unquoted, `[a-z_][a-z0-9_]*`, or `schema.name` where the schema is not public.
    pub name: String,
    /// How the table keeps time.
    pub history: History,
    /// The program that turns one payload into rows.
    pub rows: Program,
    /// The columns the configuration names, in its order (history columns are not among them).
    pub columns: Vec<Column>,
    /// Indices into `columns`.
    pub key: Vec<usize>,
}

impl Table {
    /// The names of the key columns, in key order.
    pub fn key_names(&self) -> impl Iterator<Item = &str> {
        self.key.iter().map(|&i| self.columns[i].name.as_str())
    }

    /// These tables, each after those among them that it refers to; else in the order given.
    pub fn in_order(tables: &[Arc<Table>]) -> Vec<Arc<Table>> {
        let (mut seen, mut ordered) = (HashSet::new(), Vec::with_capacity(tables.len()));
        tables.iter().for_each(|table| table.put_after_its_references(tables, &mut seen, &mut ordered));
        ordered
    }

    fn put_after_its_references<'a>(
        self: &'a Arc<Table>,
        all: &'a [Arc<Table>],
        seen: &mut HashSet<&'a str>,
        ordered: &mut Vec<Arc<Table>>,
    ) {
        // Seen before its references are: a circle, which the configuration refuses, ends too.
        if seen.insert(&self.name) {
            for name in self.columns.iter().filter_map(|column| column.references.as_deref()) {
                let named = all.iter().filter(|other| other.name == name);
                named.for_each(|other| other.put_after_its_references(all, seen, ordered));
            }
            ordered.push(self.clone());
        }
    }
}

/// How a table keeps time (design, section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum History {
    /// What was there at that instant: key (key…, taken_at).
    Snapshot,
    /// Something that happened once: key (key…).
    Event { on_change: OnChange },
    /// One row a version: key (key…, valid_from), open version has valid_to null.
    Change { absent: Absent },
    /// How it is now: key (key…).
    State { absent: Absent },
}

impl History {
    /// The word used in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            History::Snapshot => "snapshot",
            History::Event { .. } => "event",
            History::Change { .. } => "change",
            History::State { .. } => "state",
        }
    }

    /// The column that holds the run's scheduled instant.
    pub const fn instant_column(self) -> &'static str {
        match self {
            History::Snapshot => "taken_at",
            History::Event { .. } => "first_seen_at",
            History::Change { .. } => "valid_from",
            History::State { .. } => "updated_at",
        }
    }
}

/// What an event seen again with other values does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnChange {
    /// The first sight stays (default).
    Ignore,
    /// The row is corrected; `first_seen_at` stays.
    Update,
}

/// What happens to a key that the source no longer shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Absent {
    /// It stays as it is (state's default).
    Keep,
    /// Its open version ends (change's default).
    Close,
    /// Its row is deleted (state only).
    Delete,
}

/// One column.
#[derive(Debug, Serialize, Deserialize)]
pub struct Column {
    /// Name in PostgreSQL, `[a-z_][a-z0-9_]*`.
    pub name: String,
    /// Its type.
    pub ty: Type,
    /// The program that yields its value from one row.
    pub program: Program,
    /// A null is a bad row. Key columns are always required.
    pub required: bool,
    /// The value for a null, as the JSON the configuration gave.
    pub default: Option<serde_json::Value>,
    /// `CHECK (…)`, verbatim SQL.
    pub check: Option<String>,
    /// `REFERENCES table`, the table's name: its key must be one column of the same type.
    pub references: Option<String>,
    /// An index of its own.
    pub index: bool,
}

/// A column's type; `X[]` is `Type { array: true, .. }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Type {
    /// The type, or the type of the elements.
    pub scalar: Scalar,
    /// One dimension; elements may be null.
    pub array: bool,
}

/// The types of design section 3.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scalar {
    Text,
    Integer,
    Bigint,
    /// Digits kept exactly as sent; `(precision, scale)` as in PostgreSQL, rounded half away from zero.
    Numeric(Option<(u16, i16)>),
    Double,
    Boolean,
    Date,
    Timestamptz(TimeFormat),
    Uuid,
    Jsonb,
    Inet,
    Bytea,
}

/// How a timestamptz is written in the source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TimeFormat {
    /// RFC 3339 text, an offset is required; numbers are bad rows.
    Rfc3339,
    /// Seconds since the epoch, fractions kept to microseconds, number or text.
    Unix,
    /// Milliseconds since the epoch, number or text.
    UnixMs,
    /// A strftime pattern (jiff's); without an offset in it the time is UTC.
    Pattern(String),
}

impl Type {
    /// Reads a type as the configuration writes it: `numeric(4,1)`, `text[]`; `format` is timestamptz's.
    ///
    /// # Errors
    /// The text is no type, or the format is not one for it: what there is.
    pub fn parse(text: &str, format: Option<&str>) -> Result<Type, String> {
        let word = text.split_whitespace().collect::<Vec<_>>().join(" ").to_ascii_lowercase();
        let (word, array) = match word.strip_suffix("[]") {
            Some(element) => (element.trim_end(), true),
            None => (word.as_str(), false),
        };
        let scalar = match word {
            "text" => Scalar::Text,
            "integer" => Scalar::Integer,
            "bigint" => Scalar::Bigint,
            "numeric" => Scalar::Numeric(None),
            "double precision" => Scalar::Double,
            "boolean" => Scalar::Boolean,
            "date" => Scalar::Date,
            "timestamptz" => Scalar::Timestamptz(format.map_or(Ok(TimeFormat::Rfc3339), TimeFormat::parse)?),
            "uuid" => Scalar::Uuid,
            "jsonb" => Scalar::Jsonb,
            "inet" => Scalar::Inet,
            "bytea" => Scalar::Bytea,
            other => precision(other).ok_or_else(|| format!("no type {text:?}: there are {}", Scalar::WORDS))?,
        };
        match (format, &scalar) {
            (Some(_), scalar) if !matches!(scalar, Scalar::Timestamptz(_)) => {
                Err(format!("a format is for timestamptz, not for {}", scalar.sql()))
            }
            _ => Ok(Type { scalar, array }),
        }
    }
}

/// `numeric(p)` and `numeric(p,s)`, within PostgreSQL's bounds.
fn precision(word: &str) -> Option<Scalar> {
    let inner = word.strip_prefix("numeric")?.trim_start().strip_prefix('(')?.strip_suffix(')')?;
    let (precision, scale) = inner.split_once(',').unwrap_or((inner, "0"));
    let (precision, scale) = (precision.trim().parse().ok()?, scale.trim().parse().ok()?);
    let fits = (1..=1000).contains(&precision) && (-1000..=1000).contains(&scale);
    fits.then_some(Scalar::Numeric(Some((precision, scale))))
}

impl TimeFormat {
    fn parse(text: &str) -> Result<TimeFormat, String> {
        match text {
            "rfc3339" => Ok(TimeFormat::Rfc3339),
            "unix" => Ok(TimeFormat::Unix),
            "unix_ms" => Ok(TimeFormat::UnixMs),
            // A pattern that cannot be written cannot be read either.
            pattern if pattern.contains('%') => {
                let sample = jiff::Zoned::new(jiff::Timestamp::UNIX_EPOCH, jiff::tz::TimeZone::UTC);
                match jiff::fmt::strtime::format(pattern, &sample) {
                    Ok(_) => Ok(TimeFormat::Pattern(pattern.to_owned())),
                    Err(fault) => Err(format!("format {pattern:?}: {fault}")),
                }
            }
            _ => {
                Err(format!("no format {text:?}: there are rfc3339, unix, unix_ms and patterns such as %Y-%m-%d %H:%M"))
            }
        }
    }
}

impl Scalar {
    /// The words a configuration may use, for the message that lists them.
    pub const WORDS: &'static str = "text, integer, bigint, numeric, numeric(p,s), double precision, boolean, date, \
        timestamptz, uuid, jsonb, inet, bytea, and any of them with []";

    /// The type as PostgreSQL writes it, without `[]`.
    pub fn sql(&self) -> String {
        match self {
            Scalar::Text => "text".into(),
            Scalar::Integer => "integer".into(),
            Scalar::Bigint => "bigint".into(),
            Scalar::Numeric(None) => "numeric".into(),
            Scalar::Numeric(Some((precision, scale))) => format!("numeric({precision},{scale})"),
            Scalar::Double => "double precision".into(),
            Scalar::Boolean => "boolean".into(),
            Scalar::Date => "date".into(),
            Scalar::Timestamptz(_) => "timestamp with time zone".into(),
            Scalar::Uuid => "uuid".into(),
            Scalar::Jsonb => "jsonb".into(),
            Scalar::Inet => "inet".into(),
            Scalar::Bytea => "bytea".into(),
        }
    }
}

/// The type as PostgreSQL's `format_type` writes it: `numeric(4,1)`, `double precision`, `text[]`.
impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.scalar.sql())?;
        f.write_str(if self.array { "[]" } else { "" })
    }
}
