//! Behaviour of `store::tables`: what the server has after the configuration was made of it.

use crate::support::postgres::{Database, Server};
use crate::support::rows::table;
use std::sync::Arc;
use trackd::class::Class;
use trackd::shape::{Absent, Column, History, OnChange, Program, Scalar, Table, TimeFormat, Type};
use trackd::store::tables::{Change, ensure, preview};
use trackd::store::{Error, Pool, PoolOptions};

const STATE: History = History::State { absent: Absent::Keep };
const CHANGE: History = History::Change { absent: Absent::Close };
const EVENT: History = History::Event { on_change: OnChange::Ignore };

fn pool(database: &Database) -> Pool {
    Pool::new(PoolOptions::new(&database.url()).unwrap())
}

/// The table `k text, v integer`, with something changed.
fn with(name: &str, history: History, change: impl FnOnce(&mut Table)) -> Arc<Table> {
    let mut table = Arc::into_inner(table(name, history)).unwrap();
    change(&mut table);
    Arc::new(table)
}

fn column(name: &str, scalar: Scalar) -> Column {
    Column {
        name: name.into(),
        ty: Type { scalar, array: false },
        program: Program::compile(&format!(".{name}")).unwrap(),
        required: false,
        default: None,
        check: None,
        references: None,
        index: false,
    }
}

async fn make(pool: &Pool, tables: &[Arc<Table>]) -> Result<Vec<Change>, Error> {
    let mut guard = pool.begin().await.unwrap();
    let changes = ensure(&mut guard, tables).await?;
    let _receipt = guard.commit().await.unwrap();
    Ok(changes)
}

fn described(changes: &[Change]) -> Vec<&str> {
    changes.iter().map(|change| change.describe.as_str()).collect()
}

