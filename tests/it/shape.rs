//! Shape from outside: real responses, real jq, exact errors.

use jiff::Timestamp;
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::process::{Command, Stdio};
use std::sync::Arc;
use trackd::shape::{
    Column, Error, Globals, History, Program, Rows, Scalar, Shaper, Stamp, Table, Tally, Type, decode,
};

fn column(name: &str, jq: &str, ty: &str, format: Option<&str>) -> Column {
    Column {
        name: name.into(),
        ty: Type::parse(ty, format).unwrap(),
        program: Program::compile(jq).unwrap(),
        required: false,
        default: None,
        check: None,
        references: None,
        index: false,
    }
}

fn table(rows: &str, columns: &[(&str, &str, &str)], key: &[usize]) -> Table {
    Table {
        name: "t".into(),
        history: History::Snapshot,
        rows: Program::compile(rows).unwrap(),
        columns: columns.iter().map(|(name, jq, ty)| column(name, jq, ty, None)).collect(),
        key: key.to_vec(),
    }
}

fn vars() -> Value {
    json!({"season": 1.5, "seasons": [{"season": 1}, {"season": 1.5}]})
}

fn shape(body: &[u8], table: &Table) -> Result<(Rows, Tally), Error> {
    let globals = Globals { run: json!({"id": "r"}), vars: Arc::new(vars()), response: Value::Null };
    let stamp = Stamp { at: Timestamp::UNIX_EPOCH, run_id: uuid::Uuid::nil() };
    let mut all = Rows::default();
    let tally = Shaper::new(body, &globals).table(table, &stamp, &mut |rows| {
        all.data.extend(rows.data);
        all.count += rows.count;
        ControlFlow::Continue(())
    })?;
    Ok((all, tally))
}

fn texts(body: &[u8], table: &Table) -> Vec<Vec<Option<String>>> {
    let (rows, tally) = shape(body, table).unwrap();
    assert_eq!(tally.rejects, []);
    decode::texts(table, &rows, usize::MAX)
}

fn one(value: &str, ty: &str, format: Option<&str>) -> Result<Option<String>, String> {
    let mut table = table(".[]", &[], &[]);
    table.columns.push(column("v", ".", ty, format));
    let (rows, tally) = shape(format!("[{value}]").as_bytes(), &table).unwrap();
    match tally.rejects.into_iter().next() {
        Some(reject) => Err(reject.reason),
        None => Ok(decode::texts(&table, &rows, 1).remove(0).remove(0)),
    }
}

fn good(value: &str, ty: &str, format: Option<&str>) -> String {
    one(value, ty, format).unwrap().unwrap()
}

fn bad(value: &str, ty: &str) -> String {
    one(value, ty, None).unwrap_err()
}

#[test]
fn digits_are_kept() {
    assert_eq!(good("-14.469999999999999", "numeric", None), "-14.469999999999999");
    assert_eq!(good("-749.7700000000001", "numeric", None), "-749.7700000000001");
    assert_eq!(good("236046654097081", "bigint", None), "236046654097081");
    assert_eq!(good("236046654097081", "text", None), "236046654097081");
    assert_eq!(good("[1.10, 1e2]", "jsonb", None), "[1.10,1e2]");
    assert_eq!(good("1761605381.192", "timestamptz", Some("unix")), "2025-10-27 22:49:41.192+00");
    assert_eq!(good("\"1761605381192\"", "timestamptz", Some("unix_ms")), "2025-10-27 22:49:41.192+00");
}

