//! Behaviour of `demo`: the arena is the real API's double.

use crate::support::postgres::Server;
use jiff::{Timestamp, ToSpan};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use trackd::clock;
use trackd::config::environment::Environment;
use trackd::config::file::parse;
use trackd::demo::{Arena, QUERIES, config_text, serve};
use trackd::run::{End, Outcome, Plan, Shared};
use trackd::status::{Kind, RunStatus};
use trackd::store::instance::Instance;
use trackd::store::{Pool, PoolOptions, migrate};

const ENDPOINTS: [&str; 6] =
    ["leaderboard", "trades", "conversations", "crypto-prices", "since-inception-values", "analytics"];

fn start() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().expect("a time")
}

fn bodies(arena: &Arena) -> Vec<Value> {
    ENDPOINTS.iter().map(|endpoint| arena.body(endpoint).expect("a body")).collect()
}

#[test]
fn the_same_seed_and_start_give_the_same_arena_however_it_got_there() {
    let later = start() + 10.minutes();
    let (mut one, mut other) = (Arena::new(7, start()), Arena::new(7, start()));
    one.advance(later);
    for second in 0..=600 {
        other.advance(start() + second.seconds());
    }
    other.advance(start());
    assert_eq!(bodies(&one), bodies(&other));
    assert_eq!(one.now(), later);
    let mut another = Arena::new(8, start());
    another.advance(later);
    assert_ne!(bodies(&one), bodies(&another));
}

#[test]
fn another_start_brings_other_ids() {
    let ids = |arena: &Arena| {
        let body = arena.body("trades").expect("a body");
        let trades = body["trades"].as_array().expect("an array").clone();
        trades.iter().map(|trade| trade["id"].to_string()).collect::<BTreeSet<_>>()
    };
    let (one, other) = (ids(&Arena::new(7, start())), ids(&Arena::new(7, start() + 1.second())));
    assert!(one.is_disjoint(&other));
}

type Shapes = BTreeMap<String, BTreeSet<String>>;

fn shapes(value: &Value, path: &str, found: &mut Shapes) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let at = if path.is_empty() { "." } else { path };
    found.entry(at.to_owned()).or_default().insert(kind.to_owned());
    match value {
        Value::Array(values) => values.iter().for_each(|value| shapes(value, &format!("{path}[]"), found)),
        Value::Object(fields) => {
            for (name, value) in fields {
                let coin = ["BTC", "ETH", "SOL", "BNB", "DOGE", "XRP"].contains(&&**name);
                shapes(value, &format!("{path}.{}", if coin { "*" } else { name }), found);
            }
        }
        _ => {}
    }
}

#[test]
fn bodies_have_the_fields_and_types_of_the_recorded_responses() {
    let recorded: BTreeMap<String, Shapes> =
        serde_json::from_str(include_str!("../fixtures/arena-shapes.json")).expect("the fixture");
    let mut found = BTreeMap::<String, Shapes>::new();
    let mut arena = Arena::new(1, start());
    // An answer that was not JSON comes now and then only: look for a while.
    for minute in 0..60 {
        arena.advance(start() + minute.minutes());
        for endpoint in ENDPOINTS {
            let body = arena.body(endpoint).expect("a body");
            shapes(&body, "", found.entry(endpoint.to_owned()).or_default());
        }
    }
    assert_eq!(found, recorded);
}

#[test]
fn windows_slide_and_keep_their_length() {
    let ids = |arena: &Arena, endpoint: &str| {
        let body = arena.body(endpoint).expect("a body");
        let rows = body[endpoint].as_array().expect("an array").clone();
        rows.iter().map(|row| row["id"].as_str().expect("an id").to_owned()).collect::<Vec<_>>()
    };
    let mut arena = Arena::new(3, start());
    for (endpoint, shown) in [("trades", 230), ("conversations", 100)] {
        let before = ids(&arena, endpoint);
        let later = arena.now() + 1.minute();
        arena.advance(later);
        let after = ids(&arena, endpoint);
        assert_eq!((before.len(), after.len()), (shown, shown), "{endpoint}");
        let fresh = after.iter().take_while(|id| **id != before[0]).count();
        assert!(fresh > 0 && fresh < shown, "{endpoint}: {fresh} new in a minute");
        assert_eq!(after[fresh..], before[..shown - fresh], "{endpoint}");
    }
}

