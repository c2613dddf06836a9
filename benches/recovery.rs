//! How long until the pool serves again, for every fault that the tests of the connection layer know.
//!
//! ```text
//!  cargo bench --bench recovery          3 rounds of each
//!  cargo bench --bench recovery -- 10    10 rounds
//! ```
//!
//! Six tasks write rows all the time, on real servers, through a proxy where the fault is the network's. Measured is
//! the time from the moment that the cause is gone (or from the fault, where nothing needs to be mended) until a
//! transaction that began after it has committed. At the end of each fault the rows are compared with what the
//! borrowers were told: what is missing is lost, what is there twice is doubled. Fails when there is any, when a
//! transaction is left open on the server, or when a borrower waited longer than it may.

#[allow(dead_code, unreachable_pub, clippy::unwrap_used)]
#[path = "../tests/it/support/mod.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;
use support::bouncer::Bouncer;
use support::postgres::{Database, Server, eventually, put, set};
use support::proxy::{Fault, Proxy};
use tokio::time::Instant;
use tokio_postgres::types::Type;
use trackd::store::{Error, Pool, PoolOptions, Statement};

const PATIENCE: Duration = Duration::from_secs(60);
const POOL_TIMEOUT: Duration = Duration::from_secs(5);
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);
/// What a borrower may wait at most: for a connection, then for an answer, which trackd gives 5 s beyond the server.
const LONGEST: Duration = POOL_TIMEOUT.saturating_add(STATEMENT_TIMEOUT).saturating_add(Duration::from_secs(6));
const TASKS: usize = 6;

/// A pool under load.
struct Bed {
    pool: Pool,
    load: Vec<tokio::task::JoinHandle<(Vec<i64>, Vec<i64>)>>,
    landed: Vec<i64>,
    unknown: Vec<i64>,
    next: Arc<AtomicI64>,
    stop: Arc<AtomicBool>,
    /// Of what failed: the longest wait, in ms.
    longest: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
}

async fn insert(pool: &Pool, n: i64) -> Result<(), Error> {
    let mut guard = pool.begin_patiently().await?;
    guard.defer(Statement::new("INSERT INTO t VALUES ($1)").bind(n, Type::INT8));
    guard.commit().await.map(drop)
}

impl Bed {
    /// The load begins, and rows land.
    async fn make(url: &str) -> Bed {
        let pool = Pool::new(PoolOptions {
            pool_size: 4,
            max_overflow: 4,
            pool_timeout: POOL_TIMEOUT,
            statement_timeout: STATEMENT_TIMEOUT,
            ..PoolOptions::new(url).expect("an address")
        });
        let mut bed = Bed {
            pool,
            load: Vec::new(),
            landed: Vec::new(),
            unknown: Vec::new(),
            next: Arc::default(),
            stop: Arc::default(),
            longest: Arc::default(),
            failed: Arc::default(),
        };
        bed.load = (0..TASKS).map(|_| tokio::spawn(bed.writer())).collect();
        eventually("rows", PATIENCE, async || bed.pool.statistics().committed > 100).await;
        bed
    }

    /// Writes until told to stop. What landed, and what may have.
    fn writer(&self) -> impl Future<Output = (Vec<i64>, Vec<i64>)> + Send + 'static {
        let (pool, next, stop) = (self.pool.clone(), self.next.clone(), self.stop.clone());
        let (longest, failed) = (self.longest.clone(), self.failed.clone());
        async move {
            let (mut landed, mut unknown) = (Vec::new(), Vec::new());
            while !stop.load(Ordering::Relaxed) {
                let (n, begun) = (next.fetch_add(1, Ordering::Relaxed), Instant::now());
                match insert(&pool, n).await {
                    Ok(()) => landed.push(n),
                    Err(error) => {
                        failed.fetch_add(1, Ordering::Relaxed);
                        longest.fetch_max(begun.elapsed().as_millis() as u64, Ordering::Relaxed);
                        if error.is_unknown_commit() {
                            unknown.push(n);
                        }
                        // A standing cause is told at once, and asked for again by who has work to land.
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                }
            }
            (landed, unknown)
        }
    }

    /// Some of the load has failed.
    async fn felt(&self) {
        let before = self.failed.load(Ordering::Relaxed);
        let felt = async || self.failed.load(Ordering::Relaxed) > before || self.pool.last_error().is_some();
        eventually("the fault", PATIENCE, felt).await;
    }

