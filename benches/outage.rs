//! The database is away for long, and comes back: what was fetched meanwhile, and what runs are late for it.
//!
//! ```text
//!  cargo bench --bench outage            50 trackers, 120 instants each without a database: two hours of a run a minute
//!  cargo bench --bench outage -- 600     600 instants each
//! ```
//!
//! And the start of a daemon whose spool holds 10,000 payloads, 100 of them spoilt. Real daemon, PostgreSQL, HTTP and disk.
//! Fails when a payload is lost, doubled or in another order, when an instant has no row, or when a run began a second
//! after its time.

#[allow(dead_code, unreachable_pub, clippy::unwrap_used)]
#[path = "../tests/it/support/mod.rs"]
mod support;

use jiff::Timestamp;
use std::path::Path;
use std::time::{Duration, Instant};
use support::daemon::{Home, file_tracker};
use support::faulty::{Answer, Faulty};
use support::postgres::{Server, eventually};
use tokio_postgres::Client;
use trackd::config::{self, Environment};
use trackd::run::Recipe;
use trackd::spool::{Entry, Look, Spool};
use trackd::status::Kind;

const TRACKERS: usize = 50;
const ENTRIES: i64 = 10_000;
const SPOILT: i64 = 100;
const PATIENCE: Duration = Duration::from_secs(600);

#[tokio::main]
async fn main() {
    let instants = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(120);
    outage(instants).await;
    start().await;
}

async fn number(client: &Client, sql: &str) -> f64 {
    client.query_one(&format!("SELECT ({sql})::float8"), &[]).await.expect(sql).get::<_, Option<f64>>(0).unwrap_or(0.0)
}

