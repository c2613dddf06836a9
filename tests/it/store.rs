//! Behaviour of `store`: the guard under every kind of end, and the four histories.

use crate::support::daemon::PATIENCE;
use crate::support::postgres::{Database, Server, eventually};
use crate::support::proxy::{Fault, Proxy};
use crate::support::rows::{TestRows, table};
use jiff::Timestamp;
use std::time::Duration;
use tokio_postgres::types::Type;
use trackd::shape::{Absent, History, OnChange, Stamp, Table};
use trackd::store::write::{Care, Failure, Writer};
use trackd::store::{Error, Pool, PoolOptions, Statement, ledger, migrate};

fn pool(database: &Database) -> Pool {
    Pool::new(PoolOptions { pool_timeout: Duration::from_secs(10), ..PoolOptions::new(&database.url()).unwrap() })
}

async fn count(pool: &Pool, sql: &str) -> i64 {
    let mut guard = pool.begin().await.unwrap();
    let rows = guard.query(Statement::new(sql.to_owned())).await.unwrap();
    rows[0].get(0)
}

async fn run_sql(pool: &Pool, sql: &str) {
    let mut guard = pool.begin().await.unwrap();
    guard.batch("prepare the test", sql).await.unwrap();
    let _receipt = guard.commit().await.unwrap();
}

#[tokio::test]
async fn what_a_guard_commits_is_there_and_what_it_drops_is_not() {
    let database = Server::shared().database().await;
    let pool = pool(&database);
    run_sql(&pool, "CREATE TABLE t (n int)").await;
    let mut kept = pool.begin().await.unwrap();
    kept.defer(Statement::new("INSERT INTO t VALUES ($1)").bind(1_i32, Type::INT4));
    let _receipt = kept.commit().await.unwrap();
    let mut dropped = pool.begin().await.unwrap();
    dropped.defer(Statement::new("INSERT INTO t VALUES (2)"));
    dropped.flush().await.unwrap();
    drop(dropped);
    assert_eq!(count(&pool, "SELECT sum(n) FROM t").await, 1);
}

#[tokio::test]
async fn a_guard_with_a_failed_statement_does_not_commit() {
    let database = Server::shared().database().await;
    let pool = pool(&database);
    run_sql(&pool, "CREATE TABLE t (n int)").await;
    let mut guard = pool.begin().await.unwrap();
    guard.defer(Statement::new("INSERT INTO t VALUES (1)"));
    guard.defer(Statement::new("INSERT INTO t VALUES (1/0)"));
    let error = guard.flush().await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("22012"));
    let error = guard.commit().await.unwrap_err();
    assert!(error.to_string().contains("aborted by an earlier error"), "{error}");
    assert_eq!(count(&pool, "SELECT count(*) FROM t").await, 0);
}

#[tokio::test]
async fn a_statement_that_fails_on_its_way_with_commit_takes_everything_with_it() {
    let database = Server::shared().database().await;
    let pool = pool(&database);
    run_sql(&pool, "CREATE TABLE t (n int)").await;
    let mut guard = pool.begin().await.unwrap();
    guard.defer(Statement::new("INSERT INTO t VALUES (1)"));
    guard.defer(Statement::new("INSERT INTO nowhere VALUES (1)"));
    guard.defer(Statement::new("INSERT INTO t VALUES (2)"));
    let error = guard.commit().await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("42P01"), "{error}");
    assert!(!error.is_unknown_commit());
    assert_eq!(count(&pool, "SELECT count(*) FROM t").await, 0);
}

#[tokio::test]
async fn a_question_goes_with_all_of_its_transaction_in_one_round_trip() {
    let database = Server::shared().database().await;
    run_sql(&pool(&database), "CREATE TABLE t (n int)").await;
    let proxy = Proxy::start(database.socket()).await;
    let through = Pool::new(PoolOptions::new(&proxy.url(&database)).unwrap());
    let one = || Statement::new("INSERT INTO t VALUES (1)");
    let sum = || Statement::new("SELECT coalesce(sum(n), 0) FROM t");
    assert_eq!(through.query(sum()).await.unwrap()[0].get::<_, i64>(0), 0);
    let begun = proxy.turns();
    let mut guard = through.begin().await.unwrap();
    guard.defer(one());
    let (rows, receipt) = guard.commit_with(sum()).await.unwrap();
    assert_eq!((rows[0].get::<_, i64>(0), receipt.touched(), proxy.turns() - begun), (1, &[1][..], 1));
    let mut guard = through.begin().await.unwrap();
    guard.defer(one());
    assert_eq!(guard.query(sum()).await.unwrap()[0].get::<_, i64>(0), 2);
    assert_eq!(proxy.turns() - begun, 2);
    drop(guard);
    assert_eq!((count(&pool(&database), "SELECT count(*) FROM t").await, proxy.accepted()), (1, 1));
}

