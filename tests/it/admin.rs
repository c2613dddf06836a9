//! Behaviour of `admin`: what its addresses answer, and to whom.

use crate::support::marked::unmarked;
use jiff::Timestamp;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use trackd::class::Class;
use trackd::status::*;

const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Admin {
    address: SocketAddr,
    status: watch::Sender<Arc<Status>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Admin {
    pub(crate) async fn start(status: Status) -> Admin {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let (status, shown) = watch::channel(Arc::new(status));
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(trackd::admin::serve(listener, shown, async move {
            let _ = stopped.await;
        }));
        Admin { address, status, stop, task }
    }

    async fn send(&self, head: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.expect("connect");
        stream.write_all(head.as_bytes()).await.expect("send");
        let mut response = String::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut response)).await;
        read.expect("an answer in time").expect("an answer");
        unmarked("an answer", &response);
        response
    }

    pub(crate) async fn get(&self, path: &str) -> String {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address)).await
    }
}

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_761_634_200 + second).expect("a time")
}

fn run(name: &str, status: RunStatus, error: Option<&str>) -> Run {
    Run {
        run_id: uuid::Uuid::nil(),
        tracker: name.into(),
        scheduled_at: at(0),
        kind: Kind::Scheduled,
        status,
        attempt: 1,
        instance: "host:1".into(),
        started_at: at(0),
        finished_at: at(1),
        fetched_bytes: Some(956),
        http_status: Some(200),
        rows_read: 6,
        rows_written: 6,
        rows_rejected: 0,
        payload_sha256: None,
        error_class: error.map(|_| Class::Standing),
        error: error.map(str::to_owned),
    }
}

pub(crate) fn tracker(name: &str, last: Option<Run>, failures_in_a_row: u32) -> Tracker {
    Tracker {
        name: name.into(),
        schedule: "every 15s".into(),
        state: TrackerState::Idle,
        next_run: Some(at(15)),
        last,
        last_success: None,
        stale_at: None,
        stale: false,
        standing: None,
        failures_in_a_row,
        totals: Totals::default(),
        newest: vec![Sample {
            table: "prices".into(),
            at: at(0),
            columns: vec!["symbol".into(), "price".into()],
            rows: vec![vec![Some("<script>alert(1)</script>".into()), None]],
        }],
    }
}

pub(crate) fn status(phase: Phase) -> Status {
    let failed = run("bad", RunStatus::Failed, Some("status 503, expected 2xx: <b>\"away\"</b> (slow down)"));
    Status {
        version: "0.1.0",
        instance: "host:1".into(),
        phase,
        started_at: at(-100),
        config_path: "/etc/<trackd>/config.toml".into(),
        config_generation: 3,
        trackers: vec![
            tracker("good", Some(run("good", RunStatus::Succeeded, None)), 0),
            tracker("bad", Some(failed), 7),
            tracker("new", None, 0),
        ],
        ..Status::default()
    }
}

#[tokio::test]
async fn health_is_the_process_and_readiness_its_phase() {
    let admin = Admin::start(status(Phase::Starting)).await;
    assert!(admin.get("/healthz").await.ends_with("\r\n\r\nok\n"));
    for (phase, expected) in [
        (Phase::Starting, "starting\n"),
        (Phase::Degraded, "database away: connection refused\n"),
        (Phase::Draining, "draining: stops when its runs are done\n"),
    ] {
        let shown = Status { database_error: Some("connection refused".into()), ..status(phase) };
        admin.status.send_replace(Arc::new(shown));
        let answer = admin.get("/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with(expected), "{answer}");
    }
    admin.status.send_replace(Arc::new(status(Phase::Running)));
    let answer = admin.get("/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ready\n"), "{answer}");
}

#[tokio::test]
async fn degraded_is_not_down() {
    let server = Server {
        version: "15.14".into(),
        major: 15,
        uptime: Duration::from_secs(60),
        standby: false,
        replication_lag: None,
        standbys: 0,
        database: "trackd".into(),
        database_size_bytes: 8_000_000,
        clock_skew: jiff::SignedDuration::from_secs(30),
        answered_in: Duration::from_millis(1),
        connections: 3,
        max_connections: 100,
        tls: None,
        local: true,
    };
    let off = "degraded: the server's clock is 30.0s off this host's\n";
    let admin = Admin::start(Status { server: Some(server), ..status(Phase::Running) }).await;
    for (path, expected) in [("/healthz", format!("ok, {off}")), ("/readyz", format!("ready, {off}"))] {
        let answer = admin.get(path).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(&format!("\r\n\r\n{expected}")), "{answer}");
    }
    assert!(admin.get("/api/status").await.contains("\"clock_skew_seconds\":30.0"));
    let page = admin.get("/").await;
    assert!(
        page.contains("<b>Degraded.</b> the server") && page.contains("7.6 MiB <small>PostgreSQL 15, 3 of 100"),
        "{page}"
    );
    let away = Status { database_error: Some("connection refused".into()), ..status(Phase::Degraded) };
    admin.status.send_replace(Arc::new(away));
    let answer = admin.get("/healthz").await;
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok, degraded: database away: connection refused\n")
    );
}