async fn outage(instants: u64) {
    let server = Server::own();
    let database = server.database().await;
    let most = (instants + 600) * TRACKERS as u64;
    let source = Faulty::start((0..most).map(|n| Answer::ok(format!(r#"{{"rows":[{{"k":"a","v":{n}}}]}}"#)))).await;
    let tracker = |n: usize| {
        format!(
            "[[tracker]]\nname = \"t{n}\"\nevery = \"1s\"\nhttp = {{ url = \"{}\" }}\n[[tracker.table]]\nname = \"t{n}\"\n\
             history = \"snapshot\"\nkey = [\"k\"]\nrows = \".rows[]\"\ncolumns = {{ k = \"text\", v = \"bigint\" }}\n",
            source.url("/")
        )
    };
    let trackers: String = (0..TRACKERS).map(tracker).collect();
    let mut home = Home::new(&database, &trackers);
    home.set("TRACKD_DAEMON__PER_HOST", "16");
    let mut daemon = home.run();
    daemon.says("ready", 1).await;
    let client = database.client().await;
    let landed = "SELECT count(DISTINCT tracker) FROM trackd.runs WHERE status = 'succeeded'";
    eventually("a run of each", PATIENCE, async || number(&client, landed).await == TRACKERS as f64).await;
    drop(client);
    let (gone, look) = (Timestamp::now(), Look::new(&home.path("state/spool")));
    server.kill();
    tokio::time::sleep(Duration::from_secs(instants)).await;
    let waited = look.entries().expect("the spool").0.len();
    server.start();
    let (back, begun) = (Timestamp::now(), Instant::now());
    eventually("an empty spool", PATIENCE, async || look.entries().is_ok_and(|(waits, _)| waits.is_empty())).await;
    let through = begun.elapsed();
    tokio::time::sleep(Duration::from_secs(10)).await;
    daemon.signal(rustix::process::Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());
    let client = database.client().await;
    println!("outage: {TRACKERS} trackers, {instants} s without the database at a run a second each");
    println!(
        "  payloads that waited {waited}, landed within {:.2} s, {:.0} a second",
        through.as_secs_f64(),
        waited as f64 / through.as_secs_f64()
    );
    for (what, from, to) in [("while it was away", gone, back), ("while they landed and after", back, Timestamp::now())]
    {
        let sql = |of: &str| {
            format!(
                "SELECT {of} FROM trackd.runs WHERE scheduled_at > '{from}' AND scheduled_at <= '{to}' AND status = 'succeeded'"
            )
        };
        let late = "extract(epoch FROM started_at - scheduled_at) * 1000";
        let (runs, p50) = (
            number(&client, &sql("count(*)")).await,
            number(&client, &sql(&format!("percentile_disc(0.5) WITHIN GROUP (ORDER BY {late})"))).await,
        );
        let max = number(&client, &sql(&format!("max({late})"))).await;
        println!("  runs {what} {runs}, begun after their time: p50 {p50:.0} ms, max {max:.0} ms");
        assert!(max < 1_000.0, "a run was late");
    }
    let answers = source.requests().len() as f64;
    let (mut rows, mut distinct, mut disorder) = (0.0, 0.0, 0.0);
    for n in 0..TRACKERS {
        rows += number(&client, &format!("SELECT count(*) FROM t{n}")).await;
        distinct += number(&client, &format!("SELECT count(DISTINCT v) FROM t{n}")).await;
        let order = format!(
            "SELECT count(*) FROM (SELECT v - lag(v) OVER (ORDER BY taken_at) AS d FROM t{n}) AS x WHERE d <= 0"
        );
        disorder += number(&client, &order).await;
    }
    let gaps = "SELECT count(*) FROM (SELECT scheduled_at - lag(scheduled_at) OVER (PARTITION BY tracker ORDER BY scheduled_at) AS d \
                FROM trackd.runs) AS x WHERE d <> interval '1 s'";
    let gaps = number(&client, gaps).await;
    println!(
        "  answers {answers}, lost {}, doubled {}, in another order {disorder}, instants without a row {gaps}",
        answers - distinct,
        rows - distinct
    );
    assert_eq!((distinct, rows, disorder, gaps), (answers, answers, 0.0, 0.0));
}

async fn start() {
    let server = Server::own();
    let database = server.database().await;
    let home = Home::new(&database, &(0..10).map(|n| file_tracker(&format!("t{n}"), "24h")).collect::<String>());
    let text = std::fs::read_to_string(home.path("config.toml")).expect("the configuration");
    let none = Environment::new(Vec::<(String, String)>::new(), false);
    let config = config::parse(&text, Path::new("config.toml"), &none).unwrap_or_else(|faults| panic!("{faults}"));
    let plans: Vec<bytes::Bytes> = config.trackers.iter().map(|tracker| plan(&config, tracker)).collect();
    let (spool, _) = Spool::open(&home.path("state/spool"), 1 << 30).expect("a spool");
    for n in 0..ENTRIES {
        let (tracker, at) = (n as usize % plans.len(), Timestamp::from_second(1_750_000_000 + n).expect("a time"));
        let entry = Entry {
            tracker: config.trackers[tracker].name.clone(),
            scheduled_at: at,
            kind: Kind::Scheduled,
            attempt: 1,
            started_at: at,
            fetched_at: at,
            response: serde_json::json!({"status": 200}),
            plan: plans[tracker].clone(),
            body: format!(r#"{{"rows":[{{"k":"a","v":{n}}}]}}"#).into(),
        };
        spool.put(&entry).expect("room");
    }
    drop(spool);
    let look = Look::new(&home.path("state/spool"));
    let (listed, _) = look.entries().expect("the spool");
    for (n, listed) in listed.iter().step_by((ENTRIES / SPOILT) as usize).enumerate() {
        let mut bytes = std::fs::read(&listed.file).expect("an entry");
        match n % 3 {
            0 => bytes.clear(),
            1 => bytes.truncate(bytes.len() / 2),
            _ => bytes[100] ^= 4,
        }
        std::fs::write(&listed.file, bytes).expect("it is ours");
    }
    let (begun, mut daemon) = (Instant::now(), home.run());
    daemon.says("ready", 1).await;
    let ready = begun.elapsed();
    eventually("an empty spool", PATIENCE, async || look.entries().is_ok_and(|(waits, _)| waits.is_empty())).await;
    let through = begun.elapsed();
    daemon.signal(rustix::process::Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());
    let client = database.client().await;
    let landed =
        number(&client, "SELECT count(*) FROM trackd.runs WHERE status = 'succeeded' AND rows_written = 1").await;
    let failed = "SELECT count(*) FROM trackd.runs WHERE status = 'failed' AND error LIKE 'its payload in the spool is not whole%'";
    let failed = number(&client, failed).await;
    let aside = look.set_aside().expect("the spool").len();
    println!("start: {ENTRIES} payloads wait, {SPOILT} of them spoilt");
    println!(
        "  ready after {:.2} s, all dealt with after {:.2} s, {:.0} a second",
        ready.as_secs_f64(),
        through.as_secs_f64(),
        ENTRIES as f64 / (through - ready).as_secs_f64()
    );
    println!("  landed {landed}, set aside {aside}, on record as failed {failed}");
    assert_eq!((landed, aside, failed), ((ENTRIES - SPOILT) as f64, SPOILT as usize, SPOILT as f64));
}

fn plan(config: &config::Config, tracker: &std::sync::Arc<config::Tracker>) -> bytes::Bytes {
    serde_json::to_vec(&Recipe::of(config, tracker)).expect("a recipe is JSON").into()
}