#[tokio::test]
async fn a_question_that_fails_with_commit_behind_it_takes_everything_with_it() {
    let database = Server::shared().database().await;
    let pool = pool(&database);
    run_sql(&pool, "CREATE TABLE t (n int)").await;
    let mut guard = pool.begin().await.unwrap();
    guard.defer(Statement::new("INSERT INTO t VALUES (1)"));
    let error = guard.commit_with(Statement::new("SELECT 1 / (n - 1) FROM t")).await.unwrap_err();
    assert_eq!((error.sqlstate(), error.is_unknown_commit()), (Some("22012"), false), "{error}");
    let refused = pool.query(Statement::new("COMMIT")).await.unwrap_err();
    assert!(refused.to_string().contains("COMMIT"), "{refused}");
    assert_eq!(count(&pool, "SELECT count(*) FROM t").await, 0);
}

#[tokio::test]
async fn a_statement_that_cannot_be_sent_lets_nothing_of_its_flight_land() {
    let database = Server::shared().database().await;
    let pool = pool(&database);
    run_sql(&pool, "CREATE TABLE t (n int8)").await;
    let mut guard = pool.begin().await.unwrap();
    guard.defer(Statement::new("INSERT INTO t VALUES (1)"));
    guard.defer(Statement::new("INSERT INTO t VALUES ($1)").bind(2_i32, Type::INT8));
    let error = guard.commit().await.unwrap_err();
    assert!(!error.is_unknown_commit() && error.to_string().contains("parameter"), "{error}");
    assert_eq!(count(&pool, "SELECT count(*) FROM t").await, 0);
}

#[tokio::test]
async fn a_guard_dropped_in_the_middle_of_a_query_cancels_it_in_the_server() {
    let database = Server::shared().database().await;
    let pool = pool(&database);
    let mut guard = pool.begin().await.unwrap();
    let sleep = guard.query(Statement::new("SELECT pg_sleep(60), 'the slow one'"));
    let watcher = database.client().await;
    let running = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                   AND state = 'active' AND query LIKE '%the slow one%' AND pid <> pg_backend_pid()";
    tokio::select! {
        _ = sleep => panic!("the query ended by itself"),
        () = until(&watcher, running, 1) => {}
    }
    drop(guard);
    until(&watcher, running, 0).await;
    assert!(pool.close(Duration::from_secs(10)).await, "the connection did not come back");
}

#[tokio::test]
async fn a_panic_rolls_back_and_the_connection_serves_the_next() {
    let database = Server::shared().database().await;
    let pool = Pool::new(PoolOptions { pool_size: 1, max_overflow: 0, ..PoolOptions::new(&database.url()).unwrap() });
    run_sql(&pool, "CREATE TABLE t (n int)").await;
    let inner = pool.clone();
    let task = tokio::spawn(async move {
        let mut guard = inner.begin().await.unwrap();
        guard.defer(Statement::new("INSERT INTO t VALUES (1)"));
        guard.flush().await.unwrap();
        panic!("on purpose");
    });
    assert!(task.await.unwrap_err().is_panic());
    assert_eq!(count(&pool, "SELECT count(*) FROM t").await, 0);
    assert_eq!(
        count(
            &pool,
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"
        )
        .await,
        0
    );
}

