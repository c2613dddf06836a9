//! Behaviour of the commands: exit codes, outputs, and what a fault of each kind leaves behind.

use crate::support::daemon::{Home, RARELY, file_tracker, stderr, stdout};
use crate::support::faulty::{Answer, Faulty, head};
use crate::support::postgres::Server;

const BODY: &str = r#"{"rows":[{"k":"a","v":1},{"k":"b","v":2}]}"#;

#[test]
fn a_wrong_command_line_exits_64_and_help_0() {
    let home = Home::with("embedded", "");
    for args in [&["nonsense"][..], &["once"], &["runs", "--limit", "x"], &["once", "--all", "name"]] {
        assert_eq!(home.trackd(args).status.code(), Some(64), "{args:?}");
    }
    for args in [&["--help"][..], &["--version"], &["completions", "bash"]] {
        assert_eq!(home.trackd(args).status.code(), Some(0), "{args:?}");
    }
}

#[test]
fn a_reader_that_went_away_changes_no_exit_code() {
    let home = Home::with("embedded", "zz = 1\n");
    for (command, code) in [("check", 78), ("--help", 0), ("nonsense", 64)] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut trackd = std::process::Command::new(env!("CARGO_BIN_EXE_trackd"));
        trackd.arg(command).current_dir(home.path("")).stdout(writer.try_clone().unwrap()).stderr(writer);
        assert_eq!(trackd.status().unwrap().code(), Some(code), "{command}");
    }
}

#[test]
fn a_bad_configuration_exits_78_with_every_fault() {
    let home = Home::with("embedded", "[[tracker]]\nname = \"x\"\nevery = \"never\"\nraw = \"30d\"\n");
    for args in [&["check"][..], &["run"], &["once", "--all"]] {
        let output = home.trackd(args);
        assert_eq!(output.status.code(), Some(78), "{args:?}");
        assert!(
            stderr(&output).contains("config.toml:13") && stderr(&output).contains("unknown key `raw`"),
            "{}",
            stderr(&output)
        );
    }
}

