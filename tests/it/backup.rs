//! Behaviour of `trackd backup` and `trackd restore`: all of it comes back, and nothing half is left anywhere.

use crate::support::daemon::{Home, PATIENCE, RARELY, file_tracker, stderr, stdout};
use crate::support::marked::MARK;
use crate::support::postgres::{Database, Server, eventually};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use tokio_postgres::Client;

const BODY: &str = r#"{"rows":[{"k":"a","v":1},{"k":"b","v":2},{"k":"c","v":"x"}]}"#;

/// Two trackers whose runs landed rows and rejects.
fn filled(database: &str) -> Home {
    let home = Home::with(database, &trackers());
    home.put("a.json", BODY);
    home.put("b.json", BODY);
    for _ in 0..2 {
        let output = home.trackd(&["once", "--all"]);
        assert!(output.status.success(), "{output:?}");
    }
    home
}

fn trackers() -> String {
    file_tracker("a", RARELY) + &file_tracker("b", RARELY).replace("snapshot", "change")
}

/// The same trackers on another database.
fn beside(home: &Home, database: &str) -> Home {
    let other = Home::with(database, &trackers());
    for name in ["a.json", "b.json"] {
        other.put(name, std::fs::read(home.path(name)).unwrap());
    }
    other
}

/// Every table of every user's schema with all its rows.
async fn contents(client: &Client) -> Vec<(String, i64, String)> {
    let tables = "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables \
                  WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1";
    let mut contents = Vec::new();
    for row in client.query(tables, &[]).await.unwrap() {
        let table: String = row.get(0);
        let rows =
            format!("SELECT count(*), coalesce(md5(string_agg(t::text, ';' ORDER BY t::text)), '') FROM {table} AS t");
        let row = client.query_one(&rows, &[]).await.unwrap();
        contents.push((table, row.get(0), row.get(1)));
    }
    contents
}

fn parts(home: &Home) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(home.path("")).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "part")).collect()
}