/// Columns in order, `!` for not null; then the definitions of the indexes, from the method on.
async fn look(database: &Database, name: &str) -> Vec<String> {
    let sql = "SELECT a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || CASE WHEN a.attnotnull THEN '!' ELSE '' END, \
               1, a.attnum::text FROM pg_attribute a WHERE a.attrelid = $1::text::regclass AND a.attnum > 0 \
               UNION ALL SELECT CASE WHEN i.indisprimary THEN 'primary ' WHEN i.indisunique THEN 'unique ' ELSE '' END || \
               substring(pg_get_indexdef(i.indexrelid) FROM '\\(.*'), 2, pg_get_indexdef(i.indexrelid) \
               FROM pg_index i WHERE i.indrelid = $1::text::regclass ORDER BY 2, 3";
    let rows = database.client().await.query(sql, &[&name]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn each_history_gets_its_columns_and_its_key() {
    let database = Server::shared().database().await;
    let keyless = with("f", History::Snapshot, |table| table.key.clear());
    let tables = [table("a", History::Snapshot), table("b", EVENT), table("c", CHANGE), table("d", STATE), keyless];
    make(&pool(&database), &tables).await.unwrap();
    let time = "timestamp with time zone";
    assert_eq!(
        look(&database, "a").await,
        ["k text!", "v integer", &format!("taken_at {time}!"), "run_id uuid!", "primary (k, taken_at)"]
    );
    assert_eq!(
        look(&database, "b").await,
        ["k text!", "v integer", &format!("first_seen_at {time}!"), "run_id uuid!", "primary (k)"]
    );
    assert_eq!(
        look(&database, "c").await,
        [
            "k text!",
            "v integer",
            &format!("valid_from {time}!"),
            &format!("valid_to {time}"),
            "run_id uuid!",
            "unique (k) WHERE (valid_to IS NULL)",
            "primary (k, valid_from)"
        ]
    );
    assert_eq!(
        look(&database, "d").await,
        ["k text!", "v integer", &format!("updated_at {time}!"), "run_id uuid!", "primary (k)"]
    );
    assert_eq!(
        look(&database, "f").await,
        ["k text", "v integer", &format!("taken_at {time}!"), "run_id uuid!", "(taken_at)"]
    );
}

/// A table with every type, and a key, a check, an index and names that need quotes.
fn everything() -> Arc<Table> {
    let scalars = [
        Scalar::Text,
        Scalar::Integer,
        Scalar::Bigint,
        Scalar::Numeric(None),
        Scalar::Numeric(Some((4, 1))),
        Scalar::Numeric(Some((5, 0))),
        Scalar::Double,
        Scalar::Boolean,
        Scalar::Date,
        Scalar::Timestamptz(TimeFormat::UnixMs),
        Scalar::Uuid,
        Scalar::Jsonb,
        Scalar::Inet,
        Scalar::Bytea,
    ];
    with("user", CHANGE, |table| {
        for (i, scalar) in scalars.into_iter().enumerate() {
            let mut array = column(&format!("a{i}"), scalar.clone());
            array.ty.array = true;
            table.columns.extend([column(&format!("c{i}"), scalar), array]);
        }
        let mut select = column("select", Scalar::Integer);
        select.check = Some("\"select\" > 0".into());
        select.index = true;
        select.required = true;
        table.columns.push(select);
        table.key = vec![table.columns.len() - 1, 0];
    })
}

#[tokio::test]
async fn what_was_made_is_left_alone_the_second_time() {
    let database = Server::shared().database().await;
    let pool = pool(&database);
    let tables = [everything(), with("k", History::Snapshot, |table| table.key.clear()), table("s.t", STATE)];
    assert_eq!(
        described(&preview(&pool, &tables).await.unwrap()),
        described(&make(&pool, &tables).await.unwrap()),
        "the preview says what is done"
    );
    assert_eq!(described(&make(&pool, &tables).await.unwrap()), Vec::<&str>::new());
    let error = database
        .client()
        .await
        .execute(
            "INSERT INTO \"user\" (k, \"select\", valid_from, run_id) \
        VALUES ('x', 0, now(), gen_random_uuid())",
            &[],
        )
        .await
        .unwrap_err();
    assert_eq!(error.code().unwrap().code(), "23514", "the check is there");
}

#[tokio::test]
async fn what_is_not_committed_is_not_made() {
    let database = Server::shared().database().await;
    let pool = pool(&database);
    let mut guard = pool.begin().await.unwrap();
    ensure(&mut guard, &[table("a", STATE)]).await.unwrap();
    drop(guard);
    assert_eq!(described(&preview(&pool, &[table("a", STATE)]).await.unwrap()), ["create table a"]);
}

#[tokio::test]
async fn a_table_comes_after_the_one_it_refers_to() {
    let database = Server::shared().database().await;
    let refers = with("a", STATE, |table| {
        let mut model = column("model", Scalar::Text);
        model.references = Some("b".into());
        table.columns.push(model);
    });
    let changes = make(&pool(&database), &[refers, table("b", STATE)]).await.unwrap();
    assert_eq!(described(&changes), ["create table b", "create table a"]);
    let insert = "INSERT INTO a VALUES ('k', 1, 'unknown', now(), gen_random_uuid())";
    let error = database.client().await.execute(insert, &[]).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "23503");
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_that_make_the_same_tables_at_once_all_succeed() {
    let database = Server::shared().database().await;
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let pool = pool(&database);
            tokio::spawn(async move { make(&pool, &[table("s.a", CHANGE), table("b", EVENT)]).await })
        })
        .collect();
    let mut made = 0;
    for task in tasks {
        made += usize::from(!task.await.unwrap().unwrap().is_empty());
    }
    assert_eq!(made, 1, "one makes them, the others see them");
}

#[tokio::test]
async fn columns_and_indexes_are_added_to_a_table_with_rows() {
    let database = Server::shared().database().await;
    let pool = pool(&database);
    make(&pool, &[table("a", STATE)]).await.unwrap();
    let client = database.client().await;
    client
        .batch_execute("INSERT INTO a VALUES ('k', 1, now(), gen_random_uuid()); ALTER TABLE a ADD mine text")
        .await
        .unwrap();
    let more = with("a", STATE, |table| {
        table.columns[1].index = true;
        let mut late = column("late", Scalar::Numeric(Some((4, 1))));
        late.required = true;
        table.columns.push(late);
    });
    let changes = make(&pool, std::slice::from_ref(&more)).await.unwrap();
    assert_eq!(described(&changes), ["create index on a.v", "add column a.late numeric(4,1)"]);
    assert_eq!(described(&make(&pool, &[more]).await.unwrap()), Vec::<&str>::new());
    let columns = look(&database, "a").await;
    assert!(
        columns.contains(&"mine text".to_owned()) && columns.contains(&"late numeric(4,1)".to_owned()),
        "{columns:?}"
    );
}

