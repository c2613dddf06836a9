//! Behaviour of `store::health`: what it tells of servers that are well, far, standing by, silent and gone.

use crate::support::bouncer::Bouncer;
use crate::support::daemon::{Home, PATIENCE, RARELY, file_tracker};
use crate::support::marked::unmarked;
use crate::support::polls::at_most;
use crate::support::postgres::{Server, eventually, free_port};
use crate::support::proxy::{Fault, Proxy};
use std::time::{Duration, Instant};
use trackd::store::{Pool, PoolOptions, Statement, health};

fn pool(url: &str) -> Pool {
    Pool::new(PoolOptions { pool_size: 1, max_overflow: 0, ..PoolOptions::new(url).unwrap() })
}

#[tokio::test]
async fn health_tells_of_server_database_clock_and_pool() {
    let database = Server::shared().database().await;
    let pool = pool(&database.url());
    let health = health(&pool).await;
    let server = health.server.unwrap();
    assert!(server.version.starts_with(&server.major.to_string()) && server.major >= 13, "{server:?}");
    assert_eq!(
        (server.database.as_str(), server.standby, server.replication_lag),
        (database.name.as_str(), false, None)
    );
    assert!(server.database_size_bytes > 1_000_000 && server.uptime < Duration::from_secs(7200), "{server:?}");
    assert!(server.clock_skew.abs() <= jiff::SignedDuration::from_secs(1), "it is the same clock: {server:?}");
    assert!(server.connections >= 1 && server.max_connections == 200, "{server:?}");
    assert_eq!((server.tls, server.local), (None, true));
    assert_eq!((health.pool.size, health.pool.borrowed, health.pool.limit, health.last_error), (1, 0, 1, None));
}

#[tokio::test]
async fn health_costs_one_round_trip() {
    let database = Server::shared().database().await;
    let proxy = Proxy::start(database.socket()).await;
    let pool = pool(&proxy.url(&database));
    assert!(health(&pool).await.server.is_some());
    let way = Duration::from_millis(300);
    proxy.set(Fault::Delay(way));
    let took = health(&pool).await.server.unwrap().answered_in;
    assert!(took >= way * 2 && took < way * 4, "{took:?}");
}

#[tokio::test]
async fn a_server_that_is_away_is_told_with_its_cause_and_what_to_do() {
    let database = Server::shared().database().await;
    let away = health(&pool(&database.url_at(std::path::Path::new("/nonexistent")))).await;
    assert!(away.server.is_none() && away.last_error.unwrap().contains("/nonexistent/.s.PGSQL.5432"));
    let missing = health(&pool(&database.url().replace(&database.name, "missing"))).await;
    assert!(missing.last_error.unwrap().contains("3D000") && missing.hint.unwrap().contains("create the database"));
    let closed = pool(&database.url());
    closed.close(Duration::from_secs(1)).await;
    assert!(health(&closed).await.last_error.unwrap().contains("the pool is closed"));
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up_in_time_and_its_connection_is_not_lent_again() {
    let database = Server::shared().database().await;
    let proxy = Proxy::start(database.socket()).await;
    let url = proxy.url(&database);
    let pool = Pool::new(PoolOptions { pool_pre_ping: false, max_overflow: 0, ..PoolOptions::new(&url).unwrap() });
    assert!(health(&pool).await.server.is_some());
    proxy.set(Fault::Freeze);
    let begun = Instant::now();
    let silent = health(&pool).await;
    assert!(silent.server.is_none() && begun.elapsed() < Duration::from_secs(8), "{silent:?}");
    assert_eq!(silent.last_error.unwrap(), "ask the server how it is: no answer within 5s");
    proxy.set(Fault::None);
    assert!(health(&pool).await.server.is_some());
    assert_eq!(pool.statistics().broken, 1);
}

#[tokio::test]
async fn a_look_dropped_after_any_number_of_polls_leaves_a_clean_connection() {
    let database = Server::shared().database().await;
    let pool = pool(&database.url());
    let mut finished = 0;
    for polls in 0..12 {
        finished += u32::from(at_most(health(&pool), polls).await.is_some());
        let mut guard = pool.begin().await.unwrap();
        let rows = guard.query(Statement::new("SELECT 7")).await.unwrap();
        assert_eq!(rows[0].get::<_, i32>(0), 7, "after {polls} polls");
        let _receipt = guard.commit().await.unwrap();
    }
    assert!(finished > 0, "no look came to its end");
}

#[tokio::test]
async fn behind_a_pooler_in_transaction_mode_a_look_leaves_nothing() {
    let database = Server::shared().database().await;
    let bouncer = Bouncer::start(&database, 1).await;
    let pool = pool(&bouncer.url(&database));
    for _ in 0..3 {
        let seen = health(&pool).await;
        assert!(seen.server.is_some(), "{seen:?}");
    }
    let left = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'";
    assert_eq!(database.client().await.query_one(left, &[]).await.unwrap().get::<_, i64>(0), 0);
}

#[tokio::test]
async fn a_standby_says_that_it_is_one_and_how_far_it_is_behind() {
    let primary = Server::own();
    let standby = primary.standby();
    let url = |server: &Server| format!("host={} user=postgres dbname=postgres", server.dir().display());
    let reader = Pool::new(PoolOptions { needs_write: false, ..PoolOptions::new(&url(&standby)).unwrap() });
    let seen = health(&reader).await.server.unwrap();
    assert!(seen.standby && seen.replication_lag.is_some(), "{seen:?}");
    assert_eq!(seen.troubles().iter().filter(|trouble| trouble.fatal).count(), 1);
    let writer = pool(&url(&primary));
    eventually("a standby that follows", Duration::from_secs(30), async || {
        health(&writer).await.server.is_some_and(|server| server.standbys == 1)
    })
    .await;
    let refused = health(&pool(&url(&standby))).await;
    assert!(refused.server.is_none() && refused.last_error.unwrap().contains("read-only standby"));
    let change = "CREATE TABLE t (n int)";
    primary.connect("postgres").await.batch_execute(change).await.unwrap();
    eventually("the change on the standby", PATIENCE, async || {
        let rows = standby.connect("postgres").await.query("SELECT 1 FROM pg_tables WHERE tablename = 't'", &[]).await;
        !rows.unwrap().is_empty()
    })
    .await;
    primary.stop();
    eventually("a lag that grows when nothing comes any more", PATIENCE, async || {
        let server = health(&reader).await.server.unwrap();
        server.replication_lag.unwrap() > Duration::from_millis(300)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_shows_how_its_database_is() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let database = Server::shared().database().await;
    let mut home = Home::new(&database, &file_tracker("a", RARELY));
    let address = format!("127.0.0.1:{}", free_port());
    home.set("TRACKD_DAEMON__LISTEN", &address);
    let daemon = home.run();
    let get = async |path: &str| {
        let Ok(mut stream) = tokio::net::TcpStream::connect(&address).await else { return String::new() };
        let head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        unmarked(path, &answer);
        answer
    };
    eventually("a look at the database", PATIENCE, async || get("/api/status").await.contains("database_size_bytes"))
        .await;
    let name = format!("\"database\":\"{}\"", database.name);
    assert!(get("/api/status").await.contains(&name), "{}", daemon.log());
    assert!(get("/readyz").await.ends_with("ready\n"));
    daemon.kill();
}
