//! How fast bytes become rows: plain paths and jq, beside serde into a struct, in one run.
//!
//! Prints the best of seven passes over 100,000 rows: milliseconds, rows a second, megabytes a second.

use serde::Deserialize;
use std::fmt::Write as _;
use std::hint::black_box;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};
use trackd::shape::{Column, Globals, History, Program, Shaper, Stamp, Table, Type};

const ROWS: u64 = 100_000;
const COLUMNS: [(&str, &str); 9] = [
    ("id", "text"),
    ("rank", "integer"),
    ("trades", "integer"),
    ("wins", "integer"),
    ("equity", "numeric"),
    ("pnl", "numeric"),
    ("roi", "numeric"),
    ("sharpe", "numeric"),
    ("drawdown", "numeric"),
];

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    rows: Vec<Row<'a>>,
}

/// The ceiling: names and types fixed when it is compiled, digits lost to floats.
#[derive(Deserialize)]
#[allow(dead_code, reason = "filled to be measured, not to be read")]
struct Row<'a> {
    id: &'a str,
    rank: i32,
    trades: i32,
    wins: i32,
    equity: f64,
    pnl: f64,
    roi: f64,
    sharpe: f64,
    drawdown: f64,
}

fn main() {
    let body = body();
    println!("{ROWS} rows of 9 fields, {:.1} MB", body.len() as f64 / 1e6);
    report("serde_json into a struct", &body, || {
        black_box(serde_json::from_str::<Body<'_>>(&body).expect("the body is JSON").rows.len());
    });
    for (what, rows, columns, key) in [
        ("plain paths, 9 columns", ".rows[]", 9, &[][..]),
        ("plain paths, 9 columns, a key", ".rows[]", 9, &[0][..]),
        ("plain paths, 6 columns", ".rows[]", 6, &[][..]),
        ("jq rows, 9 columns by path", ".rows[] | .", 9, &[][..]),
    ] {
        let table = table(rows, columns, key);
        report(what, &body, || shape(&body, &table));
    }
}

fn body() -> String {
    let mut body = String::from("{\"rows\":[");
    for i in 0..ROWS {
        let comma = if i > 0 { "," } else { "" };
        let (cents, tail) = (i * 7919 % 1_000_000, i * 104_729 % 10_000_000);
        write!(
            body,
            "{comma}{{\"id\":\"model-{i:06}\",\"rank\":{},\"trades\":{},\"wins\":{},\"equity\":{}.{:02},\"pnl\":-{}.{tail:07},\
             \"roi\":-14.4699{tail:07},\"sharpe\":0.{tail:07},\"drawdown\":-0.{cents:06}1}}",
            i + 1,
            i % 97,
            i % 41,
            8000 + i % 4000,
            i % 100,
            i % 1000,
        )
        .expect("a String takes everything");
    }
    body + "]}"
}

fn table(rows: &str, columns: usize, key: &[usize]) -> Table {
    let program = |text: &str| Program::compile(text).expect("the program compiles");
    let column = |&(name, ty): &(&str, &str)| Column {
        name: name.into(),
        ty: Type::parse(ty, None).expect("the type is known"),
        program: program(&format!(".{name}")),
        required: false,
        default: None,
        check: None,
        references: None,
        index: false,
    };
    Table {
        name: "bench".into(),
        history: History::Snapshot,
        rows: program(rows),
        columns: COLUMNS[..columns].iter().map(column).collect(),
        key: key.to_vec(),
    }
}

fn shape(body: &str, table: &Table) {
    let none = serde_json::Value::Null;
    let globals = Globals { run: none.clone(), vars: Arc::new(none.clone()), response: none };
    let stamp = Stamp { at: jiff::Timestamp::UNIX_EPOCH, run_id: uuid::Uuid::nil() };
    let mut landed = 0;
    let tally = Shaper::new(body.as_bytes(), &globals).table(table, &stamp, &mut |rows| {
        landed += black_box(rows).count;
        ControlFlow::Continue(())
    });
    assert_eq!((landed, tally.map(|tally| tally.rejected)), (ROWS, Ok(0)));
}

fn report(what: &str, body: &str, mut pass: impl FnMut()) {
    let best = (0..7).map(|_| timed(&mut pass)).min().expect("seven passes");
    let seconds = best.as_secs_f64();
    let (rows, megabytes) = (ROWS as f64 / seconds / 1e6, body.len() as f64 / seconds / 1e6);
    println!("{what:<32} {:>7.1} ms {rows:>6.2} M rows/s {megabytes:>6.0} MB/s", seconds * 1e3);
}

fn timed(pass: &mut impl FnMut()) -> Duration {
    let start = Instant::now();
    pass();
    start.elapsed()
}
