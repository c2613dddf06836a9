//! Behaviour of `trackd once` beside a running daemon, which does the work.

use crate::support::daemon::{Daemon, Home, PATIENCE, RARELY, file_tracker, stderr, stdout};
use crate::support::faulty::{Answer, Faulty};
use crate::support::postgres::{Server, at_least, count, eventually};
use rustix::process::Signal;
use std::process::Stdio;
use std::time::Duration;

const BODY: &str = r#"{"rows":[{"k":"a","v":1}]}"#;
const BY_HAND: &str = "SELECT count(*) FROM trackd.runs WHERE kind = 'manual' AND status = 'succeeded'";

async fn ready(home: &Home) -> Daemon {
    let mut daemon = home.run();
    daemon.says("ready", 1).await;
    daemon
}

/// A tracker that asks `server`.
fn asks(name: &str, server: &Faulty) -> String {
    let source = format!("http = {{ url = \"{}\" }}", server.url("/"));
    file_tracker(name, RARELY).replace(&format!("file = {{ path = \"{name}.json\" }}"), &source)
}

#[tokio::test(flavor = "multi_thread")]
async fn once_is_done_by_the_daemon_for_who_may_read_neither_configuration_nor_database() {
    let database = Server::shared().database().await;
    let home = Home::new(&database, &(file_tracker("a", RARELY) + &file_tracker("b", RARELY)));
    home.put("a.json", BODY);
    home.put("b.json", BODY);
    let daemon = ready(&home).await;
    let configured = std::fs::read_to_string(home.path("config.toml")).unwrap();
    home.put("config.toml", configured.replace("[log]", "[log"));
    let one = home.trackd(&["once", "b"]);
    assert_eq!(one.status.code(), Some(0), "{}", stderr(&one));
    let shown = stdout(&one);
    assert!(shown.starts_with("tracker\tscheduled at\tstatus\t") && shown.contains("\nb\t"), "{shown}");
    assert!(shown.contains("\tsucceeded\t") && !shown.contains("\na\t"), "{shown}");
    let all = home.trackd(&["once", "--all", "--json"]);
    let names = |text: &str| -> Vec<(String, String)> {
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.map(|run| (run["tracker"].as_str().unwrap().into(), run["kind"].as_str().unwrap().into())).collect()
    };
    let expected = [("a".into(), "manual".into()), ("b".into(), "manual".into())];
    assert_eq!(names(&stdout(&all)), expected, "in the order of the file; {}", stderr(&all));
    assert_eq!(count(&database.client().await, BY_HAND).await, 3);
    assert_eq!(daemon.said("runs by hand"), 2, "{}", daemon.log());
    let misspelt = home.trackd(&["once", "a", "c"]);
    assert_eq!(misspelt.status.code(), Some(64));
    let told = stderr(&misspelt);
    assert!(
        told.contains("no tracker \"c\" in the configuration in force, ")
            && told.contains("config.toml: it has a, b; "),
        "{told}"
    );
    assert_eq!(count(&database.client().await, BY_HAND).await, 3, "none of them has run");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_runs_that_fail_the_others_land_and_the_exit_code_says_so() {
    let database = Server::shared().database().await;
    let home = Home::new(&database, &(file_tracker("a", RARELY) + &file_tracker("b", RARELY)));
    home.put("b.json", BODY);
    let _daemon = ready(&home).await;
    let output = home.trackd(&["once", "b", "a"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr(&output), "trackd: 1 of 2 runs failed\n");
    let lines: Vec<String> = stdout(&output).lines().map(str::to_owned).collect();
    assert!(lines[1].starts_with("b\t") && lines[1].contains("succeeded"), "{lines:?}");
    assert!(lines[2].starts_with("a\t") && lines[2].contains("failed") && lines[2].contains("a.json"), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_goes_away_leaves_a_run_that_lands_and_no_queue() {
    let database = Server::shared().database().await;
    let late = |body: &str| {
        let Answer::Bytes(bytes) = Answer::ok(body) else { unreachable!() };
        Answer::Late(bytes, Duration::from_secs(3))
    };
    let server = Faulty::start([late(BODY), Answer::ok(BODY)]).await;
    let home = Home::new(&database, &asks("a", &server));
    let _daemon = ready(&home).await;
    let ask = || home.command(&["once", "a"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut first = ask();
    eventually("a run that goes on", PATIENCE, async || !server.requests().is_empty()).await;
    first.kill().unwrap();
    first.wait().unwrap();
    // All of these wait for one run, the next.
    let others: Vec<_> = (0..3).map(|_| ask()).collect();
    let all = others.into_iter().map(|mut child| child.wait().unwrap().code()).collect::<Vec<_>>();
    assert_eq!(all, [Some(0); 3]);
    let client = database.client().await;
    at_least(&client, BY_HAND, 2).await;
    assert_eq!((count(&client, BY_HAND).await, server.requests().len()), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_database_the_daemon_keeps_what_it_got_and_says_so() {
    let home = Home::with("postgres://nobody@%2Fnonexistent/d", &file_tracker("a", RARELY));
    home.put("a.json", BODY);
    let mut daemon = home.run();
    daemon.says("nonexistent", 1).await;
    eventually("a daemon that is up", PATIENCE, async || stderr(&home.trackd(&["status"])).contains("degraded: "))
        .await;
    let output = home.trackd(&["once", "a"]);
    assert_eq!(output.status.code(), Some(69), "{}", stderr(&output));
    let told = stderr(&output);
    assert!(told.contains("tracker \"a\": its payload waits in the spool for the database"), "{told}");
    assert!(told.contains("hint: they land by themselves"), "{told}");
    assert!(stdout(&home.trackd(&["spool", "ls"])).contains("\na\t"));
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_tells_who_waits_for_a_run_that_has_not_begun() {
    let database = Server::shared().database().await;
    let server = Faulty::start([Answer::Silence]).await;
    let home = Home::new(&database, &asks("a", &server));
    let mut daemon = ready(&home).await;
    let ask = || home.command(&["once", "a"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let first = ask();
    eventually("a run that goes on", PATIENCE, async || !server.requests().is_empty()).await;
    let second = ask();
    eventually("a run that waits", PATIENCE, async || stderr(&home.trackd(&["status"])).contains("1 runs wait")).await;
    daemon.signal(Signal::TERM);
    let second = second.wait_with_output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(stderr(&second).contains("the daemon stops, it was not begun"), "{}", stderr(&second));
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0));
    assert_eq!(first.wait_with_output().unwrap().status.code(), Some(1));
}