#[tokio::test]
async fn numbers_are_widened_and_never_narrowed() {
    let database = Server::shared().database().await;
    let pool = pool(&database);
    let of = |scalar: Scalar| with("a", STATE, |table| table.columns[1].ty.scalar = scalar);
    for scalar in [Scalar::Integer, Scalar::Bigint, Scalar::Numeric(None)] {
        make(&pool, &[of(scalar)]).await.unwrap();
    }
    assert_eq!(described(&make(&pool, &[of(Scalar::Integer)]).await.unwrap()), Vec::<&str>::new(), "wider ones stand");
    let error = make(&pool, &[of(Scalar::Text)]).await.unwrap_err();
    assert_eq!(error.to_string(), "table a: column v: expected text, got numeric");
    assert_eq!(error.class(), Class::Standing);
    let statement = r#"ALTER TABLE "public"."a" ALTER COLUMN "v" TYPE text USING "v"::text"#;
    assert!(error.hint().unwrap().ends_with(statement), "{:?}", error.hint());
    database.client().await.batch_execute(statement).await.unwrap();
    assert_eq!(described(&make(&pool, &[of(Scalar::Text)]).await.unwrap()), Vec::<&str>::new(), "the hint helps");
}

#[tokio::test]
async fn a_numeric_grows_only_where_every_value_still_fits() {
    let database = Server::shared().database().await;
    let pool = pool(&database);
    let of = |precision, scale| {
        with("a", STATE, |table| table.columns[1].ty.scalar = Scalar::Numeric(Some((precision, scale))))
    };
    make(&pool, &[of(4, 1)]).await.unwrap();
    assert_eq!(described(&make(&pool, &[of(6, 2)]).await.unwrap()), ["widen a.v from numeric(4,1) to numeric(6,2)"]);
    assert_eq!(described(&make(&pool, &[of(4, 1)]).await.unwrap()), Vec::<&str>::new(), "wider ones stand");
    for (precision, scale) in [(6, 3), (7, 1)] {
        let error = make(&pool, &[of(precision, scale)]).await.unwrap_err();
        assert!(error.to_string().contains("got numeric(6,2)"), "{error}");
    }
}

#[tokio::test]
async fn a_refusal_leaves_every_table_as_it_was() {
    let database = Server::shared().database().await;
    let pool = pool(&database);
    database.client().await.batch_execute("CREATE VIEW a AS SELECT 1 AS k").await.unwrap();
    let error = make(&pool, &[table("b", STATE), table("a", STATE)]).await.unwrap_err();
    assert_eq!(error.to_string(), "table a: it is there, but not as a table");
    let there = database.client().await.query_one("SELECT to_regclass('b') IS NULL", &[]).await.unwrap();
    assert!(there.get::<_, bool>(0));
}

