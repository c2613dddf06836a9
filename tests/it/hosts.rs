//! Behaviour towards hosts that are slow, hang or ask for patience: polite to them, and harmless to all others.

use crate::support::daemon::{Home, PATIENCE};
use crate::support::faulty::{Answer, Faulty};
use crate::support::postgres::{Server, eventually};
use futures_util::future::join_all;
use std::time::{Duration, Instant};
use tokio_postgres::Client;
use trackd::class::Class;
use trackd::config::{HttpSource, Retry, SourceSpec, Template};
use trackd::source::{self, Ask, Error, Hosts, Payload, Source};

const TIMEOUT: Duration = Duration::from_secs(20);
const ONCE: Retry = Retry { attempts: 1, base: Duration::from_secs(5), max: Duration::from_secs(5) };
/// Waits up to 5 s for its second attempt.
const TWICE: Retry = Retry { attempts: 2, ..ONCE };
const BODY: &str = r#"{"rows":[{"k":"a","v":1}]}"#;

fn http(url: &str, rate_limit: Option<Duration>) -> SourceSpec {
    SourceSpec::Http(HttpSource {
        method: "GET".into(),
        url: Template::compile(url).unwrap(),
        headers: Vec::new(),
        query: Vec::new(),
        body: None,
        max_body: 1 << 20,
        max_redirects: 3,
        rate_limit,
    })
}

fn at_rate(url: &str, retry: Retry, hosts: &Hosts, rate_limit: Option<Duration>) -> Box<dyn Source> {
    source::build(&http(url, rate_limit), TIMEOUT, retry, hosts).expect("source")
}

fn impatient(url: &str, timeout: Duration, hosts: &Hosts) -> Box<dyn Source> {
    source::build(&http(url, None), timeout, ONCE, hosts).expect("source")
}

fn build(url: &str, retry: Retry, hosts: &Hosts) -> Box<dyn Source> {
    at_rate(url, retry, hosts, None)
}

/// Asks all of them at once.
async fn fetch(sources: &[Box<dyn Source>]) -> Vec<Result<Payload, Error>> {
    let ask = Ask { context: minijinja::Value::default() };
    join_all(sources.iter().map(|source| source.fetch(&ask))).await
}

/// Sources of one host that does not answer any more: it rests for a second.
async fn resting() -> (Faulty, Hosts, Vec<Box<dyn Source>>) {
    let server = Faulty::start([Answer::Close]).await;
    let hosts = Hosts::new(4);
    let sources: Vec<_> = (0..5).map(|_| build(&server.url("/"), ONCE, &hosts)).collect();
    for source in fetch(&sources).await {
        let error = source.expect_err("no answer");
        assert!(error.message.contains("connection cut before a response"), "{error}");
    }
    (server, hosts, sources)
}

#[tokio::test]
async fn a_host_has_so_many_requests_at_once_and_no_more() {
    let server = Faulty::start([late("1", Duration::from_millis(100))]).await;
    let hosts = Hosts::new(3);
    let sources: Vec<_> = (0..12).map(|_| build(&server.url("/"), ONCE, &hosts)).collect();
    assert!(fetch(&sources).await.iter().all(Result::is_ok));
    assert_eq!((server.requests().len(), server.crowds().into_iter().max()), (12, Some(3)));
}

#[tokio::test]
async fn the_slowest_rate_of_its_trackers_is_kept_by_all_requests_to_a_host() {
    let server = Faulty::start([Answer::new(302, &[("Location", "/b")], ""), Answer::ok("1")]).await;
    let hosts = Hosts::default();
    let rate = |milliseconds| Some(Duration::from_millis(milliseconds));
    let mut sources = vec![build(&server.url("/"), ONCE, &hosts), build(&server.url("/x"), ONCE, &hosts)];
    let begun = Instant::now();
    sources.push(at_rate(&server.url("/"), ONCE, &hosts, rate(10)));
    sources.push(at_rate(&server.url("/"), ONCE, &hosts, rate(150)));
    assert!(fetch(&sources).await.iter().all(Result::is_ok));
    let instants = server.instants();
    assert_eq!(instants.len(), 5, "one is a redirect");
    for (index, at) in (0_u32..).zip(&instants) {
        let earliest = Duration::from_millis(150) * index;
        assert!(at.duration_since(begun) >= earliest, "request {index}: {:?}", at.duration_since(begun));
    }
    // A reload without it.
    drop(sources.pop());
    let begun = Instant::now();
    assert!(fetch(&sources).await.iter().all(Result::is_ok));
    assert!(begun.elapsed() >= Duration::from_millis(20), "the next slowest counts");
}

