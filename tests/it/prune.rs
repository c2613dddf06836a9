//! Behaviour of `trackd prune` and `trackd analyze`: what goes, what stays whatever its age, and what is never touched.

use crate::support::daemon::{Home, PATIENCE, RARELY, file_tracker, stdout};
use crate::support::postgres::{Database, Server, eventually};
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;
use tokio_postgres::Client;
use trackd::store::prune::{Pruned, prune};
use trackd::store::{Pool, PoolOptions, ledger, migrate};

const DAY: Duration = Duration::from_secs(86_400);
const KEEP: Duration = Duration::from_secs(90 * 86_400);

async fn with_ledger() -> (Database, Client, Pool) {
    let database = Server::shared().database().await;
    let mut client = database.client().await;
    migrate::migrate(&mut client).await.unwrap();
    let pool = Pool::new(PoolOptions::new(&database.url()).unwrap());
    (database, client, pool)
}

/// Runs of one tracker, a day apart, the last one `last` days ago: `s`ucceeded, `f`ailed, `m`issed, s`k`ipped,
/// `r`unning, and successes by `h`and.
async fn runs(client: &Client, tracker: &str, kinds: &str, last: i32) {
    for (i, kind) in kinds.chars().enumerate() {
        let status = match kind {
            's' | 'h' => "succeeded",
            'f' => "failed",
            'm' => "missed",
            'k' => "skipped",
            'r' => "running",
            other => panic!("{other}"),
        };
        let (kind, ended) = (if kind == 'h' { "manual" } else { "scheduled" }, kind != 'r');
        let age = last + (kinds.len() - 1 - i) as i32;
        let sql = "INSERT INTO trackd.runs (run_id, tracker, scheduled_at, kind, status, attempt, instance, started_at, finished_at) \
                   SELECT gen_random_uuid(), $1, at, $2, $3, 1, 'test:1', at, CASE WHEN $4 THEN at END \
                   FROM (SELECT now() + interval '1 hour' - $5 * interval '1 day' AS at) AS t";
        client.execute(sql, &[&tracker, &kind, &status, &ended, &f64::from(age)]).await.unwrap();
    }
}

/// The runs of a tracker that are left, as `runs` takes them.
async fn left(client: &Client, tracker: &str) -> String {
    let sql = "SELECT CASE WHEN kind = 'manual' THEN 'h' WHEN status = 'skipped' THEN 'k' ELSE left(status, 1) END \
               FROM trackd.runs WHERE tracker = $1 ORDER BY scheduled_at";
    client.query(sql, &[&tracker]).await.unwrap().iter().map(|row| row.get::<_, String>(0)).collect()
}

#[tokio::test]
async fn old_runs_go_with_their_rejects_in_batches_and_data_stays() {
    let (_database, client, pool) = with_ledger().await;
    client
        .batch_execute(
            "CREATE TABLE a AS SELECT gen_random_uuid() AS run_id, i FROM generate_series(1, 5000) i; \
             INSERT INTO trackd.runs (run_id, tracker, scheduled_at, kind, status, attempt, instance, started_at, finished_at) \
             SELECT run_id, 'a', now() - interval '100 days' - i * interval '1 s', 'scheduled', 'succeeded', 1, 'test:1', now(), \
                    now() - interval '100 days' FROM a; \
             INSERT INTO trackd.rejects (run_id, \"table\", \"row\", reason) SELECT run_id, 'a', '{}', 'x' FROM a WHERE i % 2 = 0",
        )
        .await
        .unwrap();
    runs(&client, "a", "ss", 0).await;
    let now = Timestamp::now();
    assert_eq!(prune(&pool, KEEP, now, 2).await.unwrap(), Pruned { runs: 4000, rejects: 2000, more: true });
    assert_eq!(prune(&pool, KEEP, now, 9).await.unwrap(), Pruned { runs: 1000, rejects: 500, more: false });
    assert_eq!(prune(&pool, KEEP, now, 9).await.unwrap(), Pruned::default());
    assert_eq!(left(&client, "a").await, "ss");
    let counts = "SELECT (SELECT count(*) FROM a), (SELECT count(*) FROM trackd.rejects)";
    let row = client.query_one(counts, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (5000, 0));
}

