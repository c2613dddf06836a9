//! Behaviour of whole transactions: what is retried, what is undone, what is read in pieces.

use crate::support::polls::at_most;
use crate::support::postgres::{Database, SLOW_COMMIT, Server, eventually, free_port};
use crate::support::proxy::{Fault, Proxy};
use futures_util::FutureExt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::runtime::Builder;
use tokio::sync::Barrier;
use tokio::time::timeout;
use tokio_postgres::types::Type;
use trackd::class::Class;
use trackd::store::{Error, Guard, Isolation, Pool, PoolOptions, Statement, TransactionOptions};

const PATIENCE: Duration = Duration::from_secs(30);

async fn database(sql: &str) -> (Database, Pool) {
    let database = Server::shared().database().await;
    database.client().await.batch_execute(sql).await.unwrap();
    let options = PoolOptions { pool_size: 1, max_overflow: 9, ..PoolOptions::new(&database.url()).unwrap() };
    let pool = Pool::new(options);
    (database, pool)
}

async fn one(database: &Database, sql: &str) -> i64 {
    database.client().await.query_one(sql, &[]).await.unwrap().get(0)
}

async fn nobody_in_a_transaction(database: &Database) {
    let client = database.client().await;
    let open = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND xact_start IS NOT NULL \
                AND pid <> pg_backend_pid()";
    eventually("no open transaction", PATIENCE, async || client.query(open, &[]).await.unwrap().is_empty()).await;
}

fn insert(n: i64) -> Statement {
    Statement::new("INSERT INTO t VALUES ($1)").bind(n, Type::INT8)
}

/// An error of the program's own.
#[derive(Debug)]
enum Mine {
    Store,
    Changed,
}

impl From<Error> for Mine {
    fn from(_: Error) -> Mine {
        Mine::Store
    }
}

#[tokio::test]
async fn a_transaction_lands_on_ok_and_is_undone_on_err_panic_and_deadline() {
    let (database, pool) = database("CREATE TABLE t (n int8)").await;
    let default = TransactionOptions::default();
    let landed = pool.transaction(default, async |guard: &mut Guard| {
        guard.defer(insert(1));
        Ok::<_, Error>(7)
    });
    assert_eq!(landed.await.unwrap(), 7);
    let refused = pool.transaction(default, async |guard: &mut Guard| {
        guard.defer(insert(2));
        guard.flush().await?;
        Err::<(), _>(Mine::Changed)
    });
    assert!(matches!(refused.await, Err(Mine::Changed)));
    let panicked = pool.transaction(default, async |guard: &mut Guard| -> Result<(), Error> {
        guard.defer(insert(3));
        guard.flush().await?;
        panic!("on purpose");
    });
    assert!(AssertUnwindSafe(panicked).catch_unwind().await.is_err());
    let short = TransactionOptions { deadline: Some(Duration::from_millis(100)), ..default };
    let late = pool.transaction(short, async |guard: &mut Guard| {
        guard.defer(insert(4));
        guard.query(Statement::new("SELECT pg_sleep(60)")).await.map(drop)
    });
    assert!(late.await.unwrap_err().to_string().contains("no answer within 100ms"));
    nobody_in_a_transaction(&database).await;
    assert_eq!(one(&database, "SELECT sum(n)::int8 FROM t").await, 1);
    let statistics = pool.statistics();
    assert_eq!((statistics.committed, statistics.rolled_back), (1, 3), "{statistics:?}");
}