#[tokio::test]
async fn nobody_asks_a_host_before_its_retry_after_is_over() {
    let limited = Answer::new(429, &[("Retry-After", "1")], "");
    let server = Faulty::start([limited, Answer::ok("1")]).await;
    let hosts = Hosts::default();
    let sources = [build(&server.url("/a"), Retry { base: Duration::from_millis(1), ..ONCE }, &hosts)];
    assert_eq!(fetch(&sources).await[0].as_ref().expect_err("limited").status, Some(429));
    let begun = Instant::now();
    let others = [build(&server.url("/b"), ONCE, &hosts), build(&server.url("/c"), ONCE, &hosts)];
    assert!(fetch(&others).await.iter().all(Result::is_ok));
    // It began when the head was there, shortly before we had its error.
    assert!(begun.elapsed() >= Duration::from_millis(800), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_pause_that_is_longer_than_a_run_may_wait_fails_it_at_once() {
    let server = Faulty::start([Answer::new(503, &[("Retry-After", "3600")], "")]).await;
    let hosts = Hosts::default();
    let patient = Retry { max: Duration::from_secs(3600), ..ONCE };
    let told = [build(&server.url("/"), patient, &hosts)];
    assert_eq!(fetch(&told).await[0].as_ref().expect_err("503").status, Some(503));
    let begun = Instant::now();
    let error = fetch(&[build(&server.url("/"), TWICE, &hosts)]).await.remove(0).expect_err("it waits in vain");
    assert!(begun.elapsed() < TIMEOUT, "{:?}", begun.elapsed());
    assert!(error.message.starts_with(&format!("host {}: nobody asks it before 20", server.host())), "{error}");
    assert_eq!((error.class, error.attempts, server.requests().len()), (Class::Retry, 1, 1));
}

#[tokio::test]
async fn a_run_that_waits_for_its_turn_is_not_late() {
    let server = Faulty::start([late("1", Duration::from_millis(700))]).await;
    let (hosts, timeout) = (Hosts::new(1), Duration::from_secs(2));
    let sources: Vec<_> = (0..4).map(|_| impatient(&server.url("/"), timeout, &hosts)).collect();
    let begun = Instant::now();
    assert!(fetch(&sources).await.iter().all(Result::is_ok));
    assert!(begun.elapsed() > timeout);
}

#[tokio::test]
async fn a_host_whose_requests_hang_keeps_nobody_in_line_for_ever() {
    let server = Faulty::start([Answer::Silence]).await;
    let hosts = Hosts::new(1);
    // It waits for its turn longer than the others: they are told first.
    let hangs = impatient(&server.url("/"), Duration::from_secs(600), &hosts);
    let retry = Retry { max: Duration::ZERO, ..ONCE };
    let ask = Ask { context: minijinja::Value::default() };
    let mut hanging = hangs.fetch(&ask);
    eventually("a request that hangs", PATIENCE, async || {
        assert!(futures_util::poll!(&mut hanging).is_pending());
        server.requests().len() == 1
    })
    .await;
    let source = http(&server.url("/"), None);
    let waits = source::build(&source, Duration::from_millis(200), retry, &hosts).expect("source");
    let error = waits.fetch(&ask).await.expect_err("no turn");
    let expected = format!("host {}: no turn within 200ms, other requests to it go first", server.host());
    assert_eq!((error.to_string(), error.class), (expected, Class::Retry));
    drop(hanging);
    server.turn_to([Answer::ok("1")]);
    assert!(waits.fetch(&ask).await.is_ok(), "a request that was given up leaves its place");
}

#[tokio::test]
async fn a_host_that_does_not_answer_is_not_asked_until_its_rest_is_over() {
    let (server, hosts, _kept) = resting().await;
    for error in fetch(&[build(&server.url("/"), ONCE, &hosts)]).await {
        let error = error.expect_err("it rests");
        assert!(error.message.starts_with(&format!("host {} does not answer since 20", server.host())), "{error}");
        assert!(error.message.contains("Z, asked next at 20"), "{error}");
        assert_eq!((error.class, error.attempts), (Class::Retry, 1));
        assert!(error.hint.expect("a hint").contains("connection cut before a response"));
        assert!(error.rests.expect("a rest") <= Duration::from_secs(1));
    }
    assert_eq!(server.requests().len(), 5);
    let other = Faulty::start([Answer::ok("1")]).await;
    assert!(fetch(&[build(&other.url("/"), ONCE, &hosts)]).await[0].is_ok(), "another host is another host");
}

#[tokio::test]
async fn after_the_rest_one_request_probes_and_its_answer_lets_all_others_go() {
    let (server, hosts, _kept) = resting().await;
    // The probe's answer takes a while: whoever does not wait for it would be seen beside it.
    server.turn_to([late("1", Duration::from_millis(300)), Answer::ok("1")]);
    let sources: Vec<_> = (0..10).map(|_| build(&server.url("/"), TWICE, &hosts)).collect();
    for payload in fetch(&sources).await {
        assert_eq!(payload.expect("healed").attempts, 2);
    }
    assert_eq!(server.requests().len(), 15);
    assert_eq!(server.crowds()[5..7], [1, 1], "the probe goes alone");
}

#[tokio::test]
async fn a_probe_without_an_answer_fails_those_that_waited_for_it_and_doubles_the_rest() {
    let (server, hosts, _kept) = resting().await;
    let sources: Vec<_> = (0..10).map(|_| build(&server.url("/"), TWICE, &hosts)).collect();
    let mut refused = 0;
    for error in fetch(&sources).await {
        let error = error.expect_err("away");
        assert_eq!((error.class, error.attempts), (Class::Retry, 2));
        if let Some(rest) = error.rests {
            assert!(rest > Duration::from_secs(1) && rest <= Duration::from_secs(2), "{rest:?}");
            refused += 1;
        }
    }
    assert_eq!((refused, server.requests().len()), (9, 6));
}

#[tokio::test]
async fn a_tracker_alone_at_its_host_tries_as_its_retry_says() {
    let mut turns = vec![Answer::Close; 8];
    turns.push(Answer::ok("1"));
    let server = Faulty::start(turns).await;
    let retry = Retry { attempts: 9, base: Duration::from_millis(1), max: Duration::from_millis(2) };
    let payloads = fetch(&[build(&server.url("/"), retry, &Hosts::default())]).await;
    assert_eq!(payloads[0].as_ref().expect("payload").attempts, 9);
}

fn late(body: &str, pause: Duration) -> Answer {
    match Answer::ok(body) {
        Answer::Bytes(bytes) => Answer::Late(bytes, pause),
        _ => unreachable!(),
    }
}

fn trackers(prefix: &str, count: usize, every: &str, url: &str) -> String {
    let tracker = |name: String| {
        format!(
            "[[tracker]]\nname = \"{name}\"\nevery = \"{every}\"\ntimeout = \"60s\"\nhttp = {{ url = \"{url}\" }}\n\
             [[tracker.table]]\nname = \"{name}\"\nhistory = \"snapshot\"\nkey = [\"k\"]\nrows = \".rows[]\"\n\
             columns = {{ k = \"text\", v = \"integer\" }}\n"
        )
    };
    (0..count).map(|number| tracker(format!("{prefix}{number}"))).collect()
}

/// Runs of trackers with this prefix that have this status.
async fn runs(client: &Client, prefix: &str, status: &str) -> i64 {
    let sql = "SELECT count(*) FROM trackd.runs WHERE starts_with(tracker, $1) AND status = $2";
    client.query_one(sql, &[&prefix, &status]).await.map_or(0, |row| row.get(0))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_hangs_for_all_its_trackers_delays_no_other_hosts() {
    let (hangs, works) = (Faulty::start([Answer::Silence]).await, Faulty::start([Answer::ok(BODY)]).await);
    let database = Server::shared().database().await;
    let trackers = trackers("h", 50, "200ms", &hangs.url("/")) + &trackers("w", 3, "200ms", &works.url("/"));
    let mut home = Home::new(&database, &trackers);
    // As many workers as one host may have: it never gets the last one.
    home.set("TRACKD_DAEMON__WORKERS", "4");
    home.set("TRACKD_DAEMON__DRAIN", "0s");
    let daemon = home.run();
    eventually("requests that hang", PATIENCE, async || hangs.requests().len() == 3).await;
    let client = database.client().await;
    let before = runs(&client, "w", "succeeded").await;
    eventually("runs of the other host", PATIENCE, async || runs(&client, "w", "succeeded").await >= before + 60).await;
    assert_eq!(hangs.requests().len(), 3, "{}", daemon.log());
    let ended = runs(&client, "h", "failed").await + runs(&client, "h", "succeeded").await;
    assert_eq!(ended, 0, "the hanging ones hang all the while: {}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_away_is_probed_and_heals_and_no_instant_is_without_its_row() {
    let server = Faulty::start([Answer::Close]).await;
    let database = Server::shared().database().await;
    let home = Home::new(&database, &trackers("t", 20, "500ms", &server.url("/")));
    let mut daemon = home.run();
    daemon.says("host does not answer", 1).await;
    let client = database.client().await;
    eventually("runs that fail", PATIENCE, async || runs(&client, "t", "failed").await >= 100).await;
    let refused = "SELECT count(*) FROM trackd.runs WHERE status = 'failed' AND error_class = 'retry' \
                   AND error LIKE 'fetch: host 127.0.0.1:% does not answer since %Z, asked next at %Z%'";
    let refused: i64 = client.query_one(refused, &[]).await.unwrap().get(0);
    let asked = server.requests().len();
    assert!(refused > 50 && asked < 50, "refused {refused}, asked {asked}");
    server.turn_to([Answer::ok(BODY)]);
    daemon.says("host answers again", 1).await;
    eventually("all trackers to succeed", PATIENCE, async || {
        let sql = "SELECT count(DISTINCT tracker) FROM trackd.runs WHERE status = 'succeeded'";
        client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 20
    })
    .await;
    daemon.signal(rustix::process::Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());
    assert_eq!((daemon.said("host does not answer"), daemon.said("host answers again")), (1, 1), "{}", daemon.log());
    let gaps = "SELECT count(*) FROM (SELECT scheduled_at - lag(scheduled_at) OVER (PARTITION BY tracker ORDER BY scheduled_at) AS d \
                FROM trackd.runs) AS x WHERE d <> interval '500 ms'";
    assert_eq!(client.query_one(gaps, &[]).await.unwrap().get::<_, i64>(0), 0, "instants without a row");
}
