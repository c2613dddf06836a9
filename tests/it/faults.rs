//! Behaviour of the pool when the server fails in the middle of something.

use crate::support::postgres::{Database, SLOW_COMMIT, Server, eventually};
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::Duration;
use tokio_postgres::types::Type;
use trackd::class::Class;
use trackd::store::{Error, Pool, PoolOptions, Statement};

const PATIENCE: Duration = Duration::from_secs(30);

async fn database(sql: &str) -> (Database, Pool) {
    let database = Server::shared().database().await;
    database.client().await.batch_execute(sql).await.unwrap();
    let pool = Pool::new(PoolOptions { pool_size: 1, max_overflow: 0, ..PoolOptions::new(&database.url()).unwrap() });
    (database, pool)
}

/// Ends the session that is at the SQL with this text, as soon as it is.
async fn terminate(database: &Database, text: &str) {
    let client = database.client().await;
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() \
               AND pid <> pg_backend_pid() AND application_name = 'trackd' AND query LIKE $1";
    let like = format!("%{text}%");
    eventually(text, PATIENCE, async || !client.query(sql, &[&like]).await.unwrap().is_empty()).await;
}

async fn serves(pool: &Pool) {
    let mut guard = pool.begin().await.unwrap();
    assert_eq!(guard.query(Statement::new("SELECT count(*) FROM t")).await.unwrap()[0].get::<_, i64>(0), 0);
}

fn lost(error: &Error) {
    assert!(error.class() == Class::Retry && error.is_away(), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ended_in_a_query_a_copy_or_a_commit_costs_its_transaction_only() {
    let (database, pool) = database(SLOW_COMMIT).await;
    let mut guard = pool.begin().await.unwrap();
    let query = guard.query(Statement::new("SELECT pg_sleep(60), 'in a query'"));
    let (ended, ()) = tokio::join!(query, terminate(&database, "in a query"));
    let error = ended.unwrap_err();
    assert_eq!(error.sqlstate(), Some("57P01"));
    lost(&error);
    assert!(guard.commit().await.is_err(), "nothing more by this guard");
    serves(&pool).await;

    let mut guard = pool.begin().await.unwrap();
    let mut copy = guard.copy_in("COPY t FROM STDIN (FORMAT binary)").await.unwrap();
    terminate(&database, "COPY t FROM").await;
    let tuple = bytes::Bytes::from_static(&[0, 1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 2]);
    let mut error = None;
    for _ in 0..1_000_000 {
        error = copy.send(tuple.clone()).await.err();
        if error.is_some() {
            break;
        }
    }
    lost(&error.expect("the copy ends"));
    drop(copy);
    drop(guard);
    serves(&pool).await;

    let mut guard = pool.begin().await.unwrap();
    guard.defer(Statement::new("INSERT INTO t VALUES ($1)").bind(1_i64, Type::INT8));
    let (ended, ()) = tokio::join!(guard.commit(), terminate(&database, "COMMIT"));
    let error = ended.map(drop).unwrap_err();
    assert!(error.is_unknown_commit(), "{error}");
    let statistics = pool.statistics();
    assert_eq!((statistics.rolled_back, statistics.unknown), (4, 1), "{statistics:?}");
    serves(&pool).await;
}

/// A file system of its own, a few megabytes large; gone when dropped.
pub(crate) struct Small(pub(crate) tempfile::TempDir);

impl Small {
    /// Nothing where this process may not mount.
    pub(crate) fn mount(data: &std::path::Path) -> Option<Small> {
        let dir = tempfile::tempdir().unwrap();
        let owner = std::fs::metadata(data).unwrap();
        let options = format!("size=8m,mode=0700,uid={},gid={}", owner.uid(), owner.gid());
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "small"]).arg(dir.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Small(dir))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_and_is_over_when_there_is_space() {
    let server = Server::own();
    let Some(small) = Small::mount(&server.dir().join("data")) else {
        return println!("skipped: this process may not mount a file system");
    };
    let database = server.database().await;
    let place = small.0.path().display();
    let client = database.client().await;
    client.batch_execute(&format!("CREATE TABLESPACE small LOCATION '{place}'")).await.unwrap();
    let make = "CREATE TABLE t (n int8, v text) TABLESPACE small; CREATE TABLE full_up (v text) TABLESPACE small";
    client.batch_execute(make).await.unwrap();
    let pool = Pool::new(PoolOptions::new(&database.url()).unwrap());
    let fill = "INSERT INTO full_up SELECT repeat('x', 1000) FROM generate_series(1, 1000)";
    while client.batch_execute(fill).await.is_ok() {}
    let insert = async || {
        let mut guard = pool.begin().await?;
        let sql = "INSERT INTO t SELECT n, repeat('y', 1000) FROM generate_series(1, 1000) AS n";
        guard.defer(Statement::new(sql));
        guard.commit().await.map(drop)
    };
    let error: Error = insert().await.unwrap_err();
    assert_eq!((error.sqlstate(), error.class()), (Some("53100"), Class::Retry), "{error}");
    assert!(error.hint().unwrap().contains("disk space"), "{error}");
    client.batch_execute("DROP TABLE full_up").await.unwrap();
    insert().await.unwrap();
    let rows = client.query_one("SELECT count(*) FROM t", &[]).await.unwrap();
    assert_eq!(rows.get::<_, i64>(0), 1000, "whole, and once");
    assert!(pool.close(PATIENCE).await);
}
