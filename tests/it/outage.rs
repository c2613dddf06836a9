//! Behaviour of `trackd run` while the database is away: what was fetched waits on disk, and lands as the same runs.

use crate::faults::Small;
use crate::support::daemon::{Home, PATIENCE, file_tracker};
use crate::support::faulty::{Answer, Faulty};
use crate::support::postgres::{Server, at_least, count, eventually};
use crate::support::proxy::{Fault, Proxy};
use rustix::process::Signal;
use tokio_postgres::Client;

/// A source that numbers its answers.
async fn numbered() -> Faulty {
    Faulty::start((0..2_000).map(|n| Answer::ok(format!(r#"{{"rows":[{{"k":"a","v":{n}}},{{"k":"b","v":{n}}}]}}"#))))
        .await
}

fn tracker(source: &Faulty) -> String {
    format!(
        "[[tracker]]\nname = \"a\"\nevery = \"200ms\"\nmissed = \"all\"\nhttp = {{ url = \"{}\" }}\n[[tracker.table]]\nname = \"a\"\n\
         history = \"snapshot\"\nkey = [\"k\"]\nrows = \".rows[]\"\ncolumns = {{ k = \"text\", v = \"integer\" }}\n",
        source.url("/")
    )
}

/// How many payloads wait.
fn waiting(home: &Home) -> usize {
    waiting_of(home, "a")
}

fn waiting_of(home: &Home, tracker: &str) -> usize {
    let entries = std::fs::read_dir(home.path(&format!("state/spool/entries/{tracker}")));
    entries.map_or(0, |files| {
        files.filter_map(Result::ok).filter(|file| !file.file_name().to_string_lossy().starts_with('.')).count()
    })
}

/// Lets five instants pass without a daemon.
async fn some_instants() {
    let begun = std::time::Instant::now();
    eventually("instants without a daemon", PATIENCE, async || begun.elapsed() > std::time::Duration::from_secs(1))
        .await;
}

const SUCCEEDED: &str = "SELECT count(*) FROM trackd.runs WHERE status = 'succeeded'";

/// Every instant has its row; each answer that was given landed once, in the order of instants.
async fn whole(client: &Client, source: &Faulty) {
    let gaps = "SELECT count(*) FROM (SELECT scheduled_at - lag(scheduled_at) OVER (ORDER BY scheduled_at) AS d \
                FROM trackd.runs) AS x WHERE d <> interval '200 ms'";
    assert_eq!(count(client, gaps).await, 0, "lost instants");
    // An instant is skipped where the one before it waited for an answer that was lost.
    let others = "SELECT string_agg(DISTINCT status || ': ' || coalesce(error, ''), '; ') FROM trackd.runs WHERE status NOT IN ('succeeded', 'skipped')";
    let others: Option<String> = client.query_one(others, &[]).await.unwrap().get(0);
    assert_eq!(others, None, "not succeeded");
    let answers = source.requests().len() as i64;
    assert_eq!(count(client, "SELECT count(DISTINCT v) FROM a").await, answers, "answers lost");
    assert_eq!(count(client, "SELECT count(*) FROM a").await, 2 * answers, "halves or doubles");
    let order =
        "SELECT count(*) FROM (SELECT v - lag(v) OVER (ORDER BY taken_at, k) AS d FROM a) AS x WHERE d NOT IN (0, 1)";
    assert_eq!(count(client, order).await, 0, "in another order");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_fetched_while_the_database_was_away_lands_in_order_when_it_is_back() {
    let server = Server::own();
    let database = server.database().await;
    let source = numbered().await;
    let home = Home::new(&database, &tracker(&source));
    let mut daemon = home.run();
    at_least(&database.client().await, SUCCEEDED, 5).await;
    for _ in 0..2 {
        server.kill();
        eventually("payloads that wait", PATIENCE, async || waiting(&home) >= 10).await;
        server.start();
        eventually("none that waits", PATIENCE, async || waiting(&home) == 0).await;
    }
    let client = database.client().await;
    let before = count(&client, SUCCEEDED).await;
    at_least(&client, SUCCEEDED, before + 5).await;
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());
    whole(&client, &source).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_starts_without_its_database_keeps_what_it_fetches_and_what_it_kept_before_it_was_killed() {
    let server = Server::own();
    let database = server.database().await;
    let source = numbered().await;
    let home = Home::new(&database, &tracker(&source));
    let mut daemon = home.run();
    at_least(&database.client().await, SUCCEEDED, 5).await;
    server.kill();
    eventually("payloads that wait", PATIENCE, async || waiting(&home) >= 5).await;
    daemon.kill();
    let before = waiting(&home);
    // What landed first afterwards would hide these from whoever looks for holes.
    some_instants().await;
    daemon = home.run();
    eventually("further ones", PATIENCE, async || waiting(&home) >= before + 5).await;
    server.start();
    eventually("none that waits", PATIENCE, async || waiting(&home) == 0).await;
    let client = database.client().await;
    let landed = count(&client, SUCCEEDED).await;
    at_least(&client, SUCCEEDED, landed + 5).await;
    // Those that had not begun at its stop would be the next daemon's.
    let to_catch_up = "SELECT count(*) FROM trackd.runs WHERE status = 'running' AND kind = 'catch_up'";
    eventually("what was missed", PATIENCE, async || count(&client, to_catch_up).await == 0).await;
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());
    // Instants without a daemon are caught up: they are runs of their own, later than their neighbours.
    let gaps = "SELECT count(*) FROM (SELECT scheduled_at - lag(scheduled_at) OVER (ORDER BY scheduled_at) AS d \
                FROM trackd.runs) AS x WHERE d <> interval '200 ms'";
    assert_eq!(count(&client, gaps).await, 0, "lost instants");
    assert_eq!(count(&client, "SELECT count(*) FROM trackd.runs WHERE status = 'running'").await, 0, "open runs");
    let halves = "SELECT count(*) FROM trackd.runs r WHERE (SELECT count(*) FROM a WHERE a.run_id = r.run_id) <> \
                  CASE r.status WHEN 'succeeded' THEN 2 ELSE 0 END";
    assert_eq!(count(&client, halves).await, 0, "halves");
    // One answer may have been on its way when the daemon was killed.
    let lost = source.requests().len() as i64 - count(&client, "SELECT count(DISTINCT v) FROM a").await;
    assert!((0..=1).contains(&lost), "{lost} answers lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_whose_answers_are_lost_land_once() {
    let database = Server::shared().database().await;
    let proxy = Proxy::start(database.socket()).await;
    let source = numbered().await;
    let mut home = Home::with(&proxy.url(&database), &tracker(&source));
    // Of an answer that was swallowed nothing else tells.
    home.set("TRACKD_DATABASE__STATEMENT_TIMEOUT", "1s");
    let mut daemon = home.run();
    let client = database.client().await;
    at_least(&client, SUCCEEDED, 5).await;
    for _ in 0..10 {
        let (before, connections) = (count(&client, SUCCEEDED).await, proxy.accepted());
        // Of a claim, of a run that lands, of the lease: whichever comes next.
        proxy.set(Fault::LoseAnswers);
        eventually("a connection lost", PATIENCE, async || proxy.accepted() > connections).await;
        proxy.set(Fault::None);
        at_least(&client, SUCCEEDED, before + 2).await;
    }
    eventually("none that waits", PATIENCE, async || waiting(&home) == 0).await;
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());
    whole(&client, &source).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waited_is_shaped_as_the_configuration_of_its_time_said() {
    let server = Server::own();
    let database = server.database().await;
    let source = numbered().await;
    let home = Home::new(&database, &tracker(&source));
    let mut daemon = home.run();
    at_least(&database.client().await, SUCCEEDED, 3).await;
    server.kill();
    eventually("payloads that wait", PATIENCE, async || waiting(&home) >= 5).await;
    home.configure(&tracker(&source).replace("v = \"integer\"", "v = { jq = \".v + 1000000\", type = \"integer\" }"));
    daemon.signal(Signal::HUP);
    daemon.says("configuration reloaded", 1).await;
    let before = waiting(&home);
    eventually("further ones", PATIENCE, async || waiting(&home) >= before + 5).await;
    server.start();
    eventually("none that waits", PATIENCE, async || waiting(&home) == 0).await;
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());
    let client = database.client().await;
    let split = count(&client, "SELECT min(v)::int8 - 1000000 FROM a WHERE v >= 1000000").await;
    assert!(split >= before as i64, "the first answer of the new one: {split}");
    assert_eq!(count(&client, "SELECT max(v)::int8 FROM a WHERE v < 1000000").await, split - 1);
    assert_eq!(count(&client, "SELECT count(DISTINCT v) FROM a").await, source.requests().len() as i64);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waited_lands_in_a_table_that_was_widened_since() {
    let server = Server::own();
    let database = server.database().await;
    let source = numbered().await;
    let home = Home::new(&database, &tracker(&source));
    let daemon = home.run();
    at_least(&database.client().await, SUCCEEDED, 3).await;
    server.kill();
    eventually("payloads that wait", PATIENCE, async || waiting(&home) >= 5).await;
    daemon.kill();
    let waited = waiting(&home) as i64;
    server.start();
    // A start widens the table before anything lands.
    home.configure(&tracker(&source).replace("v = \"integer\"", "v = \"numeric\""));
    let mut daemon = home.run();
    eventually("none that waits", PATIENCE, async || waiting(&home) == 0).await;
    let client = database.client().await;
    at_least(&client, SUCCEEDED, waited + 5).await;
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());
    assert_eq!(count(&client, "SELECT count(*) FROM trackd.runs WHERE status = 'failed'").await, 0, "{}", daemon.log());
    // One answer may have been on its way when the daemon was killed.
    let lost = source.requests().len() as i64 - count(&client, "SELECT count(DISTINCT v) FROM a").await;
    assert!((0..=1).contains(&lost), "{lost} answers lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tracker_that_is_removed_while_the_database_is_away_has_a_row_for_each_instant_until_then() {
    let server = Server::own();
    let database = server.database().await;
    let source = numbered().await;
    let home = Home::new(&database, &(tracker(&source) + &file_tracker("gone", "200ms")));
    home.put("gone.json", r#"{"rows":[{"k":"a","v":1}]}"#);
    let daemon = home.run();
    at_least(&database.client().await, "SELECT count(*) FROM gone", 3).await;
    server.kill();
    daemon.kill();
    some_instants().await;
    // Its past is known to the ledger alone, and this daemon has not read it when the tracker goes.
    let mut daemon = home.run();
    eventually("payloads that wait", PATIENCE, async || waiting(&home) >= 5).await;
    let still_there = jiff::Timestamp::now() - jiff::SignedDuration::from_millis(200);
    home.configure(&tracker(&source));
    daemon.signal(Signal::HUP);
    daemon.says("configuration reloaded", 1).await;
    server.start();
    eventually("none that waits", PATIENCE, async || waiting(&home) + waiting_of(&home, "gone") == 0).await;
    let client = database.client().await;
    let open = "SELECT count(*) FROM trackd.runs WHERE tracker = 'gone' AND status = 'running'";
    eventually("no open run", PATIENCE, async || count(&client, open).await == 0).await;
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());
    let gaps = "SELECT count(*) FROM (SELECT scheduled_at - lag(scheduled_at) OVER (ORDER BY scheduled_at) AS d \
                FROM trackd.runs WHERE tracker = 'gone') AS x WHERE d <> interval '200 ms'";
    assert_eq!(count(&client, gaps).await, 0, "lost instants");
    let last = client.query_one("SELECT max(scheduled_at) FROM trackd.runs WHERE tracker = 'gone'", &[]).await.unwrap();
    assert!(last.get::<_, jiff::Timestamp>(0) >= still_there, "its end is missing");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_disk_smaller_than_spool_max_what_is_worth_least_is_refused_first() {
    let server = Server::own();
    let database = server.database().await;
    let trackers = file_tracker("s", "200ms").replace("\"snapshot\"", "\"state\"")
        + &file_tracker("e", "200ms").replace("\"snapshot\"", "\"event\"");
    let mut home = Home::new(&database, &trackers);
    let Some(small) = Small::mount(&home.path("")) else {
        return println!("skipped: this process may not mount a file system");
    };
    home.set("TRACKD_DAEMON__STATE_DIR", small.0.path().to_str().unwrap());
    let body = format!(r#"{{"rows":[{{"k":"a","v":1}}],"more":"{}"}}"#, "x".repeat(200_000));
    for name in ["s.json", "e.json"] {
        home.put(name, &body);
    }
    let mut daemon = home.run();
    daemon.says("run succeeded", 2).await;
    server.kill();
    daemon.says("no room on its disk", 1).await;
    let log = daemon.log();
    let at = |text: &str| log.lines().position(|line| line.contains(text));
    let refused = log.lines().find(|line| line.contains("its source is not asked")).unwrap_or_default();
    assert!(refused.contains("tracker=\"s\"") && refused.contains("share is 70 %"), "{log}");
    assert!(at("its source is not asked") < at("no room on its disk"), "{log}");
    server.start();
    let client = database.client().await;
    // Of the others no more than the first few had landed before.
    at_least(&client, "SELECT count(*) FROM trackd.runs WHERE tracker = 'e' AND status = 'succeeded'", 20).await;
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());
}