#[test]
fn every_type_takes_what_it_should_and_says_what_it_does_not() {
    assert_eq!(good("5.0", "integer", None), "5");
    assert_eq!(good("\"12\"", "integer", None), "12");
    assert_eq!(bad("5.5", "integer"), "column v: expected integer, got number 5.5 (not a whole number)");
    assert_eq!(bad("3000000000", "integer"), "column v: expected integer, got number 3000000000 (out of range)");
    assert_eq!(bad("\"abc\"", "numeric"), "column v: expected numeric, got text \"abc\"");
    assert_eq!(bad("true", "bigint"), "column v: expected bigint, got boolean true");
    assert_eq!(bad("99999.5", "numeric(4,1)"), "column v: expected numeric(4,1), got number 99999.5 (out of range)");
    assert_eq!(good("1e300", "double precision", None), "1e+300");
    assert_eq!(
        bad("1e999", "double precision"),
        "column v: expected double precision, got number 1e999 (out of range)"
    );
    assert_eq!(good("\"true\"", "boolean", None), "t");
    assert_eq!(bad("1", "boolean"), "column v: expected boolean, got number 1");
    assert_eq!(good("\"2025-10-18\"", "date", None), "2025-10-18");
    assert_eq!(good("\"1999-12-31\"", "date", None), "1999-12-31");
    assert_eq!(bad("\"2025-02-30\"", "date"), "column v: expected date, got text \"2025-02-30\"");
    assert_eq!(good("\"2025-10-28T08:51:03.5+02:00\"", "timestamptz", None), "2025-10-28 06:51:03.5+00");
    assert!(bad("\"2025-10-28T08:51:03\"", "timestamptz").ends_with("(expected RFC 3339 with an offset)"));
    assert_eq!(good("\"9999-12-31T23:59:59Z\"", "timestamptz", None), "9999-12-31 23:59:59+00");
    assert_eq!(good("\"9999-12-31T23:59:59.99-00:00\"", "timestamptz", None), "9999-12-31 23:59:59.99+00");
    // PostgreSQL's year 10000: 252455616000 seconds after 2000.
    assert_eq!(good("\"9999-12-31T23:59:59.9999999Z\"", "timestamptz", None), "252455616000000000");
    assert!(bad("\"9999-12-31T23:59:59\"", "timestamptz").ends_with("(expected RFC 3339 with an offset)"));
    assert_eq!(good("\"28.10.2025 06:51\"", "timestamptz", Some("%d.%m.%Y %H:%M")), "2025-10-28 06:51:00+00");
    assert_eq!(good("\"2025-10-28\"", "timestamptz", Some("%Y-%m-%d")), "2025-10-28 00:00:00+00");
    let id = "6f9619ff-8b86-d011-b42d-00cf4fc964ff";
    assert_eq!(good(&format!("\"{id}\""), "uuid", None), id);
    assert_eq!(good(r#"{"a": [1, "\u0041"]}"#, "jsonb", None), r#"{"a":[1,"A"]}"#);
    assert!(bad(r#"{"a": "\u0000"}"#, "jsonb").contains("jsonb holds no NUL"));
    assert!(bad("1e999999", "jsonb").contains("number out of numeric's range"));
    assert!(bad(r#""a\u0000b""#, "text").contains("PostgreSQL holds no NUL character"));
    assert_eq!(bad(r#""\ud800""#, "text"), "column v: half of a surrogate pair is no character");
    assert_eq!(good("\"10.0.0.0/8\"", "inet", None), "10.0.0.0/8");
    assert_eq!(good("\"::1\"", "inet", None), "::1");
    assert_eq!(good(r#""\\xDEad""#, "bytea", None), "\\xdead");
    assert!(bad("\"3q0=\"", "bytea").ends_with("(expected hexadecimal digits after \\x)"));
    assert_eq!(good(r#"["a", null, "b c"]"#, "text[]", None), r#"{a,NULL,"b c"}"#);
    assert_eq!(good("[]", "integer[]", None), "{}");
    assert_eq!(bad("[1, \"x\"]", "integer[]"), "column v: expected integer[], got array [1,\"x\"]");
    assert_eq!(one("null", "integer", None), Ok(None));
}

#[test]
fn types_are_read_and_others_are_refused_with_the_list() {
    assert_eq!(Type::parse("numeric(4,1)", None).unwrap().scalar, Scalar::Numeric(Some((4, 1))));
    assert_eq!(Type::parse("Double  Precision[]", None).unwrap().to_string(), "double precision[]");
    assert!(Type::parse("varchar", None).unwrap_err().starts_with("no type \"varchar\": there are text, integer,"));
    assert!(Type::parse("text", Some("unix")).is_err());
    assert!(Type::parse("timestamptz", Some("iso")).is_err());
    assert!(Type::parse("numeric(0,1)", None).is_err());
}

#[test]
fn null_required_and_default() {
    let mut table = table(".[]", &[("id", ".id", "text"), ("n", ".n", "integer")], &[0]);
    table.columns[1].default = Some(json!(7));
    let (rows, tally) = shape(br#"[{"id":"a"},{"n":1},{"id":"b","n":2}]"#, &table).unwrap();
    assert_eq!(
        decode::texts(&table, &rows, 9),
        [[Some("a".into()), Some("7".into())], [Some("b".into()), Some("2".into())]]
    );
    assert_eq!((tally.read, tally.rejected), (3, 1));
    assert_eq!(tally.rejects[0].reason, "column id: required, got null");
    assert_eq!(tally.rejects[0].row, r#"{"n":1}"#);
    let tuple = rows.tuples().next().unwrap();
    assert_eq!(decode::row_json(&table, tuple), r#"{"id":"a","n":7}"#);
    assert_eq!(decode::fields(tuple).count(), 4);
}

#[test]
fn the_first_row_of_a_key_lands_and_the_others_are_set_aside() {
    let columns = [("season", "$vars.season", "numeric(4,1)"), ("model_id", ".id", "text"), ("n", ".n", "numeric")];
    let body = br#"[{"id":"gpt-5","n":1.5},{"id":"gpt-5","n":2},{"id":"x","n":1.50}]"#;
    let (rows, tally) = shape(body, &table(".[]", &columns, &[0, 1])).unwrap();
    assert_eq!(rows.count, 2);
    assert_eq!(tally.rejects[0].reason, "duplicate key (season=1.5, model_id=gpt-5) in one response");
    let (_, tally) = shape(body, &table(".[]", &columns, &[2])).unwrap();
    assert_eq!(tally.rejects[0].reason, "duplicate key (n=1.50) in one response");
    let long = format!("a\\nb{}", "c".repeat(100_000));
    let body = format!(r#"[{{"id":"{long}"}},{{"id":"{long}"}}]"#);
    let (_, tally) = shape(body.as_bytes(), &table(".[]", &[("id", ".id", "text")], &[0])).unwrap();
    assert_eq!(tally.rejects[0].reason, format!("duplicate key (id=a b{}…) in one response", "c".repeat(77)));
}

#[test]
fn a_body_of_another_shape_says_where_and_what_it_has_instead() {
    let board = table(".leaderboard[]", &[("id", ".id", "text")], &[]);
    let fault = |body: &str| shape(body.as_bytes(), &board).map(|_| ()).unwrap_err();
    let html = fault("<!DOCTYPE html>\n<html></html>");
    assert_eq!(html.message, "the body is not JSON: expected a value at line 1 column 1 (byte 0 of 29)");
    assert_eq!(html.hint.unwrap(), "it starts with `<!DOCTYPE html> <html></html>`: an HTML page, not JSON");
    let cut = fault("{\"leaderboard\":[\n{\"id\":\"a\"},");
    assert_eq!(cut.message, "the body is not JSON: it ends too early at line 2 column 12 (byte 28 of 28)");
    assert_eq!(cut.hint.unwrap(), "the response seems to be cut off");
    let missing = fault(r#"{"error":1,"status":"x"}"#);
    assert_eq!(missing.message, "rows .leaderboard[]: nothing at .leaderboard, expected an array or object");
    assert_eq!(missing.hint.unwrap(), r#"it has the keys "error", "status""#);
    let number = fault(r#"{"leaderboard":5}"#);
    assert_eq!(number.message, "rows .leaderboard[]: .leaderboard is a number, expected an array or object");
    assert_eq!(fault(r#"{"leaderboard":5"#).hint.unwrap(), "the response seems to be cut off");
    assert!(fault("{\"leaderboard\":[]} x").message.contains("something follows the document"));
    assert_eq!(fault("").hint.unwrap(), "it is empty");
    for (body, hint) in [
        (&b"\x1f\x8b\x08\x00"[..], "it is gzip, which no content-encoding announced"),
        (b"\xff\xfe{\x00}\x00", "it is UTF-16"),
        (b"[\xe9]", "it starts with `[\u{FFFD}]`"),
    ] {
        assert_eq!(shape(body, &board).unwrap_err().hint.unwrap(), hint);
    }
}

#[test]
fn rows_of_the_configuration_still_need_a_valid_body() {
    let seasons = table("$vars.seasons[]", &[("season", ".season", "numeric(4,1)")], &[0]);
    assert_eq!(texts(b"{}", &seasons), [[Some("1.0".into())], [Some("1.5".into())]]);
    assert!(shape(b"<html>", &seasons).is_err());
}

#[test]
fn a_column_program_yields_one_value_or_the_row_is_set_aside() {
    let columns = [("n", ".n[]", "integer"), ("m", ".n | map(. + 1) | .[0]", "integer")];
    let (rows, tally) = shape(br#"[{"n":[]},{"n":[1,2]},{"n":3}]"#, &table(".[]", &columns, &[])).unwrap();
    assert_eq!(rows.count, 1);
    assert_eq!(tally.rejects[0].reason, "column n: its program yields more than one value");
    assert_eq!(tally.rejects[1].reason, "column n: .n is a number, expected an array or object");
    let (_, tally) = shape(br#"[{"n":"x"}]"#, &table(".[]", &[("m", ".n + 1", "integer")], &[])).unwrap();
    assert!(tally.rejects[0].reason.starts_with("column m: cannot calculate"), "{}", tally.rejects[0].reason);
}

#[test]
fn a_sink_that_breaks_ends_the_pass() {
    let body = format!("[{}1]", "1,".repeat(200_000));
    let table = table(".[]", &[("n", ".", "integer")], &[]);
    let globals = Globals { run: Value::Null, vars: Arc::new(Value::Null), response: Value::Null };
    let stamp = Stamp { at: Timestamp::UNIX_EPOCH, run_id: uuid::Uuid::nil() };
    let mut calls = 0;
    let tally = Shaper::new(body.as_bytes(), &globals).table(&table, &stamp, &mut |_| {
        calls += 1;
        ControlFlow::Break(())
    });
    assert!(tally.unwrap().read < 200_000);
    assert_eq!(calls, 1);
}

const LEADERBOARD: &str = include_str!("../fixtures/shape/leaderboard.json");
const TRADES: &str = include_str!("../fixtures/shape/trades.json");
const CONVERSATIONS: &str = include_str!("../fixtures/shape/conversations.json");

/// What the installed jq makes of the same body, one line a row; `None` without jq.
fn jq(program: &str, body: &str) -> Option<Vec<Value>> {
    let child = Command::new("jq")
        .args(["-c", "--argjson", "vars", &vars().to_string(), program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        println!("skipped: no jq to compare with");
        return None;
    };
    let mut stdin = child.stdin.take().unwrap();
    let body = body.to_owned();
    let feeder = std::thread::spawn(move || std::io::Write::write_all(&mut stdin, body.as_bytes()).unwrap());
    let out = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    assert!(out.status.success(), "{program}");
    Some(String::from_utf8(out.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

/// Equal, numbers as doubles: jq 1.6 has nothing else.
fn same(ours: &Value, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            (a - b).abs() <= 1e-15 * a.abs()
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(k, v)| b.get(k).is_some_and(|b| same(v, b)))
        }
        (a, b) => a == b,
    }
}

/// Ours and the installed jq's rows are the same, value by value; there is at least one.
pub(crate) fn agrees_with_jq(body: &str, rows: &str, columns: &[(&str, &str)]) {
    let typed: Vec<(&str, &str, &str)> = columns.iter().map(|&(name, jq)| (name, jq, "jsonb")).collect();
    let table = table(rows, &typed, &[]);
    let ours = shape(body.as_bytes(), &table).unwrap();
    assert_eq!(ours.1.rejects, []);
    let members: Vec<String> = columns.iter().map(|(name, program)| format!("{name}: ({program})")).collect();
    let Some(theirs) = jq(&format!("{rows} | {{{}}}", members.join(", ")), body) else { return };
    assert_eq!(ours.0.count, theirs.len() as u64);
    assert!(!theirs.is_empty());
    for (tuple, theirs) in ours.0.tuples().zip(&theirs) {
        let ours: Value = serde_json::from_str(&decode::row_json(&table, tuple)).unwrap();
        assert!(same(&ours, theirs), "{rows}\nours   {ours}\ntheirs {theirs}");
    }
}

#[test]
fn recorded_responses_give_the_rows_that_jq_gives() {
    agrees_with_jq(LEADERBOARD, ".leaderboard[]", &[("id", ".id"), ("equity", ".equity"), ("raw", ".")]);
    agrees_with_jq(
        LEADERBOARD,
        ".leaderboard | sort_by(-.equity) | to_entries[] | .value + {rank: (.key + 1)}",
        &[
            ("season", "$vars.season"),
            ("id", ".id"),
            ("rank", ".rank"),
            ("win_rate", "if .num_trades > 0 then 100 * .num_wins / .num_trades else null end"),
        ],
    );
    agrees_with_jq(
        TRADES,
        ".trades[]",
        &[("id", ".id"), ("symbol", ".symbol"), ("entry", ".entry_price"), ("raw", ".")],
    );
    agrees_with_jq(
        CONVERSATIONS,
        ".conversations[] | . as $c | .llm_response | to_entries[] | {chat: $c.id, symbol: .key} + .value",
        &[("chat", ".chat"), ("symbol", ".symbol"), ("all", ".")],
    );
}

#[test]
fn recorded_digits_land_as_they_were_sent() {
    let table = table(".leaderboard[]", &[("id", ".id", "text"), ("return_pct", ".return_pct", "numeric")], &[0]);
    let rows = texts(LEADERBOARD.as_bytes(), &table);
    for row in &rows {
        let (id, digits) = (row[0].as_ref().unwrap(), row[1].as_ref().unwrap());
        assert!(LEADERBOARD.contains(digits.as_str()), "{id} {digits}");
    }
    assert!(rows.iter().any(|row| row[1].as_deref() == Some("-14.469999999999999")), "{rows:?}");
}
