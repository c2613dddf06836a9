//! Behaviour of `trackd init`: it waits, makes what is missing, and says what it did.

use crate::support::daemon::{Home, PATIENCE, RARELY, file_tracker, stderr, stdout};
use crate::support::postgres::{Server, eventually};
use std::process::Stdio;

#[tokio::test(flavor = "multi_thread")]
async fn it_makes_what_is_missing_and_says_so_and_the_second_time_nothing_is() {
    let database = Server::shared().database().await;
    let home = Home::new(&database, &(file_tracker("a", RARELY) + &file_tracker("b", RARELY)));
    let output = home.trackd(&["init"]);
    assert!(output.status.success() && stderr(&output).is_empty(), "{output:?}");
    assert_eq!(stdout(&output), "applied V1__ledger, V2__claims, V3__whole\ncreate table a\ncreate table b\n");
    let output = home.trackd(&["init"]);
    assert_eq!(stdout(&output), "schema trackd is up to date\nall tables are as configured\n", "{output:?}");
    assert!(stdout(&home.trackd(&["check"])).contains("all tables are as configured"));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_waits_for_a_database_that_comes_late() {
    let server = Server::own();
    let database = server.database().await;
    server.stop();
    let home = Home::new(&database, &file_tracker("a", RARELY));
    let told = std::fs::File::create(home.path("told")).unwrap();
    let mut child = home.command(&["init", "--attempts", "100"]).stderr(told).stdout(Stdio::null()).spawn().unwrap();
    let said = || std::fs::read_to_string(home.path("told")).unwrap();
    eventually("a second attempt", PATIENCE, async || said().contains("attempt 2 of 100: ")).await;
    assert!(said().contains("; again in 0.") && said().contains("connect to "), "{}", said());
    server.start();
    let mut code = None;
    eventually("the end", PATIENCE, async || {
        code = child.try_wait().unwrap();
        code.is_some()
    })
    .await;
    assert_eq!(code.unwrap().code(), Some(0), "{}", said());
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname IN ('public', 'trackd')";
    assert_eq!(database.client().await.query_one(tables, &[]).await.unwrap().get::<_, i64>(0), 6);
}

#[test]
fn a_database_that_stays_away_exits_69_after_the_last_attempt() {
    let home = Home::with("postgres://nobody@%2Fnonexistent/x", &file_tracker("a", RARELY));
    let output = home.trackd(&["init", "--attempts", "2"]);
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    let text = stderr(&output);
    assert!(text.starts_with("attempt 1 of 2: ") && text.contains("(attempt 2 of 2)"), "{text}");
    assert_eq!(home.trackd(&["init", "--attempts", "0"]).status.code(), Some(64));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_must_mend_is_told_at_once() {
    let database = Server::shared().database().await;
    let missing = Home::with(&database.url().replace(&database.name, "missing"), &file_tracker("a", RARELY));
    let output = missing.trackd(&["init", "--attempts", "1000"]);
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    assert!(stderr(&output).contains("create the database") && !stderr(&output).contains("attempt"), "{output:?}");

    let other = "CREATE TABLE a (k text, v date, taken_at timestamptz, run_id uuid, PRIMARY KEY (k, taken_at))";
    database.client().await.batch_execute(other).await.unwrap();
    let home = Home::new(&database, &file_tracker("a", RARELY));
    let output = home.trackd(&["init"]);
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    assert!(stdout(&output).contains("applied V1__ledger") && stderr(&output).contains("ALTER TABLE"), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_hosts_it_prepares_the_one_that_takes_writes() {
    let primary = Server::own();
    let standby = primary.standby();
    let hosts = format!("{},{}", standby.dir().display(), primary.dir().display());
    let home = Home::with(&format!("host={hosts} user=postgres dbname=postgres"), &file_tracker("a", RARELY));
    let output = home.trackd(&["init", "--attempts", "1"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(stdout(&output), "applied V1__ledger, V2__claims, V3__whole\ncreate table a\n");
}