#[tokio::test]
async fn a_stale_tracker_and_a_standing_fault_are_seen_and_are_not_down() {
    let mut shown = status(Phase::Running);
    (shown.stale, shown.standing) = (1, 1);
    (shown.trackers[0].stale, shown.trackers[0].stale_at) = (true, Some(at(-60)));
    let fault = trackd::schedule::pace::Standing { since: at(-50), latest: at(0), failures: 5, every_nth: 8 };
    shown.trackers[1].standing = Some(fault);
    let admin = Admin::start(shown).await;
    let troubles = "degraded: 1 tracker stale: good; 1 tracker with a standing fault: bad\n";
    for (path, expected) in [("/healthz", format!("ok, {troubles}")), ("/readyz", format!("ready, {troubles}"))] {
        let answer = admin.get(path).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(&format!("\r\n\r\n{expected}")), "{answer}");
    }
    let page = admin.get("/").await;
    for part in [
        ">1 stale<",
        ">1 with a standing fault<",
        "></span>stale",
        "></span>standing fault",
        "tried at one in 8 instants",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let json: serde_json::Value =
        serde_json::from_str(admin.get("/api/status").await.split_once("\r\n\r\n").expect("a body").1).expect("JSON");
    assert_eq!((&json["stale"], &json["trackers"][1]["standing"]["every_nth"]), (&1.into(), &8.into()));
}

#[tokio::test]
async fn the_status_is_json_with_every_tracker() {
    let admin = Admin::start(status(Phase::Running)).await;
    let answer = admin.get("/api/status").await;
    let (head, body) = answer.split_once("\r\n\r\n").expect("a body");
    assert!(head.contains("content-type: application/json"), "{head}");
    let json: serde_json::Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(json["trackers"][1]["last"]["error_class"], "standing");
    assert_eq!((&json["phase"], &json["config_generation"]), (&"running".into(), &3.into()));
}

#[tokio::test]
async fn the_page_shows_every_tracker_and_escapes_every_value() {
    let message = "config.toml:3:1 <unknown> key".into();
    let reload = Reload { at: at(1), ok: false, message, class: Some(Class::Standing), hint: None };
    let shown = Status { last_reload: Some(reload), database_error: Some("<away>".into()), ..status(Phase::Degraded) };
    let admin = Admin::start(shown).await;
    let page = admin.get("/").await;
    for part in [
        ">good</th>",
        ">bad</th>",
        ">new</th>",
        "none yet",
        "every 15s",
        "7 failures in a row",
        "status 503, expected 2xx: &lt;b&gt;&quot;away&quot;&lt;&#x2f;b&gt; (slow down)",
        "&lt;script&gt;alert(1)&lt;&#x2f;script&gt;",
        "<span class=\"faint\">null</span>",
        "&lt;unknown&gt; key",
        "&lt;away&gt;",
        "&lt;trackd&gt;",
        "(1 failing) trackd",
    ] {
        assert!(page.contains(part), "{part} is missing in {page}");
    }
    assert!(!page.contains("<script>alert") && !page.contains("<b>\"away\"") && !page.contains("<away>"), "{page}");
}

#[tokio::test]
async fn every_answer_forbids_what_the_page_does_not_need() {
    let admin = Admin::start(status(Phase::Running)).await;
    for path in ["/", "/healthz", "/readyz", "/api/status", "/page.css", "/page.js", "/nothing"] {
        let answer = admin.get(path).await.to_lowercase();
        for rule in
            ["content-security-policy: default-src 'none';", "x-content-type-options: nosniff", "x-frame-options: deny"]
        {
            assert!(answer.contains(rule), "{rule} is missing for {path}: {answer}");
        }
        assert!(!answer.contains("access-control-allow-origin"), "{answer}");
    }
    assert!(admin.get("/nothing").await.starts_with("HTTP/1.1 404 "));
    let post = format!(
        "POST /api/status HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        admin.address
    );
    assert!(admin.send(&post).await.starts_with("HTTP/1.1 405 "));
}

#[tokio::test]
async fn a_name_of_another_site_is_not_answered() {
    let admin = Admin::start(status(Phase::Running)).await;
    let asked = |host: &str| format!("GET /api/status HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let answer = admin.send(&asked("evil.example:8787")).await;
    assert!(answer.starts_with("HTTP/1.1 421 ") && !answer.contains("tracker"), "{answer}");
    assert!(admin.send(&asked("localhost:8787")).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn connections_that_say_nothing_do_not_keep_others_out() {
    let admin = Admin::start(status(Phase::Running)).await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(admin.address).await.expect("connect");
        stream.write_all(b"GET / HTTP/1.1\r\nHost: ").await.expect("send");
        silent.push(stream);
    }
    assert!(admin.get("/healthz").await.ends_with("ok\n"));
}

#[tokio::test]
async fn shutdown_ends_idle_connections_and_the_listener() {
    let admin = Admin::start(status(Phase::Running)).await;
    let mut idle = TcpStream::connect(admin.address).await.expect("connect");
    idle.write_all(format!("GET /healthz HTTP/1.1\r\nHost: {}\r\n\r\n", admin.address).as_bytes()).await.expect("send");
    idle.readable().await.expect("an answer");
    admin.stop.send(()).expect("stop");
    tokio::time::timeout(PATIENCE, admin.task).await.expect("stopped in time").expect("no panic");
    assert!(TcpStream::connect(admin.address).await.is_err());
}
