//! One pool for a whole program, made at its first use; what becomes of its connections, and its numbers.
//!
//! `DATABASE_URL=postgres://… cargo run --example events`

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use trackd::store::pool::{End, Events, Seen, Statistics};
use trackd::store::{Error, Pool, PoolOptions, Statement};

/// Counts and tells.
#[derive(Debug, Default)]
struct Listener {
    borrowed: AtomicU64,
}

impl Events for Listener {
    fn connected(&self, connection: Seen<'_>, took: Duration) {
        println!("connection {} to {} after {took:?}", connection.number, connection.place);
    }

    fn borrowed(&self, _: Seen<'_>, _: Duration) {
        self.borrowed.fetch_add(1, Ordering::Relaxed);
    }

    fn closed(&self, connection: Seen<'_>, why: End) {
        println!("connection {} closed: {why:?}", connection.number);
    }
}

/// Where the program's pool is. Nothing is opened before the first borrow.
static POOL: OnceLock<Pool> = OnceLock::new();

/// Ten tasks share the pool. Returns what it counted, and what the listener did.
pub async fn run(url: &str) -> Result<(Statistics, u64), Error> {
    let listener = Arc::new(Listener::default());
    let options =
        PoolOptions { pool_size: 2, max_overflow: 2, events: Some(listener.clone()), ..PoolOptions::new(url)? };
    let pool = POOL.get_or_init(|| Pool::new(options));
    let tasks: Vec<_> = (0..10)
        .map(|_| {
            tokio::spawn(async move {
                let mut tx = pool.begin().await?;
                tx.query(Statement::new("SELECT 1")).await?;
                tx.commit().await.map(drop)
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no task panics")?;
    }
    // Every connection anew, as after a failover that was announced.
    pool.reset();
    pool.begin().await?.query(Statement::new("SELECT 1")).await?;
    pool.close(Duration::from_secs(5)).await;
    Ok((pool.statistics(), listener.borrowed.load(Ordering::Relaxed)))
}

#[tokio::main]
async fn main() {
    let url = std::env::var("DATABASE_URL").expect("DATABASE_URL is set");
    match run(&url).await {
        Ok((statistics, borrowed)) => println!("borrowed {borrowed}; {statistics:#?}"),
        Err(error) => eprintln!("{error}: {}", error.hint().unwrap_or_default()),
    }
}
