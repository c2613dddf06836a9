//! Behaviour of the pool: who is served when, and what becomes of it when server or network fail.

use crate::support::polls::at_most;
use crate::support::postgres::{Database, Server, eventually};
use crate::support::proxy::{Fault, Proxy};
use futures_util::FutureExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};
use tokio_postgres::types::Type;
use trackd::class::Class;
use trackd::store::pool::{End, Events, Seen, Statistics};
use trackd::store::{Error, Pool, PoolOptions, Statement};

const PATIENCE: Duration = Duration::from_secs(30);

fn options(url: &str) -> PoolOptions {
    PoolOptions {
        pool_size: 2,
        max_overflow: 2,
        pool_timeout: Duration::from_secs(10),
        ..PoolOptions::new(url).unwrap()
    }
}

fn pool(database: &Database) -> Pool {
    Pool::new(options(&database.url()))
}

/// One whole transaction.
async fn insert(pool: &Pool, n: i64) -> Result<(), Error> {
    let mut guard = pool.begin().await?;
    guard.defer(Statement::new("INSERT INTO t VALUES ($1)").bind(n, Type::INT8));
    guard.commit().await.map(drop)
}

async fn select(pool: &Pool) -> Result<i32, Error> {
    let mut guard = pool.begin().await?;
    let rows = guard.query(Statement::new("SELECT 1")).await?;
    guard.commit().await.map(|_| rows[0].get(0))
}

/// So many tasks borrow at once, and each is answered.
async fn all_are_served(pool: &Pool, tasks: usize) {
    let tasks: Vec<_> = (0..tasks)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move { select(&pool).await })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap(), 1);
    }
}

