//! Behaviour of the pool with more than one server behind it: standbys, and a pooler.

use crate::support::bouncer::Bouncer;
use crate::support::postgres::{SLOW_COMMIT, Server, eventually};
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tokio_postgres::types::Type;
use trackd::class::Class;
use trackd::store::{Error, Pool, PoolOptions, Statement};

const PATIENCE: Duration = Duration::from_secs(30);

async fn insert(pool: &Pool, n: i64) -> Result<(), Error> {
    let mut guard = pool.begin_within(PATIENCE).await?;
    guard.defer(Statement::new("INSERT INTO t VALUES ($1)").bind(n, Type::INT8));
    guard.commit().await.map(drop)
}

/// Writes until one row lands. Returns how long that took.
async fn lands(pool: &Pool, n: &mut i64) -> Duration {
    let begun = Instant::now();
    loop {
        *n += 1;
        match timeout(PATIENCE, insert(pool, *n)).await.expect("nobody hangs") {
            Ok(()) => return begun.elapsed(),
            Err(error) => assert_eq!(error.class(), Class::Retry, "{error}"),
        }
        assert!(begun.elapsed() < PATIENCE, "no row lands");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_of_two_hosts_follows_the_primary() {
    let first = Server::own();
    first.connect("postgres").await.batch_execute("CREATE TABLE t (n bigint)").await.unwrap();
    let second = first.standby();
    let url = format!("host={},{} user=postgres dbname=postgres", first.dir().display(), second.dir().display());
    let pool = Pool::new(PoolOptions { pool_size: 2, ..PoolOptions::new(&url).unwrap() });
    let alone = format!("host={} user=postgres dbname=postgres", second.dir().display());
    let standby = Pool::new(PoolOptions::new(&alone).unwrap());
    let error = standby.begin().await.unwrap_err();
    assert!(error.to_string().contains("read-only standby") && error.class() == Class::Retry, "{error}");
    let reader = Pool::new(PoolOptions { needs_write: false, ..PoolOptions::new(&alone).unwrap() });
    let mut guard = reader.begin().await.unwrap();
    assert!(guard.query(Statement::new("SELECT pg_is_in_recovery()")).await.unwrap()[0].get::<_, bool>(0));
    drop(guard);
    let mut n = 0;
    lands(&pool, &mut n).await;
    let caught_up = "SELECT 1 FROM pg_stat_replication WHERE replay_lsn = pg_current_wal_lsn()";
    let client = first.connect("postgres").await;
    eventually("the standby", PATIENCE, async || !client.query(caught_up, &[]).await.unwrap().is_empty()).await;
    first.stop();
    second.connect("postgres").await.batch_execute("SELECT pg_promote()").await.unwrap();
    println!("served by the promoted standby after {:?}", lands(&pool, &mut n).await);
    println!("a pool of the standby alone writes after {:?}", lands(&standby, &mut n).await);
    // The old primary comes back as a standby, first in the list: it is passed over.
    first.demote(&second);
    first.start();
    pool.reset();
    println!("served beside a demoted primary after {:?}", lands(&pool, &mut n).await);
    let rows =
        second.connect("postgres").await.query_one("SELECT count(*), count(DISTINCT n) FROM t", &[]).await.unwrap();
    assert_eq!((rows.get::<_, i64>(0), rows.get::<_, i64>(1)), (4, 4));
    assert!(pool.close(PATIENCE).await && standby.close(PATIENCE).await && reader.close(PATIENCE).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_server_is_found_or_refused_wherever_it_stands() {
    let primary = Server::own();
    let standby = primary.standby();
    let place = |server: &Server| server.dir().display().to_string();
    let (first, second) = (place(&primary), place(&standby));
    let is_standby = async |hosts: &str, attributes: &str| {
        let url = format!("host={hosts} user=postgres dbname=postgres target_session_attrs={attributes}");
        let pool = Pool::new(PoolOptions { needs_write: false, ..PoolOptions::new(&url).unwrap() });
        let mut guard = pool.begin().await?;
        let rows = guard.query(Statement::new("SELECT pg_is_in_recovery()")).await?;
        Ok::<bool, Error>(rows[0].get(0))
    };
    for (attributes, of_both, alone) in [
        ("read-write", false, [true, false]),
        ("primary", false, [true, false]),
        ("read-only", true, [false, true]),
        ("standby", true, [false, true]),
        ("prefer-standby", true, [true, true]),
    ] {
        for hosts in [format!("{first},{second}"), format!("{second},{first}")] {
            assert_eq!(is_standby(&hosts, attributes).await.unwrap(), of_both, "{attributes} of {hosts}");
        }
        let served = [is_standby(&first, attributes).await.is_ok(), is_standby(&second, attributes).await.is_ok()];
        assert_eq!(served, alone, "{attributes}");
    }
    // A primary whose sessions begin read-only is none to write to.
    primary
        .connect("postgres")
        .await
        .batch_execute("ALTER SYSTEM SET default_transaction_read_only = on")
        .await
        .unwrap();
    primary.connect("postgres").await.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    eventually("the setting", PATIENCE, async || is_standby(&first, "read-only").await.is_ok()).await;
    assert!(is_standby(&first, "read-write").await.is_err() && is_standby(&first, "primary").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_pooler_in_transaction_mode_nothing_of_a_session_is_missed_or_left() {
    let database = Server::shared().database().await;
    let client = database.client().await;
    client.batch_execute("CREATE TABLE t (n bigint)").await.unwrap();
    let mut bouncer = Bouncer::start(&database, 2).await;
    let pool = Pool::new(PoolOptions {
        pool_size: 10,
        max_overflow: 0,
        ping_after: Duration::ZERO,
        ..PoolOptions::new(&bouncer.url(&database)).unwrap()
    });
    let tasks: Vec<_> = (0..20)
        .map(|task| {
            let pool = pool.clone();
            tokio::spawn(async move {
                for turn in 0..20 {
                    let n: i64 = task * 20 + turn;
                    if n % 5 == 0 {
                        // A guard that is dropped rolls back in its own session.
                        let mut guard = pool.begin().await.unwrap();
                        guard.defer(Statement::new("INSERT INTO t VALUES (-1)"));
                        guard.flush().await.unwrap();
                        continue;
                    }
                    let mut guard = pool.begin().await.unwrap();
                    let timeout = guard.query(Statement::new("SHOW statement_timeout")).await.unwrap();
                    assert_eq!(timeout[0].get::<_, &str>(0), "1min");
                    if n % 5 == 1 {
                        let tuple = [&[0, 1, 0, 0, 0, 8], &n.to_be_bytes()[..]].concat();
                        let mut copy = guard.copy_in("COPY t FROM STDIN (FORMAT binary)").await.unwrap();
                        copy.send(tuple.into()).await.unwrap();
                        assert_eq!(copy.finish().await.unwrap(), 1);
                        let rows = Statement::new("SELECT n FROM t WHERE n = $1").bind(n, Type::INT8);
                        assert_eq!(guard.cursor(rows, 10).await.unwrap().next().await.unwrap().len(), 1);
                    } else {
                        guard.defer(Statement::new("INSERT INTO t VALUES ($1)").bind(n, Type::INT8));
                    }
                    guard.commit().await.map(drop).unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let row = client.query_one("SELECT count(*), count(DISTINCT n), min(n) FROM t", &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1), row.get::<_, i64>(2)), (320, 320, 1));
    let left = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'";
    eventually("no open transaction", PATIENCE, async || client.query(left, &[]).await.unwrap().is_empty()).await;
    let prepared = pool.begin().await.unwrap().query(Statement::new("SELECT 1 FROM pg_prepared_statements")).await;
    assert!(prepared.unwrap().is_empty(), "names would meet those of other clients");
    bouncer.kill();
    assert_eq!(pool.begin().await.unwrap_err().class(), Class::Retry);
    bouncer.again().await;
    insert(&pool, 1).await.unwrap();
    assert!(pool.close(PATIENCE).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_lost_behind_a_pooler_in_a_commit_leaves_the_outcome_unknown() {
    let server = Server::own();
    let database = server.database().await;
    let client = database.client().await;
    client.batch_execute(SLOW_COMMIT).await.unwrap();
    let bouncer = Bouncer::start(&database, 2).await;
    let pool = Pool::new(PoolOptions::new(&bouncer.url(&database)).unwrap());
    let mut guard = pool.begin().await.unwrap();
    guard.defer(Statement::new("INSERT INTO t VALUES (1)"));
    let lost = async {
        let commits = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND query = 'COMMIT'";
        eventually("a commit", PATIENCE, async || !client.query(commits, &[]).await.unwrap().is_empty()).await;
        server.kill();
    };
    let (done, ()) = tokio::join!(guard.commit(), lost);
    let error = done.map(drop).unwrap_err();
    assert!(error.to_string().contains("08P01"), "PgBouncer's own words, as an answer: {error}");
    assert!(error.is_unknown_commit(), "{error}");
    let statistics = pool.statistics();
    assert_eq!((statistics.unknown, statistics.rolled_back, statistics.committed), (1, 0, 0), "{statistics:?}");
}
