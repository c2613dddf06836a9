//! Behaviour of `trackd run`, as a process: schedule, reload, stop, kill.

use crate::support::daemon::{Home, PATIENCE, RARELY, file_tracker, stderr};
use crate::support::postgres::{Server, at_least, connect, count, eventually, put};
use rustix::process::Signal;
use tokio_postgres::Client;

const BODY: &str = r#"{"rows":[{"k":"a","v":1},{"k":"b","v":2}]}"#;

/// Runs that say "succeeded" and rows that are there must agree, run by run.
async fn audit(client: &Client, table: &str) {
    let halves = format!(
        "SELECT count(*) FROM (SELECT r.run_id, r.rows_written, count(t.run_id) AS rows FROM trackd.runs r \
         LEFT JOIN {table} t ON t.run_id = r.run_id WHERE r.tracker = '{table}' GROUP BY 1, 2) AS x \
         WHERE rows_written <> rows"
    );
    assert_eq!(count(client, &halves).await, 0, "half runs");
    let orphans = format!(
        "SELECT count(*) FROM {table} t WHERE NOT EXISTS (SELECT 1 FROM trackd.runs r WHERE r.run_id = t.run_id AND r.status = 'succeeded')"
    );
    assert_eq!(count(client, &orphans).await, 0, "rows without a run");
}