#[tokio::test]
async fn a_commit_that_was_not_answered_is_unknown_and_neither_landed_nor_rolled_back() {
    let (database, pool) = database(SLOW_COMMIT).await;
    let short = TransactionOptions { deadline: Some(Duration::from_millis(300)), ..Default::default() };
    let late = pool.transaction(short, async |guard: &mut Guard| {
        guard.defer(insert(1));
        Ok::<_, Error>(())
    });
    let error = late.await.unwrap_err();
    assert!(error.is_unknown_commit(), "{error}");
    assert_eq!(
        error.to_string(),
        "commit: the answer was lost (transaction: no answer within 300ms)",
        "the deadline passed, and nobody knows which side of COMMIT"
    );
    // Dropped while it waits.
    let mut guard = pool.begin().await.unwrap();
    guard.defer(insert(1));
    assert!(timeout(Duration::from_millis(300), guard.commit()).await.is_err());
    nobody_in_a_transaction(&database).await;
    let statistics = pool.statistics();
    assert_eq!((statistics.unknown, statistics.rolled_back, statistics.committed), (2, 0, 0), "{statistics:?}");
}

#[tokio::test]
async fn a_server_that_does_not_know_what_became_of_a_commit_is_believed() {
    let (_database, pool) = database("CREATE TABLE t (n int8)").await;
    for (code, unknown) in [("40003", true), ("08007", true), ("40002", false)] {
        let mut guard = pool.begin().await.unwrap();
        guard.defer(Statement::new(format!("DO $$ BEGIN RAISE EXCEPTION 'so' USING ERRCODE = '{code}'; END $$")));
        assert_eq!(guard.commit().await.unwrap_err().is_unknown_commit(), unknown, "{code}");
    }
}

#[tokio::test]
async fn each_answer_of_the_server_says_whether_another_may_do_and_what_a_person_can() {
    let (_database, pool) = database("CREATE TABLE t (n int8)").await;
    let codes = [
        ("08006", Class::Retry, true, None),
        ("25006", Class::Retry, true, Some("primary")),
        ("53100", Class::Retry, true, Some("space")),
        ("53300", Class::Retry, true, Some("max_connections")),
        ("57P03", Class::Retry, true, Some("recovering")),
        ("57014", Class::Retry, false, None),
        ("40001", Class::Retry, false, None),
        ("22003", Class::Row, false, None),
        ("44000", Class::Row, false, None),
        ("0A000", Class::Standing, false, None),
        ("28P01", Class::Standing, false, Some("pg_hba.conf")),
        ("3D000", Class::Standing, false, Some("create the database")),
        ("3F000", Class::Standing, false, None),
        ("42501", Class::Standing, false, Some("grant")),
        ("42P01", Class::Standing, false, Some("trackd check")),
    ];
    for (code, class, away, hint) in codes {
        let mut guard = pool.begin().await.unwrap();
        let raise = format!("DO $$ BEGIN RAISE EXCEPTION 'so' USING ERRCODE = '{code}'; END $$");
        let error = guard.batch("raise", &raise).await.unwrap_err();
        assert_eq!((error.sqlstate(), error.class(), error.is_away()), (Some(code), class, away), "{error}");
        let told = error.hint();
        assert_eq!(told.is_some(), hint.is_some(), "{code}: {told:?}");
        assert!(hint.is_none_or(|hint| told.unwrap().contains(hint)), "{code}");
    }
}

#[tokio::test]
async fn a_cause_is_told_once() {
    let url = format!("host=127.0.0.1 port={} user=nobody sslmode=disable", free_port());
    let error = Pool::new(PoolOptions::new(&url).unwrap()).begin().await.unwrap_err().to_string();
    assert_eq!(error.matches("refused").count(), 1, "{error}");
}

#[tokio::test]
async fn a_conflict_that_the_work_passed_over_is_tried_again() {
    let (database, pool) = database("CREATE TABLE t (n int8)").await;
    let runs = AtomicU32::new(0);
    let done = pool.transaction(TransactionOptions::default(), async |guard: &mut Guard| {
        if runs.fetch_add(1, Ordering::Relaxed) == 0 {
            let conflict = "DO $$ BEGIN RAISE EXCEPTION 'again' USING ERRCODE = '40001'; END $$";
            assert!(guard.batch("conflict", conflict).await.is_err());
        }
        guard.defer(insert(1));
        Ok::<_, Error>(())
    });
    done.await.unwrap();
    assert_eq!((runs.load(Ordering::Relaxed), one(&database, "SELECT count(*) FROM t").await), (2, 1));
}

