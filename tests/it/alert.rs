//! Behaviour of what is stale, stands, or is away: shown, slowed down, and told.

use crate::support::daemon::{Home, PATIENCE, file_tracker, stdout};
use crate::support::postgres::{Server, eventually};
use rustix::process::Signal;
use tokio_postgres::Client;

const BODY: &str = r#"{"rows":[{"k":"a","v":1},{"k":"b","v":2}]}"#;
/// Not the documented shape: a fault that stands.
const RUBBISH: &str = r#"{"rows":7}"#;

async fn count(client: &Client, sql: &str) -> i64 {
    match client.query_one(sql, &[]).await {
        Ok(row) => row.get(0),
        // The table is not there yet.
        Err(_) => -1,
    }
}

async fn at_least(client: &Client, sql: &str, expected: i64) {
    eventually(&format!("{expected} by {sql}"), PATIENCE, async || count(client, sql).await >= expected).await;
}

const GAPS: &str = "SELECT count(*) FROM (SELECT scheduled_at - lag(scheduled_at) OVER (ORDER BY scheduled_at) AS d \
    FROM trackd.runs WHERE kind <> 'manual') AS x WHERE d <> interval '100 ms'";
const PASSED_OVER: &str = "SELECT count(*) FROM trackd.runs WHERE status = 'skipped' AND \
    error LIKE 'standing fault since %: tried at one in % instants'";

#[tokio::test(flavor = "multi_thread")]
async fn a_standing_fault_slows_its_tracker_down_every_instant_has_its_row_and_a_success_heals_it() {
    let database = Server::shared().database().await;
    let home = Home::new(&database, &file_tracker("a", "100ms"));
    home.put("a.json", RUBBISH);
    let mut daemon = home.run();
    let client = database.client().await;
    at_least(&client, PASSED_OVER, 1 + 3 + 7 + 9 + 9).await;
    let failed = "SELECT count(*) FROM trackd.runs WHERE status = 'failed'";
    let tried = count(&client, failed).await;
    assert!((7..=9).contains(&tried), "tried at 1, 2, 3, 5, 9, 17, 27, 37: {tried} times");

    home.put("a.json", BODY);
    at_least(&client, "SELECT count(*) FROM trackd.runs WHERE status = 'succeeded'", 5).await;
    let since =
        "FROM trackd.runs WHERE scheduled_at > (SELECT min(scheduled_at) FROM trackd.runs WHERE status = 'succeeded')";
    assert_eq!(count(&client, &format!("SELECT count(*) {since} AND status <> 'succeeded'")).await, 0, "full pace");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());
    assert_eq!(count(&client, GAPS).await, 0, "lost instants");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_and_a_run_by_hand_bring_the_full_pace_back() {
    let database = Server::shared().database().await;
    let home = Home::new(&database, &file_tracker("a", "100ms"));
    home.put("a.json", RUBBISH);
    let mut daemon = home.run();
    let client = database.client().await;
    at_least(&client, PASSED_OVER, 1 + 3 + 7).await;
    daemon.signal(Signal::HUP);
    daemon.says("configuration reloaded", 1).await;
    // Tried at once and again: two more failures do not slow it down.
    let in_a_row = "SELECT count(*) FROM (SELECT status, lag(status) OVER w AS one, lag(status, 2) OVER w AS two FROM trackd.runs \
        WHERE kind <> 'manual' AND scheduled_at > (SELECT min(scheduled_at) FROM trackd.runs WHERE status = 'skipped') \
        WINDOW w AS (ORDER BY scheduled_at)) AS x WHERE status = 'failed' AND one = 'failed' AND two = 'failed'";
    at_least(&client, in_a_row, 1).await;

    // The file is mended, and found so by hand; the daemon hears of it from the ledger.
    at_least(&client, PASSED_OVER, 1 + 3 + 7 + 20).await;
    home.put("a.json", BODY);
    assert!(home.trackd(&["once", "a"]).status.success());
    at_least(&client, "SELECT count(*) FROM trackd.runs WHERE status = 'succeeded' AND kind <> 'manual'", 3).await;
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());
    assert_eq!(count(&client, GAPS).await, 0, "lost instants");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tracker_without_success_is_stale_in_the_status_until_it_succeeds() {
    let database = Server::shared().database().await;
    let tracker = file_tracker("a", "100ms").replace("every", "fresh_within = \"1s\"\nevery");
    let home = Home::new(&database, &tracker);
    let mut daemon = home.run();
    let client = database.client().await;
    at_least(&client, "SELECT count(*) FROM trackd.runs", 1).await;
    let status = || stdout(&home.trackd(&["status", "--json"]));
    eventually("a stale tracker", PATIENCE, async || status().contains("\"stale\":true")).await;
    assert!(stdout(&home.trackd(&["status"])).contains(", stale\t"));
    daemon.signal(Signal::USR1);
    daemon.says("stale=1", 1).await;
    home.put("a.json", BODY);
    eventually("a fresh tracker", PATIENCE, async || status().contains("\"stale\":false")).await;
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());
}
