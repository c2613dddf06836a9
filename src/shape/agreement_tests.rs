//! Tests that hold the two paths against each other.

use super::*;
use proptest::prelude::*;
use std::ops::ControlFlow;
use std::sync::Arc;

const STAMP: Stamp = Stamp { at: jiff::Timestamp::UNIX_EPOCH, run_id: uuid::Uuid::nil() };

fn globals() -> Globals {
    Globals {
        run: serde_json::json!({"id": "r"}),
        vars: Arc::new(serde_json::json!({"season": 1.5, "seasons": [{"season": 1}, {"season": 1.5}]})),
        response: serde_json::Value::Null,
    }
}

type Compile = fn(&str) -> Result<Program, ProgramError>;

/// Columns as `name program type`.
fn table(rows: &str, columns: &[(&str, &str, &str)], key: &[usize], compile: Compile) -> Table {
    let column = |&(name, program, ty): &(&str, &str, &str)| Column {
        name: name.into(),
        ty: Type::parse(ty, None).unwrap(),
        program: compile(program).unwrap(),
        required: false,
        default: None,
        check: None,
        references: None,
        index: false,
    };
    Table {
        name: "t".into(),
        history: History::Snapshot,
        rows: compile(rows).unwrap(),
        columns: columns.iter().map(column).collect(),
        key: key.to_vec(),
    }
}

fn shape(body: &[u8], table: &Table) -> Result<(Rows, Tally), Error> {
    let (globals, mut all) = (globals(), Rows::default());
    let tally = Shaper::new(body, &globals).table(table, &STAMP, &mut |rows| {
        all.data.extend(rows.data);
        all.count += rows.count;
        ControlFlow::Continue(())
    })?;
    Ok((all, tally))
}

const COLUMNS: [(&str, &str, &str); 8] = [
    ("a", ".a", "integer"),
    ("b", ".b", "text"),
    ("n", ".n", "numeric"),
    ("c", ".a.b", "jsonb"),
    ("x", ".\"x y\"", "numeric(6,2)"),
    ("all", ".", "jsonb"),
    ("i", ".b[1]", "text"),
    ("s", "$vars.season", "numeric(4,1)"),
];

fn number() -> impl Strategy<Value = String> {
    prop_oneof!["-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?", "-?[1-9]?[0-9]"]
}