#[test]
fn a_database_that_is_away_exits_69() {
    let home = Home::with("postgres://nobody@%2Fnonexistent/x", &file_tracker("a", RARELY));
    let output = home.trackd(&["migrate"]);
    assert_eq!(output.status.code(), Some(69), "{}", stderr(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn check_says_what_would_be_created_and_creates_nothing() {
    let database = Server::shared().database().await;
    let home = Home::new(&database, &file_tracker("a", RARELY));
    let output = home.trackd(&["check"]);
    assert!(output.status.success() && stdout(&output).contains("would create table a"), "{output:?}");
    let tables: i64 = database
        .client()
        .await
        .query_one("SELECT count(*) FROM pg_tables WHERE schemaname IN ('public', 'trackd')", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(tables, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_of_a_name_that_nothing_has_are_asked_for_by_mistake() {
    let database = Server::shared().database().await;
    let home = Home::new(&database, &file_tracker("a", RARELY));
    home.put("a.json", BODY);
    assert!(home.trackd(&["once", "a"]).status.success());
    assert_eq!(home.trackd(&["runs", "b"]).status.code(), Some(64));
    assert_eq!(stdout(&home.trackd(&["runs", "a"])).lines().count(), 2);
    home.configure(&file_tracker("b", RARELY));
    assert_eq!(stdout(&home.trackd(&["runs", "a"])).lines().count(), 2, "its runs stay");
    assert_eq!(home.trackd(&["runs", "b"]).status.code(), Some(0), "it has not run yet");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_prints_rows_and_touches_no_database() {
    let home = Home::with("postgres://nobody@%2Fnonexistent/x", &file_tracker("a", RARELY));
    home.put("a.json", BODY);
    let output = home.trackd(&["once", "a", "--dry-run", "--json"]);
    assert_eq!(
        stdout(&output),
        "{\"table\":\"a\",\"row\":{\"k\":\"a\",\"v\":1}}\n{\"table\":\"a\",\"row\":{\"k\":\"b\",\"v\":2}}\n",
        "{output:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_cannot_be_made_to_fit_is_refused_with_the_statement() {
    let database = Server::shared().database().await;
    database
        .client()
        .await
        .batch_execute("CREATE TABLE a (k text, v date, taken_at timestamptz, run_id uuid, PRIMARY KEY (k, taken_at))")
        .await
        .unwrap();
    let home = Home::new(&database, &file_tracker("a", RARELY));
    home.put("a.json", BODY);
    let output = home.trackd(&["check"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(
        stderr(&output).contains("column v: expected integer, got date") && stderr(&output).contains("ALTER TABLE"),
        "{}",
        stderr(&output)
    );
    assert_eq!(home.trackd(&["once", "a"]).status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_grow_with_the_configuration_and_columns_widen() {
    let database = Server::shared().database().await;
    let home = Home::new(&database, &file_tracker("a", RARELY));
    home.put("a.json", r#"{"rows":[{"k":"a","v":1,"w":"x"}]}"#);
    assert!(home.trackd(&["once", "a"]).status.success());
    home.configure(
        &file_tracker("a", RARELY).replace("v = \"integer\"", "v = \"bigint\", w = { type = \"text\", index = true }"),
    );
    home.put("a.json", r#"{"rows":[{"k":"a","v":236046654097081,"w":"x"}]}"#);
    let output = home.trackd(&["once", "a"]);
    assert!(output.status.success(), "{output:?}");
    let row = database.client().await.query_one("SELECT sum(v)::bigint, max(w) FROM a", &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, &str>(1)), (236_046_654_097_082, "x"));
}

/// Every fault is a clear line in `trackd runs`, nothing is half-written, and the tracker beside it lands.
#[tokio::test(flavor = "multi_thread")]
async fn a_fault_of_each_kind_is_told_and_harms_nobody() {
    // 30 MB where 1 MiB may come.
    let large = format!("{{\"rows\":[{}]}}", vec![r#"{"k":"x","v":1}"#; 2_000_000].join(","));
    let faults: [(&str, Answer, &str, &str); 6] = [
        ("html", Answer::ok("<!DOCTYPE html><html><body>Sorry</body></html>"), "standing", "not JSON"),
        ("cut", Answer::Cut([head(200, &[], 500).as_bytes(), BODY.as_bytes()].concat()), "retry", "body"),
        ("large", Answer::ok(&large), "standing", "max_body"),
        ("error", Answer::new(500, &[], "no"), "retry", "status 500"),
        ("shapeless", Answer::ok(r#"{"leaderboard":[]}"#), "standing", "rows"),
        ("broken", Answer::ok(r#"{"rows":[{"k":"a","v":1},"#), "standing", "JSON"),
    ];
    let database = Server::shared().database().await;
    let mut trackers = file_tracker("well", RARELY);
    let mut servers = Vec::new();
    for (name, answer, ..) in &faults {
        let server = Faulty::start([answer.clone()]).await;
        trackers += &file_tracker(name, RARELY).replace(
            &format!("file = {{ path = \"{name}.json\" }}"),
            &format!("http = {{ url = \"{}\", max_body = \"1MiB\" }}", server.url("/")),
        );
        servers.push(server);
    }
    trackers += &file_tracker("refused", RARELY)
        .replace("file = { path = \"refused.json\" }", "http = { url = \"http://127.0.0.1:9/\" }");
    let home = Home::new(&database, &trackers);
    home.put("well.json", BODY);
    assert_eq!(home.trackd(&["once", "--all"]).status.code(), Some(1));
    let runs = stdout(&home.trackd(&["runs", "--json"]));
    let of = |name: &str| {
        runs.lines()
            .find(|line| line.contains(&format!("\"tracker\":\"{name}\"")))
            .unwrap_or_else(|| panic!("no run of {name}: {runs}"))
    };
    for (name, _, class, words) in faults.iter().map(|(n, a, c, w)| (*n, a, *c, *w)).chain([(
        "refused",
        &Answer::new(500, &[], "no"),
        "retry",
        "refused",
    )]) {
        let run = of(name);
        assert!(
            run.contains("\"status\":\"failed\"")
                && run.contains(&format!("\"error_class\":\"{class}\""))
                && run.contains(words),
            "{name}: {run}"
        );
        let table = format!("SELECT count(*) FROM pg_class WHERE relname = '{name}' AND relkind = 'r'");
        let client = database.client().await;
        if client.query_one(&table, &[]).await.unwrap().get::<_, i64>(0) == 1 {
            assert_eq!(
                client.query_one(&format!("SELECT count(*) FROM {name}"), &[]).await.unwrap().get::<_, i64>(0),
                0,
                "{name}"
            );
        }
    }
    assert!(of("well").contains("\"status\":\"succeeded\"") && of("well").contains("\"rows_written\":2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_rows_are_set_aside_with_a_reason_and_the_good_ones_land() {
    let database = Server::shared().database().await;
    let tracker =
        file_tracker("a", RARELY).replace("v = \"integer\"", "v = { type = \"integer\", check = \"v < 10\" }");
    let home = Home::new(&database, &tracker);
    home.put("a.json", r#"{"rows":[{"k":"a","v":1},{"k":null,"v":1},{"k":"b","v":"x"},{"k":"c","v":11},{"k":"a","v":2},{"k":"d","v":2}]}"#);
    assert!(home.trackd(&["once", "a"]).status.success());
    let client = database.client().await;
    let rows = client.query("SELECT k FROM a ORDER BY 1", &[]).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>(), ["a", "d"]);
    let reasons = client.query("SELECT reason FROM trackd.rejects ORDER BY reject_id", &[]).await.unwrap();
    let reasons: Vec<String> = reasons.iter().map(|row| row.get(0)).collect();
    assert_eq!(reasons.len(), 4, "{reasons:?}");
    for words in ["column k", "column v", "duplicate key (k=a)", "a_v_check"] {
        assert!(reasons.iter().any(|reason| reason.contains(words)), "{words}: {reasons:?}");
    }
    let run = client.query_one("SELECT rows_read, rows_written, rows_rejected FROM trackd.runs", &[]).await.unwrap();
    assert_eq!((run.get::<_, i64>(0), run.get::<_, i64>(1), run.get::<_, i64>(2)), (6, 2, 4));

    home.configure(&tracker.replace("file = ", "on_bad_row = \"fail\"\nfile = "));
    let output = home.trackd(&["once", "a"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        client.query_one("SELECT count(*) FROM a", &[]).await.unwrap().get::<_, i64>(0),
        2,
        "nothing more landed"
    );
}
