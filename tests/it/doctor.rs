//! Behaviour of `trackd doctor`: what it finds, and the exit code that says so.

use crate::support::daemon::{Home, RARELY, file_tracker, stderr, stdout};
use crate::support::postgres::{Server, free_port, put, set};
use std::process::Output;

/// Outcome and text of a check; it must be there exactly once.
fn found(output: &Output, check: &str) -> (String, String) {
    let lines: Vec<serde_json::Value> =
        stdout(output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut of_check = lines.iter().filter(|line| line["check"] == check);
    let (Some(line), None) = (of_check.next(), of_check.next()) else { panic!("{check}: {output:?}") };
    let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
    (text("outcome"), format!("{} | {}", text("what"), text("hint")))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_in_order_has_nothing_to_do_and_nothing_is_changed() {
    let database = Server::shared().database().await;
    let home = Home::new(&database, &file_tracker("a", RARELY));
    let output = home.trackd(&["doctor"]);
    assert!(output.status.success() && stderr(&output).is_empty(), "{output:?}");
    let text = stdout(&output);
    for line in [
        "ok   server       PostgreSQL ",
        "ok   recovery     the server takes writes",
        "ok   tls          not needed: the server is on this host",
        "ok   privileges   all that trackd needs",
        "ok   schema       trackd is made at the first start",
        "ok   pg_dump      version ",
        "ok   psql         version ",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let schema = "SELECT count(*) FROM pg_namespace WHERE nspname = 'trackd'";
    assert_eq!(database.client().await.query_one(schema, &[]).await.unwrap().get::<_, i64>(0), 0);
    assert!(home.trackd(&["migrate"]).status.success());
    assert_eq!(found(&home.trackd(&["doctor", "--json"]), "schema").0, "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn privileges_that_lack_are_named_with_the_statement_that_grants_them() {
    let database = Server::shared().database().await;
    let role = format!("r{}", database.name);
    let client = database.client().await;
    client
        .batch_execute(&format!("CREATE ROLE {role} LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC"))
        .await
        .unwrap();
    let home = Home::with(&database.url_as(&role), &file_tracker("a", RARELY));
    let output = home.trackd(&["doctor"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    for line in [
        format!(
            "may not create schema trackd in database {}; to do: CREATE SCHEMA \"trackd\" AUTHORIZATION \"{role}\"",
            database.name
        ),
        format!("may not create tables in schema public; to do: GRANT CREATE ON SCHEMA \"public\" TO \"{role}\""),
    ] {
        assert!(stdout(&output).contains(&line), "{line}: {}", stdout(&output));
    }
    assert!(stderr(&output).contains("checks failed"), "{}", stderr(&output));

    let prepare =
        format!("CREATE SCHEMA trackd AUTHORIZATION {role}; CREATE TABLE a (k text); GRANT SELECT ON a TO {role}");
    client.batch_execute(&prepare).await.unwrap();
    let (outcome, text) = found(&home.trackd(&["doctor", "--json"]), "privileges");
    let grant = format!("GRANT INSERT, UPDATE, DELETE ON \"public\".\"a\" TO \"{role}\"");
    assert!(outcome == "fail" && text.contains(&grant), "{text}");
    client.batch_execute(&format!("GRANT ALL ON a TO {role}")).await.unwrap();
    assert_eq!(found(&home.trackd(&["doctor", "--json"]), "privileges").0, "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_of_a_newer_trackd_is_a_failed_check() {
    let database = Server::shared().database().await;
    let home = Home::new(&database, &file_tracker("a", RARELY));
    assert!(home.trackd(&["migrate"]).status.success());
    let newer =
        "INSERT INTO trackd.schema_history SELECT 99, 'later', applied_on, checksum FROM trackd.schema_history LIMIT 1";
    database.client().await.batch_execute(newer).await.unwrap();
    let output = home.trackd(&["doctor", "--json"]);
    let (outcome, text) = found(&output, "schema");
    assert!(outcome == "fail" && text.contains("at version V99__later, this program knows"), "{text}");
    assert_eq!(output.status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_examined_and_refused() {
    let primary = Server::own();
    let standby = primary.standby();
    let url = format!("host={} user=postgres dbname=postgres", standby.dir().display());
    let output = Home::with(&url, &file_tracker("a", RARELY)).trackd(&["doctor", "--json"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let (outcome, text) = found(&output, "recovery");
    assert!(outcome == "fail" && text.contains("read-only standby | name the primary"), "{text}");
    assert_eq!(found(&output, "privileges").0, "ok");
}

#[test]
fn a_database_that_is_away_exits_69_and_the_rest_is_told() {
    let home = Home::with("postgres://nobody@%2Fnonexistent/x", &file_tracker("a", RARELY));
    let output = home.trackd(&["doctor", "--json"]);
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    let (outcome, text) = found(&output, "database");
    assert!(outcome == "fail" && text.contains("/nonexistent/.s.PGSQL.5432"), "{text}");
    assert_eq!(found(&output, "state disk").0, "ok");
    assert!(stderr(&output).contains("/nonexistent"), "{}", stderr(&output));
}

#[test]
fn an_embedded_database_that_is_not_made_yet_is_not_made() {
    let home = Home::with("embedded", &file_tracker("a", RARELY));
    let output = home.trackd(&["doctor"]);
    assert!(output.status.success() && stdout(&output).contains("made at the first start"), "{output:?}");
    assert!(!home.path("state/postgres/data").exists());
}

/// The same way is open to trackd and to the programs it runs.
#[tokio::test(flavor = "multi_thread")]
async fn encryption_in_use_is_told_and_a_backup_goes_the_same_way() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let port = free_port();
    let server = Server::prepared(port, |data| {
        put(data, "server.crt", &made.cert.pem());
        put(data, "server.key", &made.signing_key.serialize_pem());
        put(data, "pg_hba.conf", "local all all trust\nhostssl all all all scram-sha-256\n");
        set(data, "listen_addresses = '127.0.0.1'\nssl = on\n");
    });
    let admin = server.connect("postgres").await;
    admin.batch_execute("CREATE ROLE r LOGIN PASSWORD 'm4rked p w'").await.unwrap();
    admin.batch_execute("CREATE DATABASE d OWNER r").await.unwrap();
    let url = format!("postgres://r:m4rked%20p%20w@localhost:{port}/d?sslmode=require&hostaddr=127.0.0.1");
    let home = Home::with(&url, &file_tracker("a", RARELY).replace("name = \"a\"\nhistory", "name = \"s.a\"\nhistory"));
    assert!(home.trackd(&["init"]).status.success());
    let output = home.trackd(&["doctor", "--json"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(found(&output, "tls"), ("ok".to_owned(), "TLSv1.3 | ".to_owned()));
    let output = home.trackd(&["backup", "all.dump"]);
    assert!(output.status.success() && stdout(&output).starts_with("all.dump: 6 tables of database d, "), "{output:?}");
}