async fn pair() -> (Database, Database) {
    (Server::shared().database().await, Server::shared().database().await)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_backed_up_comes_back_whole_and_trackd_goes_on_with_it() {
    let (from, to) = pair().await;
    let home = filled(&from.url());
    let output = home.trackd(&["backup", "all.dump", "--verbose"]);
    assert!(output.status.success(), "{output:?}");
    assert!(stdout(&output).starts_with("all.dump: 7 tables of database "), "{output:?}");
    assert!(stderr(&output).contains(" public.a\n") && stderr(&output).contains(" trackd.runs\n"), "{output:?}");
    let mode = std::fs::metadata(home.path("all.dump")).unwrap().permissions().mode();
    assert_eq!((mode & 0o777, parts(&home)), (0o600, Vec::new()));

    let other = beside(&home, &to.url());
    let file = home.path("all.dump");
    let output = other.trackd(&["restore", file.to_str().unwrap()]);
    assert!(output.status.success() && stdout(&output).contains("7 tables restored"), "{output:?}");
    assert!(stderr(&output).is_empty(), "it is no terminal: {output:?}");
    let (before, after) = (contents(&from.client().await).await, contents(&to.client().await).await);
    assert_eq!(before, after);
    assert!(before.iter().any(|(table, rows, _)| table == "trackd.rejects" && *rows == 4), "{before:?}");

    assert_eq!(stdout(&other.trackd(&["migrate"])), "schema trackd is up to date\n");
    assert!(stdout(&other.trackd(&["check"])).contains("all tables are as configured"));
    let output = other.trackd(&["once", "--all"]);
    assert!(output.status.success(), "{output:?}");
    let runs: i64 = to.client().await.query_one("SELECT count(*) FROM trackd.runs", &[]).await.unwrap().get(0);
    assert_eq!(runs, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_empty_is_named_and_left_alone_unless_forced() {
    let (from, to) = pair().await;
    let home = filled(&from.url());
    assert!(home.trackd(&["backup", "all.dump"]).status.success());
    let client = to.client().await;
    client.batch_execute("CREATE TABLE a (mine int); CREATE TABLE z (mine int); CREATE SCHEMA s").await.unwrap();
    let before = contents(&client).await;
    let other = beside(&home, &to.url());
    let file = home.path("all.dump");
    let file = file.to_str().unwrap();
    let output = other.trackd(&["restore", file]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = stderr(&output);
    assert!(text.contains("is not empty, it has public.a, public.z, schema s\n") && text.contains("--force"), "{text}");
    assert_eq!(contents(&client).await, before);

    let output = other.trackd(&["restore", file, "--force"]);
    assert!(output.status.success(), "{output:?}");
    let mut expected = contents(&from.client().await).await;
    expected.extend(before.into_iter().filter(|(table, ..)| table == "public.z"));
    expected.sort();
    assert_eq!(contents(&client).await, expected);
    assert!(other.trackd(&["restore", file, "--force"]).status.success(), "over itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_archive_or_only_half_of_one_changes_nothing() {
    let (from, to) = pair().await;
    let home = filled(&from.url());
    let fill = "INSERT INTO a SELECT md5(i::text), i, now(), gen_random_uuid() FROM generate_series(1, 20000) i";
    from.client().await.batch_execute(fill).await.unwrap();
    assert!(home.trackd(&["backup", "all.dump"]).status.success());
    let other = beside(&home, &to.url());
    let whole = std::fs::read(home.path("all.dump")).unwrap();
    other.put("half.dump", &whole[..whole.len() / 2]);
    other.put("text.dump", "SELECT 1");
    for (file, words) in [("half.dump", "pg_restore: "), ("text.dump", "valid archive"), ("gone.dump", "No such file")]
    {
        let output = other.trackd(&["restore", file]);
        assert_eq!(output.status.code(), Some(1), "{file}: {output:?}");
        assert!(
            stderr(&output).contains(&format!("restore {file}: ")) && stderr(&output).contains(words),
            "{output:?}"
        );
        assert_eq!(contents(&to.client().await).await, [], "{file}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_fails_leaves_the_one_before() {
    let from = Server::shared().database().await;
    filled(&from.url());
    let role = format!("r{}", from.name);
    from.client().await.batch_execute(&format!("CREATE ROLE {role} LOGIN")).await.unwrap();
    let home = Home::with(&from.url_as(&role), &trackers());
    home.put("all.dump", "before");
    let output = home.trackd(&["backup", "all.dump"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = stderr(&output);
    assert!(text.contains("backup all.dump: pg_dump: ") && text.contains("permission denied"), "{text}");
    assert!(text.contains("hint: the role of database.url"), "{text}");
    assert_eq!(std::fs::read_to_string(home.path("all.dump")).unwrap(), "before");
    assert_eq!(parts(&home), Vec::<PathBuf>::new());
    let output = home.trackd(&["backup", "nowhere/all.dump"]);
    assert!(output.status.code() == Some(1) && stderr(&output).contains("nowhere/.all.dump."), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_archive_does_not_take_the_place_of_one() {
    let from = Server::shared().database().await;
    let home = filled(&from.url());
    assert!(home.trackd(&["backup", "all.dump"]).status.success());
    let before = std::fs::read(home.path("all.dump")).unwrap();
    for argument in ["--file=elsewhere", "--format=plain"] {
        let output = home.trackd(&["backup", "all.dump", "--", argument]);
        assert_eq!(output.status.code(), Some(1), "{argument}: {output:?}");
        assert!(stderr(&output).contains("wrote no archive") && stderr(&output).contains("hint: "), "{output:?}");
        assert_eq!((std::fs::read(home.path("all.dump")).unwrap() == before, parts(&home)), (true, Vec::new()));
    }
    let pipe = home.path("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let output = home.trackd(&["backup", "pipe"]);
    assert!(output.status.code() == Some(1) && stderr(&output).contains("got a pipe"), "{output:?}");
    assert!(!pipe.is_file());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_restored_under_a_daemon_at_work() {
    let (from, to) = pair().await;
    let home = filled(&from.url());
    assert!(home.trackd(&["backup", "all.dump"]).status.success());
    let file = home.path("all.dump");
    let other = beside(&home, &to.url());
    let mut daemon = other.run();
    daemon.says("ready", 1).await;
    let count = "SELECT count(*) FROM trackd.runs";
    let runs: i64 = to.client().await.query_one(count, &[]).await.unwrap().get(0);
    let output = other.trackd(&["restore", file.to_str().unwrap(), "--force"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("trackd works on database") && stderr(&output).contains("stop it"), "{output:?}");
    assert!(to.client().await.query_one(count, &[]).await.unwrap().get::<_, i64>(0) >= runs);
    daemon.kill();
    let output = other.trackd(&["restore", file.to_str().unwrap(), "--force"]);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_database_that_is_away_exits_69() {
    let home = Home::with("postgres://nobody@%2Fnonexistent/x", &trackers());
    for command in ["backup", "restore"] {
        assert_eq!(home.trackd(&[command, "all.dump"]).status.code(), Some(69), "{command}");
    }
}

/// A pg_dump of the test's own, first on the path.
fn stand_in(home: &mut Home, server: u32, script: &str) {
    std::fs::create_dir(home.path("bin")).unwrap();
    let path = home.path("bin/pg_dump");
    let text = format!(
        "#!/bin/sh\nif [ \"$1\" = --version ]; then echo 'pg_dump (PostgreSQL) {server}.0'; exit; fi\n{script}\n"
    );
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let search = format!("{}:{}", home.path("bin").display(), std::env::var("PATH").unwrap());
    home.set("PATH", &search);
}

async fn major(database: &Database) -> u32 {
    let row =
        database.client().await.query_one("SELECT current_setting('server_version_num')::int4", &[]).await.unwrap();
    u32::try_from(row.get::<_, i32>(0)).unwrap() / 10_000
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_goes_to_pg_dump_by_its_environment_and_not_by_its_arguments() {
    let from = Server::shared().database().await;
    let mut home = Home::with(&from.url(), &trackers());
    stand_in(&mut home, major(&from).await, "echo \"$@\" >arguments; env >environment; exit 1");
    // What a service says is among the words already; named to pg_dump, it would go before them.
    home.put("services", "[s]\ndbname=nowhere\napplication_name=saver\n");
    home.set("PGSERVICEFILE", home.path("services").to_str().unwrap());
    home.set("PGSERVICE", "s");
    let output = home.trackd(&["backup", "all.dump", "--verbose", "--", "--schema=trackd"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let read = |name| std::fs::read_to_string(home.path(name)).unwrap();
    assert!(read("environment").contains("PGPASSWORD=m4rked-url\n"));
    assert!(read("environment").contains("PGAPPNAME=saver\n") && !read("environment").contains("PGSERVICE"));
    assert!(read("environment").contains(&format!("PGDATABASE={}\n", from.name)));
    assert!(read("arguments").contains("--schema=trackd") && !read("arguments").contains(MARK));
    // What is left there is looked through for secrets.
    std::fs::remove_file(home.path("environment")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_backup_leaves_nothing_behind() {
    let from = Server::shared().database().await;
    let mut home = Home::with(&from.url(), &trackers());
    stand_in(&mut home, major(&from).await, "echo $$ >pid.new; mv pid.new pid; exec sleep 600");
    let mut child = home.command(&["backup", "all.dump"]).stderr(Stdio::null()).spawn().unwrap();
    eventually("pg_dump at work", PATIENCE, async || home.path("pid").exists()).await;
    assert_eq!(parts(&home).len(), 1);
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM).unwrap();
    let mut code = None;
    eventually("the end", PATIENCE, async || {
        code = child.try_wait().unwrap();
        code.is_some()
    })
    .await;
    assert_eq!((code.unwrap().code(), parts(&home).len(), home.path("all.dump").exists()), (Some(1), 0, false));
    let pid = std::fs::read_to_string(home.path("pid")).unwrap();
    let stat = format!("/proc/{}/stat", pid.trim());
    eventually("the end of pg_dump", PATIENCE, async || {
        // Dead, and perhaps not waited for by whoever inherited it.
        std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_embedded_database_moves_to_a_server_and_to_another_directory() {
    let to = Server::shared().database().await;
    let empty = Home::with("embedded", &trackers());
    let output = empty.trackd(&["backup", "all.dump"]);
    assert!(output.status.code() == Some(1) && stderr(&output).contains("there is no database yet"), "{output:?}");
    let home = filled("embedded");
    let output = home.trackd(&["backup", "all.dump"]);
    assert!(output.status.success(), "{output:?}");
    assert!(!home.path("state/postgres/data/postmaster.pid").exists(), "it was started for this, and stopped");
    let other = beside(&home, &to.url());
    let file = home.path("all.dump");
    let output = other.trackd(&["restore", file.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    let rows = contents(&to.client().await).await;
    assert!(rows.iter().any(|(table, rows, _)| table == "trackd.runs" && *rows == 4), "{rows:?}");
    assert!(other.trackd(&["once", "--all"]).status.success());

    let back = beside(&home, "embedded");
    let output = back.trackd(&["restore", file.to_str().unwrap()]);
    assert!(
        output.status.success() && stdout(&output).contains("7 tables restored"),
        "it is made for this: {output:?}"
    );
    assert!(back.trackd(&["once", "--all"]).status.success());
}