    /// From now on until a transaction that began after now has committed.
    async fn served(&self) -> Duration {
        let begun = Instant::now();
        loop {
            let n = self.next.fetch_add(1, Ordering::Relaxed);
            let done = insert(&self.pool, -1 - n).await;
            if done.is_ok() {
                return begun.elapsed();
            }
            assert!(begun.elapsed() < PATIENCE, "not served: {done:?}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Ends the load.
    async fn rest(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in std::mem::take(&mut self.load) {
            let (landed, unknown) = task.await.expect("no panic");
            self.landed.extend(landed);
            self.unknown.extend(unknown);
        }
    }

    /// Ends the load and compares. Tasks that failed, the longest wait of those, lost, doubled.
    async fn audit(mut self, server: &Server, database: &str) -> [u64; 4] {
        self.rest().await;
        assert!(self.pool.close(PATIENCE).await, "all connections come back");
        let client = server.connect(database).await;
        let open = "SELECT 1 FROM pg_stat_activity WHERE xact_start IS NOT NULL AND backend_type = 'client backend' \
                    AND pid <> pg_backend_pid()";
        eventually("no open transaction", PATIENCE, async || client.query(open, &[]).await.expect("asked").is_empty())
            .await;
        let rows = client.query("SELECT n, count(*) FROM t WHERE n >= 0 GROUP BY n", &[]).await.expect("the rows");
        let there: std::collections::HashMap<i64, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        let lost = self.landed.iter().filter(|n| !there.contains_key(n)).count();
        let said: std::collections::HashSet<i64> = self.landed.iter().chain(&self.unknown).copied().collect();
        let doubled = there.iter().filter(|(n, count)| **count > 1 || !said.contains(n)).count();
        [self.failed.load(Ordering::Relaxed), self.longest.load(Ordering::Relaxed), lost as u64, doubled as u64]
    }
}

/// What one round of one fault gave.
struct Round {
    served: Duration,
    audit: [u64; 4],
}

/// A server with the table of the load.
async fn table(server: &Server) -> Database {
    let database = server.database().await;
    database.client().await.batch_execute("CREATE TABLE t (n bigint)").await.expect("a table");
    database
}

/// Ends every session of the pool.
const TERMINATE: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                         WHERE datname = current_database() AND pid <> pg_backend_pid()";

async fn server_killed() -> Round {
    let server = Server::own();
    let database = table(&server).await;
    let bed = Bed::make(&database.url()).await;
    server.kill();
    bed.felt().await;
    server.start();
    let served = bed.served().await;
    Round { served, audit: bed.audit(&server, &database.name).await }
}

async fn sessions_ended() -> Round {
    let server = Server::own();
    let database = table(&server).await;
    let bed = Bed::make(&database.url()).await;
    database.client().await.query(TERMINATE, &[]).await.expect("ended");
    let served = bed.served().await;
    Round { served, audit: bed.audit(&server, &database.name).await }
}

/// A session ended while it copies, or while it commits: 20 times in a row, the slowest is told.
async fn ended_amid(copy: bool) -> Round {
    let server = Server::own();
    let database = table(&server).await;
    let bed = Bed::make(&database.url()).await;
    let admin = database.client().await;
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        let mut guard = bed.pool.begin_patiently().await.expect("a connection");
        let pid: i32 = guard.query(Statement::new("SELECT pg_backend_pid()")).await.expect("its number")[0].get(0);
        let end = async || admin.execute("SELECT pg_terminate_backend($1)", &[&pid]).await.expect("ended");
        if copy {
            let open = guard.copy_in("COPY t FROM STDIN (FORMAT binary)").await.expect("a copy");
            end().await;
            drop(open);
            drop(guard);
        } else {
            guard.defer(Statement::new("INSERT INTO t VALUES (-1)"));
            let _ = tokio::join!(guard.commit(), end());
        }
        slowest = slowest.max(bed.served().await);
    }
    Round { served: slowest, audit: bed.audit(&server, &database.name).await }
}

/// A guard dropped in the middle of a statement that would run for a minute, on a pool of one connection, 20 times in a
/// row: until the next borrower has an answer.
async fn guard_dropped() -> Round {
    let server = Server::own();
    let database = table(&server).await;
    let bed = Bed::make(&database.url()).await;
    let options =
        PoolOptions { pool_size: 1, max_overflow: 0, ..PoolOptions::new(&database.url()).expect("an address") };
    let one = Pool::new(options);
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        let mut guard = one.begin().await.expect("a connection");
        let slow = guard.query(Statement::new("SELECT pg_sleep(60)"));
        assert!(tokio::time::timeout(Duration::from_millis(20), slow).await.is_err(), "it sleeps");
        let begun = Instant::now();
        drop(guard);
        let mut next = one.begin().await.expect("a connection");
        next.query(Statement::new("SELECT 1")).await.expect("an answer");
        slowest = slowest.max(begun.elapsed());
    }
    assert!(one.close(PATIENCE).await, "all connections come back");
    Round { served: slowest, audit: bed.audit(&server, &database.name).await }
}

/// The network does something for a while, then nothing any more.
async fn network(fault: Fault, healed: Fault) -> Round {
    let server = Server::own();
    let database = table(&server).await;
    let proxy = Proxy::start(database.socket()).await;
    let bed = Bed::make(&proxy.url(&database)).await;
    proxy.set(fault);
    if matches!(fault, Fault::Delay(_)) {
        bed.served().await;
    } else if healed != Fault::Strand {
        bed.felt().await;
    }
    proxy.set(healed);
    let served = bed.served().await;
    proxy.set(Fault::None);
    Round { served, audit: bed.audit(&server, &database.name).await }
}

/// Every connection of a pool at rest goes silent for good, as behind a firewall that forgot them.
async fn silent_at_rest() -> Round {
    let server = Server::own();
    let database = table(&server).await;
    let proxy = Proxy::start(database.socket()).await;
    let mut bed = Bed::make(&proxy.url(&database)).await;
    bed.rest().await;
    // Longer than a connection may rest without being asked.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    proxy.set(Fault::Strand);
    let served = bed.served().await;
    Round { served, audit: bed.audit(&server, &database.name).await }
}

/// Connects are accepted and never answered, as many as the pool holds; then they are.
async fn connects_unanswered() -> Round {
    let server = Server::own();
    let database = table(&server).await;
    let proxy = Proxy::start(database.socket()).await;
    let bed = Bed::make(&proxy.url(&database)).await;
    proxy.set(Fault::Reset);
    bed.felt().await;
    let before = proxy.accepted();
    proxy.set(Fault::Freeze);
    bed.pool.reset();
    eventually("connects", PATIENCE, async || proxy.accepted() > before).await;
    bed.felt().await;
    proxy.set(Fault::Strand);
    let served = bed.served().await;
    Round { served, audit: bed.audit(&server, &database.name).await }
}

async fn pooler_killed() -> Round {
    let server = Server::own();
    let database = table(&server).await;
    let mut bouncer = Bouncer::start(&database, 4).await;
    let bed = Bed::make(&bouncer.url(&database)).await;
    bouncer.kill();
    bed.felt().await;
    bouncer.again().await;
    let served = bed.served().await;
    Round { served, audit: bed.audit(&server, &database.name).await }
}

/// The primary stops, its standby is promoted; or the primary comes back as a standby of the other.
async fn failover(demoted: bool) -> Round {
    let first = Server::own();
    first.connect("postgres").await.batch_execute("CREATE TABLE t (n bigint)").await.expect("a table");
    let second = first.standby();
    // Nothing that was acknowledged is missing on the standby.
    let name = "SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'";
    let client = first.connect("postgres").await;
    eventually("a standby", PATIENCE, async || !client.query(name, &[]).await.expect("asked").is_empty()).await;
    let sync = "ALTER SYSTEM SET synchronous_standby_names = '*'";
    client.batch_execute(sync).await.expect("set");
    client.batch_execute("SELECT pg_reload_conf()").await.expect("reloaded");
    let sync = "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'";
    eventually("in step", PATIENCE, async || !client.query(sync, &[]).await.expect("asked").is_empty()).await;
    let url = format!("host={},{} user=postgres dbname=postgres", first.dir().display(), second.dir().display());
    let bed = Bed::make(&url).await;
    first.stop();
    if demoted {
        first.demote(&second);
        first.start();
    }
    bed.felt().await;
    let promoted = second.connect("postgres").await;
    promoted.batch_execute("ALTER SYSTEM RESET synchronous_standby_names").await.expect("reset");
    promoted.batch_execute("SELECT pg_promote()").await.expect("promoted");
    promoted.batch_execute("SELECT pg_reload_conf()").await.expect("reloaded");
    let served = bed.served().await;
    Round { served, audit: bed.audit(&second, "postgres").await }
}

/// A role that may not connect any more, for one reason or the other, and then may.
async fn role(forbid: &str, allow: &str) -> Round {
    let port = support::postgres::free_port();
    let server = Server::prepared(port, |data| {
        put(data, "pg_hba.conf", "local all postgres trust\nlocal all all scram-sha-256\n");
        set(data, "log_min_messages = panic\n");
    });
    let database = table(&server).await;
    let client = database.client().await;
    client.batch_execute("CREATE ROLE writer LOGIN PASSWORD 'good'; GRANT ALL ON t TO writer").await.expect("a role");
    let bed = Bed::make(&database.url().replace("postgres@", "writer:good@")).await;
    client.batch_execute(forbid).await.expect("forbidden");
    client.query(TERMINATE, &[]).await.expect("ended");
    bed.felt().await;
    client.batch_execute(allow).await.expect("allowed");
    let served = bed.served().await;
    Round { served, audit: bed.audit(&server, &database.name).await }
}

#[tokio::main]
async fn main() {
    let rounds = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(3_usize);
    let ms = Duration::from_millis;
    println!(
        "{:<48} {:>7} {:>9} {:>5} {:>8} {:>11} {:>8}",
        "fault", "failed", "longest", "lost", "doubled", "served p50", "max"
    );
    let mut bad = false;
    macro_rules! fault {
        ($name:expr, $round:expr) => {{
            let mut all = Vec::new();
            for _ in 0..rounds {
                all.push($round.await);
            }
            bad |= told($name, all);
        }};
    }
    fault!("server killed, started again", server_killed());
    fault!("every session ended", sessions_ended());
    fault!("session ended amid COPY, 20 in a row", ended_amid(true));
    fault!("session ended amid COMMIT, 20 in a row", ended_amid(false));
    fault!("guard dropped amid a statement, 20 in a row", guard_dropped());
    fault!("network 50 ms slow each way, then not", network(Fault::Delay(ms(50)), Fault::None));
    fault!("network stands still, then goes on", network(Fault::Freeze, Fault::None));
    fault!("connections reset, new ones too, then not", network(Fault::Reset, Fault::None));
    fault!("answers lost, then not", network(Fault::LoseAnswers, Fault::None));
    fault!("cut after 1,000 bytes up, then not", network(Fault::CutUp(1000), Fault::None));
    fault!("cut after 1,000 bytes down, then not", network(Fault::CutDown(1000), Fault::None));
    fault!("half-open at rest, for good", silent_at_rest());
    fault!("half-open in their statements, for good", network(Fault::Freeze, Fault::Strand));
    fault!("connects never answered, then answered", connects_unanswered());
    fault!(
        "too many connections, then not",
        role("ALTER ROLE writer CONNECTION LIMIT 0", "ALTER ROLE writer CONNECTION LIMIT -1")
    );
    fault!(
        "password changed, and changed back",
        role("ALTER ROLE writer PASSWORD 'other'", "ALTER ROLE writer PASSWORD 'good'")
    );
    fault!("PgBouncer killed, started again", pooler_killed());
    fault!("primary stopped, standby promoted", failover(false));
    fault!("primary demoted, standby promoted", failover(true));
    assert!(!bad, "see above");
}

/// Prints a line. Whether something is wrong.
fn told(name: &str, mut rounds: Vec<Round>) -> bool {
    rounds.sort_by_key(|round| round.served);
    let sum = |i: usize| rounds.iter().map(|round| round.audit[i]).sum::<u64>();
    let longest = rounds.iter().map(|round| round.audit[1]).max().unwrap_or(0);
    let (p50, max) = (rounds[rounds.len() / 2].served, rounds[rounds.len() - 1].served);
    let (failed, lost, doubled) = (sum(0), sum(2), sum(3));
    println!(
        "{name:<48} {failed:>7} {longest:>6} ms {lost:>5} {doubled:>8} {:>8} ms {:>5} ms",
        p50.as_millis(),
        max.as_millis()
    );
    lost + doubled > 0 || longest as u128 > LONGEST.as_millis()
}
