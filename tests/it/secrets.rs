//! Values of secrets, each a marked text, that are in no log at any level, on no page, in no output and in no row. Beside
//! this, every test looks through what it made trackd say (`support::marked`).

use crate::support::daemon::{Home, PATIENCE, file_tracker};
use crate::support::faulty::{Answer, Faulty};
use crate::support::marked::{MARK, unmarked, unmarked_below, unmarked_rows};
use crate::support::postgres::{Server, eventually, free_port};
use rustix::process::Signal;

#[tokio::test(flavor = "multi_thread")]
async fn at_the_lowest_level_no_secret_of_a_source_a_database_or_an_alert_is_logged_served_printed_or_recorded() {
    let server = Server::prepared(5432, |data| {
        std::fs::write(data.join("pg_hba.conf"), "local all postgres trust\nlocal all all scram-sha-256\n").unwrap();
    });
    let admin = server.connect("postgres").await;
    admin.batch_execute("CREATE ROLE r LOGIN PASSWORD 'm4rked-database'").await.unwrap();
    admin.batch_execute("CREATE DATABASE d OWNER r").await.unwrap();
    // Followed once, with what was asked for; refused, with what was asked for in its answer; then good.
    let source = Faulty::start([
        Answer::new(302, &[("Location", "/next?key=m4rked-redirect"), ("Set-Cookie", "s=m4rked-cookie")], ""),
        Answer::new(401, &[], "bad token m4rked-header"),
        Answer::ok(r#"{"rows":[{"k":"a","v":1}]}"#),
    ])
    .await;
    let hook = Faulty::start([Answer::new(503, &[], "later"), Answer::ok("")]).await;
    let http = format!(
        "http = {{ url = \"{}\", headers = {{ Authorization = \"Bearer m4rked-header\", X-Key = \"{{{{ vars.key }}}}\" }}, \
         query = {{ key = \"m4rked-query\" }} }}",
        source.url("/a").replace("http://", "http://me:m4rked-user@")
    );
    let trackers = file_tracker("a", "200ms").replace("file = { path = \"a.json\" }", &http)
        + &file_tracker("b", "200ms").replace("every", "fresh_within = \"1s\"\nevery")
        + &format!(
            "[alert]\nafter = \"0s\"\nwebhook = {{ url = \"{}\", token_file = \"token\", headers = {{ x-a = \"m4rked-hook\" }} }}\n\
             [vars]\nkey = \"m4rked-vars\"\n",
            hook.url("/m4rked-path?key=m4rked-key")
        );
    let mut home = Home::with(&format!("host={} user=r dbname=d", server.dir().display()), &trackers);
    home.put("password", "m4rked-database\n");
    home.put("token", "m4rked-token\n");
    let address = format!("127.0.0.1:{}", free_port());
    for (name, value) in [
        ("TRACKD_DAEMON__LISTEN", address.as_str()),
        ("TRACKD_DATABASE__PASSWORD_FILE", "password"),
        ("TRACKD_LOG__LEVEL", "trace"),
        ("TRACKD_LOG__FILE", "{ dir = \"logs\", rotation = \"never\" }"),
    ] {
        home.set(name, value);
    }
    let mut daemon = home.run();
    daemon.says("run succeeded", 1).await;
    eventually("an alert", PATIENCE, async || hook.requests().len() >= 2).await;
    home.configure(&(trackers.replace("m4rked-vars", "m4rked-others") + "[[tracker]]\nname = \"m\"\n"));
    daemon.signal(Signal::HUP);
    daemon.says("reload refused", 1).await;
    home.configure(&trackers.replace("m4rked-vars", "m4rked-others"));
    daemon.signal(Signal::HUP);
    daemon.says("configuration reloaded", 1).await;
    daemon.signal(Signal::USR1);
    daemon.says("status", 1).await;
    for page in ["/", "/api/status", "/metrics", "/readyz"] {
        let answer = page_of(&address, page).await;
        assert!(answer.starts_with("HTTP/1.1 "), "{page}: {answer}");
        unmarked(page, &answer);
    }
    // What they print is looked through by `Home`.
    for args in [
        &["status"][..],
        &["runs"],
        &["check"],
        &["check", "--against-running"],
        &["doctor"],
        &["spool", "ls"],
        &["reload"],
    ] {
        assert!(!home.trackd(args).stdout.is_empty(), "{args:?}");
    }
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());

    // They were there to be said, and the lowest level was in force.
    let sent = source.requests().concat() + &hook.requests().concat();
    for used in ["header", "vars", "query", "hook", "path", "key", "token", "redirect"] {
        assert!(sent.contains(&format!("{MARK}-{used}")), "{used}: {sent}");
    }
    assert!(daemon.said("DEBUG") > 0, "{}", daemon.log());
    let files = std::fs::read_to_string(home.path("logs/trackd.log")).unwrap();
    assert!(files.contains("DEBUG") && files.contains("stopped"), "{files}");
    let logged = daemon.log() + &files;
    unmarked("the logs", &logged);
    unmarked_rows(&format!("host={} user=postgres dbname=d", server.dir().display()));
    assert!(!logged.contains("starting new connection"), "a line of the HTTP client, which may hold more: {logged}");
}

async fn page_of(address: &str, page: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!("GET {page} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Runs what must panic.
fn is_found(look: impl FnOnce() + std::panic::UnwindSafe) {
    assert!(std::panic::catch_unwind(look).is_err(), "a secret was not found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_was_told_would_be_found_in_texts_files_rows_and_by_a_server_in_its_log() {
    is_found(|| unmarked("a log", &format!("good\npassword={MARK}-x")));
    unmarked("a log", "good\n");

    let dir = tempfile::tempdir().unwrap();
    let (mine, theirs) = (dir.path().join("config.toml"), dir.path().join("spool/payload"));
    std::fs::create_dir(dir.path().join("spool")).unwrap();
    std::fs::write(&mine, MARK).unwrap();
    unmarked_below(dir.path(), std::slice::from_ref(&mine));
    std::fs::write(theirs, [b"\0\xff", MARK.as_bytes(), b"\xff"].concat()).unwrap();
    is_found(|| unmarked_below(dir.path(), std::slice::from_ref(&mine)));

    let server = Server::own();
    let rows = [format!("text '{MARK}-x'"), format!("convert_to('{MARK}', 'UTF8')"), format!("jsonb '[\"{MARK}\"]'")];
    for row in rows {
        let database = server.database().await;
        unmarked_rows(&database.url());
        let client = database.client().await;
        client.batch_execute(&format!("CREATE TABLE t AS SELECT {row} AS v")).await.unwrap();
        is_found(|| unmarked_rows(&database.url()));
        client.batch_execute("DROP TABLE t").await.unwrap();
    }
    assert!(server.connect("postgres").await.batch_execute(&format!("SELECT '{MARK}'::integer")).await.is_err());
    is_found(std::panic::AssertUnwindSafe(|| drop(server)));
}
