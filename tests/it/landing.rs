//! What lands, whatever the tables and columns are called, in whatever order they stand, however the rows come.

use crate::support::daemon::{Home, stderr};
use crate::support::postgres::{Database, Server};

/// A tracker of the file a.json with these tables.
fn tracker(tables: &str) -> String {
    format!("[[tracker]]\nname = \"a\"\nevery = \"1h\"\nfile = {{ path = \"a.json\" }}\n{tables}")
}

/// A table that takes each element of `rows`, with an integer key `id`.
fn table(name: &str, history: &str, rows: &str, columns: &str) -> String {
    format!(
        "[[tracker.table]]\nname = \"{name}\"\nhistory = \"{history}\"\nkey = [\"id\"]\nrows = \"{rows}\"\n\
         [tracker.table.columns]\n{columns}\n"
    )
}

fn lands(home: &Home, body: &str) {
    home.put("a.json", body);
    let output = home.trackd(&["once", "a"]);
    assert!(output.status.success(), "{output:?}");
}

async fn texts(database: &Database, sql: &str) -> Vec<String> {
    database.client().await.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

async fn set_aside(database: &Database) -> Vec<String> {
    texts(database, "SELECT \"table\" || ' ' || coalesce(left(row->>'id', 9), '') || ' ' || reason FROM trackd.rejects ORDER BY reject_id").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_lands_after_the_one_it_refers_to_wherever_it_stands_in_the_file() {
    for name in ["models", "public.models"] {
        let database = Server::shared().database().await;
        let refers = format!("id = \"integer\"\nmodel = {{ type = \"text\", references = \"{name}\" }}");
        let home = Home::new(
            &database,
            &tracker(
                &(table("facts", "event", ".facts[]", &refers)
                    + &table("models", "state", ".models[]", "id = \"text\"")),
            ),
        );
        lands(&home, r#"{"facts":[{"id":1,"model":"x"},{"id":2,"model":"gone"}],"models":[{"id":"x"}]}"#);
        assert_eq!(texts(&database, "SELECT id || model FROM facts").await, ["1x"], "{name}");
        let set_aside = set_aside(&database).await;
        assert!(set_aside.len() == 1 && set_aside[0].contains("facts_model_fkey"), "{name}: {set_aside:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_too_long_for_an_index_is_that_rows_trouble() {
    let database = Server::shared().database().await;
    let home = Home::new(&database, &tracker(&table("x", "event", ".[]", "id = \"text\"")));
    // Not compressible, so that it stays too long.
    let long: String = (0..2_000).map(|i: u64| format!("{:x}", i.wrapping_mul(0x9E37_79B9_7F4A_7C15))).collect();
    lands(&home, &format!(r#"[{{"id":"short"}},{{"id":"{long}"}}]"#));
    assert_eq!(texts(&database, "SELECT id FROM x").await, ["short"]);
    let set_aside = set_aside(&database).await;
    assert!(set_aside.len() == 1 && set_aside[0].contains("54000"), "{set_aside:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_only_postgresql_calls_equal_do_not_fail_the_run() {
    let database = Server::shared().database().await;
    let home = Home::new(&database, &tracker(&table("x", "state", ".[]", "id = \"jsonb\"\nv = \"integer\"")));
    lands(&home, r#"[{"id":{"a":1,"b":2},"v":1},{"id":{"b":2,"a":1},"v":2},{"id":3,"v":3}]"#);
    assert_eq!(texts(&database, "SELECT id::text FROM x ORDER BY 1").await, ["3", r#"{"a": 1, "b": 2}"#]);
}

/// Names that trackd's own statements could mistake for theirs.
#[tokio::test(flavor = "multi_thread")]
async fn any_names_do_for_tables_and_columns_with_few_rows_and_with_many() {
    let long = format!("l{}", "o".repeat(61));
    let names = ["a.b_c", "a_b.c", "user", "s", "t", &format!("{long}a"), &format!("{long}b")];
    let mut columns = String::from("id = \"integer\"\n");
    for name in ["s", "t", "excluded", "trackd_at", "trackd_run", "trackd_row", "at", "run", "row", "order", "select"] {
        columns += &format!("{name} = {{ jq = \".v\", type = \"integer\" }}\n");
    }
    columns += "v = { type = \"integer\", check = \"v <> 13\" }\n";
    for (history, count) in [("event", 5), ("event", 600), ("change", 5), ("change", 600), ("state", 600)] {
        let database = Server::shared().database().await;
        let tables: String = names.iter().map(|name| table(name, history, ".[]", &columns)).collect();
        let home = Home::new(&database, &tracker(&tables));
        let rows: Vec<String> =
            (0..count).map(|i| format!(r#"{{"id":{i},"v":{}}}"#, if i == 2 { 13 } else { i + 100 })).collect();
        lands(&home, &format!("[{}]", rows.join(",")));
        for name in names {
            let quoted = name.split('.').map(|part| format!("\"{part}\"")).collect::<Vec<_>>().join(".");
            let landed = texts(&database, &format!("SELECT count(*) || ' ' || sum(v - s) FROM {quoted}")).await;
            assert_eq!(landed, [format!("{} 0", count - 1)], "{history} {name}");
        }
        let set_aside = set_aside(&database).await;
        assert_eq!(set_aside.len(), names.len(), "{set_aside:?}");
        assert!(set_aside.iter().all(|row| row.contains(" 2 ")), "the row is told: {set_aside:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_is_there_needs_no_privilege_to_make_one() {
    let database = Server::shared().database().await;
    // Roles belong to the whole server: it is named like the database, which nobody else has.
    let name = texts(&database, "SELECT current_database()::text").await.remove(0);
    let role = format!("role_{name}");
    database
        .client()
        .await
        .batch_execute(&format!(
            "CREATE ROLE {role} LOGIN; CREATE SCHEMA app AUTHORIZATION {role}; CREATE SCHEMA trackd AUTHORIZATION {role}"
        ))
        .await
        .unwrap();
    let home = Home::with(&database.url_as(&role), &tracker(&table("app.x", "event", ".[]", "id = \"integer\"")));
    let check = home.trackd(&["check"]);
    assert!(!String::from_utf8_lossy(&check.stdout).contains("schema"), "{check:?} {}", stderr(&check));
    lands(&home, r#"[{"id":1}]"#);
    assert_eq!(texts(&database, "SELECT id::text FROM app.x").await, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_make_no_temporary_tables_is_not_told_that_a_check_is_wrong() {
    let database = Server::shared().database().await;
    let name = texts(&database, "SELECT current_database()::text").await.remove(0);
    let role = format!("role_{name}");
    let grant = format!(
        "CREATE ROLE {role} LOGIN; CREATE SCHEMA app AUTHORIZATION {role}; CREATE SCHEMA trackd AUTHORIZATION {role}; \
         REVOKE TEMP ON DATABASE {name} FROM PUBLIC"
    );
    database.client().await.batch_execute(&grant).await.unwrap();
    let home = Home::with(
        &database.url_as(&role),
        &tracker(&table("app.x", "event", ".[]", "id = { type = \"integer\", check = \"id > 0\" }")),
    );
    let check = home.trackd(&["check"]);
    assert!(check.status.success(), "{}", stderr(&check));
    lands(&home, r#"[{"id":1}]"#);
}