#[tokio::test]
async fn a_foreign_table_is_taken_over_when_additions_do_and_refused_when_not() {
    let database = Server::shared().database().await;
    let pool = pool(&database);
    let client = database.client().await;
    client
        .batch_execute(
            "CREATE TABLE a (k text PRIMARY KEY, v integer); CREATE TABLE b (k text, v integer); \
        CREATE TABLE c (k text PRIMARY KEY, v integer, must text NOT NULL)",
        )
        .await
        .unwrap();
    assert_eq!(
        described(&make(&pool, &[table("a", STATE)]).await.unwrap()),
        ["add column a.updated_at timestamp with time zone", "add column a.run_id uuid"]
    );
    let error = make(&pool, &[table("b", STATE)]).await.unwrap_err();
    assert_eq!(error.to_string(), "table b: primary key: expected (k), got none");
    assert!(error.hint().unwrap().ends_with(r#"ALTER TABLE "public"."b" ADD PRIMARY KEY ("k")"#));
    let error = make(&pool, &[table("c", STATE)]).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "table c: column must takes no null and has no default, and the configuration does not fill it"
    );
}

#[tokio::test]
async fn a_change_table_taken_over_still_has_one_open_version_a_key() {
    let database = Server::shared().database().await;
    let pool = pool(&database);
    let sql = "CREATE TABLE a (k text, v integer, valid_from timestamptz, PRIMARY KEY (k, valid_from))";
    database.client().await.batch_execute(sql).await.unwrap();
    make(&pool, &[table("a", CHANGE)]).await.unwrap();
    assert_eq!(described(&make(&pool, &[table("a", CHANGE)]).await.unwrap()), Vec::<&str>::new());
    let columns = look(&database, "a").await;
    assert!(columns.contains(&"unique (k) WHERE (valid_to IS NULL)".to_owned()), "{columns:?}");
}

#[tokio::test]
async fn a_history_column_of_another_type_is_refused() {
    let database = Server::shared().database().await;
    let sql = "CREATE TABLE a (k text PRIMARY KEY, v integer, updated_at text, run_id uuid)";
    database.client().await.batch_execute(sql).await.unwrap();
    let error = make(&pool(&database), &[table("a", STATE)]).await.unwrap_err();
    assert_eq!(error.to_string(), "table a: column updated_at: expected timestamp with time zone, got text");
}

#[tokio::test]
async fn the_order_of_a_key_is_the_users_and_another_key_is_refused_with_a_statement_that_helps() {
    let database = Server::shared().database().await;
    let pool = pool(&database);
    let client = database.client().await;
    client
        .batch_execute(
            "CREATE TABLE a (v integer, k text, PRIMARY KEY (v, k)); CREATE TABLE b (v integer PRIMARY KEY, k text)",
        )
        .await
        .unwrap();
    let both = |name| with(name, STATE, |table| table.key = vec![0, 1]);
    make(&pool, &[both("a")]).await.unwrap();
    let error = make(&pool, &[both("b")]).await.unwrap_err();
    assert_eq!(error.to_string(), "table b: primary key: expected (k, v), got (v)");
    let hint = error.hint().unwrap();
    client.batch_execute(hint.split_once("you could run: ").unwrap().1).await.unwrap();
    make(&pool, &[both("b")]).await.unwrap();
}

#[tokio::test]
async fn a_users_length_of_text_is_not_taken_away() {
    let database = Server::shared().database().await;
    let sql = "CREATE TABLE a (k varchar(5) PRIMARY KEY, v integer)";
    database.client().await.batch_execute(sql).await.unwrap();
    let error = make(&pool(&database), &[table("a", STATE)]).await.unwrap_err();
    assert_eq!(error.to_string(), "table a: column k: expected text, got character varying(5)");
}

#[tokio::test]
async fn a_check_that_is_no_condition_is_found_before_the_table_is_made() {
    let database = Server::shared().database().await;
    let pool = pool(&database);
    let of = |check: &str| {
        with("a", CHANGE, |table| {
            table.columns[1].check = Some(check.into());
            table.columns[1].references = Some("nowhere".into());
        })
    };
    for (check, words) in [
        ("v >", "syntax error"),
        ("w > 0", "column \"w\" does not exist"),
        ("v", "must be type boolean"),
        ("v > 'x'", "invalid input syntax"),
    ] {
        let error = preview(&pool, &[of(check)]).await.unwrap_err();
        let told = error.to_string();
        assert!(told.starts_with("table a: check: statement: ") && told.contains(words), "{told}");
        assert_eq!(error.class(), Class::Standing);
    }
    let good =
        [of("v > 0 AND valid_to IS NULL"), with("b", STATE, |table| table.columns[0].check = Some("k <> ''".into()))];
    assert_eq!(preview(&pool, &good).await.unwrap().len(), 3);
    assert_eq!(preview(&pool, &good).await.unwrap().len(), 3, "nothing was made");
}
