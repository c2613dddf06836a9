//! Behaviour of the control socket: a real daemon, asked by `trackd reload` and by strangers.

use crate::support::daemon::{Daemon, Home, PATIENCE, RARELY, file_tracker, stderr, stdout};
use crate::support::postgres::{Server, eventually};
use rustix::process::Signal;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Stdio;

const BODY: &str = r#"{"rows":[{"k":"a","v":1}]}"#;
/// Two faults.
const BROKEN: &str =
    "[[tracker]]\nname = \"broken\"\nschedule = \"61 * * * *\"\n[[tracker]]\nname = \"worse\"\nevery = \"soon\"\n";

async fn ready(home: &Home) -> Daemon {
    let mut daemon = home.run();
    daemon.says("ready", 1).await;
    daemon
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_is_asked_for_is_over_when_it_is_answered() {
    let database = Server::shared().database().await;
    let home = Home::new(&database, &file_tracker("a", RARELY));
    home.put("a.json", BODY);
    let daemon = ready(&home).await;
    home.configure(&(file_tracker("a", RARELY) + &file_tracker("b", RARELY)));
    let output = home.trackd(&["reload"]);
    assert_eq!(stdout(&output), "added 1 (b), changed 0, removed 0\n", "{}", stderr(&output));
    assert_eq!(output.status.code(), Some(0));
    let status = stdout(&home.trackd(&["status"]));
    assert!(status.contains("\nb\t"), "who asked sees it: {status}");
    assert_eq!(daemon.said("configuration reloaded"), 1, "{}", daemon.log());
    let by = format!("uid {}, process ", rustix::process::geteuid().as_raw());
    assert!(daemon.said(&by) >= 1, "who asked: {}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_is_refused_with_every_fault_and_changes_nothing() {
    let database = Server::shared().database().await;
    let home = Home::new(&database, &file_tracker("a", RARELY));
    home.put("a.json", BODY);
    let mut daemon = ready(&home).await;
    home.configure(BROKEN);
    let output = home.trackd(&["reload"]);
    assert_eq!(output.status.code(), Some(78), "{}", stderr(&output));
    let told = stderr(&output);
    assert!(told.contains("61") && told.contains("soon"), "both faults: {told}");
    assert!(told.contains("config.toml:"), "with their places: {told}");
    assert_eq!(daemon.said("configuration reloaded"), 0);
    // Also where the file says no more where the socket is.
    let configured = std::fs::read_to_string(home.path("config.toml")).unwrap();
    home.put("config.toml", configured.replace("[log]", "[log"));
    let output = home.trackd(&["reload"]);
    assert_eq!(output.status.code(), Some(78), "{}", stderr(&output));
    home.configure(&file_tracker("a", RARELY));
    assert_eq!(home.trackd(&["reload"]).status.code(), Some(0));
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_is_no_fault_of_the_file() {
    let database = Server::shared().database().await;
    let home = Home::new(&database, &file_tracker("a", RARELY));
    home.put("a.json", BODY);
    let _daemon = ready(&home).await;
    let configured = std::fs::read_to_string(home.path("config.toml")).unwrap();
    home.put("config.toml", configured.replace(&database.url(), "postgres://nobody@%2Fnonexistent/d"));
    let output = home.trackd(&["reload"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("/nonexistent"), "{}", stderr(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_without_a_database_reloads() {
    let home = Home::with("postgres://nobody@%2Fnonexistent/d", &file_tracker("a", RARELY));
    home.put("a.json", BODY);
    let mut daemon = home.run();
    daemon.says("nonexistent", 1).await;
    home.configure(&(file_tracker("a", RARELY) + &file_tracker("b", RARELY)));
    let output = home.trackd(&["reload"]);
    assert_eq!(stdout(&output), "added 1 (b), changed 0, removed 0\n", "{}", stderr(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_daemon_there_is_nobody_to_ask_and_a_killed_ones_socket_is_replaced() {
    let database = Server::shared().database().await;
    let home = Home::new(&database, &file_tracker("a", RARELY));
    home.put("a.json", BODY);
    let socket = home.path("state/trackd.sock");
    let output = home.trackd(&["reload"]);
    assert_eq!(output.status.code(), Some(69), "{}", stderr(&output));
    assert!(stderr(&output).contains("state/trackd.sock"), "{}", stderr(&output));
    ready(&home).await.kill();
    assert!(socket.exists(), "a kill leaves it");
    assert_eq!(home.trackd(&["reload"]).status.code(), Some(69));
    let mut daemon = ready(&home).await;
    assert_eq!(home.trackd(&["reload"]).status.code(), Some(0));
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0));
    assert!(!socket.exists(), "a stop removes it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_stands_still_is_waited_for_but_not_for_ever() {
    let database = Server::shared().database().await;
    let home = Home::new(&database, &file_tracker("a", RARELY));
    home.put("a.json", BODY);
    let daemon = ready(&home).await;
    daemon.signal(Signal::STOP);
    let output = home.trackd(&["reload", "--timeout", "200ms"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("no answer within 200ms"), "{}", stderr(&output));
    let waits = home.command(&["reload"]).stdout(Stdio::piped()).spawn().unwrap();
    daemon.signal(Signal::CONT);
    let output = waits.wait_with_output().unwrap();
    assert_eq!(stdout(&output), "added 0, changed 0, removed 0\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_ask_at_once_and_a_hangup_are_all_answered() {
    let database = Server::shared().database().await;
    let home = Home::new(&database, &file_tracker("a", RARELY));
    home.put("a.json", BODY);
    let daemon = ready(&home).await;
    daemon.signal(Signal::STOP);
    let ask = |_| home.command(&["reload"]).stdout(Stdio::piped()).spawn().unwrap();
    let asked: Vec<_> = (0..20).map(ask).collect();
    home.configure(&(file_tracker("a", RARELY) + &file_tracker("b", RARELY)));
    daemon.signal(Signal::HUP);
    daemon.signal(Signal::CONT);
    let told: Vec<String> = asked.into_iter().map(|child| stdout(&child.wait_with_output().unwrap())).collect();
    let none = "added 0, changed 0, removed 0\n";
    assert!(told.iter().all(|told| told == none || told == "added 1 (b), changed 0, removed 0\n"), "{told:?}");
    let reloads = daemon.said("configuration reloaded");
    assert!((1..=21).contains(&reloads), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_at_the_same_socket_is_refused() {
    let (first, second) = (Server::shared().database().await, Server::shared().database().await);
    let (mut one, mut other) =
        (Home::new(&first, &file_tracker("a", RARELY)), Home::new(&second, &file_tracker("a", RARELY)));
    let run = one.path("run").display().to_string();
    one.set("RUNTIME_DIRECTORY", &run);
    other.set("RUNTIME_DIRECTORY", &run);
    let _daemon = ready(&one).await;
    let mut second = other.run();
    assert_eq!(second.ends().await, Some(1), "{}", second.log());
    assert!(second.said("another trackd answers there") == 1, "{}", second.log());
    assert_eq!(one.trackd(&["reload"]).status.code(), Some(0), "the first is as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_of_another_configuration_is_not_asked() {
    let (first, second) = (Server::shared().database().await, Server::shared().database().await);
    let (mut one, mut other) =
        (Home::new(&first, &file_tracker("a", RARELY)), Home::new(&second, &file_tracker("a", RARELY)));
    let run = one.path("").display().to_string();
    one.set("XDG_RUNTIME_DIR", &run);
    other.set("XDG_RUNTIME_DIR", &run);
    let _daemon = ready(&one).await;
    assert!(one.path("trackd/trackd.sock").exists());
    assert_eq!(other.trackd(&["reload"]).status.code(), Some(69));
    assert_eq!(one.trackd(&["reload"]).status.code(), Some(0));
}

/// Asks as another user, who is in no group of ours.
fn ask_as_nobody(path: std::path::PathBuf) -> std::io::Result<String> {
    let ask = move || {
        let nobody = rustix::process::Uid::from_raw(65534);
        // Of this thread alone.
        rustix::thread::set_thread_groups(&[])?;
        rustix::thread::set_thread_res_gid(
            rustix::process::Gid::from_raw(65534),
            rustix::process::Gid::from_raw(65534),
            rustix::process::Gid::from_raw(65534),
        )?;
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody)?;
        let mut stream = UnixStream::connect(path)?;
        stream.write_all(b"POST /control/reload HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    std::thread::spawn(ask).join().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_kept_out_by_the_mode_and_where_that_was_opened_by_the_daemon() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can ask as somebody else");
        return;
    }
    let database = Server::shared().database().await;
    let mut home = Home::new(&database, &file_tracker("a", RARELY));
    std::fs::create_dir(home.path("run")).unwrap();
    std::fs::set_permissions(home.path("run"), std::fs::Permissions::from_mode(0o755)).unwrap();
    home.set("RUNTIME_DIRECTORY", &home.path("run").display().to_string());
    let mut daemon = ready(&home).await;
    let socket = home.path("run/trackd.sock");
    let refused = ask_as_nobody(socket.clone()).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666)).unwrap();
    let answer = ask_as_nobody(socket).unwrap();
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    // The answer may be here before the line is.
    daemon.says("control socket: refused", 1).await;
    assert_eq!((daemon.said("configuration reloaded"), daemon.said("control socket: refused")), (0, 1));
    assert_eq!(home.trackd(&["reload"]).status.code(), Some(0), "the owner may");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_can_be_changed_over_tcp() {
    let database = Server::shared().database().await;
    let home = Home::new(&database, &file_tracker("a", RARELY));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let configured = std::fs::read_to_string(home.path("config.toml")).unwrap();
    home.put("config.toml", configured.replace("listen = \"\"", &format!("listen = \"{port}\"")));
    let daemon = ready(&home).await;
    for target in ["/control/reload", "/control/rehearsal", "/control/once", "/control/spool", "/api/runs?limit=1"] {
        let mut stream = std::net::TcpStream::connect(port).unwrap();
        let head = format!("POST {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 404"), "{target}: {answer}");
    }
    assert_eq!(daemon.said("configuration reloaded"), 0);
}

/// An address that nobody has.
fn free() -> std::net::SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_move_by_a_reload_and_stay_where_they_are_when_their_new_place_is_taken() {
    let database = Server::shared().database().await;
    let home = Home::new(&database, &file_tracker("a", RARELY));
    let configured = std::fs::read_to_string(home.path("config.toml")).unwrap();
    let at = |address: &str| {
        home.put("config.toml", configured.replace("listen = \"\"", &format!("listen = \"{address}\"")))
    };
    let answers = |address: std::net::SocketAddr| {
        let Ok(mut stream) = std::net::TcpStream::connect(address) else { return false };
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).is_ok() && answer.starts_with("HTTP/1.1 200")
    };
    let (first, second, taken) = (free(), free(), std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    at(&first.to_string());
    let _daemon = ready(&home).await;
    assert!(answers(first));
    at(&second.to_string());
    assert_eq!(home.trackd(&["reload"]).status.code(), Some(0));
    eventually("the pages elsewhere", PATIENCE, async || answers(second) && !answers(first)).await;
    at(&taken.local_addr().unwrap().to_string());
    let output = home.trackd(&["reload"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(stderr(&output).contains("daemon.listen: listen on 127.0.0.1:"), "{}", stderr(&output));
    assert!(answers(second), "nothing has changed");
    at("");
    assert_eq!(home.trackd(&["reload"]).status.code(), Some(0));
    eventually("no pages", PATIENCE, async || !answers(second)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_cannot_have_a_socket_runs_without() {
    let database = Server::shared().database().await;
    let mut home = Home::new(&database, &file_tracker("a", RARELY));
    home.put("a-file", "");
    home.set("RUNTIME_DIRECTORY", &home.path("a-file").display().to_string());
    let mut daemon = ready(&home).await;
    assert_eq!(daemon.said("no control socket"), 1, "{}", daemon.log());
    daemon.signal(Signal::HUP);
    daemon.says("configuration reloaded", 1).await;
}

#[test]
fn a_socket_that_answers_nonsense_is_no_daemon() {
    let mut home = Home::with("postgres://nobody@%2Fnonexistent/d", &file_tracker("a", RARELY));
    home.set("RUNTIME_DIRECTORY", &home.path("").display().to_string());
    let listener = UnixListener::bind(home.path("trackd.sock")).unwrap();
    let answers = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"220 mail ESMTP\r\n").unwrap();
    });
    let output = home.trackd(&["reload"]);
    answers.join().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn status_and_runs_are_the_daemons_while_it_runs_and_the_ledgers_after() {
    let database = Server::shared().database().await;
    let home = Home::new(&database, &file_tracker("a", "200ms"));
    home.put("a.json", BODY);
    let mut daemon = home.run();
    daemon.says("run succeeded", 1).await;
    let (status, runs) = (["status", "--json"], ["runs", "a", "--json"]);
    // Whoever may ask the daemon needs no way to the database.
    let configured = std::fs::read_to_string(home.path("config.toml")).unwrap();
    home.put("config.toml", configured.replace(&database.url(), "postgres://nobody@%2Fnonexistent/d"));
    let (mut live, mut seen) = (home.trackd(&status), serde_json::Value::Null);
    eventually("a published status with the run", PATIENCE, async || {
        live = home.trackd(&status);
        seen = serde_json::from_slice(&live.stdout).unwrap();
        seen["last"]["status"] == "succeeded"
    })
    .await;
    assert!(["idle", "queued", "running"].contains(&seen["state"].as_str().unwrap()), "{seen}");
    assert!(stderr(&live).contains("running: "), "what goes on: {}", stderr(&live));
    assert!(stdout(&home.trackd(&runs)).contains("\"succeeded\""));
    assert_eq!(home.trackd(&["runs", "b"]).status.code(), Some(64), "a misspelt name is told");
    home.put("config.toml", configured);
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0));
    let later = home.trackd(&status);
    assert!(stderr(&later).contains("from the database"), "{}", stderr(&later));
    let after: serde_json::Value = serde_json::from_slice(&later.stdout).unwrap();
    assert!(after["state"].is_null(), "{after}");
    let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&after), keys(&seen), "one shape, wherever it comes from");
    assert!(stdout(&home.trackd(&runs)).contains("\"succeeded\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_against_the_running_daemon_says_what_a_reload_would_change_and_changes_nothing() {
    let database = Server::shared().database().await;
    let home = Home::new(&database, &(file_tracker("a", RARELY) + &file_tracker("b", RARELY)));
    home.put("a.json", BODY);
    home.put("b.json", BODY);
    let daemon = ready(&home).await;
    home.configure(&(file_tracker("a", "2h") + &file_tracker("c", RARELY)));
    let configured = std::fs::read_to_string(home.path("config.toml")).unwrap();
    home.put("config.toml", configured.replace("drain = \"10s\"", "drain = \"11s\""));
    let check = ["check", "--against-running"];
    let changes = "added 1 (c), changed 1 (a), removed 1 (b), daemon.drain anew\n";
    for _ in 0..2 {
        let output = home.trackd(&check);
        assert_eq!(stdout(&output), format!("a reload would do: {changes}"), "{}", stderr(&output));
        assert_eq!(output.status.code(), Some(0));
    }
    assert_eq!(daemon.said("configuration reloaded"), 0);
    assert_eq!(stdout(&home.trackd(&["reload"])), changes);
    home.configure(BROKEN);
    assert_eq!(home.trackd(&check).status.code(), Some(78));
    home.configure(&file_tracker("a", "2h"));
    daemon.kill();
    assert_eq!(home.trackd(&check).status.code(), Some(69));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_with_a_key_that_takes_a_restart_is_refused_whole_and_a_start_takes_it() {
    let database = Server::shared().database().await;
    let home = Home::new(&database, &file_tracker("a", RARELY));
    home.put("a.json", BODY);
    let mut daemon = ready(&home).await;
    home.configure(&(file_tracker("a", RARELY) + &file_tracker("b", RARELY)));
    let configured = std::fs::read_to_string(home.path("config.toml")).unwrap();
    home.put("config.toml", configured.replace("drain = \"10s\"", "drain = \"11s\"\nworkers = 3\nlease = \"20s\""));
    let why = "daemon.workers: cannot change while trackd runs: 16 is in force, 3 is configured now; workers are started \
               at the start\n\
               daemon.lease: cannot change while trackd runs: 10s is in force, 20s is configured now; other daemons know it \
               from the start\n\
               \x20 hint: systemctl restart trackd takes all that is configured; or set back what cannot change, and reload\n";
    let check = home.trackd(&["check", "--against-running"]);
    assert_eq!(stderr(&check), format!("trackd: a reload would be refused\n{why}"));
    let reload = home.trackd(&["reload"]);
    assert_eq!(
        stderr(&reload),
        format!("trackd: reload refused, the old configuration stays in force\n{why}"),
        "the same words"
    );
    assert_eq!((check.status.code(), reload.status.code()), (Some(78), Some(78)));
    daemon.signal(Signal::HUP);
    daemon.says("reload refused", 2).await;
    assert_eq!(daemon.said("daemon.lease: cannot change while trackd runs"), 2, "{}", daemon.log());
    assert_eq!(daemon.said("configuration reloaded"), 0, "{}", daemon.log());
    assert!(!stdout(&home.trackd(&["status"])).contains("\nb\t"), "what could change has not, either");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0));
    let _daemon = ready(&home).await;
    let status = home.trackd(&["status"]);
    assert!(stdout(&status).contains("\nb\t"), "{}", stdout(&status));
    assert_eq!(stdout(&home.trackd(&["reload"])), "added 0, changed 0, removed 0\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waited_for_ready_is_not_told_that_the_daemon_starts() {
    let database = Server::shared().database().await;
    let home = Home::new(&database, &file_tracker("a", RARELY));
    home.put("a.json", BODY);
    let _daemon = ready(&home).await;
    let status = stderr(&home.trackd(&["status"]));
    assert!(status.contains("running: "), "{status}");
}

/// A daemon without a database, in whose spool the answer of `a` waits.
async fn with_one_that_waits(body: &str) -> (Home, Daemon) {
    let home = Home::with("postgres://nobody@%2Fnonexistent/d", &file_tracker("a", RARELY));
    home.put("a.json", body);
    let daemon = home.run();
    eventually("a daemon that is up", PATIENCE, async || stderr(&home.trackd(&["status"])).contains("degraded: "))
        .await;
    assert_eq!(home.trackd(&["once", "a"]).status.code(), Some(69));
    (home, daemon)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_spool_is_looked_at_by_the_daemon_for_who_may_read_neither_it_nor_the_configuration() {
    // Of several pieces.
    let body = format!("{{\"rows\":[{{\"k\":\"{}\",\"v\":1}}]}}", "k".repeat(300_000));
    let (home, mut daemon) = with_one_that_waits(&body).await;
    let here = |args: &[&str]| (stdout(&home.trackd(args)), home.trackd(args).status.code());
    let asks = || {
        let export = home.trackd(&["spool", "export", "--to", &home.path("copies").display().to_string()]);
        assert_eq!(export.status.code(), Some(0), "{}", stderr(&export));
        let mut copies: Vec<_> = std::fs::read_dir(home.path("copies/a")).unwrap().map(|e| e.unwrap().path()).collect();
        copies.sort();
        let copies: Vec<_> = copies.into_iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
        std::fs::remove_dir_all(home.path("copies")).unwrap();
        ([&["spool", "ls"][..], &["spool", "ls", "a", "--json"], &["spool", "check"]].map(here), copies)
    };
    let configured = std::fs::read_to_string(home.path("config.toml")).unwrap();
    home.put("config.toml", configured.replace("[log]", "[log"));
    let (asked, copies) = asks();
    assert!(asked[0].0.contains("\na\t") && asked[1].0.starts_with("{\"tracker\":\"a\","), "{asked:?}");
    assert_eq!(asked[2], ("1 entries, all whole\n".into(), Some(0)));
    assert!(
        copies.len() == 2 && copies[0] == body && copies[1].ends_with("}\n"),
        "the payload, and what is known of it"
    );
    let misspelt = home.trackd(&["spool", "ls", "b"]);
    assert_eq!(misspelt.status.code(), Some(64), "{}", stderr(&misspelt));
    let early = home.trackd(&["spool", "replay"]);
    assert_eq!(stdout(&early), "nothing is set aside\n");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0));
    home.put("config.toml", configured);
    assert_eq!(asks(), (asked, copies), "the same words without a daemon");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_file_but_the_spools_own_is_read_or_removed_for_who_asks_the_daemon() {
    let (home, _daemon) = with_one_that_waits(BODY).await;
    let waits: serde_json::Value = serde_json::from_str(&stdout(&home.trackd(&["spool", "ls", "--json"]))).unwrap();
    let file = waits["file"].as_str().unwrap();
    let name = file.rsplit_once('/').unwrap().1;
    let ask = |wish: serde_json::Value| {
        let (mut stream, wish) = (UnixStream::connect(home.path("state/trackd.sock")).unwrap(), wish.to_string());
        let head =
            "POST /control/spool HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json";
        stream.write_all(format!("{head}\r\nContent-Length: {}\r\n\r\n{wish}", wish.len()).as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let read = |file: &str| ask(serde_json::json!({"read": {"tracker": "a", "file": file}}));
    assert!(read(file).ends_with(&format!("\r\n{BODY}\r\n0\r\n\r\n")), "{}", read(file));
    let link = home.path("state/spool/entries/a").join(name.replace("T", "t"));
    std::os::unix::fs::symlink(home.path("config.toml"), &link).unwrap();
    let others = [
        home.path("config.toml").display().to_string(),
        "/etc/passwd".into(),
        format!("../a/{name}"),
        file.replace("/a/", "/a/../a/"),
        file.replace("/a/", "/./a/"),
        file.replace("/a/", "/b/"),
        link.display().to_string(),
    ];
    for other in others {
        let answer = read(&other);
        assert!(answer.contains(" 500 ") && answer.contains("not a file of this spool"), "{other}: {answer}");
    }
    // It waits: that is the daemon's to land, and to remove.
    let land = ask(serde_json::json!({"land": {"tracker": "a", "file": file, "current": false}}));
    assert!(land.starts_with("HTTP/1.1 503") && land.contains("has not met its database"), "{land}");
    assert!(std::fs::exists(file).unwrap());
}
