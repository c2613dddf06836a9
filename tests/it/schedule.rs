//! Behaviour of schedules from end to end: which instants run, which do not, and that each has its one ledger row.

use crate::support::daemon::{Home, PATIENCE, file_tracker};
use crate::support::faulty::{Answer, Faulty};
use crate::support::postgres::{Database, Server, eventually};
use rustix::process::Signal;
use tokio_postgres::Client;

const BODY: &str = r#"{"rows":[{"k":"a","v":1}]}"#;

async fn number(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// Waits until a count is so high; the table may still be to come.
async fn at_least(client: &Client, sql: &str, expected: i64) {
    let counted = async || client.query_one(sql, &[]).await.map_or(-1, |row| row.get::<_, i64>(0));
    eventually(&format!("{expected} by {sql}"), PATIENCE, async || counted().await >= expected).await;
}

/// Instants of a tracker that have no row between its first and its last one.
async fn holes(client: &Client, tracker: &str, every: &str) -> i64 {
    let sql = format!(
        "SELECT count(*) FROM (SELECT scheduled_at - lag(scheduled_at) OVER (ORDER BY scheduled_at) AS d FROM trackd.runs \
         WHERE tracker = '{tracker}') AS x WHERE d <> interval '{every}'"
    );
    number(client, &sql).await
}

fn with(tracker: String, keys: &str) -> String {
    tracker.replacen("file = ", &format!("{keys}\nfile = "), 1)
}

/// A ledger whose trackers ran last at `ago` before the latest multiple of `every`.
async fn last_ran(home: &Home, database: &Database, trackers: &[&str], every: &str, ago: &str) -> Client {
    assert!(home.trackd(&["migrate"]).status.success());
    let client = database.client().await;
    for tracker in trackers {
        let sql = format!(
            "INSERT INTO trackd.runs (run_id, tracker, scheduled_at, kind, status, attempt, instance, started_at, finished_at) \
             SELECT gen_random_uuid(), '{tracker}', date_bin('{every}', now(), 'epoch') - interval '{ago}', 'scheduled', \
             'succeeded', 1, 'before:1', now(), now()"
        );
        client.batch_execute(&sql).await.unwrap();
    }
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn cron_and_every_fire_at_their_instants_and_jitter_only_delays_them() {
    let database = Server::shared().database().await;
    let cron = with(
        file_tracker("cron", "1s").replace("every = \"1s\"", "schedule = \"* * * * * *\""),
        "timezone = \"Asia/Tehran\"",
    );
    // The delay is a function of the name and the longest one.
    let late = with(file_tracker("late", "1s"), "jitter = \"900ms\"");
    let home = Home::new(&database, &(cron + &late));
    home.put("cron.json", BODY);
    home.put("late.json", BODY);
    let mut daemon = home.run();
    let client = database.client().await;
    for tracker in ["cron", "late"] {
        at_least(&client, &format!("SELECT count(*) FROM {tracker}"), 3).await;
    }
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());
    let unaligned = "SELECT count(*) FROM trackd.runs WHERE scheduled_at <> date_trunc('second', scheduled_at)";
    assert_eq!(number(&client, unaligned).await, 0);
    let jitter = trackd::schedule::jitter::jitter("late", std::time::Duration::from_millis(900));
    let early = format!(
        "SELECT coalesce(string_agg(format('%s %s %s %s %s', tracker, scheduled_at, started_at, kind, status), '; '), '') FROM trackd.runs WHERE started_at < scheduled_at + interval '{} ms' * (tracker = 'late')::int",
        jitter.as_millis()
    );
    let early: String = client.query_one(&early, &[]).await.unwrap().get(0);
    assert_eq!(early, "", "begun before their time, which is {jitter:?} late");
    assert_eq!(holes(&client, "cron", "1 s").await + holes(&client, "late", "1 s").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_missed_is_run_and_recorded_by_the_policy() {
    let database = Server::shared().database().await;
    let policies = [
        ("skips", "\"skip\"", 0),
        ("once", "\"once\"", 1),
        ("all", "\"all\"\nmissed_limit = 3", 3),
        ("old", "\"all\"\nmissed_max_age = \"0s\"", 0),
    ];
    let trackers: String = policies
        .iter()
        .map(|(name, policy, _)| with(file_tracker(name, "1h"), &format!("missed = {policy}")))
        .collect();
    let home = Home::new(&database, &trackers);
    let client = last_ran(&home, &database, &policies.map(|(name, ..)| name), "1 hour", "6 hours").await;
    for (name, ..) in policies {
        home.put(&format!("{name}.json"), BODY);
    }
    let mut daemon = home.run();
    for (name, _, runs) in policies {
        let caught_up = format!(
            "SELECT count(*) FROM trackd.runs WHERE tracker = '{name}' AND kind = 'catch_up' AND status = 'succeeded'"
        );
        at_least(&client, &caught_up, runs).await;
        at_least(&client, &format!("SELECT count(*) FROM trackd.runs WHERE tracker = '{name}'"), 7).await;
        assert_eq!(number(&client, &caught_up).await, runs, "{name}");
        let older = format!(
            "SELECT count(*) FROM trackd.runs r JOIN trackd.runs m USING (tracker) WHERE tracker = '{name}' AND r.kind = 'catch_up' \
             AND r.status = 'succeeded' AND m.status = 'missed' AND m.scheduled_at > r.scheduled_at"
        );
        assert_eq!(number(&client, &older).await, 0, "{name}: the newest are run");
        assert_eq!(holes(&client, name, "1 hour").await, 0, "{name}");
    }
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_night_of_missed_instants_has_a_row_each_before_anything_runs() {
    let database = Server::shared().database().await;
    let names: Vec<String> = (0..7).map(|i| format!("t{i}")).collect();
    let trackers: String = names.iter().map(|name| file_tracker(name, "1s")).collect();
    let home = Home::new(&database, &trackers);
    let client =
        last_ran(&home, &database, &names.iter().map(String::as_str).collect::<Vec<_>>(), "1 s", "150 min").await;
    names.iter().for_each(|name| home.put(&format!("{name}.json"), BODY));
    let mut daemon = home.run();
    daemon.says(" ready ", 1).await;
    let missed = number(&client, "SELECT count(*) FROM trackd.runs WHERE status = 'missed'").await;
    assert!(missed >= 7 * 8_990, "{missed}");
    daemon.says("run succeeded", 7).await;
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());
    for name in &names {
        assert_eq!(holes(&client, name, "1 s").await, 0, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_a_kill_cut_off_gets_its_row_although_later_instants_have_theirs() {
    let database = Server::shared().database().await;
    let slow = Faulty::start([Answer::ok(BODY), Answer::Silence]).await;
    let tracker = |url: &str| {
        with(file_tracker("a", "200ms"), "overlap = \"skip\"")
            .replace("file = { path = \"a.json\" }", &format!("http = {{ url = \"{url}\" }}"))
    };
    let home = Home::new(&database, &tracker(&slow.url("/a")));
    let daemon = home.run();
    let client = database.client().await;
    at_least(&client, "SELECT count(*) FROM trackd.runs WHERE status = 'skipped'", 3).await;
    daemon.kill();
    let good = Faulty::start([Answer::ok(BODY)]).await;
    home.configure(&tracker(&good.url("/a")));
    let mut daemon = home.run();
    daemon.says("run succeeded", 3).await;
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());
    assert_eq!(holes(&client, "a", "200 ms").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_instant_that_waits_for_its_jitter_is_recorded_when_its_tracker_is_removed() {
    let database = Server::shared().database().await;
    let kept = file_tracker("kept", "200ms");
    let home = Home::new(&database, &(kept.clone() + &with(file_tracker("gone", "100ms"), "jitter = \"1d\"")));
    home.put("kept.json", BODY);
    let mut daemon = home.run();
    // The first may be caught up: an opening takes longer than an instant where the machine is busy.
    daemon.says("run succeeded", 4).await;
    home.configure(&kept);
    daemon.signal(Signal::HUP);
    let client = database.client().await;
    let row =
        "SELECT count(*) FROM trackd.runs WHERE tracker = 'gone' AND status = 'skipped' AND error LIKE '%removed%'";
    // At least in the time of two runs of the other one.
    at_least(&client, row, 2).await;
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());
    assert_eq!(holes(&client, "gone", "100 ms").await, 0);
}