#[tokio::test(flavor = "multi_thread")]
async fn instants_become_rows_and_a_stop_drains() {
    let database = Server::shared().database().await;
    let home = Home::new(&database, &file_tracker("a", "200ms"));
    home.put("a.json", BODY);
    let mut daemon = home.run();
    let client = database.client().await;
    at_least(&client, "SELECT count(*) FROM a", 10).await;
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());
    audit(&client, "a").await;
    let gaps = "SELECT count(*) FROM (SELECT scheduled_at - lag(scheduled_at) OVER (ORDER BY scheduled_at) AS d FROM trackd.runs) AS x WHERE d <> interval '200 ms'";
    assert_eq!(count(&client, gaps).await, 0, "lost instants");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_adds_changes_and_removes_and_a_bad_one_changes_nothing() {
    let database = Server::shared().database().await;
    let home = Home::new(&database, &(file_tracker("kept", "200ms") + &file_tracker("gone", "200ms")));
    for name in ["kept", "gone", "new"] {
        home.put(&format!("{name}.json"), BODY);
    }
    let mut daemon = home.run();
    let client = database.client().await;
    at_least(&client, "SELECT count(*) FROM gone", 2).await;

    home.configure(&(file_tracker("kept", "200ms") + "[[tracker]]\nname = \"broken\"\nschedule = \"61 * * * *\"\n"));
    daemon.signal(Signal::HUP);
    daemon.says("reload refused", 1).await;
    assert!(daemon.said("config.toml:") >= 1, "the fault has its place: {}", daemon.log());
    let before = count(&client, "SELECT count(*) FROM trackd.runs WHERE tracker = 'gone'").await;
    at_least(&client, "SELECT count(*) FROM trackd.runs WHERE tracker = 'gone'", before + 2).await;

    home.configure(&(file_tracker("kept", "200ms") + &file_tracker("new", "200ms")));
    daemon.signal(Signal::HUP);
    daemon.says("configuration reloaded", 1).await;
    at_least(&client, "SELECT count(*) FROM new", 4).await;
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0));
    let late = "SELECT count(*) FROM trackd.runs WHERE tracker = 'gone' AND scheduled_at > \
                (SELECT min(scheduled_at) + interval '400 ms' FROM trackd.runs WHERE tracker = 'new')";
    assert_eq!(count(&client, late).await, 0, "a removed tracker ends");
    let gaps = "SELECT count(*) FROM (SELECT scheduled_at - lag(scheduled_at) OVER (ORDER BY scheduled_at) AS d \
                FROM trackd.runs WHERE tracker = 'kept') AS x WHERE d <> interval '200 ms'";
    assert_eq!(count(&client, gaps).await, 0, "an unchanged tracker loses no instant");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_moves_to_another_database_and_refuses_one_that_is_not_there() {
    let (first, second) = (Server::shared().database().await, Server::shared().database().await);
    let home = Home::new(&first, &file_tracker("a", "200ms"));
    home.put("a.json", BODY);
    let mut daemon = home.run();
    at_least(&first.client().await, "SELECT count(*) FROM a", 2).await;
    let configured = std::fs::read_to_string(home.path("config.toml")).unwrap();
    home.put("config.toml", configured.replace("[daemon]", "pool_size = 2\n[daemon]"));
    daemon.signal(Signal::HUP);
    daemon.says("connections anew for database.pool_size", 1).await;
    let elsewhere = configured.replace(&first.url(), "postgres://nobody@%2Fnonexistent/d");
    home.put("config.toml", elsewhere);
    daemon.signal(Signal::HUP);
    daemon.says("reload refused", 1).await;
    assert!(daemon.log().contains("/nonexistent"), "{}", daemon.log());
    home.put("config.toml", configured.replace(&first.url(), &second.url()));
    daemon.signal(Signal::HUP);
    daemon.says("connections anew for database.url", 1).await;
    let client = second.client().await;
    at_least(&client, "SELECT count(*) FROM trackd.runs WHERE status = 'succeeded'", 5).await;
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());
    audit(&client, "a").await;
    let gaps = "SELECT count(*) FROM (SELECT scheduled_at - lag(scheduled_at) OVER (ORDER BY scheduled_at) AS d FROM trackd.runs) AS x WHERE d <> interval '200 ms'";
    assert_eq!(count(&client, gaps).await, 0, "lost instants");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_hangups_do_no_harm_also_in_the_first_moments() {
    let database = Server::shared().database().await;
    let home = Home::new(&database, &file_tracker("a", "200ms"));
    home.put("a.json", BODY);
    let mut daemon = home.run();
    daemon.catches_hangups().await;
    for _ in 0..200 {
        daemon.signal(Signal::HUP);
    }
    let client = database.client().await;
    at_least(&client, "SELECT count(*) FROM a", 4).await;
    for _ in 0..200 {
        daemon.signal(Signal::HUP);
    }
    daemon.says("configuration reloaded", 1).await;
    let before = count(&client, "SELECT count(*) FROM a").await;
    at_least(&client, "SELECT count(*) FROM a", before + 4).await;
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_moments_no_run_is_half_or_double_and_every_tracker_goes_on() {
    // TRACKD_TEST_KILLS=200 for the long form.
    let kills: u64 = std::env::var("TRACKD_TEST_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(20);
    let database = Server::shared().database().await;
    let trackers: String = (0..8).map(|i| file_tracker(&format!("t{i}"), "100ms")).collect();
    let home = Home::new(&database, &trackers);
    for i in 0..8 {
        home.put(&format!("t{i}.json"), BODY);
    }
    let client = database.client().await;
    for kill in 0..kills {
        let daemon = home.run();
        let before = count(&client, "SELECT count(*) FROM trackd.runs").await.max(0);
        // Random for our purpose: how many runs had landed when it is killed.
        at_least(&client, "SELECT count(*) FROM trackd.runs", before + 1 + (kill * 7919 % 23) as i64).await;
        daemon.kill();
    }
    let mut daemon = home.run();
    // Runs of the one before are recent, too.
    daemon.says(" ready ", 1).await;
    // What waits for a worker when this one stops has its row from the next start on.
    let settled: String = client.query_one("SELECT clock_timestamp()::text", &[]).await.unwrap().get(0);
    for i in 0..8 {
        let sql = format!(
            "SELECT count(*) FROM trackd.runs WHERE tracker = 't{i}' AND kind = 'scheduled' AND started_at > now() - interval '1 second'"
        );
        at_least(&client, &sql, 1).await;
    }
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());
    for i in 0..8 {
        audit(&client, &format!("t{i}")).await;
        let holes = format!(
            "SELECT count(*) FROM (SELECT scheduled_at - lag(scheduled_at) OVER (ORDER BY scheduled_at) AS d FROM trackd.runs \
             WHERE tracker = 't{i}' AND scheduled_at < '{settled}') AS x WHERE d <> interval '100 ms'"
        );
        assert_eq!(count(&client, &holes).await, 0, "instants of t{i} without a row");
    }
    assert_eq!(count(&client, "SELECT count(*) FROM trackd.runs WHERE status = 'failed'").await, 0);
    assert_eq!(
        count(
            &client,
            "SELECT count(*) FROM (SELECT 1 FROM trackd.runs GROUP BY tracker, scheduled_at HAVING count(*) > 1) AS x"
        )
        .await,
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instant_whose_failure_could_not_be_recorded_before_a_kill_has_its_row_after_the_restart() {
    let database = Server::shared().database().await;
    let home = Home::new(&database, &file_tracker("a", "200ms"));
    home.put("a.json", BODY);
    let mut daemon = home.run();
    let client = database.client().await;
    at_least(&client, "SELECT count(*) FROM a", 4).await;
    // Runs land, their failures do not: as with a database that was away for the one and back for the other.
    let refuse = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
                  'BEGIN RAISE EXCEPTION USING ERRCODE = ''53100'', MESSAGE = ''full''; END'; \
                  CREATE TRIGGER refuse BEFORE INSERT ON trackd.runs FOR EACH ROW WHEN (NEW.status = 'failed') \
                  EXECUTE FUNCTION refuse()";
    client.batch_execute(refuse).await.unwrap();
    home.put("a.json", "rubbish");
    daemon.says("outcomes wait for the database", 1).await;
    let before = count(&client, "SELECT count(*) FROM a").await;
    home.put("a.json", BODY);
    at_least(&client, "SELECT count(*) FROM a", before + 4).await;
    daemon.kill();
    client.batch_execute("DROP TRIGGER refuse ON trackd.runs").await.unwrap();
    let before = count(&client, "SELECT count(*) FROM a").await;
    let mut daemon = home.run();
    at_least(&client, "SELECT count(*) FROM a", before + 4).await;
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());
    let gaps = "SELECT count(*) FROM (SELECT scheduled_at - lag(scheduled_at) OVER (ORDER BY scheduled_at) AS d FROM trackd.runs) AS x WHERE d <> interval '200 ms'";
    assert_eq!(count(&client, gaps).await, 0, "instants without a row");
}

/// Every second time its database is killed with it.
#[tokio::test(flavor = "multi_thread")]
async fn killed_with_its_embedded_database_everything_recovers() {
    // TRACKD_TEST_KILLS=200 for the long form.
    let kills: u64 = std::env::var("TRACKD_TEST_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(6);
    let trackers: String = (0..4).map(|i| file_tracker(&format!("t{i}"), "100ms")).collect();
    let home = Home::with("embedded", &trackers);
    for i in 0..4 {
        home.put(&format!("t{i}.json"), BODY);
    }
    let state = home.path("state");
    for kill in 0..kills {
        let mut daemon = home.run();
        daemon.says("run succeeded", 1 + (kill * 7919 % 17) as usize).await;
        daemon.kill();
        if kill % 2 == 0 {
            let pid = std::fs::read_to_string(state.join("postgres/data/postmaster.pid")).unwrap();
            let pid = rustix::process::Pid::from_raw(pid.lines().next().unwrap().parse().unwrap()).unwrap();
            rustix::process::kill_process(pid, Signal::KILL).unwrap();
        }
    }
    let mut daemon = home.run();
    daemon.says("run succeeded", 20).await;
    let client = connect(&trackd::store::embedded::Cluster::address(&state).unwrap()).await;
    for i in 0..4 {
        audit(&client, &format!("t{i}")).await;
        let sql = format!(
            "SELECT count(*) FROM trackd.runs WHERE tracker = 't{i}' AND kind = 'scheduled' AND started_at > now() - interval '1 second'"
        );
        at_least(&client, &sql, 1).await;
    }
    assert_eq!(
        count(
            &client,
            "SELECT count(*) FROM (SELECT 1 FROM trackd.runs GROUP BY tracker, scheduled_at HAVING count(*) > 1) AS x"
        )
        .await,
        0
    );
    drop(client);
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_database_outlives_a_killed_trackd_and_stops_with_a_stopped_one() {
    let home = Home::with("embedded", &file_tracker("a", "200ms"));
    home.put("a.json", BODY);
    let mut daemon = home.run();
    daemon.says("run succeeded", 3).await;
    daemon.kill();
    let mut daemon = home.run();
    daemon.says("run succeeded", 3).await;
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());
    assert!(!home.path("state/postgres/data/postmaster.pid").exists(), "the server was stopped");
    let psql = home.trackd(&["psql", "--", "-Atc", "SELECT count(*) > 5 FROM a"]);
    assert_eq!(String::from_utf8_lossy(&psql.stdout).trim(), "t", "{psql:?}");
    assert!(!home.path("state/postgres/data/postmaster.pid").exists(), "and again after the command");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_comes_late_is_waited_for() {
    let server = Server::own();
    let database = server.database().await;
    let home = Home::new(&database, &file_tracker("a", "200ms"));
    home.put("a.json", BODY);
    server.stop();
    let mut daemon = home.run();
    daemon.says("database is away", 1).await;
    server.start();
    daemon.says("run succeeded", 3).await;
    server.kill();
    server.start();
    let before = daemon.said("run succeeded");
    daemon.says("run succeeded", before + 3).await;
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());
    audit(&database.client().await, "a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_embedded_database_that_dies_is_started_again() {
    let home = Home::with("embedded", &file_tracker("a", "200ms"));
    home.put("a.json", BODY);
    let mut daemon = home.run();
    daemon.says("run succeeded", 2).await;
    let pid = std::fs::read_to_string(home.path("state/postgres/data/postmaster.pid")).unwrap();
    let pid = rustix::process::Pid::from_raw(pid.lines().next().unwrap().parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    daemon.says("embedded PostgreSQL runs again", 1).await;
    let before = daemon.said("run succeeded");
    daemon.says("run succeeded", before + 2).await;
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_directory_that_cannot_be_is_a_fault_of_the_configuration_with_what_it_takes() {
    let mut home = Home::with("postgres://nobody@%2Fnonexistent/d", &file_tracker("a", RARELY));
    home.put("taken", "a file");
    home.set("TRACKD_LOG__FILE", "{ dir = \"taken/logs\" }");
    let refused = home.trackd(&["run"]);
    assert_eq!(refused.status.code(), Some(78), "{}", stderr(&refused));
    let told = stderr(&refused);
    assert!(
        told.contains("log.file.dir: open log files in ") && told.contains("taken/logs: Not a directory"),
        "{told}"
    );
    assert!(told.contains("expected a directory that trackd may write"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_json_when_asked_and_also_files() {
    let database = Server::shared().database().await;
    let mut home = Home::new(&database, &file_tracker("a", "200ms"));
    home.put("a.json", BODY);
    home.set("TRACKD_LOG__FORMAT", "json");
    home.set("TRACKD_LOG__FILE", "{ dir = \"logs\", rotation = \"never\" }");
    let mut daemon = home.run();
    daemon.says("run succeeded", 2).await;
    daemon.signal(Signal::USR1);
    daemon.says("\"queued\":0", 1).await;
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());
    let lines: Vec<serde_json::Value> = daemon.log().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let run = lines.iter().find(|line| line["message"] == "run succeeded").unwrap();
    assert_eq!((run["tracker"].as_str(), run["rows"].as_i64()), (Some("a"), Some(2)), "{run}");
    let (event, generation) = (run["event"].as_str(), run["config_generation"].as_i64());
    assert_eq!((event, generation), (Some("run-succeeded"), Some(1)), "{run}");
    let files: Vec<String> = std::fs::read_dir(home.path("logs"))
        .unwrap()
        .flatten()
        .map(|file| std::fs::read_to_string(file.path()).unwrap())
        .collect();
    assert!(files.len() == 1 && files[0].contains("\"stopped\""), "{files:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_file_that_was_moved_is_followed_by_a_new_one_at_a_reload_good_or_bad() {
    let database = Server::shared().database().await;
    let tracker = file_tracker("a", RARELY);
    let mut home = Home::new(&database, &tracker);
    home.set("TRACKD_LOG__FILE", "{ dir = \"logs\", rotation = \"never\" }");
    let mut daemon = home.run();
    daemon.says("ready", 1).await;
    let (file, read) = (home.path("logs/trackd.log"), |name: &str| std::fs::read_to_string(home.path(name)));
    for (moved, configuration, told) in [
        ("logs/trackd.log.1", "[[tracker]]\n".to_owned(), "reload refused"),
        ("logs/trackd.log.2", tracker + "[vars]\nx = 1\n", "configuration reloaded"),
    ] {
        std::fs::rename(&file, home.path(moved)).unwrap();
        home.configure(&configuration);
        daemon.signal(Signal::HUP);
        eventually("a new file", PATIENCE, async || read("logs/trackd.log").is_ok_and(|text| text.contains(told)))
            .await;
        assert!(!read(moved).unwrap().contains(told), "{moved}");
    }
    assert!(read("logs/trackd.log.1").unwrap().contains("ready"));
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());
    assert!(read("logs/trackd.log").unwrap().contains("stopped"));
}

/// What a service's manager was told, datagram by datagram.
fn told(manager: &std::os::unix::net::UnixDatagram) -> String {
    manager.set_nonblocking(true).unwrap();
    let mut buffer = [0; 4096];
    std::iter::from_fn(|| {
        manager.recv(&mut buffer).ok().map(|n| String::from_utf8_lossy(&buffer[..n]).into_owned() + "\n")
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_reads_a_password_anew_that_was_changed_where_it_is_kept() {
    let server = Server::prepared(5432, |data| {
        put(data, "pg_hba.conf", "local all postgres trust\nlocal all all scram-sha-256\n");
    });
    let admin = server.connect("postgres").await;
    admin.batch_execute("CREATE ROLE r LOGIN PASSWORD 'm4rked-one'").await.unwrap();
    admin.batch_execute("CREATE DATABASE d OWNER r").await.unwrap();
    let url = format!("host={} user=r dbname=d", server.dir().display());
    let home =
        Home::with(&url, &file_tracker("a", "200ms").replace("name = \"a\"\nhistory", "name = \"s.a\"\nhistory"));
    home.put("a.json", BODY);
    let configured = std::fs::read_to_string(home.path("config.toml")).unwrap();
    home.put("config.toml", configured.replace("[daemon]", "password_file = \"password\"\n[daemon]"));
    home.put("password", "m4rked-one\n");
    let mut daemon = home.run();
    daemon.says("run succeeded", 1).await;
    daemon.signal(Signal::HUP);
    daemon.says("configuration reloaded", 1).await;
    assert_eq!(daemon.said("connections anew"), 0, "nothing has changed: {}", daemon.log());
    home.put("password", "m4rked-wrong\n");
    daemon.signal(Signal::HUP);
    daemon.says("reload refused", 1).await;
    assert!(daemon.log().contains("28P01"), "{}", daemon.log());
    home.put("password", "m4rked-two\n");
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'r'";
    admin.batch_execute(&format!("ALTER ROLE r PASSWORD 'm4rked-two'; {end}")).await.unwrap();
    daemon.signal(Signal::HUP);
    daemon.says("connections anew for the passwords", 1).await;
    let before = daemon.said("run succeeded");
    daemon.says("run succeeded", before + 2).await;
    assert!(!daemon.log().contains("=two") && !daemon.log().contains("\"two"), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_before_the_start_is_over_does_not_say_ready() {
    // A server that takes connections and says nothing: the start goes on and on.
    let silent = tempfile::tempdir().unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(silent.path().join(".s.PGSQL.5432")).unwrap();
    let url = format!("postgres://postgres@{}/x", silent.path().to_str().unwrap().replace('/', "%2F"));
    let mut home = Home::with(&url, &file_tracker("a", "200ms"));
    let manager = std::os::unix::net::UnixDatagram::bind(home.path("notify")).unwrap();
    home.set("NOTIFY_SOCKET", home.path("notify").to_str().unwrap());
    let mut daemon = home.run();
    daemon.catches_hangups().await;
    daemon.signal(Signal::HUP);
    daemon.says("configuration reloaded", 1).await;
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());
    let said = told(&manager);
    assert!(!said.contains("READY=1") && !said.contains("RELOADING=1") && said.contains("STOPPING=1"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_manager_hears_of_ready_reload_and_stop_and_nothing_from_the_embedded_server() {
    let mut home = Home::with("embedded", &file_tracker("a", "200ms"));
    home.put("a.json", BODY);
    let manager = std::os::unix::net::UnixDatagram::bind(home.path("notify")).unwrap();
    std::fs::set_permissions(home.path("notify"), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    home.set("NOTIFY_SOCKET", home.path("notify").to_str().unwrap());
    let mut daemon = home.run();
    daemon.says("run succeeded", 1).await;
    daemon.signal(Signal::HUP);
    daemon.says("configuration reloaded", 1).await;
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());
    let said = told(&manager);
    let times = |word: &str| said.lines().filter(|line| line.starts_with(word)).count();
    assert_eq!((times("READY=1"), times("RELOADING=1"), times("STOPPING=1")), (2, 1, 1), "{said}");
    let (status, ready) = (said.find("STATUS=running: 1 tracker"), said.find("READY=1"));
    assert!(status.is_some() && status < ready, "who waited for the start reads the status next: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_waits_for_a_silent_database_keeps_the_watchdog_fed_and_hears_a_stop() {
    let database = Server::shared().database().await;
    let silent = tempfile::tempdir().unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(silent.path().join(".s.PGSQL.5432")).unwrap();
    let mut home = Home::new(&database, &file_tracker("a", "200ms"));
    home.put("a.json", BODY);
    let manager = std::os::unix::net::UnixDatagram::bind(home.path("notify")).unwrap();
    home.set("NOTIFY_SOCKET", home.path("notify").to_str().unwrap());
    home.set("WATCHDOG_USEC", "2000000");
    let mut daemon = home.run();
    daemon.says("run succeeded", 1).await;
    let configured = std::fs::read_to_string(home.path("config.toml")).unwrap();
    let url = format!("postgres://postgres@{}/x", silent.path().to_str().unwrap().replace('/', "%2F"));
    home.put("config.toml", configured.replace(&database.url(), &url));
    daemon.signal(Signal::HUP);
    let mut said = String::new();
    eventually("RELOADING=1", PATIENCE, async || {
        said += &told(&manager);
        said.contains("RELOADING=1")
    })
    .await;
    let (_, mut since) = said.split_once("RELOADING=1").map(|(_, since)| ((), since.to_owned())).unwrap();
    eventually("WATCHDOG=1", PATIENCE, async || {
        since += &told(&manager);
        since.contains("WATCHDOG=1")
    })
    .await;
    assert!(!since.contains("READY=1"), "the reload was over before: {since}");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());
    assert_eq!(daemon.said("database: the daemon stops"), 1, "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_while_the_embedded_database_starts_leaves_no_server_behind() {
    for moment in ["postgres/data.new", "postgres/data", "postgres/start.log", "postgres/data/postmaster.pid"] {
        let home = Home::with("embedded", &file_tracker("a", "200ms"));
        let mut daemon = home.run();
        let file = home.path("state").join(moment);
        eventually(moment, PATIENCE, async || file.exists()).await;
        daemon.signal(Signal::TERM);
        assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());
        assert!(!home.path("state/postgres/data/postmaster.pid").exists(), "stopped at {moment}: {}", daemon.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn at_debug_the_log_has_statements_with_their_times_and_no_values() {
    let database = Server::shared().database().await;
    let mut home = Home::new(&database, &file_tracker("a", "200ms"));
    home.set("TRACKD_LOG__LEVEL", "trace");
    home.put("a.json", r#"{"rows":[{"k":"a-marked-value","v":1}]}"#);
    let mut daemon = home.run();
    daemon.says("INSERT INTO", 2).await;
    at_least(&database.client().await, "SELECT count(*) FROM a WHERE k = 'a-marked-value'", 1).await;
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());
    let log = daemon.log();
    assert!(log.lines().any(|line| line.contains("statement") && line.contains("us=") && line.contains("connection=")));
    assert!(!log.contains("a-marked-value"), "{log}");
}
