//! Values of secrets, each a marked text, that are in no log at any level.

use crate::support::daemon::{Home, PATIENCE, file_tracker};
use crate::support::faulty::{Answer, Faulty};
use crate::support::postgres::{Server, eventually};
use rustix::process::Signal;

const MARK: &str = "m4rked";

#[tokio::test(flavor = "multi_thread")]
async fn at_the_lowest_level_no_secret_of_a_source_a_database_or_an_alert_is_in_any_log() {
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
    for (name, value) in [
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
    assert!(!logged.contains("starting new connection"), "a line of the HTTP client, which may hold more: {logged}");
    let lines: Vec<&str> = logged.lines().filter(|line| line.contains(MARK)).collect();
    assert!(lines.is_empty(), "{}", lines.join("\n"));
}
