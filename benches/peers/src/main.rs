//! trackd's pool beside deadpool-postgres, sqlx's pool, and SQLAlchemy with psycopg: the same server, the same run.
//!
//! Four connections, eight tasks (a queue), and one task (no queue). Each borrow pings, everywhere. Rounds take turns,
//! so that what else the machine does is shared; medians of rounds.

use sqlx::Executor;
use std::future::Future;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use trackd::store::embedded::Cluster;
use trackd::store::{Pool, PoolOptions, Statement};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const CONNECTIONS: u32 = 4;
const ROUND: Duration = Duration::from_secs(2);
const SQL: &str = "INSERT INTO t VALUES ($1)";

/// Operations a second of `tasks` tasks.
async fn rate<F, Fut>(tasks: usize, work: F) -> f64
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send,
{
    let (work, count) = (Arc::new(work), Arc::new(AtomicU64::new(0)));
    let begun = Instant::now();
    let all: Vec<_> = (0..tasks)
        .map(|_| {
            let (work, count) = (work.clone(), count.clone());
            tokio::spawn(async move {
                while begun.elapsed() < ROUND {
                    work().await;
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for task in all {
        task.await.expect("no operation fails");
    }
    count.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64()
}

/// The other pools, all open.
struct Peers {
    trackd: Pool,
    deadpool: deadpool_postgres::Pool,
    sqlx: sqlx::PgPool,
    python: Option<[Python; 2]>,
}

/// SQLAlchemy's process, for a number of threads.
struct Python {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Python {
    fn start(conninfo: &str, tasks: usize) -> Option<Python> {
        let path = std::env::var_os("PEERS_PYTHON")?;
        let mut command = Command::new("python3");
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/sqlalchemy_side.py")).arg(conninfo).arg(tasks.to_string());
        let mut child = command.env("PYTHONPATH", path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
        let (orders, answers) = (child.stdin.take()?, BufReader::new(child.stdout.take()?));
        let mut python = Python { child, orders, answers };
        (python.line()? == "ready").then_some(python)
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line).ok()?;
        Some(line.trim().to_owned())
    }

    fn rate(&mut self, what: &str) -> f64 {
        let asked = writeln!(self.orders, "{what} {}", ROUND.as_secs());
        asked.ok().and_then(|()| self.line()).and_then(|line| line.parse().ok()).expect("SQLAlchemy's side answers")
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Peers {
    async fn open(conninfo: &str) -> Outcome<Peers> {
        let trackd = Pool::new(PoolOptions {
            pool_size: CONNECTIONS,
            max_overflow: 0,
            ping_after: Duration::ZERO,
            ..PoolOptions::new(conninfo)?
        });
        let config: tokio_postgres::Config = conninfo.parse()?;
        let recycling = deadpool_postgres::ManagerConfig { recycling_method: deadpool_postgres::RecyclingMethod::Verified };
        let manager = deadpool_postgres::Manager::from_config(config, tokio_postgres::NoTls, recycling);
        let deadpool = deadpool_postgres::Pool::builder(manager).max_size(CONNECTIONS as usize).build()?;
        let words = tokio_postgres_host(conninfo);
        let options = sqlx::postgres::PgConnectOptions::new_without_pgpass().socket(words).username("trackd").database("trackd");
        let pool = sqlx::postgres::PgPoolOptions::new().max_connections(CONNECTIONS).test_before_acquire(true);
        let sqlx = pool.connect_with(options).await?;
        let python = Python::start(conninfo, 8).zip(Python::start(conninfo, 1)).map(|(eight, one)| [eight, one]);
        Ok(Peers { trackd, deadpool, sqlx, python })
    }

    /// Operations a second: trackd, deadpool-postgres, sqlx, SQLAlchemy.
    async fn round(&mut self, what: &str, tasks: usize) -> [f64; 4] {
        let (trackd, deadpool, sqlx) = (self.trackd.clone(), self.deadpool.clone(), self.sqlx.clone());
        let python = self.python.as_mut().map(|both| &mut both[usize::from(tasks == 1)]);
        let python = python.map_or(f64::NAN, |python| python.rate(what));
        match what {
            "borrow" => [
                rate(tasks, move || {
                    let pool = trackd.clone();
                    async move { drop(pool.begin().await.expect("a connection")) }
                })
                .await,
                rate(tasks, move || {
                    let pool = deadpool.clone();
                    async move { drop(pool.get().await.expect("a connection")) }
                })
                .await,
                rate(tasks, move || {
                    let pool = sqlx.clone();
                    async move { drop(pool.acquire().await.expect("a connection")) }
                })
                .await,
                python,
            ],
            _ => [
                rate(tasks, move || {
                    let pool = trackd.clone();
                    async move {
                        let mut guard = pool.begin().await.expect("a connection");
                        guard.defer(Statement::new(SQL).bind(1_i64, tokio_postgres::types::Type::INT8));
                        let _receipt = guard.commit().await.expect("a commit");
                    }
                })
                .await,
                rate(tasks, move || {
                    let pool = deadpool.clone();
                    async move {
                        let mut client = pool.get().await.expect("a connection");
                        let transaction = client.transaction().await.expect("a transaction");
                        let statement = transaction.prepare_cached(SQL).await.expect("a statement");
                        transaction.execute(&statement, &[&1_i64]).await.expect("a row");
                        transaction.commit().await.expect("a commit");
                    }
                })
                .await,
                rate(tasks, move || {
                    let pool = sqlx.clone();
                    async move {
                        let mut transaction = pool.begin().await.expect("a transaction");
                        transaction.execute(sqlx::query(SQL).bind(1_i64)).await.expect("a row");
                        transaction.commit().await.expect("a commit");
                    }
                })
                .await,
                python,
            ],
        }
    }
}

/// The socket's directory in `host='…' user=…`.
fn tokio_postgres_host(conninfo: &str) -> &str {
    conninfo.split('\'').nth(1).unwrap_or_default()
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let rounds: usize = std::env::args().nth(1).map_or(Ok(5), |rounds| rounds.parse())?;
    let dir = tempfile::tempdir()?;
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let cluster = Cluster::open(&dir.path().join("state")).await?;
    let mut peers = Peers::open(&cluster.conninfo()).await?;
    // Unlogged, and no wait for the disk: the pools are compared, not the disk.
    peers.deadpool.get().await?.batch_execute("CREATE UNLOGGED TABLE t (n int8); ALTER ROLE trackd SET synchronous_commit = off").await?;
    drop(peers);
    peers = Peers::open(&cluster.conninfo()).await?;
    println!("operations a second, medians of {rounds} rounds of {ROUND:?}, {CONNECTIONS} connections, a ping at every borrow");
    println!("{:<44}{:>10}{:>10}{:>10}{:>12}", "", "trackd", "deadpool", "sqlx", "SQLAlchemy");
    for (what, tasks, title) in [
        ("borrow", 1, "borrow, ping, return: 1 task"),
        ("borrow", 8, "borrow, ping, return: 8 tasks"),
        ("insert", 1, "one-row transaction: 1 task"),
        ("insert", 8, "one-row transaction: 8 tasks"),
    ] {
        let mut rates = [const { Vec::new() }; 4];
        for _ in 0..rounds {
            for (rates, rate) in rates.iter_mut().zip(peers.round(what, tasks).await) {
                rates.push(rate);
            }
        }
        let medians = rates.map(median);
        println!("{title:<44}{:>10.0}{:>10.0}{:>10.0}{:>12.0}", medians[0], medians[1], medians[2], medians[3]);
        let best = medians[1..].iter().copied().filter(|rate| rate.is_finite()).fold(0.0, f64::max);
        println!("{:<44}{:>10.2}", "    trackd / the best of the others", medians[0] / best);
    }
    drop(peers);
    cluster.close().await;
    Ok(())
}
