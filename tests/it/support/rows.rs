//! Rows made by hand, for tests of the store without a payload.

use std::collections::VecDeque;
use std::sync::Arc;
use trackd::shape::{self, Column, History, Program, Rows, Scalar, Stamp, Table, Tally, Type};
use trackd::store::write::{Part, Parts};

/// A table `name` with a text key `k` and an integer `v`.
pub fn table(name: &str, history: History) -> Arc<Table> {
    let column = |name: &str, scalar| Column {
        name: name.into(),
        ty: Type { scalar, array: false },
        program: Program::compile(&format!(".{name}")).unwrap(),
        required: false,
        default: None,
        check: None,
        references: None,
        index: false,
    };
    Arc::new(Table {
        name: name.into(),
        history,
        rows: Program::compile(".[]").unwrap(),
        columns: vec![column("k", Scalar::Text), column("v", Scalar::Integer)],
        key: vec![0],
    })
}

/// Rows of such a table.
pub struct TestRows(Vec<(String, i32)>);

impl TestRows {
    pub fn new(rows: &[(&str, i32)]) -> TestRows {
        TestRows(rows.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect())
    }

    /// Adds `count` further rows, the same at each call.
    pub fn padded(mut self, count: usize) -> TestRows {
        self.0.extend((0..count).map(|i| (format!("pad{i:05}"), 0)));
        self
    }

    /// The rows as shaping would give them, in chunks of 100.
    pub fn parts(self, stamp: &Stamp) -> TestParts {
        let read = self.0.len() as u64;
        let chunk = |rows: &[(String, i32)]| {
            let mut data = Vec::new();
            for (k, v) in rows {
                data.extend(4_u16.to_be_bytes());
                field(&mut data, k.as_bytes());
                field(&mut data, &v.to_be_bytes());
                let micros = stamp.at.as_microsecond() - 946_684_800_000_000;
                field(&mut data, &micros.to_be_bytes());
                field(&mut data, stamp.run_id.as_bytes());
            }
            Part::Rows(Rows { data, count: rows.len() as u64 })
        };
        let mut parts: VecDeque<Part> = self.0.chunks(100).map(chunk).collect();
        parts.push_back(Part::End(Tally { read, ..Tally::default() }));
        TestParts(parts)
    }
}

fn field(data: &mut Vec<u8>, bytes: &[u8]) {
    data.extend((bytes.len() as i32).to_be_bytes());
    data.extend(bytes);
}

/// The parts, one after another.
pub struct TestParts(VecDeque<Part>);

impl Parts for TestParts {
    async fn next(&mut self) -> Result<Part, shape::Error> {
        Ok(self.0.pop_front().expect("no part is asked for after the last"))
    }
}