#[tokio::test]
async fn a_guard_dropped_after_any_number_of_polls_leaves_a_clean_connection() {
    let database = Server::shared().database().await;
    let pool = Pool::new(PoolOptions { pool_size: 1, max_overflow: 0, ..PoolOptions::new(&database.url()).unwrap() });
    run_sql(&pool, "CREATE TABLE t (n int)").await;
    let mut finished = 0;
    for polls in 0..40 {
        let work = async {
            let mut guard = pool.begin().await?;
            guard.defer(Statement::new("INSERT INTO t VALUES (1)"));
            guard.flush().await?;
            guard.query(Statement::new("SELECT 1")).await?;
            guard.commit().await
        };
        finished += u32::from(crate::support::polls::at_most(work, polls).await.is_some_and(|done| done.is_ok()));
        assert_eq!(
            count(
                &pool,
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"
            )
            .await,
            0
        );
    }
    let rows = count(&pool, "SELECT count(*) FROM t").await;
    // A commit that was dropped after it was sent may have landed; a finished one has.
    assert!(finished > 0 && rows >= i64::from(finished), "{finished} finished, {rows} rows");
}

#[tokio::test]
async fn commit_lost_in_transit_is_reported_as_unknown() {
    let server = Server::shared();
    let database = server.database().await;
    run_sql(&pool(&database), "CREATE TABLE t (n int)").await;
    let proxy = Proxy::start(database.socket()).await;
    let through = Pool::new(PoolOptions::new(&proxy.url(&database)).unwrap());
    let mut guard = through.begin().await.unwrap();
    guard.defer(Statement::new("INSERT INTO t VALUES (1)"));
    guard.flush().await.unwrap();
    proxy.set(Fault::LoseAnswers);
    let error = guard.commit().await.unwrap_err();
    assert!(error.is_unknown_commit(), "{error}");
    assert_eq!(count(&pool(&database), "SELECT count(*) FROM t").await, 1, "the server had committed");
    proxy.set(Fault::None);
    let mut guard = through.begin_patiently().await.unwrap();
    guard.defer(Statement::new("INSERT INTO t VALUES (1)"));
    proxy.set(Fault::LoseCommits);
    let error = guard.commit_with(Statement::new("SELECT count(*) FROM t")).await.unwrap_err();
    assert!(error.is_unknown_commit(), "{error}");
    assert_eq!(count(&pool(&database), "SELECT count(*) FROM t").await, 2, "it had committed that, too");
    proxy.set(Fault::None);
    drop(through.begin_patiently().await.unwrap());
    proxy.set(Fault::LoseAnswers);
    let error = through.query(Statement::new("SELECT count(*) FROM t")).await.unwrap_err();
    assert!(error.is_away() && !error.is_unknown_commit(), "nothing was written: {error}");
    assert_eq!(through.statistics().unknown, 2);
    let refused = pool(&database).query(Statement::new("DELETE FROM t RETURNING n")).await.unwrap_err();
    assert_eq!(refused.sqlstate(), Some("25006"), "a question may only read: {refused}");
}

#[tokio::test]
async fn borrowers_are_served_in_turn_and_none_waits_for_ever() {
    let database = Server::shared().database().await;
    let pool = Pool::new(PoolOptions { pool_size: 2, max_overflow: 0, ..PoolOptions::new(&database.url()).unwrap() });
    let turns = |_: usize| {
        let pool = pool.clone();
        tokio::spawn(async move {
            for _ in 0..20 {
                let mut guard = pool.begin().await.unwrap();
                guard.query(Statement::new("SELECT 1")).await.unwrap();
                let _receipt = guard.commit().await.unwrap();
            }
        })
    };
    let tasks: Vec<_> = (0..20).map(turns).collect();
    for task in tasks {
        task.await.unwrap();
    }
    let numbers = pool.numbers();
    assert!(numbers.size <= 2 && numbers.waiting == 0, "{numbers:?}");
}

#[tokio::test]
async fn a_database_that_is_away_is_an_error_of_class_retry_with_its_cause() {
    let options = PoolOptions {
        pool_timeout: Duration::from_millis(300),
        ..PoolOptions::new("host=/nonexistent/trackd user=nobody").unwrap()
    };
    let error = Pool::new(options).begin().await.unwrap_err();
    assert_eq!(error.class(), trackd::class::Class::Retry);
    assert!(error.is_away() && error.to_string().contains("No such file or directory"), "{error}");
}