#[test]
fn money_adds_up() {
    let arena = Arena::new(5, start());
    let board = arena.body("leaderboard").expect("a body");
    let mut equities = Vec::new();
    for model in board["leaderboard"].as_array().expect("an array") {
        let (wins, losses) = (model["num_wins"].as_u64(), model["num_losses"].as_u64());
        assert_eq!(model["num_trades"].as_u64(), wins.zip(losses).map(|(wins, losses)| wins + losses));
        let equity = model["equity"].as_f64().expect("a number");
        assert!((3_000.0..40_000.0).contains(&equity), "{model}");
        equities.push(equity);
    }
    let spread = equities.iter().copied().fold(f64::MIN, f64::max) - equities.iter().copied().fold(f64::MAX, f64::min);
    assert!(spread > 500.0, "a race without a gap: {equities:?}");
    for trade in arena.body("trades").expect("a body")["trades"].as_array().expect("an array") {
        let field = |name: &str| trade[name].as_f64().expect("a number");
        let gross = field("quantity") * (field("exit_price") - field("entry_price"));
        assert!((gross - field("realized_gross_pnl")).abs() < 1e-5, "{trade}");
        let net = field("realized_gross_pnl") - field("total_commission_dollars");
        assert!((net - field("realized_net_pnl")).abs() < 1e-5, "{trade}");
        assert!(field("exit_time") >= field("entry_time"), "{trade}");
    }
}

#[test]
fn the_demo_keeps_the_tables_of_the_shipped_configuration() {
    let text = config_text("http://127.0.0.1:1/\"a\"", "127.0.0.1:0", std::path::Path::new("/tmp/a b\\c"));
    let demo: toml::Table = text.parse().expect("TOML");
    let shipped: toml::Table = include_str!("../../config.toml").parse().expect("TOML");
    assert_eq!(demo["vars"]["arena"].as_str(), Some("http://127.0.0.1:1/\"a\""));
    assert_eq!(demo["daemon"]["state_dir"].as_str(), Some("/tmp/a b\\c"));
    let tables = |config: &toml::Table| {
        let trackers = config["tracker"].as_array().expect("trackers").iter();
        trackers
            .map(|tracker| (tracker["name"].clone(), tracker["http"].clone(), tracker["table"].clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(tables(&demo), tables(&shipped));
    assert!(QUERIES.iter().all(|(title, sql)| !title.is_empty() && sql.ends_with(';')));
}

#[tokio::test]
async fn the_arena_answers_over_http() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(serve(listener, 1, async move {
        let _ = stopped.await;
    }));
    for (path, status) in ENDPOINTS.iter().map(|endpoint| (*endpoint, 200)).chain([("nothing", 404)]) {
        let mut stream = tokio::net::TcpStream::connect(address).await.expect("connect");
        let request = format!("GET /{path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("send");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {}", &answer[..answer.len().min(200)]);
    }
    stop.send(()).expect("stop");
    server.await.expect("no panic").expect("no error");
}

#[tokio::test]
async fn the_demo_lands_in_its_tables_and_the_queries_worth_trying_answer() {
    let database = Server::shared().database().await;
    let mut client = Server::shared().connect(&database.name).await;
    migrate::migrate(&mut client).await.expect("migrated");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let url = format!("http://{}", listener.local_addr().expect("address"));
    let _arena = tokio::spawn(serve(listener, 1, std::future::pending()));
    let text = config_text(&url, "", std::path::Path::new("/tmp"));
    let config = parse(&text, std::path::Path::new("demo.toml"), &Environment::default()).expect("a configuration");
    let pool = Pool::new(PoolOptions::new(&database.url()).expect("options"));
    let instance = Arc::new(Instance::new("test:1", std::time::Duration::from_secs(3600)));
    instance.renew(&pool, None).await.expect("registered");
    let shared = Shared::without_spool(pool, instance, trackd::store::notify::channel().0);
    let now = clock::now();
    // The second look, two minutes later, is what the first query compares with.
    for at in [now - 2.minutes(), now] {
        for tracker in &config.trackers {
            let plan = Plan::new(&config, tracker, &shared).expect("a plan");
            let End::Ended(Outcome { run, .. }) = plan.run(at, Kind::Manual).await else { panic!("elsewhere") };
            assert_eq!((run.status, run.rows_rejected), (RunStatus::Succeeded, 0), "{}: {:?}", run.tracker, run.error);
        }
    }
    let counts = "SELECT (SELECT count(*) FROM leaderboard_snapshots), (SELECT count(*) FROM trades), \
        (SELECT count(*) FROM model_chats), (SELECT count(*) FROM chat_decisions)";
    let row = client.query_one(counts, &[]).await.expect("counts");
    let [boards, trades, chats, decisions] = [0, 1, 2, 3].map(|column| row.get::<_, i64>(column));
    assert!(boards == 12 && trades >= 230 && chats >= 100 && decisions > 100, "{row:?}");
    for (title, sql) in QUERIES {
        let rows = client.query(sql, &[]).await.unwrap_or_else(|error| panic!("{title}: {error:?}"));
        // How many depends on how the arena played by now.
        assert!(!rows.is_empty(), "{title}: no rows");
    }
    let board = client.query(QUERIES[0].1, &[]).await.expect("the leaderboard");
    assert!(board.iter().all(|row| row.get::<_, Option<i32>>("places_won").is_some()));
}
