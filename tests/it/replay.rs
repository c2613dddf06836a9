//! Payloads that the database refuses: kept, set aside with their runs on record as failed, and brought back.

use crate::support::daemon::{Daemon, Home, PATIENCE, RARELY, file_tracker, stderr, stdout};
use crate::support::postgres::{Database, Server, eventually};
use rustix::process::Signal;
use std::path::PathBuf;
use tokio_postgres::Client;
use trackd::spool::{Bad, Look};

const OTHER: &str = "CREATE TABLE a (k text, v date, taken_at timestamptz, run_id uuid, PRIMARY KEY (k, taken_at))";
const FAILED: &str = "SELECT count(*) FROM trackd.runs WHERE status = 'failed'";
const LANDED: &str = "SELECT count(*) FROM trackd.runs r WHERE status = 'succeeded' \
                      AND rows_written = (SELECT count(*) FROM a WHERE a.run_id = r.run_id)";

async fn count(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.map_or(-1, |row| row.get(0))
}

fn spool(home: &Home) -> PathBuf {
    home.path("state/spool")
}

fn aside(home: &Home) -> i64 {
    Bad::new(&spool(home)).files().map_or(0, |(files, _)| files.len() as i64)
}

fn waiting(home: &Home) -> usize {
    Look::new(&spool(home)).entries().map_or(0, |(entries, _)| entries.len())
}

async fn stop(mut daemon: Daemon) -> String {
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());
    daemon.log()
}