/// Lands rows of `table` and returns what `Written` says: (rows written, rows rejected).
async fn land(
    pool: &Pool,
    table: &std::sync::Arc<Table>,
    at: &str,
    rows: TestRows,
    care: Care,
) -> Result<(u64, u64), Error> {
    let at: Timestamp = at.parse().unwrap();
    let stamp = Stamp { at, run_id: ledger::run_id("t", at) };
    let mut guard = pool.begin().await?;
    let writer = Writer::new(table.clone());
    let written =
        writer.write(&mut guard, &stamp, &mut rows.parts(&stamp), care).await.map_err(|failure| match failure {
            Failure::Store(error) => error,
            other => panic!("{other:?}"),
        })?;
    let _receipt = guard.commit().await?;
    Ok((written.rows, written.rejected))
}

async fn texts(database: &Database, sql: &str) -> Vec<String> {
    database.client().await.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

const DAY_1: &str = "2025-01-01T00:00:00Z";
const DAY_2: &str = "2025-01-02T00:00:00Z";
const DAY_3: &str = "2025-01-03T00:00:00Z";

/// An instant, its rows, and how many of them are written.
type Step<'a> = (&'a str, &'a [(&'a str, i32)], u64);

/// Few rows go as arrays, many by COPY: both must do the same.
async fn both_ways(ddl: &str, history: History, steps: &[Step<'_>], sql: &str, expected: &[&str]) {
    for padding in [0, 700] {
        let database = Server::shared().database().await;
        let pool = pool(&database);
        run_sql(&pool, ddl).await;
        migrate::migrate(&mut database.client().await).await.unwrap();
        let table = table("t", history);
        for (at, rows, written) in steps {
            let rows = TestRows::new(rows).padded(padding);
            let extra = if steps[0].0 == *at || history == History::Snapshot { padding as u64 } else { 0 };
            assert_eq!(
                land(&pool, &table, at, rows, Care::Sets).await.unwrap(),
                (written + extra, 0),
                "{at} {padding}"
            );
        }
        assert_eq!(texts(&database, sql).await, expected, "padding {padding}");
    }
}

#[tokio::test]
async fn a_snapshot_keeps_every_instant() {
    both_ways(
        "CREATE TABLE t (k text, v int, taken_at timestamptz, run_id uuid, PRIMARY KEY (k, taken_at))",
        History::Snapshot,
        &[(DAY_1, &[("a", 1), ("b", 1)], 2), (DAY_2, &[("a", 1)], 1)],
        "SELECT k || v || taken_at::date FROM t WHERE k < 'pad' ORDER BY taken_at, k",
        &["a12025-01-01", "b12025-01-01", "a12025-01-02"],
    )
    .await;
}

#[tokio::test]
async fn a_column_whose_type_was_changed_beneath_a_writer_gets_the_values_and_not_their_bytes() {
    for ty in ["bigint", "numeric", "real"] {
        both_ways(
            &format!("CREATE TABLE t (k text, v {ty}, taken_at timestamptz, run_id uuid, PRIMARY KEY (k, taken_at))"),
            History::Snapshot,
            &[(DAY_1, &[("a", 1), ("b", 7)], 2)],
            "SELECT k || v FROM t WHERE k < 'pad' ORDER BY k",
            &["a1", "b7"],
        )
        .await;
    }
}

#[tokio::test]
async fn an_event_seen_again_is_ignored() {
    both_ways(
        "CREATE TABLE t (k text PRIMARY KEY, v int, first_seen_at timestamptz, run_id uuid)",
        History::Event { on_change: OnChange::Ignore },
        &[(DAY_1, &[("a", 1), ("b", 1)], 2), (DAY_2, &[("a", 9), ("c", 1)], 1)],
        "SELECT k || v || first_seen_at::date FROM t WHERE k < 'pad' ORDER BY k",
        &["a12025-01-01", "b12025-01-01", "c12025-01-02"],
    )
    .await;
}

#[tokio::test]
async fn an_event_is_corrected_when_asked_and_keeps_its_first_sight() {
    both_ways(
        "CREATE TABLE t (k text PRIMARY KEY, v int, first_seen_at timestamptz, run_id uuid)",
        History::Event { on_change: OnChange::Update },
        &[(DAY_1, &[("a", 1), ("b", 1)], 2), (DAY_2, &[("a", 9), ("b", 1)], 1)],
        "SELECT k || v || first_seen_at::date FROM t WHERE k < 'pad' ORDER BY k",
        &["a92025-01-01", "b12025-01-01"],
    )
    .await;
}

const STATE: &str = "CREATE TABLE t (k text PRIMARY KEY, v int, updated_at timestamptz, run_id uuid)";
const CHANGE: &str = "CREATE TABLE t (k text, v int, valid_from timestamptz, valid_to timestamptz, run_id uuid, PRIMARY KEY (k, valid_from)); \
                      CREATE UNIQUE INDEX ON t (k) WHERE valid_to IS NULL";

#[tokio::test]
async fn a_change_writes_a_version_only_when_something_changed_and_closes_what_is_gone() {
    both_ways(
        CHANGE,
        History::Change { absent: Absent::Close },
        &[(DAY_1, &[("a", 1), ("b", 1)], 2), (DAY_2, &[("a", 1), ("b", 2)], 1), (DAY_3, &[("b", 2)], 1)],
        "SELECT k || v || valid_from::date || coalesce(valid_to::date::text, '') FROM t WHERE k < 'pad' ORDER BY k, valid_from",
        &["a12025-01-012025-01-03", "b12025-01-012025-01-02", "b22025-01-02"],
    )
    .await;
}

#[tokio::test]
async fn a_change_keeps_the_open_version_of_what_is_gone_when_asked() {
    both_ways(
        CHANGE,
        History::Change { absent: Absent::Keep },
        &[(DAY_1, &[("a", 1)], 1), (DAY_2, &[], 0), (DAY_3, &[("a", 2)], 1)],
        "SELECT k || v || valid_from::date || coalesce(valid_to::date::text, '') FROM t WHERE k < 'pad' ORDER BY k, valid_from",
        &["a12025-01-012025-01-03", "a22025-01-03"],
    )
    .await;
}

#[tokio::test]
async fn a_state_is_how_it_is_now() {
    both_ways(
        STATE,
        History::State { absent: Absent::Delete },
        &[(DAY_1, &[("a", 1), ("b", 1)], 2), (DAY_2, &[("a", 1), ("b", 2)], 1), (DAY_3, &[("b", 2)], 1)],
        "SELECT k || v || updated_at::date FROM t WHERE k < 'pad' ORDER BY k",
        &["b22025-01-02"],
    )
    .await;
}

#[tokio::test]
async fn a_run_of_an_earlier_instant_that_lands_later_leaves_a_later_state_alone() {
    both_ways(
        STATE,
        History::State { absent: Absent::Delete },
        &[(DAY_2, &[("a", 2), ("b", 2)], 2), (DAY_1, &[("a", 1), ("c", 1)], 1), (DAY_3, &[("a", 3), ("b", 2)], 2)],
        "SELECT k || v || updated_at::date FROM t WHERE k < 'pad' ORDER BY k",
        &["a32025-01-03", "b22025-01-02"],
    )
    .await;
}

/// All orders of `0..4`.
fn orders() -> impl Iterator<Item = [usize; 4]> {
    let all = (0..256).map(|n| [n & 3, n >> 2 & 3, n >> 4 & 3, n >> 6]);
    all.filter(|order| (0..4).all(|n| order.contains(&n)))
}

/// Lands four runs in every order, each time into an empty table; what `sql` says then is always what it says in order.
async fn in_any_order(ddl: &str, history: History, runs: [&[(&str, i32)]; 4], sql: &str, expected: &[&str]) {
    for padding in [0, 700] {
        let database = Server::shared().database().await;
        let pool = pool(&database);
        run_sql(&pool, ddl).await;
        migrate::migrate(&mut database.client().await).await.unwrap();
        let table = table("t", history);
        for order in orders().step_by(if padding == 0 { 1 } else { 5 }) {
            run_sql(&pool, "TRUNCATE t, trackd.runs, trackd.rejects").await;
            for day in order {
                let at = format!("2025-01-0{}T00:00:00Z", day + 1);
                let run_id = ledger::run_id("t", at.parse().unwrap());
                let landed = format!(
                    "INSERT INTO trackd.runs (run_id, tracker, scheduled_at, kind, status, attempt, instance, started_at) \
                     VALUES ('{run_id}', 't', '{at}', 'scheduled', 'succeeded', 1, 'test:1', now())"
                );
                run_sql(&pool, &landed).await;
                land(&pool, &table, &at, TestRows::new(runs[day]).padded(padding), Care::Sets).await.unwrap();
            }
            assert_eq!(texts(&database, sql).await, expected, "padding {padding}, order {order:?}");
        }
    }
}

const WAVERING: [&[(&str, i32)]; 4] = [
    &[("a", 1), ("b", 1), ("c", 1), ("e", 1)],
    &[("a", 2), ("b", 1), ("d", 1)],
    &[("a", 1), ("b", 1), ("c", 1), ("d", 1)],
    &[("a", 1), ("b", 2), ("c", 2), ("e", 1)],
];

#[tokio::test]
async fn versions_are_the_same_in_whatever_order_runs_land() {
    in_any_order(
        CHANGE,
        History::Change { absent: Absent::Close },
        WAVERING,
        "SELECT k || v || ' ' || extract(day FROM valid_from) || coalesce('-' || extract(day FROM valid_to), '') || ' ' || \
         extract(day FROM scheduled_at) FROM t JOIN trackd.runs USING (run_id) WHERE k < 'pad' ORDER BY k, valid_from",
        &[
            "a1 1-2 1", "a2 2-3 2", "a1 3 3", "b1 1-4 1", "b2 4 4", "c1 1-2 1", "c1 3-4 3", "c2 4 4", "d1 2-4 2",
            "e1 1-2 1", "e1 4 4",
        ],
    )
    .await;
}

#[tokio::test]
async fn a_state_is_the_latest_instants_in_whatever_order_runs_land() {
    in_any_order(
        STATE,
        History::State { absent: Absent::Delete },
        WAVERING,
        "SELECT k || v FROM t WHERE k < 'pad' ORDER BY k",
        &["a1", "b2", "c2", "e1"],
    )
    .await;
}

#[tokio::test]
async fn a_row_the_server_refuses_is_found_and_set_aside_and_the_others_land() {
    for padding in [0, 700] {
        let database = Server::shared().database().await;
        let pool = pool(&database);
        run_sql(
            &pool,
            "CREATE TABLE t (k text PRIMARY KEY, v int CHECK (v < 10), first_seen_at timestamptz, run_id uuid)",
        )
        .await;
        migrate::migrate(&mut database.client().await).await.unwrap();
        let table = table("t", History::Event { on_change: OnChange::Ignore });
        let rows = || TestRows::new(&[("a", 1), ("b", 11), ("c", 2), ("d", 12)]).padded(padding);
        let error = land(&pool, &table, DAY_1, rows(), Care::Sets).await.unwrap_err();
        assert_eq!(error.class(), trackd::class::Class::Row, "{error}");
        assert_eq!(count(&pool, "SELECT count(*) FROM t").await, 0, "nothing half-written");
        assert_eq!(land(&pool, &table, DAY_1, rows(), Care::Halves).await.unwrap(), (2 + padding as u64, 2));
        assert_eq!(texts(&database, "SELECT k FROM t WHERE k < 'pad' ORDER BY k").await, ["a", "c"]);
        let rejects = texts(&database, "SELECT (row->>'k') || ' ' || reason FROM trackd.rejects ORDER BY 1").await;
        assert!(rejects.len() == 2 && rejects[0].starts_with("b ") && rejects[0].contains("t_v_check"), "{rejects:?}");
    }
}

#[tokio::test]
async fn more_rows_refused_than_are_set_aside_fail_the_run_and_say_so() {
    let database = Server::shared().database().await;
    let pool = pool(&database);
    run_sql(&pool, "CREATE TABLE t (k text PRIMARY KEY, v int CHECK (v > 0), first_seen_at timestamptz, run_id uuid)")
        .await;
    let at: Timestamp = DAY_1.parse().unwrap();
    let stamp = Stamp { at, run_id: ledger::run_id("t", at) };
    let mut guard = pool.begin().await.unwrap();
    let mut parts = TestRows::new(&[("a", 1)]).padded(1_001).parts(&stamp);
    let writer = Writer::new(table("t", History::Event { on_change: OnChange::Ignore }));
    let failure = writer.write(&mut guard, &stamp, &mut parts, Care::Halves).await.unwrap_err();
    let error = trackd::run::Error::from(failure);
    assert!(
        error.to_string().starts_with("land table t: more than 1000 rows are refused, the first: statement:"),
        "{error}"
    );
    assert_eq!(error.class(), trackd::class::Class::Row);
}

#[tokio::test]
async fn the_latest_runs_are_told_newest_first() {
    let database = Server::shared().database().await;
    let pool = pool(&database);
    let mut client = database.client().await;
    migrate::migrate(&mut client).await.unwrap();
    let insert = "INSERT INTO trackd.runs (run_id, tracker, scheduled_at, kind, status, attempt, instance, started_at, finished_at) \
                  VALUES ($1, $2, $3, 'scheduled', $4, 1, 'x', $3, $3)";
    for second in 0..40 {
        let at = Timestamp::from_second(second).unwrap();
        for tracker in ["b", "a"] {
            let status = if second % 10 == 0 { "failed" } else { "succeeded" };
            client.execute(insert, &[&ledger::run_id(tracker, at), &tracker, &at, &status]).await.unwrap();
        }
    }
    let found = async |tracker: Option<&str>, failed, limit| {
        let query = ledger::Query { tracker: tracker.map(str::to_owned), failed, limit };
        let runs = ledger::recent(&pool, &query).await.unwrap();
        runs.iter().map(|run| format!("{}{}", run.tracker, run.scheduled_at.as_second())).collect::<Vec<_>>()
    };
    assert_eq!(found(None, false, 4).await, ["a39", "b39", "a38", "b38"]);
    assert_eq!(found(None, true, 2).await, ["a30", "b30"]);
    assert_eq!(found(Some("b"), false, 2).await, ["b39", "b38"]);
    assert_eq!(found(Some("b"), true, 2).await, ["b30", "b20"]);
}

/// Waits until a query's count is what is expected.
async fn until(client: &tokio_postgres::Client, sql: &str, expected: i64) {
    let reached = async {
        while client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) != expected {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), reached).await.expect("the event did not come within 20 s");
}