fn document() -> impl Strategy<Value = String> {
    let text = r#""([ -!#-\[\]-~é😀]|\\n|\\u00e9|\\u0000|\\ud83d\\ude00|\\ud83d|\\/){0,6}""#;
    let scalar = prop_oneof![Just("null".to_owned()), Just("true".to_owned()), number(), text];
    scalar.prop_recursive(5, 64, 6, |inner| {
        let key = prop::sample::select(vec!["\"a\"", "\"b\"", "\"n\"", "\"x y\"", "\"rows\"", "\"z\"", "\"\\u0061a\""]);
        let members = prop::collection::btree_map(key, inner.clone(), 0..6);
        prop_oneof![
            prop::collection::vec(inner, 0..6).prop_map(|items| format!("[ {}]", items.join(" ,\n"))),
            members.prop_map(|m| {
                let members: Vec<String> = m.into_iter().map(|(key, value)| format!("{key} :{value}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

/// Documents that mostly have rows where the programs look for them.
fn payload() -> impl Strategy<Value = String> {
    let row = prop::collection::vec(document(), 4)
        .prop_map(|v| format!(r#"{{"a":{},"b":{},"n":{},"x y":{}}}"#, v[0], v[1], v[2], v[3]));
    let rows = prop::collection::vec(prop_oneof![4 => row, 1 => document()], 0..5);
    prop_oneof![
        2 => rows.prop_map(|rows| format!(r#"{{"z":1,"rows":[{}]}}"#, rows.join(","))),
        1 => document()
    ]
}

fn rows_program() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![".", ".rows", ".rows[]", ".[]", ".rows[].a", ".rows[0]", ".rows[1].b[]", ".z.a", ".[0]"])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn both_paths_give_identical_rows_and_tallies(body in payload(), rows in rows_program(), keyed in any::<bool>()) {
        let key: &[usize] = if keyed { &[2] } else { &[] };
        let plain = shape(body.as_bytes(), &table(rows, &COLUMNS, key, Program::compile));
        let mixed = shape(body.as_bytes(), &table(&format!("{rows} | ."), &COLUMNS, key, Program::compile));
        let jq = shape(body.as_bytes(), &table(rows, &COLUMNS, key, Program::compile_jq));
        // jaq gives null for `.[0]` of an object, jq an error: paths do as jq.
        let tells = |text: &str| text.contains("is an object, expected an array");
        prop_assume!(!match &plain {
            Ok((_, tally)) => tally.rejects.iter().any(|reject| tells(&reject.reason)),
            Err(error) => tells(&error.message),
        });
        prop_assert_eq!(plain.is_err(), jq.is_err(), "{:?} {:?}", plain, jq);
        prop_assert_eq!(mixed.is_err(), jq.is_err());
        if let (Ok(plain), Ok(mixed), Ok(jq)) = (plain, mixed, jq) {
            prop_assert_eq!(&plain.0, &jq.0);
            prop_assert_eq!(&mixed.0, &jq.0);
            prop_assert_eq!(plain.1.rejected, jq.1.rejected);
            prop_assert_eq!(plain.1.read, jq.1.read);
            let set_aside = |tally: &Tally| tally.rejects.iter().map(|r| r.row.clone()).collect::<Vec<_>>();
            prop_assert_eq!(set_aside(&plain.1), set_aside(&jq.1));
            prop_assert_eq!(set_aside(&plain.1), set_aside(&mixed.1));
            for reject in &jq.1.rejects {
                prop_assert!(serde_json::from_str::<Box<serde_json::value::RawValue>>(&reject.row).is_ok(), "{}", reject.row);
                prop_assert!(!reject.row.contains("\\u0000") && !reject.reason.contains('\n'));
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..64), rows in rows_program()) {
        let _ = shape(&body, &table(rows, &COLUMNS, &[2], Program::compile));
        let _ = shape(&body, &table(rows, &COLUMNS, &[2], Program::compile_jq));
    }

    #[test]
    fn a_body_cut_off_anywhere_is_an_error_in_both_paths(rows in prop::collection::vec(document(), 1..4), cut in any::<prop::sample::Index>()) {
        let body = format!(r#"{{"rows":[{}]}}"#, rows.join(","));
        let mut end = cut.index(body.len());
        while !body.is_char_boundary(end) { end -= 1 }
        let cut = &body.as_bytes()[..end];
        let plain = shape(cut, &table(".rows[]", &[("a", ".a", "jsonb")], &[], Program::compile)).unwrap_err();
        prop_assert_eq!(plain, shape(cut, &table(".rows[]", &[("a", ".a", "jsonb")], &[], Program::compile_jq)).unwrap_err());
    }
}

#[test]
fn hostile_nesting_is_an_error_in_both_paths() {
    let body = "[".repeat(1_000_000);
    for compile in [Program::compile as Compile, Program::compile_jq] {
        let error = shape(body.as_bytes(), &table(".[]", &[("a", ".a", "jsonb")], &[], compile)).unwrap_err();
        assert_eq!(
            error.message,
            "the body is not JSON: it is nested deeper than 128 levels at line 1 column 129 (byte 128 of 1000000)"
        );
    }
    let body = serde_json::json!([body]).to_string();
    let (_, tally) =
        shape(body.as_bytes(), &table(".[]", &[("a", "fromjson", "jsonb")], &[], Program::compile)).unwrap();
    assert_eq!(tally.rejected, 1);
}

#[test]
fn the_last_of_doubled_keys_wins_in_a_row_and_none_on_the_way_to_it() {
    let columns = [("a", ".a", "integer"), ("b", ".o.b", "integer")];
    let body = br#"{"rows":[{"a":1,"o":{"b":1},"a":2,"o":{}}]}"#;
    for compile in [Program::compile as Compile, Program::compile_jq] {
        let table = table(".rows[]", &columns, &[], compile);
        let rows = shape(body, &table).unwrap().0;
        assert_eq!(decode::texts(&table, &rows, 9), [[Some("2".into()), None]]);
    }
    let error = shape(br#"{"rows":[],"rows":[]}"#, &table(".rows[]", &columns, &[], Program::compile)).unwrap_err();
    assert_eq!(error.message, "rows .rows[]: key \"rows\" is there twice");
}

#[test]
fn a_container_that_jsonb_refuses_says_so_in_both_paths() {
    for value in [r#"["\u0000"]"#, r#"["\ud800"]"#, "[1e999999]"] {
        for compile in [Program::compile as Compile, Program::compile_jq] {
            let table = table(".[]", &[("v", ".", "jsonb")], &[], compile);
            let (_, tally) = shape(format!("[{value}]").as_bytes(), &table).unwrap();
            let reject = &tally.rejects[0];
            assert!(reject.reason.contains("got array [") && reject.reason.contains(json::UNFIT), "{}", reject.reason);
        }
    }
}