/// What the table of `insert` holds, in order, and that nobody is in a transaction any more.
async fn rows(database: &Database) -> Vec<i64> {
    let client = database.client().await;
    let open = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND xact_start IS NOT NULL \
                AND pid <> pg_backend_pid()";
    eventually("no open transaction", PATIENCE, async || client.query(open, &[]).await.unwrap().is_empty()).await;
    client.query("SELECT n FROM t ORDER BY n", &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

fn adds_up(statistics: &Statistics, open: u32) {
    let s = statistics;
    assert_eq!(s.asked, s.lent + s.timed_out + s.refused + s.failed + s.given_up, "{s:?}");
    assert_eq!(s.lent, s.returned, "{s:?}");
    assert_eq!(s.connected, u64::from(open) + ended(s), "{s:?}");
    assert_eq!((s.wait.count, s.hold.count, s.connect.count), (s.lent, s.returned, s.connected), "{s:?}");
}

/// How many connections have ended.
fn ended(s: &Statistics) -> u64 {
    s.recycled + s.broken + s.invalid + s.overflow + s.reset
}

/// Waits until what was given back is back, and what is connecting is there. Gives what it saw then: a connection that
/// was cut may be found so at any time.
async fn rests(pool: &Pool) -> (Statistics, u32) {
    let mut seen = (pool.statistics(), 0);
    eventually("a pool at rest", PATIENCE, async || {
        let (numbers, statistics) = (pool.numbers(), pool.statistics());
        let all_there = statistics.connected == u64::from(numbers.size) + ended(&statistics);
        let rests = all_there && numbers.size == numbers.idle && statistics.lent == statistics.returned;
        seen = (statistics, numbers.size);
        rests
    })
    .await;
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_tasks_on_two_connections_take_turns() {
    let database = Server::shared().database().await;
    let pool = Pool::new(PoolOptions { max_overflow: 0, ..options(&database.url()) });
    let turns: Arc<Vec<AtomicU64>> = Arc::new((0..50).map(|_| AtomicU64::new(0)).collect());
    let all = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..50)
        .map(|task| {
            let (pool, turns, all) = (pool.clone(), turns.clone(), all.clone());
            tokio::spawn(async move {
                while all.fetch_add(1, Ordering::Relaxed) < 5_000 {
                    select(&pool).await.unwrap();
                    turns[task].fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let turns: Vec<u64> = turns.iter().map(|turns| turns.load(Ordering::Relaxed)).collect();
    let (least, most) = (turns.iter().min().unwrap(), turns.iter().max().unwrap());
    assert!(most - least <= most / 10, "{turns:?}");
    let (statistics, size) = rests(&pool).await;
    adds_up(&statistics, size);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_borrowers_on_fifteen_connections_are_all_served() {
    let database = Server::shared().database().await;
    let pool = Pool::new(PoolOptions {
        pool_size: 5,
        max_overflow: 10,
        pool_timeout: PATIENCE * 2,
        ..options(&database.url())
    });
    all_are_served(&pool, 10_000).await;
    // The next one lets go what more than one gave back at once.
    assert_eq!(select(&pool).await.unwrap(), 1);
    rests(&pool).await;
    let (numbers, statistics) = (pool.numbers(), pool.statistics());
    assert!(numbers.size <= 5, "overflow ends with the load: {numbers:?}");
    assert_eq!((statistics.lent, statistics.timed_out, statistics.committed), (10_001, 0, 10_001));
    adds_up(&statistics, numbers.size);
    assert!(pool.close(PATIENCE).await);
    adds_up(&pool.statistics(), 0);
    assert!(select(&pool).await.unwrap_err().to_string().contains("the pool is closed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_under_load_loses_and_doubles_nothing_and_is_found_again() {
    let server = Server::own();
    let database = server.database().await;
    let pool = pool(&database);
    database.client().await.batch_execute("CREATE TABLE t (n bigint)").await.unwrap();
    let (next, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let (pool, next, stop) = (pool.clone(), next.clone(), stop.clone());
            tokio::spawn(async move {
                let (mut landed, mut unknown) = (Vec::new(), Vec::new());
                while stop.load(Ordering::Relaxed) == 0 {
                    let n = next.fetch_add(1, Ordering::Relaxed) as i64;
                    match timeout(PATIENCE, insert(&pool, n)).await.expect("nobody hangs") {
                        Ok(()) => landed.push(n),
                        Err(error) if error.is_unknown_commit() => unknown.push(n),
                        Err(error) => {
                            assert_eq!(error.class(), Class::Retry, "{error}");
                            tokio::task::yield_now().await;
                        }
                    }
                }
                (landed, unknown)
            })
        })
        .collect();
    for _ in 0..3 {
        let before = pool.statistics().committed;
        eventually("some rows", PATIENCE, async || pool.statistics().committed > before + 100).await;
        server.kill();
        eventually("a refusal", PATIENCE, async || pool.last_error().is_some()).await;
        server.start();
        let (up, before) = (Instant::now(), pool.statistics().committed);
        eventually("a row", PATIENCE, async || pool.statistics().committed > before).await;
        println!("served again after {:?}", up.elapsed());
    }
    stop.store(1, Ordering::Relaxed);
    let (mut landed, mut unknown) = (Vec::new(), Vec::new());
    for task in tasks {
        let (more, lost) = task.await.unwrap();
        landed.extend(more);
        unknown.extend(lost);
    }
    landed.sort_unstable();
    let mut rows = rows(&database).await;
    rows.retain(|n| !unknown.contains(n));
    assert_eq!(rows, landed, "what was said to have landed is there, once, and nothing else");
    let (statistics, size) = rests(&pool).await;
    adds_up(&statistics, size);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_database_is_tried_by_one_and_told_to_all() {
    let database = Server::shared().database().await;
    let proxy = Proxy::start(database.socket()).await;
    proxy.set(Fault::Reset);
    let pool = Pool::new(options(&proxy.url(&database)));
    let begun = Instant::now();
    let tasks: Vec<_> = (0..1_000)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move { select(&pool).await.unwrap_err() })
        })
        .collect();
    for task in tasks {
        let error = task.await.unwrap();
        assert_eq!(error.class(), Class::Retry);
        assert!(error.to_string().contains("connect to 127.0.0.1"), "{error}");
    }
    let tries = proxy.accepted() as u128;
    let most = 4 + begun.elapsed().as_millis() / 25;
    assert!(tries <= most, "{tries} connects, at most {most} in that time");
    // Who can wait is served as soon as it is back.
    let waiting = pool.clone();
    let waiting = tokio::spawn(async move { waiting.begin_within(PATIENCE).await.map(drop) });
    eventually("one that waits", PATIENCE, async || pool.statistics().refused > 0 && !waiting.is_finished()).await;
    proxy.set(Fault::None);
    waiting.await.unwrap().unwrap();
    assert_eq!(select(&pool).await.unwrap(), 1);
    assert!(pool.last_error().is_none());
    let (statistics, size) = rests(&pool).await;
    adds_up(&statistics, size);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_queues_behind_the_one_that_tries_a_dead_database() {
    let database = Server::shared().database().await;
    let proxy = Proxy::start(database.socket()).await;
    proxy.set(Fault::Reset);
    let pool = Pool::new(PoolOptions { pool_size: 1, max_overflow: 0, ..options(&proxy.url(&database)) });
    let cause = select(&pool).await.unwrap_err().to_string();
    proxy.set(Fault::Freeze);
    let tries = pool.clone();
    let tries = tokio::spawn(async move { tries.begin_within(PATIENCE).await.map(drop) });
    eventually("the one that tries", PATIENCE, async || proxy.accepted() == 2).await;
    let refused = timeout(Duration::from_secs(5), select(&pool)).await.expect("told at once").unwrap_err();
    assert_eq!(refused.to_string(), cause);
    proxy.set(Fault::None);
    tries.await.unwrap().unwrap();
    let (statistics, size) = rests(&pool).await;
    adds_up(&statistics, size);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_went_silent_cost_one_ping_and_not_one_each() {
    let database = Server::shared().database().await;
    let proxy = Proxy::start(database.socket()).await;
    let ping_timeout = Duration::from_secs(2);
    let pool = Pool::new(PoolOptions { ping_after: Duration::ZERO, ping_timeout, ..options(&proxy.url(&database)) });
    let guards = [pool.begin().await.unwrap(), pool.begin().await.unwrap()];
    drop(guards);
    rests(&pool).await;
    assert_eq!(pool.numbers().idle, 2);
    proxy.set(Fault::Freeze);
    let (asking, begun) = (pool.clone(), Instant::now());
    let asking = tokio::spawn(async move { select(&asking).await });
    // The ping is not answered; then comes a connect, which is not answered either.
    eventually("a new connection", PATIENCE, async || proxy.accepted() >= 3).await;
    assert!(begun.elapsed() < ping_timeout * 7 / 4, "not one ping each: {:?}", begun.elapsed());
    proxy.set(Fault::None);
    assert_eq!(asking.await.unwrap().unwrap(), 1);
    rests(&pool).await;
    let statistics = pool.statistics();
    assert_eq!((statistics.invalid, statistics.lent), (2, 3), "{statistics:?}");
    adds_up(&statistics, pool.numbers().size);
}

#[tokio::test(flavor = "multi_thread")]
async fn connects_that_are_never_answered_hold_nobody_past_the_timeout() {
    let database = Server::shared().database().await;
    let proxy = Proxy::start(database.socket()).await;
    proxy.set(Fault::Freeze);
    let limited = PoolOptions { pool_timeout: Duration::from_millis(200), ..options(&proxy.url(&database)) };
    let (pool, begun) = (Pool::new(limited), Instant::now());
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move { timeout(PATIENCE, select(&pool)).await.expect("nobody hangs").unwrap_err() })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap().class(), Class::Retry);
    }
    let most = 4 + begun.elapsed().as_millis() / 500;
    assert!(proxy.accepted() as u128 <= most, "{} connects, at most {most}", proxy.accepted());
    proxy.set(Fault::None);
    assert_eq!(select(&pool).await.unwrap(), 1);
    let (statistics, size) = rests(&pool).await;
    adds_up(&statistics, size);
}

#[tokio::test(flavor = "multi_thread")]
async fn connects_that_were_swallowed_for_good_are_not_waited_for() {
    let database = Server::shared().database().await;
    let proxy = Proxy::start(database.socket()).await;
    proxy.set(Fault::Freeze);
    // Longer than this test's patience: the first connects alone would end it.
    let url = format!("{}&connect_timeout=3600", proxy.url(&database));
    let pool = Pool::new(PoolOptions { pool_timeout: PATIENCE * 2, ..options(&url) });
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { all_are_served(&pool, 8).await }
    });
    eventually("as many as the pool holds, and company", PATIENCE, async || proxy.accepted() > 4).await;
    proxy.set(Fault::Strand);
    timeout(PATIENCE, waiting).await.expect("nobody hangs").unwrap();
    let (statistics, size) = rests(&pool).await;
    adds_up(&statistics, size);
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_lost_connects_as_the_pool_holds_cost_a_second_once_others_are_answered() {
    let database = Server::shared().database().await;
    let proxy = Proxy::start(database.socket()).await;
    proxy.set(Fault::Swallow);
    let (pool, begun) = (Pool::new(options(&proxy.url(&database))), Instant::now());
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move { select(&pool).await })
        })
        .collect();
    eventually("more than the pool holds", PATIENCE, async || proxy.accepted() > 4).await;
    proxy.set(Fault::None);
    let healed = Instant::now();
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap(), 1);
    }
    println!("served {:?} after", healed.elapsed());
    assert!(healed.elapsed() < Duration::from_secs(4), "not only when the first connects end: {:?}", healed.elapsed());
    // Each place twice, and one that tried twice a second.
    let most = 8 + begun.elapsed().as_millis() / 500;
    assert!(proxy.accepted() as u128 <= most, "{} connects, at most {most}", proxy.accepted());
    let (statistics, size) = rests(&pool).await;
    adds_up(&statistics, size);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_cut_after_any_byte_lands_whole_or_not_at_all_and_says_which() {
    let database = Server::shared().database().await;
    database.client().await.batch_execute("CREATE TABLE t (n bigint)").await.unwrap();
    let proxy = Proxy::start(database.socket()).await;
    let pool = Pool::new(options(&proxy.url(&database)));
    let (mut landed, mut unknown, mut n) = (Vec::new(), Vec::new(), 0);
    // A slow network splits what was sent together.
    proxy.set(Fault::Delay(Duration::from_millis(1)));
    insert(&pool, 0).await.unwrap();
    landed.push(0);
    for cut in [Fault::CutUp as fn(usize) -> Fault, Fault::CutDown] {
        // Until the whole transaction fits: connecting and the transaction each are cut after every byte.
        for bytes in 0.. {
            assert!(bytes < 4_000, "it never fits");
            // A connection that is there already, so that the cut is in the transaction itself.
            proxy.set(Fault::None);
            eventually("a connection", PATIENCE, async || select(&pool).await.is_ok()).await;
            rests(&pool).await;
            proxy.set(cut(bytes));
            n += 1;
            let done = timeout(PATIENCE, insert(&pool, n)).await.expect("nobody hangs");
            match &done {
                Ok(()) => landed.push(n),
                Err(error) if error.is_unknown_commit() => unknown.push(n),
                Err(error) => assert_eq!(error.class(), Class::Retry, "{error}"),
            }
            if done.is_ok() {
                break;
            }
        }
    }
    proxy.set(Fault::None);
    let mut rows = rows(&database).await;
    assert!(!unknown.is_empty() && landed.len() == 3, "{landed:?} {unknown:?}");
    rows.retain(|n| !unknown.contains(n));
    assert_eq!(rows, landed);
    let (statistics, size) = rests(&pool).await;
    adds_up(&statistics, size);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_with_too_many_connections_is_served_by_those_it_has() {
    let database = Server::shared().database().await;
    let client = database.client().await;
    let role = format!("few_{}", database.name);
    client.batch_execute(&format!("CREATE ROLE {role} LOGIN CONNECTION LIMIT 2")).await.unwrap();
    let url = database.url_as(&role);
    let pool = Pool::new(PoolOptions { pool_size: 5, max_overflow: 5, ..options(&url) });
    let begun = Instant::now();
    all_are_served(&pool, 1_000).await;
    assert_eq!(pool.numbers().size, 2);
    let (tries, most) = (pool.statistics().connect_failed, 8 + begun.elapsed().as_millis() as u64 / 25);
    assert!(tries <= most, "{tries} connects were refused, at most {most} in that time");
    rests(&pool).await;
    adds_up(&pool.statistics(), 2);
    // Nothing of its own: the cause is told.
    let other = Pool::new(options(&url));
    let error = other.begin().await.unwrap_err();
    assert_eq!((error.sqlstate(), error.class()), (Some("53300"), Class::Retry), "{error}");
    assert!(error.hint().unwrap().contains("max_connections"));
    drop(pool);
    client.batch_execute(&format!("DROP ROLE {role}")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_pool_serves_from_the_new_target_and_disturbs_nobody() {
    let (old, new) = (Server::shared().database().await, Server::shared().database().await);
    let name = async |pool: &Pool| -> String {
        let mut guard = pool.begin().await.unwrap();
        guard.query(Statement::new("SELECT current_database()::text")).await.unwrap()[0].get(0)
    };
    let pool = pool(&old);
    let mut held = pool.begin().await.unwrap();
    held.query(Statement::new("SELECT 1")).await.unwrap();
    let refused = pool.change(options("host=/nonexistent/trackd user=nobody")).await.unwrap_err();
    assert!(refused.to_string().contains("No such file"), "{refused}");
    assert_eq!(name(&pool).await, old.name, "nothing has changed");
    pool.change(PoolOptions { pool_size: 1, max_overflow: 0, ..options(&new.url()) }).await.unwrap();
    assert_eq!(name(&pool).await, new.name);
    assert_eq!(pool.numbers().limit, 1);
    let row = held.query(Statement::new("SELECT current_database()::text")).await.unwrap();
    assert_eq!(row[0].get::<_, String>(0), old.name, "who borrowed before is not disturbed");
    held.commit().await.map(drop).unwrap();
    let left = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'trackd'";
    let client = old.client().await;
    eventually("no connection to the old one", PATIENCE, async || client.query(left, &[]).await.unwrap().is_empty())
        .await;
    pool.reset();
    assert_eq!(name(&pool).await, new.name);
    let (statistics, size) = rests(&pool).await;
    adds_up(&statistics, size);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_an_age_are_not_lent() {
    let database = Server::shared().database().await;
    let age = Duration::from_millis(500);
    let pool = Pool::new(PoolOptions { pool_recycle: age, ..options(&database.url()) });
    for _ in 0..3 {
        let born = Instant::now();
        select(&pool).await.unwrap();
        rests(&pool).await;
        eventually("its age", PATIENCE, async || born.elapsed() > age * 3 / 2).await;
    }
    let statistics = pool.statistics();
    assert!(statistics.recycled >= 2 && statistics.connected == 3, "{statistics:?}");
    adds_up(&statistics, pool.numbers().size);
}

#[tokio::test]
async fn a_connection_that_was_ended_while_it_rested_is_not_lent() {
    let database = Server::shared().database().await;
    let (pool, client) = (pool(&database), database.client().await);
    assert_eq!(select(&pool).await.unwrap(), 1);
    rests(&pool).await;
    let ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() \
                 AND application_name = 'trackd'";
    // Until it is gone, and trackd's side has had its turns to see it.
    eventually("its end", PATIENCE, async || client.query(ended, &[]).await.unwrap().is_empty()).await;
    assert_eq!(select(&pool).await.unwrap(), 1);
    assert_eq!((pool.statistics().broken, pool.statistics().connected), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_rest_are_found_useless_and_replaced_while_nobody_borrows() {
    let database = Server::shared().database().await;
    let proxy = Proxy::start(database.socket()).await;
    let ping_timeout = Duration::from_secs(2);
    let pool = Pool::new(PoolOptions { ping_after: Duration::ZERO, ping_timeout, ..options(&proxy.url(&database)) });
    pool.examine().await.unwrap();
    assert_eq!(pool.statistics().connected, 0, "nothing rests, nothing is opened");
    drop([pool.begin().await.unwrap(), pool.begin().await.unwrap()]);
    rests(&pool).await;
    pool.examine().await.unwrap();
    assert_eq!((pool.statistics().connected, pool.numbers().idle), (2, 2), "what is well stays");
    proxy.set(Fault::Strand);
    pool.examine().await.unwrap();
    assert_eq!((pool.statistics().invalid, pool.numbers().idle), (2, 2), "silent ones are replaced");
    proxy.set(Fault::Reset);
    assert!(pool.examine().await.is_err(), "there is nothing to replace them with");
    assert_eq!(pool.numbers().size, 0);
    proxy.set(Fault::None);
    adds_up(&pool.statistics(), 0);
}

#[tokio::test]
async fn a_life_of_no_time_serves_one_borrower_each() {
    let database = Server::shared().database().await;
    let pool = Pool::new(PoolOptions { pool_recycle: Duration::ZERO, ..options(&database.url()) });
    for _ in 0..3 {
        assert_eq!(select(&pool).await.unwrap(), 1);
        rests(&pool).await;
    }
    let statistics = pool.statistics();
    assert!(statistics.connected == 3 && statistics.recycled >= 2, "{statistics:?}");
    adds_up(&statistics, pool.numbers().size);
}

#[tokio::test]
async fn times_without_end_are_taken() {
    let database = Server::shared().database().await;
    let forever = Duration::MAX;
    let pool = Pool::new(PoolOptions {
        pool_timeout: forever,
        pool_recycle: forever,
        statement_timeout: forever,
        slow_statement: forever,
        ..options(&database.url())
    });
    let mut guard = pool.begin_within(forever).await.unwrap();
    assert_eq!(guard.query(Statement::new("SELECT 1")).await.unwrap().len(), 1);
    guard.commit().await.map(drop).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn patience_is_not_longer_than_it_says() {
    let database = Server::shared().database().await;
    let proxy = Proxy::start(database.socket()).await;
    proxy.set(Fault::Reset);
    let limit = Duration::from_secs(1);
    let pool = Pool::new(PoolOptions { pool_timeout: limit, ..options(&proxy.url(&database)) });
    let (asking, begun) = (pool.clone(), Instant::now());
    let asking = tokio::spawn(async move { asking.begin_patiently().await.map(drop) });
    eventually("half of the time", PATIENCE, async || begun.elapsed() > limit / 2).await;
    // It was refused so far; from now on a connect is not answered.
    proxy.set(Fault::Freeze);
    assert_eq!(asking.await.unwrap().unwrap_err().class(), Class::Retry);
    assert!(begun.elapsed() < limit * 7 / 5, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_wait_in_vain_says_what_for() {
    let database = Server::shared().database().await;
    let proxy = Proxy::start(database.socket()).await;
    let short = PoolOptions {
        pool_size: 1,
        max_overflow: 0,
        pool_timeout: Duration::from_millis(200),
        ..options(&proxy.url(&database))
    };
    let pool = Pool::new(short.clone());
    let guard = pool.begin_within(PATIENCE).await.unwrap();
    let error = pool.begin().await.unwrap_err().to_string();
    assert_eq!(error, "borrow a connection: all 1 were in use for 200ms: pool_size and max_overflow allow no more");
    drop(guard);
    proxy.set(Fault::Freeze);
    let error = Pool::new(short).begin().await.unwrap_err().to_string();
    assert_eq!(error, "borrow a connection: no server answered a connect within 200ms");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_connect_is_served_by_the_changed_pool_and_refused_by_the_closed_one() {
    let database = Server::shared().database().await;
    let proxy = Proxy::start(database.socket()).await;
    proxy.set(Fault::Freeze);
    let pool = Pool::new(options(&proxy.url(&database)));
    let ask = || {
        let pool = pool.clone();
        tokio::spawn(async move { select(&pool).await })
    };
    let connects = async |count| eventually("a connect", PATIENCE, async || proxy.accepted() == count).await;
    let waits = ask();
    connects(1).await;
    let begun = Instant::now();
    pool.change(options(&database.url())).await.unwrap();
    assert_eq!(waits.await.unwrap().unwrap(), 1);
    assert!(begun.elapsed() < Duration::from_secs(5), "not for the connect: {:?}", begun.elapsed());
    pool.replace(options(&proxy.url(&database)));
    let waits = ask();
    connects(2).await;
    assert!(pool.close(PATIENCE).await);
    assert!(begun.elapsed() < Duration::from_secs(5), "not for the connect: {:?}", begun.elapsed());
    assert!(waits.await.unwrap().unwrap_err().to_string().contains("the pool is closed"));
    adds_up(&pool.statistics(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_pool_stays_closed_and_a_change_stays_made_whatever_comes_at_the_same_time() {
    let database = Server::shared().database().await;
    let resets = |pool: &Pool, start: &Arc<Barrier>| {
        let (pool, start, handle) = (pool.clone(), start.clone(), Handle::current());
        std::thread::spawn(move || {
            let _runtime = handle.enter();
            start.wait();
            (0..20).for_each(|_| pool.reset());
        })
    };
    for turn in 0..500 {
        let (pool, start) = (Pool::new(options(&database.url())), Arc::new(Barrier::new(2)));
        let resetting = resets(&pool, &start);
        start.wait();
        if turn % 2 == 0 {
            assert!(pool.close(PATIENCE).await);
            resetting.join().unwrap();
            assert!(pool.target().is_none(), "turn {turn}");
        } else {
            pool.replace(PoolOptions { pool_size: 7, ..options(&database.url()) });
            resetting.join().unwrap();
            assert_eq!(pool.numbers().limit, 9, "turn {turn}");
        }
    }
}

/// A listener that fails at everything.
struct Panics;

impl Events for Panics {
    fn connected(&self, _: Seen<'_>, _: Duration) {
        panic!("on purpose");
    }
    fn failed(&self, _: &Error) {
        panic!("on purpose");
    }
    fn borrowed(&self, _: Seen<'_>, _: Duration) {
        panic!("on purpose");
    }
    fn returned(&self, _: Seen<'_>, _: Duration) {
        panic!("on purpose");
    }
    fn closed(&self, _: Seen<'_>, _: End) {
        panic!("on purpose");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_panics_harms_nobody() {
    let database = Server::shared().database().await;
    let proxy = Proxy::start(database.socket()).await;
    let pool = Pool::new(PoolOptions { events: Some(Arc::new(Panics)), ..options(&proxy.url(&database)) });
    all_are_served(&pool, 50).await;
    proxy.set(Fault::Reset);
    eventually("a refusal", PATIENCE, async || {
        let _ = select(&pool).await;
        pool.statistics().connect_failed >= 8
    })
    .await;
    proxy.set(Fault::None);
    pool.begin_within(PATIENCE).await.map(drop).unwrap();
    all_are_served(&pool, 50).await;
    let (statistics, size) = rests(&pool).await;
    adds_up(&statistics, size);
    assert!(pool.close(PATIENCE).await);
    adds_up(&pool.statistics(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_used_lately_is_lent_without_a_question() {
    let database = Server::shared().database().await;
    let proxy = Proxy::start(database.socket()).await;
    let pool = Pool::new(options(&proxy.url(&database)));
    pool.begin().await.map(drop).unwrap();
    let made = Instant::now();
    eventually("older than that", PATIENCE, async || made.elapsed() > Duration::from_secs(1)).await;
    assert_eq!(select(&pool).await.unwrap(), 1);
    rests(&pool).await;
    proxy.set(Fault::Freeze);
    pool.begin().await.map(drop).unwrap();
    assert_eq!((pool.statistics().connected, pool.statistics().invalid), (1, 0), "a ping would not be answered");
}

#[tokio::test]
async fn what_comes_back_to_a_pool_that_was_reset_is_closed_one_by_one() {
    let database = Server::shared().database().await;
    let pool = pool(&database);
    let (first, second) = (pool.begin().await.unwrap(), pool.begin().await.unwrap());
    pool.reset();
    drop(first);
    eventually("its end", PATIENCE, async || pool.statistics().reset == 1).await;
    drop(second);
    eventually("its end", PATIENCE, async || pool.statistics().reset == 2).await;
}

#[tokio::test]
async fn a_close_waits_also_for_a_lease_whose_connection_is_gone() {
    let database = Server::shared().database().await;
    let proxy = Proxy::start(database.socket()).await;
    let pool = Pool::new(options(&proxy.url(&database)));
    let mut guard = pool.begin().await.unwrap();
    proxy.set(Fault::Reset);
    assert!(guard.query(Statement::new("SELECT 1")).await.unwrap_err().is_away());
    assert!(!pool.close(Duration::from_millis(200)).await, "it is still borrowed");
    drop(guard);
    assert!(pool.close(PATIENCE).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_its_turn_is_served_by_the_changed_pool_at_once() {
    let (old, new) = (Server::shared().database().await, Server::shared().database().await);
    let pool = Pool::new(PoolOptions { pool_size: 1, max_overflow: 0, ..options(&old.url()) });
    let held = pool.begin().await.unwrap();
    let waits = pool.clone();
    let waits = tokio::spawn(async move { select(&waits).await });
    eventually("one that waits", PATIENCE, async || pool.numbers().waiting == 1).await;
    pool.change(options(&new.url())).await.unwrap();
    assert_eq!(timeout(Duration::from_secs(5), waits).await.expect("not for who borrowed").unwrap().unwrap(), 1);
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_connect_fails_nobody_while_another_one_may_be_answered() {
    let database = Server::shared().database().await;
    let proxy = Proxy::start(database.socket()).await;
    let pool = Pool::new(options(&proxy.url(&database)));
    let ask = || {
        let pool = pool.clone();
        tokio::spawn(async move { select(&pool).await })
    };
    proxy.set(Fault::Swallow);
    let first = ask();
    eventually("a connect", PATIENCE, async || proxy.accepted() == 1).await;
    proxy.set(Fault::Reset);
    let (second, begun) = (ask(), Instant::now());
    eventually("a refusal", PATIENCE, async || pool.statistics().connect_failed == 1).await;
    eventually("tries beside the first", PATIENCE, async || proxy.accepted() > 4).await;
    proxy.set(Fault::None);
    assert_eq!((first.await.unwrap().unwrap(), second.await.unwrap().unwrap()), (1, 1));
    let most = 5 + begun.elapsed().as_millis() / 500;
    assert!(proxy.accepted() as u128 <= most, "{} connects, at most {most}", proxy.accepted());
}

#[tokio::test]
async fn what_a_person_must_mend_is_told_at_once_with_what_to_do() {
    let database = Server::shared().database().await;
    let (url, name) = (database.url(), &database.name);
    let cases = [
        (url.replace(&format!("/{name}"), "/nowhere"), "3D000", "create the database"),
        (database.url_as("nobody_known"), "28000", "pg_hba.conf"),
    ];
    for (url, sqlstate, hint) in cases {
        let told = timeout(Duration::from_secs(10), Pool::new(options(&url)).begin_within(PATIENCE)).await;
        let error = told.expect("not when patience ends").map(drop).unwrap_err();
        assert_eq!((error.sqlstate(), error.class()), (Some(sqlstate), Class::Standing), "{error}");
        assert!(error.hint().unwrap().contains(hint), "{error}: {:?}", error.hint());
    }
}

#[tokio::test]
async fn a_borrower_that_gives_up_after_any_poll_leaves_its_place_and_is_counted() {
    let database = Server::shared().database().await;
    let pool = Pool::new(PoolOptions {
        pool_size: 1,
        max_overflow: 0,
        ping_after: Duration::ZERO,
        ..options(&database.url())
    });
    for polls in 0..6 {
        // The first time there is none yet.
        let _ = at_most(pool.begin(), polls).await;
        let held = pool.begin().await.unwrap();
        assert!(pool.begin().now_or_never().is_none(), "it is held");
        drop(held);
        assert_eq!(pool.numbers().waiting, 0);
        assert_eq!(select(&pool).await.unwrap(), 1);
    }
    rests(&pool).await;
    let statistics = pool.statistics();
    assert!(statistics.given_up >= 6, "{statistics:?}");
    adds_up(&statistics, pool.numbers().size);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_whose_server_takes_no_writes_any_more_is_not_lent() {
    let server = Server::own();
    let database = server.database().await;
    let pool = Pool::new(PoolOptions { ping_after: Duration::ZERO, ..options(&database.url()) });
    let reads = Pool::new(PoolOptions { needs_write: false, ping_after: Duration::ZERO, ..options(&database.url()) });
    let client = database.client().await;
    for (value, taken) in [("off", true), ("on", false), ("off", true)] {
        client.batch_execute(&format!("ALTER SYSTEM SET default_transaction_read_only = {value}")).await.unwrap();
        client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
        eventually("it is told", PATIENCE, async || select(&pool).await.is_ok() == taken).await;
        assert_eq!(select(&reads).await.unwrap(), 1);
    }
    let statistics = pool.statistics();
    assert!(statistics.invalid == 1 && statistics.connect_failed >= 1, "{statistics:?}");
    assert_eq!(reads.statistics().connected, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_whose_cancel_is_lost_is_closed_all_the_same() {
    let database = Server::shared().database().await;
    let proxy = Proxy::start(database.socket()).await;
    let pool = Pool::new(options(&proxy.url(&database)));
    let mut guard = pool.begin().await.unwrap();
    let client = database.client().await;
    let runs = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%pg_sleep(60)%' \
                AND pid <> pg_backend_pid()";
    let slow = guard.query(Statement::new("SELECT pg_sleep(60)"));
    let running = eventually("a query", PATIENCE, async || !client.query(runs, &[]).await.unwrap().is_empty());
    tokio::select! {
        _ = slow => panic!("it takes a minute"),
        () = running => {}
    }
    // The cancel has a connection of its own.
    proxy.set(Fault::Swallow);
    drop(guard);
    assert!(pool.close(Duration::from_secs(20)).await, "not only when the query ends");
    assert_eq!(pool.statistics().broken, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_nobody_waited_for_any_more_end_with_the_next_borrow() {
    let database = Server::shared().database().await;
    let proxy = Proxy::start(database.socket()).await;
    proxy.set(Fault::Freeze);
    let limited = PoolOptions { pool_timeout: Duration::from_millis(200), ..options(&proxy.url(&database)) };
    let pool = Pool::new(limited);
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move { pool.begin().await.map(drop) })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap_err();
    }
    proxy.set(Fault::None);
    eventually("their connections", PATIENCE, async || pool.numbers().idle == 4).await;
    assert_eq!(select(&pool).await.unwrap(), 1);
    rests(&pool).await;
    assert_eq!((pool.numbers().size, pool.statistics().overflow), (2, 2));
    adds_up(&pool.statistics(), 2);
}

#[tokio::test]
async fn overflow_ends_when_it_comes_back() {
    let database = Server::shared().database().await;
    let pool = pool(&database);
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(pool.begin().await.unwrap());
    }
    drop(held);
    assert_eq!((pool.numbers().size, pool.numbers().idle, pool.statistics().overflow), (2, 2, 2));
}

#[tokio::test]
async fn a_pool_of_no_size_keeps_one() {
    let database = Server::shared().database().await;
    let pool = Pool::new(PoolOptions { pool_size: 0, max_overflow: 0, ..options(&database.url()) });
    assert_eq!(select(&pool).await.unwrap(), 1);
    rests(&pool).await;
    assert_eq!((pool.numbers().size, pool.numbers().limit), (1, 1));
}