#[tokio::test]
async fn what_catching_up_and_the_status_go_by_is_never_pruned() {
    let (_database, client, pool) = with_ledger().await;
    let cases = [
        ("nothing is old", "ssmkf", 0, "ssmkf"),
        ("the last run and what follows it", "sssmkm", 100, "smkm"),
        ("the last success", "sssfff", 100, "sf"),
        ("a run by hand is no instant", "ssmmh", 100, "smmh"),
        ("of one that never ran, the newest", "mmmm", 100, "m"),
        ("of one run by hand only, the newest", "hhh", 100, "h"),
        ("one that says it is running", "srsss", 100, "rs"),
        ("a month of success, then nothing", "ssssssssss", 91, "s"),
        ("some are old", "sssss", 88, "sss"),
    ];
    for (tracker, kinds, last, _) in cases {
        runs(&client, tracker, kinds, last).await;
    }
    let trackers: Vec<String> = cases.iter().map(|case| case.0.to_owned()).collect();
    let followed: Vec<_> = trackers.iter().map(|tracker| (tracker.clone(), None)).collect();
    let mut known = Vec::new();
    for times in 0..2 {
        let instants = ledger::instants(&pool, 0, &followed, None, 100).await.unwrap();
        let instants = instants.into_iter().filter(|i| !i.tracker.contains("never ran"));
        let latest = ledger::latest(&pool, &trackers).await.unwrap();
        known.push((
            instants.map(|i| (i.tracker, i.whole_until, i.later)).collect::<Vec<_>>(),
            latest.iter().map(|(run, success)| (run.run_id, *success)).collect::<Vec<_>>(),
        ));
        if times == 0 {
            assert!(prune(&pool, KEEP, Timestamp::now(), 9).await.unwrap().runs > 0);
        }
    }
    assert_eq!(known[0], known[1]);
    for (tracker, _, _, expected) in cases {
        assert_eq!(left(&client, tracker).await, expected, "{tracker}");
    }
}

#[tokio::test]
async fn a_clock_that_runs_ahead_makes_nothing_old() {
    let (_database, client, pool) = with_ledger().await;
    runs(&client, "a", "sssss", 0).await;
    let ahead = Timestamp::now() + SignedDuration::from_hours(24 * 3650);
    assert_eq!(prune(&pool, KEEP, ahead, 9).await.unwrap(), Pruned::default());
    let behind = Timestamp::now() - SignedDuration::from_hours(24 * 3650);
    assert_eq!(prune(&pool, DAY, behind, 9).await.unwrap(), Pruned::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_prune_at_once_remove_each_row_once() {
    let (_database, client, pool) = with_ledger().await;
    client
        .batch_execute(
            "INSERT INTO trackd.runs (run_id, tracker, scheduled_at, kind, status, attempt, instance, started_at, finished_at) \
             SELECT gen_random_uuid(), 't' || i % 7, now() - interval '100 days' - i * interval '1 s', 'scheduled', 'succeeded', 1, \
                    'test:1', now(), now() - interval '100 days' FROM generate_series(1, 9007) i",
        )
        .await
        .unwrap();
    let now = Timestamp::now();
    let (one, other) = tokio::join!(prune(&pool, KEEP, now, 99), prune(&pool, KEEP, now, 99));
    assert_eq!(one.unwrap().runs + other.unwrap().runs, 9000);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_follows_keep_runs_and_says_what_it_did() {
    let (database, client, _pool) = with_ledger().await;
    runs(&client, "a", "sssss", 40).await;
    let home = Home::new(&database, &file_tracker("a", RARELY));
    let said = |args: &[&str]| {
        let output = home.trackd(args);
        assert!(output.status.success(), "{output:?}");
        stdout(&output)
    };
    assert_eq!(said(&["prune"]), "removed 0 runs older than 90d, with 0 rows they had set aside\n");
    assert!(said(&["prune", "--older-than", "42d"]).starts_with("removed 2 runs older than 42d, "));
    assert_eq!(left(&client, "a").await, "sss");
    let mut forever = Home::new(&database, "");
    forever.set("TRACKD_DAEMON__KEEP_RUNS", "forever");
    let output = forever.trackd(&["prune"]);
    assert!(output.status.success() && stdout(&output).contains("nothing is removed"), "{output:?}");
    assert_eq!(left(&client, "a").await, "sss");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_keeps_house_from_its_start_on() {
    let (database, client, _pool) = with_ledger().await;
    runs(&client, "gone from the configuration", "sssss", 100).await;
    runs(&client, "a", "sssss", 88).await;
    let home = Home::new(&database, &file_tracker("a", "24h").replace("every", "missed = \"skip\"\nevery"));
    let mut daemon = home.run();
    daemon.says("housekeeping", 1).await;
    assert!(daemon.said("runs_removed=6") == 1, "{}", daemon.log());
    assert_eq!(left(&client, "gone from the configuration").await, "s");
    assert!(left(&client, "a").await.starts_with("sssm"), "what was missed is on record, the old is gone");
    daemon.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_changed_are_analyzed_once() {
    let database = Server::shared().database().await;
    let home = Home::new(&database, &(file_tracker("a", RARELY) + &file_tracker("b", RARELY)));
    home.put("a.json", r#"{"rows":[{"k":"a","v":1}]}"#);
    assert!(home.trackd(&["once", "a"]).status.success());
    // The server counts changes a moment after they were made.
    eventually("changes that are counted", PATIENCE, async || {
        stdout(&home.trackd(&["analyze"])).contains("analyzed a, trackd.runs\n")
    })
    .await;
    assert_eq!(stdout(&home.trackd(&["analyze"])), "no table has changed since it was last analyzed\n");
    let statistics = "SELECT count(*) FROM pg_stats WHERE schemaname = 'public' AND tablename = 'a'";
    assert!(database.client().await.query_one(statistics, &[]).await.unwrap().get::<_, i64>(0) > 0);
}