/// A daemon whose table is another's, until three payloads are set aside; stopped then.
async fn three_aside(database: &Database, trackers: &str) -> (Home, String) {
    database.client().await.batch_execute(OTHER).await.unwrap();
    let home = Home::new(database, trackers);
    home.put("a.json", r#"{"rows":[{"k":"a","v":1},{"k":"b","v":2}]}"#);
    let mut daemon = home.run();
    eventually("payloads set aside", PATIENCE, async || aside(&home) >= 3).await;
    home.configure(&trackers.replace("200ms", RARELY));
    daemon.signal(Signal::HUP);
    daemon.says("configuration reloaded", 1).await;
    eventually("none that waits", PATIENCE, async || waiting(&home) == 0).await;
    let log = stop(daemon).await;
    (home, log)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_table_refuses_is_set_aside_told_once_and_brought_back_when_the_table_is_mended() {
    let database = Server::shared().database().await;
    let (home, log) = three_aside(&database, &file_tracker("a", "200ms")).await;
    let client = database.client().await;
    let (failed, aside_then) = (count(&client, FAILED).await, aside(&home));
    // One may have come to wait while the daemon stopped.
    assert!(failed == aside_then && waiting(&home) <= 1, "{failed} {aside_then}");
    assert_eq!(log.matches("run failed tracker=").count() as i64, failed, "{log}");
    let error = "SELECT error FROM trackd.runs WHERE status = 'failed' LIMIT 1";
    let error: String = client.query_one(error, &[]).await.unwrap().get(0);
    assert!(error.contains("column v: expected integer, got date") && error.contains("ALTER TABLE"), "{error}");

    let again = home.trackd(&["spool", "replay", "--json"]);
    assert_eq!(again.status.code(), Some(1), "{again:?}");
    assert!(stderr(&again).contains(&format!("{failed} of {failed} files stay set aside")), "{again:?}");
    assert_eq!(stdout(&again).matches("\"outcome\":\"failed\"").count() as i64, failed);
    assert_eq!((count(&client, FAILED).await, aside(&home)), (failed, failed));

    client.batch_execute("DROP TABLE a").await.unwrap();
    let done = home.trackd(&["spool", "replay", "a"]);
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    let text = stdout(&done);
    let rows: Vec<Vec<&str>> = text.lines().skip(1).map(|line| line.split('\t').collect()).collect();
    assert!(rows.len() as i64 == failed && rows.iter().all(|row| row[2..] == ["landed", "2", ""]), "{text}");
    assert!(rows.is_sorted_by_key(|row| row[1].trim_end_matches('Z')), "oldest first: {text}");
    assert_eq!((count(&client, LANDED).await, count(&client, FAILED).await), (failed, 0));
    assert_eq!(std::fs::read_dir(spool(&home).join("bad/a")).unwrap().count(), 0, "reasons are gone, too");
    assert_eq!(stdout(&home.trackd(&["spool", "replay"])), "nothing is set aside\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_beside_the_daemon_shapes_by_the_plan_of_its_time_or_by_the_current_one() {
    let database = Server::shared().database().await;
    let (home, _) = three_aside(&database, &file_tracker("a", "200ms")).await;
    let client = database.client().await;
    let mended =
        file_tracker("a", RARELY).replace("v = \"integer\"", "v = { type = \"date\", jq = '\"2026-01-0\\(.v)\"' }");
    home.configure(&mended);
    let mut daemon = home.run();
    daemon.says(" ready ", 1).await;
    eventually("none that waits", PATIENCE, async || waiting(&home) == 0).await;
    let there = aside(&home);
    // The daemon does it: who asks needs neither the configuration nor a way to the database.
    let configured = std::fs::read_to_string(home.path("config.toml")).unwrap();
    home.put("config.toml", configured.replace("[log]", "[log"));
    let old = home.trackd(&["spool", "replay"]);
    assert_eq!((old.status.code(), aside(&home)), (Some(1), there), "{old:?}");
    // What is not whole is listed, and left.
    let (files, _) = Bad::new(&spool(&home)).files().unwrap();
    std::fs::write(&files[0].file, "x").unwrap();
    let new = home.trackd(&["spool", "replay", "--current"]);
    assert_eq!((new.status.code(), aside(&home)), (Some(1), 1), "{new:?}");
    assert_eq!(
        (stdout(&new).matches("\tlanded\t2\t").count() as i64, stdout(&new).matches("\tnot whole\t").count()),
        (there - 1, 1)
    );
    let dates = "SELECT count(*) FROM a JOIN trackd.runs USING (run_id) WHERE v = '2026-01-02' AND kind <> 'manual'";
    assert!(count(&client, dates).await >= there - 1);
    assert_eq!(daemon.said("spool: replayed by hand by=\"uid ") as i64, 2 * there, "{}", daemon.log());
    home.put("config.toml", configured);
    stop(daemon).await;
    // The next start removes the plans.
    std::fs::remove_dir_all(spool(&home).join("bad/a")).unwrap();
    let daemon = home.run();
    eventually("plans that nothing needs gone", PATIENCE, async || {
        std::fs::read_dir(spool(&home).join("plans")).unwrap().count() == 0
    })
    .await;
    daemon.catches_hangups().await;
    stop(daemon).await;
}

/// Two trackers, of which one is hurt.
fn a_and_c(database: &Database, statement_timeout: &str) -> Home {
    let mut home = Home::new(database, &(file_tracker("a", "200ms") + &file_tracker("c", "200ms")));
    home.set("TRACKD_DATABASE__STATEMENT_TIMEOUT", statement_timeout);
    for name in ["a.json", "c.json"] {
        home.put(name, r#"{"rows":[{"k":"a","v":1}]}"#);
    }
    home
}

/// A table that takes no row for now; mended by `DROP TRIGGER refuse ON …`.
fn refusing(table: &str) -> String {
    format!("CREATE TRIGGER refuse BEFORE INSERT ON {table} EXECUTE FUNCTION refuse()")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tracker_whose_landing_hangs_holds_up_what_waits_of_no_other() {
    let database = Server::shared().database().await;
    let home = a_and_c(&database, "10m");
    let daemon = home.run();
    let client = database.client().await;
    eventually("rows of both", PATIENCE, async || {
        count(&client, "SELECT least((SELECT count(*) FROM a), (SELECT count(*) FROM c))").await > 0
    })
    .await;
    let refuse = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
                  'BEGIN RAISE EXCEPTION USING ERRCODE = ''55P03'', MESSAGE = ''not now''; END'";
    client.batch_execute(&format!("{refuse}; {}", refusing("a"))).await.unwrap();
    let waits = |tracker: &str| {
        let (entries, _) = Look::new(&spool(&home)).entries().unwrap();
        entries.iter().filter(|listed| listed.tracker == tracker).count()
    };
    eventually("payloads of a that wait", PATIENCE, async || waits("a") > 0).await;
    let locker = database.client().await;
    locker.batch_execute("BEGIN; LOCK TABLE a IN ACCESS EXCLUSIVE MODE; DROP TRIGGER refuse ON a").await.unwrap();
    let hangs = "SELECT count(*) FROM pg_locks WHERE relation = 'a'::regclass AND NOT granted";
    eventually("a landing that hangs", PATIENCE, async || count(&client, hangs).await > 0).await;
    client.batch_execute(&refusing("c")).await.unwrap();
    eventually("payloads of c that wait", PATIENCE, async || waits("c") > 0).await;
    client.batch_execute("DROP TRIGGER refuse ON c").await.unwrap();
    eventually("those of c landed", PATIENCE, async || waits("c") == 0).await;
    assert!(count(&client, hangs).await > 0 && waits("a") > 0, "a hangs still");
    locker.batch_execute("COMMIT").await.unwrap();
    eventually("those of a landed", PATIENCE, async || waits("a") == 0).await;
    stop(daemon).await;
    let failed = "SELECT count(*) FROM trackd.runs WHERE status NOT IN ('succeeded', 'running')";
    assert_eq!((count(&client, failed).await, aside(&home)), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_locked_at_a_start_holds_up_its_own_tracker_alone() {
    let database = Server::shared().database().await;
    let home = a_and_c(&database, "1s");
    let mut daemon = home.run();
    daemon.says(" ready ", 1).await;
    stop(daemon).await;
    let locker = database.client().await;
    locker.batch_execute("BEGIN; LOCK TABLE a IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let client = database.client().await;
    let before = count(&client, "SELECT count(*) FROM c").await;
    let daemon = home.run();
    eventually("rows of the other", PATIENCE, async || count(&client, "SELECT count(*) FROM c").await > before + 3)
        .await;
    assert_eq!(
        daemon.said("tables were not looked at: their runs do error=statement: canceling"),
        1,
        "{}",
        daemon.log()
    );
    locker.batch_execute("COMMIT").await.unwrap();
    eventually("none that waits", PATIENCE, async || waiting(&home) == 0).await;
    stop(daemon).await;
    assert_eq!((count(&client, FAILED).await, aside(&home)), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_refuses_while_its_database_is_there_is_told_as_a_degraded_state() {
    let database = Server::shared().database().await;
    let home = Home::new(&database, &file_tracker("a", "200ms"));
    home.put("a.json", r#"{"rows":[{"k":"a","v":1}]}"#);
    let mut daemon = home.run();
    daemon.says(" ready ", 1).await;
    let client = database.client().await;
    client.batch_execute("ALTER TABLE trackd.instances RENAME TO elsewhere").await.unwrap();
    daemon.says("event=degraded", 1).await;
    assert!(daemon.log().contains(r#"relation \"trackd.instances\" does not exist"#), "{}", daemon.log());
    eventually("payloads that wait", PATIENCE, async || waiting(&home) > 0).await;
    client.batch_execute("ALTER TABLE trackd.elsewhere RENAME TO instances").await.unwrap();
    daemon.says("event=recovered", 1).await;
    eventually("none that waits", PATIENCE, async || waiting(&home) == 0).await;
    stop(daemon).await;
    assert_eq!((count(&client, FAILED).await, aside(&home)), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_database_refuses_for_now_waits_and_lands() {
    let database = Server::shared().database().await;
    let home = Home::new(&database, &file_tracker("a", "200ms"));
    home.put("a.json", r#"{"rows":[{"k":"a","v":1}]}"#);
    let mut daemon = home.run();
    let client = database.client().await;
    eventually("runs that land", PATIENCE, async || count(&client, LANDED).await >= 2).await;
    client
        .batch_execute(
            "CREATE FUNCTION busy() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN RAISE EXCEPTION 'deadlock' USING ERRCODE = '40P01'; END $$; \
             CREATE TRIGGER busy BEFORE INSERT ON a FOR EACH ROW EXECUTE FUNCTION busy()",
        )
        .await
        .unwrap();
    eventually("payloads that wait", PATIENCE, async || waiting(&home) >= 3).await;
    daemon.says("a payload does not land now", 1).await;
    client.batch_execute("DROP TRIGGER busy ON a").await.unwrap();
    eventually("none that waits", PATIENCE, async || waiting(&home) == 0).await;
    let log = stop(daemon).await;
    assert_eq!((count(&client, FAILED).await, aside(&home)), (0, 0), "{log}");
    assert_eq!(log.matches("a payload does not land now").count(), 1, "{log}");
    let open = "SELECT count(*) FROM trackd.runs WHERE status = 'running'";
    assert_eq!(count(&client, open).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_refused_for_long_leaves_half_the_spool_and_a_reload_gives_it_more() {
    let database = Server::shared().database().await;
    database.client().await.batch_execute(OTHER).await.unwrap();
    let home = Home::new(&database, &file_tracker("a", "200ms"));
    home.put("a.json", r#"{"rows":[{"k":"a","v":1}]}"#);
    let configure = |spool_max: &str| {
        let text = std::fs::read_to_string(home.path("config.toml")).unwrap();
        let text: Vec<&str> = text.lines().filter(|line| !line.starts_with("spool_max")).collect();
        home.put("config.toml", text.join("\n").replace("[daemon]", &format!("[daemon]\nspool_max = \"{spool_max}\"")));
    };
    configure("192KiB");
    let mut daemon = home.run();
    let client = database.client().await;
    // A plan, and files of two blocks each, with its reason; some more come while those before them wait.
    eventually("runs that fail at once", PATIENCE, async || count(&client, FAILED).await >= aside(&home) + 6).await;
    let kept = aside(&home);
    assert!((12..=18).contains(&kept), "{kept} of 23 that there is room for");
    eventually("more of them", PATIENCE, async || count(&client, FAILED).await >= kept + 12).await;
    assert_eq!((aside(&home), waiting(&home)), (kept, 0), "{}", daemon.log());
    configure("1MiB");
    daemon.signal(Signal::HUP);
    daemon.says("configuration reloaded", 1).await;
    eventually("further files", PATIENCE, async || aside(&home) >= kept + 3).await;
    stop(daemon).await;
}