#[tokio::test]
async fn a_schema_is_current_once_all_migrations_of_this_program_and_no_others_are_on_record() {
    let database = Server::shared().database().await;
    let pool = pool(&database);
    assert!(!migrate::is_current(&pool).await.unwrap(), "nothing is there");
    migrate::migrate(&mut database.client().await).await.unwrap();
    assert!(migrate::is_current(&pool).await.unwrap());
    for (change, back) in [
        ("checksum = checksum || '0' WHERE version = 2", "checksum = left(checksum, -1) WHERE version = 2"),
        ("version = 4 WHERE version = 3", "version = 3 WHERE version = 4"),
        ("name = 'other' WHERE version = 1", "name = 'ledger' WHERE version = 1"),
    ] {
        run_sql(&pool, &format!("UPDATE trackd.schema_history SET {change}")).await;
        assert!(!migrate::is_current(&pool).await.unwrap(), "{change}");
        run_sql(&pool, &format!("UPDATE trackd.schema_history SET {back}")).await;
        assert!(migrate::is_current(&pool).await.unwrap(), "{back}");
    }
    let away = Pool::new(PoolOptions::new(&database.url_at(std::path::Path::new("/nonexistent"))).unwrap());
    assert!(migrate::is_current(&away).await.unwrap_err().is_away());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_migrates_waits_for_another_that_does() {
    let database = Server::shared().database().await;
    let other = database.client().await;
    let lock = 0x7472_6163_6b64_0001_i64;
    other.execute("SELECT pg_advisory_lock($1)", &[&lock]).await.unwrap();
    let mut client = database.client().await;
    let task = tokio::spawn(async move { migrate::migrate(&mut client).await.map_err(|e| e.to_string()) });
    let waits = "SELECT 1 FROM pg_locks JOIN pg_database d ON d.oid = database \
                 WHERE datname = current_database() AND locktype = 'advisory' AND NOT granted";
    eventually("a second one that waits", PATIENCE, async || !other.query(waits, &[]).await.unwrap().is_empty()).await;
    assert!(!task.is_finished());
    other.execute("SELECT pg_advisory_unlock($1)", &[&lock]).await.unwrap();
    assert_eq!(task.await.unwrap().unwrap(), ["V1__ledger", "V2__claims", "V3__whole"]);
    let held = "SELECT 1 FROM pg_locks JOIN pg_database d ON d.oid = database WHERE datname = current_database() AND locktype = 'advisory'";
    assert!(other.query(held, &[]).await.unwrap().is_empty(), "the lock is given back");
}