#[tokio::test]
async fn a_commit_that_may_have_landed_is_not_tried_again_whatever_was_met_before() {
    let (_database, pool) = database("CREATE TABLE t (n int8)").await;
    let raise = |code| format!("DO $$ BEGIN RAISE EXCEPTION 'so' USING ERRCODE = '{code}'; END $$");
    let runs = AtomicU32::new(0);
    let done = pool.transaction(TransactionOptions::default(), async |guard: &mut Guard| {
        runs.fetch_add(1, Ordering::Relaxed);
        let part = guard.savepoint(async |guard: &mut Guard| guard.batch("a conflict", &raise("40P01")).await);
        assert!(part.await.unwrap_err().is_conflict());
        guard.defer(Statement::new(raise("40003")));
        Ok::<_, Error>(())
    });
    assert!(done.await.unwrap_err().is_unknown_commit());
    assert_eq!(runs.load(Ordering::Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_serialization_failure_is_tried_again_with_what_is_there_now() {
    let (database, pool) = database("CREATE TABLE t (n int8); INSERT INTO t VALUES (0)").await;
    let options = TransactionOptions { isolation: Isolation::Serializable, attempts: 20, ..Default::default() };
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move {
                pool.transaction(options, async |guard: &mut Guard| {
                    let rows = guard.query(Statement::new("SELECT n FROM t")).await?;
                    let next: i64 = rows[0].get::<_, i64>(0) + 1;
                    guard.defer(Statement::new("UPDATE t SET n = $1").bind(next, Type::INT8));
                    Ok::<_, Error>(())
                })
                .await
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(one(&database, "SELECT n FROM t").await, 8);
    assert!(pool.statistics().retried > 0, "they met");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadlock_is_tried_again_and_attempts_are_limited() {
    let (database, pool) = database("CREATE TABLE t (n int8, v int8); INSERT INTO t VALUES (1, 0), (2, 0)").await;
    let met = Arc::new(Barrier::new(2));
    let both = [[1_i64, 2], [2, 1]].map(|order| {
        let (pool, met) = (pool.clone(), met.clone());
        let runs = AtomicU32::new(0);
        tokio::spawn(async move {
            pool.transaction(TransactionOptions::default(), async move |guard: &mut Guard| {
                let first = runs.fetch_add(1, Ordering::Relaxed) == 0;
                let touch = |n: i64| Statement::new("UPDATE t SET v = v + 1 WHERE n = $1").bind(n, Type::INT8);
                guard.defer(touch(order[0]));
                guard.flush().await?;
                if first {
                    met.wait().await;
                }
                guard.defer(touch(order[1]));
                guard.flush().await.map(drop)
            })
            .await
        })
    });
    for task in both {
        task.await.unwrap().unwrap();
    }
    assert_eq!(one(&database, "SELECT sum(v)::int8 FROM t").await, 4);
    assert!(pool.statistics().retried >= 1);
    let always = "DO $$ BEGIN RAISE EXCEPTION 'again' USING ERRCODE = '40001'; END $$";
    let runs = AtomicU32::new(0);
    let limited = pool.transaction(TransactionOptions::default(), async |guard: &mut Guard| {
        runs.fetch_add(1, Ordering::Relaxed);
        guard.batch("conflict", always).await
    });
    assert!(limited.await.unwrap_err().is_conflict());
    assert_eq!(runs.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn a_part_that_fails_is_undone_by_itself() {
    let (database, pool) = database("CREATE TABLE t (n int8 PRIMARY KEY)").await;
    let done = pool.transaction(TransactionOptions::default(), async |guard: &mut Guard| {
        guard.defer(insert(1));
        let doubled = guard
            .savepoint(async |guard: &mut Guard| {
                guard.defer(insert(2));
                // Not flushed: the savepoint's own end finds it.
                guard.defer(insert(1));
                Ok::<_, Error>(())
            })
            .await;
        assert!(doubled.unwrap_err().is_unique_violation());
        guard
            .savepoint(async |guard: &mut Guard| {
                guard.defer(insert(3));
                let left = guard.savepoint(async |guard: &mut Guard| {
                    assert!(guard.query(Statement::new("SELECT 1 / 0")).await.is_err());
                    // Never flushed: it goes with its part.
                    guard.defer(insert(5));
                    Err::<(), _>(Mine::Changed)
                });
                assert!(matches!(left.await, Err(Mine::Changed)));
                let inner = guard.savepoint(async |guard: &mut Guard| {
                    guard.defer(insert(4));
                    guard.flush().await?;
                    Err::<(), _>(Mine::Changed)
                });
                assert!(matches!(inner.await, Err(Mine::Changed)));
                Ok::<_, Error>(())
            })
            .await
    });
    done.await.unwrap();
    assert_eq!(one(&database, "SELECT sum(n)::int8 FROM t").await, 4, "1 and 3");
}

#[tokio::test]
async fn a_part_that_is_dropped_or_panics_between_its_statements_is_not_committed() {
    let (database, pool) = database("CREATE TABLE t (n int8)").await;
    let mut guard = pool.begin().await.unwrap();
    let part = guard.savepoint(async |guard: &mut Guard| {
        guard.query(insert(1)).await?;
        std::future::pending().await
    });
    let late: Result<Result<(), Error>, _> = timeout(Duration::from_millis(200), part).await;
    assert!(late.is_err());
    assert!(guard.commit().await.unwrap_err().to_string().contains("aborted"));
    let mut guard = pool.begin().await.unwrap();
    let part = guard.savepoint(async |guard: &mut Guard| -> Result<(), Error> {
        guard.query(insert(2)).await?;
        panic!("on purpose");
    });
    assert!(AssertUnwindSafe(part).catch_unwind().await.is_err());
    assert!(guard.commit().await.unwrap_err().to_string().contains("aborted"));
    assert_eq!(one(&database, "SELECT count(*) FROM t").await, 0);
}

#[tokio::test]
async fn after_a_statement_whose_future_was_dropped_a_guard_can_only_be_rolled_back() {
    let (database, pool) = database("CREATE TABLE t (n int8)").await;
    let mut guard = pool.begin().await.unwrap();
    guard.query(insert(1)).await.unwrap();
    assert!(timeout(Duration::from_millis(100), guard.query(Statement::new("SELECT pg_sleep(1)"))).await.is_err());
    assert!(guard.query(insert(2)).await.unwrap_err().to_string().contains("aborted by an earlier error"));
    assert!(guard.commit().await.unwrap_err().to_string().contains("aborted by an earlier error"));
    nobody_in_a_transaction(&database).await;
    assert_eq!(one(&database, "SELECT count(*) FROM t").await, 0);
}

#[tokio::test]
async fn a_statement_that_would_end_the_transaction_or_outlive_it_is_refused() {
    let (database, pool) = database("CREATE TABLE t (n int8 PRIMARY KEY)").await;
    // Its error would be undone by the statement behind it, and COMMIT would land what is reported as failed.
    let mut guard = pool.begin().await.unwrap();
    for sql in ["INSERT INTO t VALUES (1)", "SAVEPOINT a", "INSERT INTO t VALUES (1)", "ROLLBACK TO SAVEPOINT a"] {
        guard.defer(Statement::new(sql));
    }
    let error = guard.commit().await.unwrap_err();
    assert_eq!(error.to_string(), "statement: \"ROLLBACK TO SAVEPOINT a\" begins or ends a transaction");
    assert!(error.class() == Class::Standing && error.hint().unwrap().contains("rollback_to"));
    let mut guard = pool.begin().await.unwrap();
    guard.defer(insert(2));
    assert!(guard.query(Statement::new("-- done\ncommit")).await.is_err());
    assert!(guard.commit().await.is_err());
    let mut guard = pool.begin().await.unwrap();
    let error = guard.batch("settings", "SET search_path TO pg_catalog").await.unwrap_err();
    assert!(error.hint().unwrap().contains("SET LOCAL"));
    drop(guard);
    let mut guard = pool.begin().await.unwrap();
    guard.batch("settings", "SET LOCAL search_path TO pg_catalog").await.unwrap();
    guard.commit().await.map(drop).unwrap();
    assert_eq!(one(&database, "SELECT count(*) FROM t").await, 0);
}

#[test]
fn a_connection_whose_roll_back_ended_with_its_runtime_is_not_lent() {
    let whole = Builder::new_multi_thread().enable_all().build().unwrap();
    let brief = Builder::new_current_thread().enable_all().build().unwrap();
    let (database, pool) = whole.block_on(async {
        let (database, pool) = database("CREATE TABLE t (n int8)").await;
        pool.begin().await.unwrap().query(Statement::new("SELECT 1")).await.unwrap();
        eventually("it rests", PATIENCE, async || pool.numbers().idle == 1).await;
        (database, pool)
    });
    brief.block_on(async {
        let mut guard = pool.begin().await.unwrap();
        guard.query(insert(1)).await.unwrap();
    });
    drop(brief);
    whole.block_on(async {
        let mut guard = pool.begin().await.unwrap();
        guard.defer(insert(2));
        guard.commit().await.map(drop).unwrap();
        assert_eq!(one(&database, "SELECT sum(n)::int8 FROM t").await, 2);
    });
}

#[tokio::test]
async fn options_hold_for_their_transaction_and_not_for_the_next() {
    let (_database, pool) = database("CREATE TABLE t (n int8)").await;
    let sql = "SELECT concat_ws(',', current_setting('transaction_isolation'), current_setting('transaction_read_only'), \
               current_setting('statement_timeout'), current_setting('lock_timeout'), \
               current_setting('idle_in_transaction_session_timeout'))";
    let options = TransactionOptions {
        isolation: Isolation::RepeatableRead,
        read_only: true,
        statement_timeout: Some(Duration::from_secs(7)),
        ..Default::default()
    };
    for (options, expected) in
        [(options, "repeatable read,on,7s,7s,7s"), (TransactionOptions::default(), "read committed,off,1min,1min,1min")]
    {
        let mut guard = pool.begin_with(&options).await.unwrap();
        assert_eq!(guard.query(Statement::new(sql)).await.unwrap()[0].get::<_, &str>(0), expected);
        guard.rollback().await;
    }
    assert_eq!(pool.numbers().size, 1, "one connection served both");
}

#[tokio::test]
async fn a_large_answer_is_read_in_pieces() {
    let (_database, pool) = database("CREATE TABLE t (n int8); INSERT INTO t SELECT generate_series(1, 2500)").await;
    let mut guard = pool.begin().await.unwrap();
    let query = Statement::new("SELECT n FROM t WHERE n > $1 ORDER BY n").bind(500_i64, Type::INT8);
    let mut cursor = guard.cursor(query, 1000).await.unwrap();
    let mut pieces = Vec::new();
    let mut sum = 0;
    loop {
        let rows = cursor.next().await.unwrap();
        if rows.is_empty() {
            break;
        }
        pieces.push(rows.len());
        sum += rows.iter().map(|row| row.get::<_, i64>(0)).sum::<i64>();
    }
    assert_eq!((pieces, sum), (vec![1000, 1000], (501..=2500).sum()));
    cursor.close();
    let open = "SELECT count(*) FROM pg_cursors WHERE name <> ''";
    assert_eq!(guard.query(Statement::new(open)).await.unwrap()[0].get::<_, i64>(0), 0, "it holds nothing any more");
    let mut copy = guard.copy_out("COPY t TO STDOUT").await.unwrap();
    let mut bytes = 0;
    while let Some(piece) = copy.next().await.unwrap() {
        bytes += piece.len();
    }
    drop(copy);
    assert_eq!(bytes, (1..=2500_i64).map(|n| n.to_string().len() + 1).sum::<usize>());
    guard.commit().await.map(drop).unwrap();
    // Left in the middle, the answer is cut off, and the next one borrows a clean connection.
    let mut guard = pool.begin().await.unwrap();
    let mut copy =
        guard.copy_out("COPY (SELECT repeat('x', 1000) FROM generate_series(1, 1000000)) TO STDOUT").await.unwrap();
    copy.next().await.unwrap();
    drop(copy);
    assert!(guard.query(Statement::new("SELECT 1")).await.is_err(), "nothing more by this guard");
    drop(guard);
    assert_eq!(pool.begin().await.unwrap().query(Statement::new("SELECT 1")).await.unwrap().len(), 1);
}

/// Everything a guard can do, in one transaction.
async fn everything(pool: &Pool) -> Result<(), Error> {
    pool.transaction(TransactionOptions::default(), async |guard: &mut Guard| {
        guard.defer(insert(1));
        guard.query(Statement::new("SELECT n FROM t")).await?;
        let mut copy = guard.copy_in("COPY t FROM STDIN (FORMAT binary)").await?;
        copy.send(bytes::Bytes::from_static(&[0, 1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 2])).await?;
        copy.finish().await?;
        guard.savepoint(async |guard: &mut Guard| guard.batch("nothing", "SELECT 1").await).await?;
        let mut out = guard.copy_out("COPY (SELECT 1) TO STDOUT").await?;
        while out.next().await?.is_some() {}
        drop(out);
        let mut cursor = guard.cursor(Statement::new("SELECT n FROM t"), 1).await?;
        cursor.next().await.map(drop)
    })
    .await
}

#[tokio::test]
async fn dropped_or_panicked_after_any_poll_a_transaction_leaves_a_clean_connection() {
    let (database, pool) = database("CREATE TABLE t (n int8)").await;
    let mut whole = 0;
    for polls in 0..120 {
        let done = at_most(everything(&pool), polls).await;
        whole += i64::from(done.is_some_and(|done| done.is_ok()));
        nobody_in_a_transaction(&database).await;
        let panics = AssertUnwindSafe(async {
            let _ = at_most(everything(&pool), polls).await;
            panic!("on purpose");
        });
        assert!(panics.catch_unwind().await.is_err());
        let mut guard = pool.begin().await.unwrap();
        let clean =
            "SELECT pg_current_xact_id_if_assigned() IS NULL AND current_setting('search_path') = '\"$user\", public'";
        assert!(guard.query(Statement::new(clean)).await.unwrap()[0].get::<_, bool>(0));
    }
    nobody_in_a_transaction(&database).await;
    let (rows, halves) = (
        one(&database, "SELECT count(*) FROM t").await,
        one(&database, "SELECT count(*) FILTER (WHERE n = 1) - count(*) FILTER (WHERE n = 2) FROM t").await,
    );
    assert!(whole > 0 && rows >= whole * 2 && halves == 0, "{whole} whole, {rows} rows, {halves} halves");
}

#[tokio::test]
async fn a_statement_that_fails_in_the_flight_of_commit_costs_its_transaction_and_no_connection() {
    let (database, pool) = database("CREATE TABLE t (n int8 PRIMARY KEY)").await;
    let mut guard = pool.begin().await.unwrap();
    [insert(1), insert(1), insert(2)].into_iter().for_each(|statement| guard.defer(statement));
    assert!(guard.commit().await.unwrap_err().is_unique_violation());
    let mut guard = pool.begin().await.unwrap();
    guard.defer(insert(3));
    guard.commit().await.map(drop).unwrap();
    assert_eq!(one(&database, "SELECT sum(n)::int8 FROM t").await, 3);
    let statistics = pool.statistics();
    assert_eq!((statistics.connected, statistics.committed, statistics.rolled_back), (1, 1, 1), "{statistics:?}");
}

#[tokio::test]
async fn a_copy_that_is_dropped_in_the_middle_lands_nothing() {
    let (database, pool) = database("CREATE TABLE t (n int8)").await;
    let tuple = bytes::Bytes::from_static(&[0, 1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 2]);
    for sent in 0..3 {
        let mut guard = pool.begin().await.unwrap();
        guard.defer(insert(1));
        let mut copy = guard.copy_in("COPY t FROM STDIN (FORMAT binary)").await.unwrap();
        for _ in 0..sent {
            copy.send(tuple.clone()).await.unwrap();
        }
        drop(copy);
        assert!(guard.query(Statement::new("SELECT 1")).await.unwrap_err().to_string().contains("aborted"));
        assert!(guard.commit().await.is_err());
    }
    assert_eq!(one(&database, "SELECT count(*) FROM t").await, 0);
    assert_eq!(pool.begin().await.unwrap().query(Statement::new("SELECT 1")).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_deadline_after_a_refused_commit_is_no_unknown_one() {
    let refused = "CREATE TABLE t (n int8); CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS \
                   $$BEGIN RAISE EXCEPTION 'again' USING ERRCODE = '40001'; END$$; \
                   CREATE CONSTRAINT TRIGGER again AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED \
                   FOR EACH ROW EXECUTE FUNCTION again()";
    let (_database, pool) = database(refused).await;
    let runs = AtomicU32::new(0);
    let short = TransactionOptions { deadline: Some(Duration::from_secs(2)), ..Default::default() };
    let late = pool.transaction(short, async |guard: &mut Guard| {
        guard.defer(insert(1));
        if runs.fetch_add(1, Ordering::Relaxed) == 1 {
            std::future::pending::<()>().await;
        }
        Ok::<_, Error>(())
    });
    let error = late.await.unwrap_err();
    assert_eq!((error.to_string().as_str(), error.is_unknown_commit()), ("transaction: no answer within 2s", false));
    assert_eq!((pool.statistics().retried, pool.statistics().unknown), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_waits_for_a_silent_server_ends_soon_after_its_statement_timeout() {
    let database = Server::shared().database().await;
    database.client().await.batch_execute("CREATE TABLE t (n int8)").await.unwrap();
    let proxy = Proxy::start(database.socket()).await;
    let statement_timeout = Duration::from_millis(500);
    let options = PoolOptions { statement_timeout, ..PoolOptions::new(&proxy.url(&database)).unwrap() };
    let pool = Pool::new(options);
    let mut guards = Vec::new();
    for _ in 0..6 {
        let mut guard = pool.begin().await.unwrap();
        guard.defer(insert(1));
        guards.push(guard);
    }
    let mut guards = guards.into_iter();
    let [mut queries, mut flushes, commits, mut copies, mut reads, mut cursors] =
        std::array::from_fn(|_| guards.next().unwrap());
    let mut copy = copies.copy_in("COPY t FROM STDIN (FORMAT binary)").await.unwrap();
    let mut read = reads.copy_out("COPY (SELECT generate_series(1, 10000000)) TO STDOUT").await.unwrap();
    let mut cursor = cursors.cursor(Statement::new("SELECT generate_series(1, 1000)"), 1).await.unwrap();
    proxy.set(Fault::Freeze);
    let sends = async {
        loop {
            copy.send(bytes::Bytes::from(vec![0; 1 << 20])).await?;
        }
    };
    let reading = async {
        while read.next().await?.is_some() {}
        Ok::<(), Error>(())
    };
    let all = async {
        tokio::join!(
            queries.query(Statement::new("SELECT 1")),
            flushes.flush(),
            commits.commit(),
            sends,
            reading,
            cursor.next()
        )
    };
    let (query, flush, commit, send, read, next): (_, _, _, Result<(), Error>, _, _) =
        timeout(PATIENCE / 2, all).await.expect("nobody hangs");
    assert!(commit.map(drop).unwrap_err().is_unknown_commit());
    let errors = [query.map(drop), flush.map(drop), send, read, next.map(drop)].map(Result::unwrap_err);
    for error in errors {
        assert!(error.is_away() && !error.is_unknown_commit() && error.class() == Class::Retry, "{error}");
    }
}
