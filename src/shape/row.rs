//! Rows taking shape: fields in, stretches of tuples and rejects out.
//!
//! In: for each row its values in column order. Out: `Rows` to the sink, bad and doubled rows to the `Tally`.
//! Must not know: where the values come from.

use super::batch::{CHUNK, REJECTS_KEPT, Reject, Rows, Stamp, Tally};
use super::decode;
use super::encode::{self, EPOCH_MICROS};
use super::table::{Column, Scalar, Table};
use super::value::{self, Value};
use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::ControlFlow;
use xxhash_rust::xxh3::xxh3_128;

/// Who gets the rows; `Break` ends the pass.
pub(super) type Sink<'s> = &'s mut dyn FnMut(Rows) -> ControlFlow<()>;

/// One table's pass over one payload.
pub(super) struct Pass<'p> {
    table: &'p Table,
    sink: Sink<'p>,
    /// The fields of the stamp, the same for every row.
    tail: Vec<u8>,
    defaults: Vec<Value<'p>>,
    seen: HashSet<u128, BuildHasherDefault<Through>>,
    rows: Rows,
    tally: Tally,
    /// Where the row at hand and its fields start.
    row_start: usize,
    starts: Vec<usize>,
    reason: Option<String>,
    key: Vec<u8>,
}

/// Keys are hashes already.
#[derive(Default)]
struct Through(u64);

impl Hasher for Through {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only u128 keys are hashed");
    }

    fn write_u128(&mut self, hash: u128) {
        self.0 = hash as u64;
    }
}

impl<'p> Pass<'p> {
    /// `expected`: about how many rows, to size what grows with them.
    pub(super) fn new(table: &'p Table, stamp: &Stamp, expected: usize, sink: Sink<'p>) -> Self {
        let mut tail = Vec::with_capacity(32);
        tail.extend_from_slice(&8_i32.to_be_bytes());
        tail.extend_from_slice(&(encode::micros(stamp.at) - EPOCH_MICROS).to_be_bytes());
        tail.extend_from_slice(&16_i32.to_be_bytes());
        tail.extend_from_slice(stamp.run_id.as_bytes());
        let expected = if table.key.is_empty() { 0 } else { expected };
        Pass {
            sink,
            tail,
            defaults: table.columns.iter().map(|c| c.default.as_ref().map_or(Value::Null, Value::of_config)).collect(),
            seen: HashSet::with_capacity_and_hasher(expected, BuildHasherDefault::default()),
            rows: Rows::default(),
            tally: Tally::default(),
            row_start: 0,
            starts: Vec::with_capacity(table.columns.len() + 1),
            reason: None,
            key: Vec::new(),
            table,
        }
    }

    pub(super) fn begin(&mut self) {
        self.tally.read += 1;
        self.reason = None;
        self.row_start = self.rows.data.len();
        self.starts.clear();
        let fields = self.table.columns.len() + 2;
        self.rows.data.extend_from_slice(&(fields as u16).to_be_bytes());
    }

    /// The next column's value. After a bad one the others are passed over.
    #[inline]
    pub(super) fn field(&mut self, value: &Value<'_>) {
        if self.reason.is_some() {
            return;
        }
        let at = self.starts.len();
        let column = &self.table.columns[at];
        let value = if *value == Value::Null { &self.defaults[at] } else { value };
        self.starts.push(self.rows.data.len());
        if *value == Value::Null && (column.required || self.table.key.contains(&at)) {
            self.reason = Some(format!("column {}: required, got null", column.name));
        } else if let Err(why) = encode::field(&column.ty, value, &mut self.rows.data) {
            self.reason = Some(format!("column {}: {}", column.name, encode::told(&column.ty, value, why)));
        }
    }

    /// The row cannot be had at all, for this column's sake.
    pub(super) fn fail(&mut self, column: &Column, why: &str) {
        self.reason.get_or_insert_with(|| format!("column {}: {why}", column.name));
    }

    /// Whether the row at hand is bad already.
    pub(super) fn is_bad(&self) -> bool {
        self.reason.is_some()
    }

    /// Ends the row; `json` is asked for its text only when it is set aside.
    pub(super) fn end(&mut self, json: impl FnOnce() -> String) -> ControlFlow<()> {
        self.starts.push(self.rows.data.len());
        if self.reason.is_none() && !self.is_first() {
            self.reason = Some(self.doubled());
        }
        match self.reason.take() {
            None => {
                self.rows.data.extend_from_slice(&self.tail);
                self.rows.count += 1;
            }
            Some(reason) => {
                self.rows.data.truncate(self.row_start);
                self.tally.rejected += 1;
                if self.tally.rejects.len() < REJECTS_KEPT {
                    self.tally.rejects.push(Reject { row: json(), reason });
                }
            }
        }
        if self.rows.data.len() < CHUNK { ControlFlow::Continue(()) } else { self.flush() }
    }

    /// Gives on what is left and tells how it went.
    pub(super) fn finish(mut self) -> Tally {
        if self.rows.count > 0 {
            // The pass is over either way.
            let _ = self.flush();
        }
        self.tally
    }

    fn flush(&mut self) -> ControlFlow<()> {
        let next = Rows { data: Vec::with_capacity(CHUNK + CHUNK / 16), count: 0 };
        (self.sink)(std::mem::replace(&mut self.rows, next))
    }

    /// Remembers the row's key; false when it was there before.
    fn is_first(&mut self) -> bool {
        if self.table.key.is_empty() {
            return true;
        }
        self.key.clear();
        for &at in &self.table.key {
            let start = self.key.len();
            self.key.extend_from_slice(&self.rows.data[self.starts[at]..self.starts[at + 1]]);
            same_when_equal(&self.table.columns[at].ty.scalar, &mut self.key[start..]);
        }
        self.seen.insert(xxh3_128(&self.key))
    }

    fn doubled(&self) -> String {
        let shown: Vec<String> = (self.table.key.iter())
            .map(|&at| {
                let column = &self.table.columns[at];
                let field = &self.rows.data[self.starts[at] + 4..self.starts[at + 1]];
                let text = decode::text(&column.ty, field).replace(char::is_control, " ");
                format!("{}={}", column.name, value::cut(&text))
            })
            .collect();
        format!("duplicate key ({}) in one response", shown.join(", "))
    }
}

/// PostgreSQL calls 1.5 and 1.50 equal, and 0.0 and -0.0; their bytes are not.
fn same_when_equal(scalar: &Scalar, field: &mut [u8]) {
    match scalar {
        Scalar::Numeric(None) if field.len() >= 12 => field[10..12].fill(0),
        Scalar::Double if field[4..] == (-0.0_f64).to_be_bytes() => field[4..].fill(0),
        _ => {}
    }
}
