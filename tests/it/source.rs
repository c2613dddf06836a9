//! Behaviour of `source`: real sockets, real files.

use crate::support::faulty::{Answer, Faulty, head};
use crate::support::marked::MARK;
use std::io::Write as _;
use std::net::TcpListener;
use std::time::{Duration, Instant};
use trackd::class::Class;
use trackd::config::checked::SecretTemplate;
use trackd::config::{FileSource, HttpSource, Retry, SourceSpec, Template};
use trackd::source::{self, Ask, Error, Hosts, Payload, Source};

const RETRY: Retry = Retry { attempts: 3, base: Duration::from_millis(1), max: Duration::from_millis(2) };
const TIMEOUT: Duration = Duration::from_secs(20);

fn template(text: &str) -> Template {
    Template::compile(text).expect("template")
}

fn spec(url: &str) -> HttpSource {
    HttpSource {
        method: "GET".into(),
        url: template(url),
        headers: Vec::new(),
        query: Vec::new(),
        body: None,
        max_body: 1 << 20,
        max_redirects: 3,
        rate_limit: None,
    }
}

fn header(name: &str, value: &str) -> (String, SecretTemplate) {
    (name.into(), SecretTemplate(template(value)))
}

fn ask() -> Ask {
    Ask { context: minijinja::Value::default() }
}

fn build(spec: HttpSource) -> Box<dyn Source> {
    source::build(&SourceSpec::Http(spec), TIMEOUT, RETRY, &Hosts::default()).expect("source")
}

async fn fetch(spec: HttpSource) -> Result<Payload, Error> {
    build(spec).fetch(&ask()).await
}

async fn fetch_file(path: &std::path::Path, max_body: u64) -> Result<Payload, Error> {
    let spec = SourceSpec::File(FileSource {
        path: template(path.to_str().expect("path")),
        base: std::path::PathBuf::new(),
        max_body,
    });
    source::build(&spec, TIMEOUT, RETRY, &Hosts::default()).expect("source").fetch(&ask()).await
}

#[tokio::test]
async fn a_server_in_trouble_is_asked_again_until_it_answers() {
    let server = Faulty::start([Answer::new(500, &[], "oops"), Answer::new(503, &[], ""), Answer::ok("{}")]).await;
    let payload = fetch(spec(&server.url("/a"))).await.expect("payload");
    assert_eq!((payload.body.as_ref(), payload.attempts, payload.response.status), (&b"{}"[..], 3, Some(200)));
    assert_eq!(payload.response.url.as_deref(), Some(&*server.url("/a")));
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn attempts_are_limited_and_the_last_error_says_what_came() {
    let server = Faulty::start([Answer::new(502, &[], "<h1>Bad\n Gateway</h1>")]).await;
    let error = fetch(spec(&server.url("/a?key=m4rked"))).await.expect_err("error");
    let expected = format!("GET {}?key=…: status 502, expected 2xx: <h1>Bad Gateway</h1>", server.url("/a"));
    assert_eq!(error.to_string(), expected);
    assert_eq!((error.class, error.attempts, error.status), (Class::Retry, 3, Some(502)));
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn a_refusal_that_stands_is_not_asked_again_and_hints() {
    for (status, word) in [(401, "credentials"), (403, "credentials"), (404, "http.url"), (410, "http.url")] {
        let server = Faulty::start([Answer::new(status, &[], "")]).await;
        let error = fetch(spec(&server.url("/"))).await.expect_err("error");
        assert_eq!((error.class, error.attempts, error.status), (Class::Standing, 1, Some(status)));
        assert!(error.hint.as_deref().is_some_and(|hint| hint.contains(word)), "{error:?}");
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn a_refused_connection_names_the_peer_once() {
    let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let error = fetch(spec(&format!("http://{address}/x"))).await.expect_err("error");
    assert_eq!(error.to_string(), format!("connect {address}: connection refused"));
    assert_eq!((error.class, error.attempts), (Class::Retry, 3));
}

#[tokio::test]
async fn a_connection_closed_without_an_answer_is_tried_again() {
    let server = Faulty::start([Answer::Close, Answer::Close, Answer::ok("1")]).await;
    assert_eq!(fetch(spec(&server.url("/"))).await.expect("payload").attempts, 3);
    let server = Faulty::start([Answer::Close]).await;
    let error = fetch(spec(&server.url("/"))).await.expect_err("error");
    assert_eq!(error.class, Class::Retry);
    assert!(error.message.contains("connection cut before a response"), "{error}");
}

#[tokio::test]
async fn a_truncated_body_is_never_a_payload() {
    let mut cut = head(200, &[], 1000).into_bytes();
    cut.extend_from_slice(&[b'x'; 300]);
    let server = Faulty::start([Answer::Cut(cut)]).await;
    let error = fetch(spec(&server.url("/"))).await.expect_err("error");
    assert!(error.message.contains("body cut after 300 of 1000 bytes"), "{error}");
    assert_eq!((error.class, error.attempts, error.status), (Class::Retry, 3, Some(200)));
}

#[tokio::test]
async fn a_chunked_body_without_its_end_is_never_a_payload() {
    let cut = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n".to_vec();
    let server = Faulty::start([Answer::Cut(cut)]).await;
    let error = fetch(spec(&server.url("/"))).await.expect_err("error");
    assert!(error.message.contains("body cut after 5 bytes"), "{error}");
    assert_eq!(error.class, Class::Retry);
}

#[tokio::test]
async fn a_truncated_gzip_body_is_never_a_payload() {
    let mut body = gzip(&[b'x'; 100_000]);
    body.truncate(body.len() - 12);
    let server = Faulty::start([Answer::new(200, &[("Content-Encoding", "gzip")], body)]).await;
    let error = fetch(spec(&server.url("/"))).await.expect_err("error");
    assert!(error.message.contains("body cut after"), "{error}");
    assert_eq!(error.class, Class::Retry);
}

#[tokio::test]
async fn an_announced_length_over_max_body_is_refused_unread() {
    let endless = Answer::Endless(head(200, &[], 30 << 20).into_bytes(), vec![b' '; 64 << 10]);
    let server = Faulty::start([endless]).await;
    let error = fetch(spec(&server.url("/"))).await.expect_err("error");
    let expected = "body larger than max_body: expected at most 1048576 bytes, got 31457280 bytes announced";
    assert!(error.message.ends_with(expected), "{error}");
    assert_eq!((error.class, error.attempts), (Class::Standing, 1));
    assert!(server.written() < 20 << 20, "{} bytes were taken", server.written());
}

#[tokio::test]
async fn a_body_without_end_is_left_at_max_body() {
    let start = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    let mut piece = b"1000\r\n".to_vec();
    piece.extend_from_slice(&[b' '; 0x1000]);
    piece.extend_from_slice(b"\r\n");
    let server = Faulty::start([Answer::Endless(start, piece)]).await;
    let error = fetch(spec(&server.url("/"))).await.expect_err("error");
    assert!(error.message.contains("expected at most 1048576 bytes, got more after"), "{error}");
    assert_eq!((error.class, error.attempts), (Class::Standing, 1));
}

#[tokio::test]
async fn a_body_of_exactly_max_body_passes() {
    let body = vec![b'x'; 1 << 20];
    let server = Faulty::start([Answer::ok(&body)]).await;
    assert_eq!(fetch(spec(&server.url("/"))).await.expect("payload").body, body);
    let error = fetch(HttpSource { max_body: (1 << 20) - 1, ..spec(&server.url("/")) }).await.expect_err("error");
    assert_eq!(error.class, Class::Standing);
}

#[tokio::test]
async fn one_byte_over_max_body_is_too_much_even_unannounced() {
    let body = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n".to_vec();
    let server = Faulty::start([Answer::Bytes(body)]).await;
    let bounded = |max_body| fetch(HttpSource { max_body, ..spec(&server.url("/")) });
    assert_eq!(bounded(10).await.expect("payload").body, "helloworld");
    for max_body in [9, 4, 0] {
        assert_eq!(bounded(max_body).await.expect_err("error").class, Class::Standing);
    }
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(body).expect("gzip");
    encoder.finish().expect("gzip")
}

#[tokio::test]
async fn max_body_counts_what_comes_out_of_compression() {
    let bomb = gzip(&vec![0; 200 << 20]);
    assert!(bomb.len() < 1 << 20);
    let server = Faulty::start([Answer::new(200, &[("Content-Encoding", "gzip")], bomb)]).await;
    let error = fetch(spec(&server.url("/"))).await.expect_err("error");
    assert!(error.message.contains("larger than max_body"), "{error}");
    assert_eq!((error.class, error.attempts), (Class::Standing, 1));
}

#[tokio::test]
async fn a_compressed_body_arrives_decompressed() {
    let body = b"{\"a\": 1}".repeat(1000);
    let server = Faulty::start([Answer::new(200, &[("Content-Encoding", "gzip")], gzip(&body))]).await;
    assert_eq!(fetch(spec(&server.url("/"))).await.expect("payload").body, body);
    let sent = server.requests()[0].to_lowercase();
    for coding in ["gzip", "br", "zstd", "deflate"] {
        assert!(sent.split("accept-encoding: ").nth(1).is_some_and(|line| line.contains(coding)), "{sent}");
    }
}

#[tokio::test]
async fn a_body_that_drips_ends_at_the_timeout() {
    let drip = Answer::Drip(head(200, &[], 100_000).into_bytes(), Duration::from_millis(5));
    for answer in [drip, Answer::Silence] {
        let server = Faulty::start([answer]).await;
        let (timeout, retry) = (Duration::from_millis(200), Retry { attempts: 2, ..RETRY });
        let source = source::build(&SourceSpec::Http(spec(&server.url("/d"))), timeout, retry, &Hosts::default());
        let begun = Instant::now();
        let error = source.expect("source").fetch(&ask()).await.expect_err("error");
        assert_eq!(
            error.to_string(),
            format!("GET {}: no complete response within the timeout of 200ms", server.url("/d"))
        );
        assert_eq!((error.class, error.attempts), (Class::Retry, 2));
        assert!(begun.elapsed() < TIMEOUT);
    }
}

#[tokio::test]
async fn redirects_are_followed_up_to_the_cap() {
    let to = |path: &str| Answer::new(302, &[("Location", path)], "");
    let server = Faulty::start([to("/b"), to("c?x=1"), Answer::ok("here")]).await;
    let payload = fetch(spec(&server.url("/a"))).await.expect("payload");
    assert_eq!(payload.body, "here");
    assert_eq!(payload.response.url, Some(server.url("/c?x=1")));

    let server = Faulty::start([to("/a")]).await;
    let error = fetch(spec(&server.url("/a"))).await.expect_err("error");
    let expected = format!("GET {0}: more than 3 redirects, the last to {0}", server.url("/a"));
    assert_eq!(error.to_string(), expected);
    assert_eq!((error.class, error.status), (Class::Standing, Some(302)));
    assert_eq!(server.requests().len(), 4);
}

#[tokio::test]
async fn a_redirect_elsewhere_takes_no_configured_header_along() {
    let other = Faulty::start([Answer::ok("there")]).await;
    let first = Faulty::start([Answer::new(307, &[("Location", &other.url("/t"))], "")]).await;
    let source = HttpSource {
        headers: vec![header("X-Api-Key", "m4rked"), header("Authorization", "Bearer abc")],
        ..spec(&first.url("/a"))
    };
    assert_eq!(fetch(source).await.expect("payload").body, "there");
    assert!(first.requests()[0].contains("m4rked"));
    let sent = other.requests()[0].to_lowercase();
    assert!(!sent.contains("m4rked") && !sent.contains("abc") && sent.contains("accept: application/json"), "{sent}");
}

#[tokio::test]
async fn a_redirect_out_of_http_is_refused() {
    let server = Faulty::start([Answer::new(302, &[("Location", "file:///etc/passwd")], "")]).await;
    let error = fetch(spec(&server.url("/a"))).await.expect_err("error");
    assert!(error.message.ends_with("redirect: expected http or https, got \"file\""), "{error}");
    assert_eq!(error.class, Class::Standing);
}

#[tokio::test]
async fn too_many_requests_waits_as_asked_but_no_longer_than_the_cap() {
    let limited = Answer::new(429, &[("Retry-After", "3600")], "slow down");
    let server = Faulty::start([limited.clone(), Answer::ok("1")]).await;
    let begun = Instant::now();
    assert_eq!(fetch(spec(&server.url("/"))).await.expect("payload").attempts, 2);
    assert!(begun.elapsed() < TIMEOUT);

    let server = Faulty::start([limited]).await;
    let error = fetch(spec(&server.url("/"))).await.expect_err("error");
    assert_eq!((error.status, error.retry_after), (Some(429), Some(RETRY.max)));
    assert!(error.hint.as_deref().is_some_and(|hint| hint.contains("less often")));
}

#[tokio::test]
async fn an_html_page_with_status_200_passes_through_as_payload() {
    let server = Faulty::start([Answer::new(200, &[("Content-Type", "text/html")], "<html>sorry</html>")]).await;
    let payload = fetch(spec(&server.url("/"))).await.expect("payload");
    assert_eq!(payload.body, "<html>sorry</html>");
    assert_eq!(payload.response.headers["content-type"], "text/html");
}

#[tokio::test]
async fn a_secret_is_sent_and_never_said() {
    let echo = Answer::new(401, &[], "bad token m4rked-token for user, query m4rked-query");
    let server = Faulty::start([echo]).await;
    let source = HttpSource {
        headers: vec![header("authorization", "Bearer m4rked-token")],
        query: vec![("key".into(), template("m4rked-query"))],
        ..spec(&server.url("/a").replace("http://", "http://me:m4rked-user@"))
    };
    assert!(!format!("{source:?}").contains("m4rked-token"));
    let error = fetch(source).await.expect_err("error");
    let said = format!("{error} {error:?}");
    assert!(!said.contains(MARK), "{said}");
    assert!(said.contains("bad token [secret] for user"), "{said}");
    assert!(server.requests()[0].contains("authorization: Bearer m4rked-token"));
}

#[tokio::test]
async fn method_headers_query_and_body_are_sent_as_given() {
    let server = Faulty::start([Answer::ok("{}")]).await;
    let source = HttpSource {
        method: "POST".into(),
        headers: vec![header("X-One", "1"), header("x-one", "2"), header("Accept", "text/csv")],
        query: vec![("q".into(), template("a b&c=d/é")), ("page".into(), template("1"))],
        body: Some(template("{\"query\": \"x\"}")),
        ..spec(&server.url("/p?fixed=1"))
    };
    fetch(source).await.expect("payload");
    let sent = &server.requests()[0];
    assert!(sent.starts_with("POST /p?fixed=1&q=a+b%26c%3Dd%2F%C3%A9&page=1 HTTP/1.1\r\n"), "{sent}");
    assert!(sent.contains("x-one: 1\r\n") && sent.contains("x-one: 2\r\n"), "{sent}");
    assert!(sent.contains("accept: text/csv\r\n") && !sent.contains("application/json"), "{sent}");
    assert!(sent.contains(concat!("user-agent: trackd/", env!("CARGO_PKG_VERSION"), "\r\n")), "{sent}");
    assert!(sent.ends_with("\r\n\r\n{\"query\": \"x\"}"), "{sent}");
}

#[tokio::test]
async fn a_hundred_fetches_take_one_connection() {
    let server = Faulty::start([Answer::ok("{\"a\":1}")]).await;
    let sources = [build(spec(&server.url("/a"))), build(HttpSource { max_redirects: 0, ..spec(&server.url("/b")) })];
    for _ in 0..50 {
        for source in &sources {
            assert_eq!(source.fetch(&ask()).await.expect("payload").body, "{\"a\":1}");
        }
    }
    assert_eq!((server.requests().len(), server.connections()), (100, 1));
}

#[tokio::test]
async fn a_small_error_page_keeps_the_connection() {
    let server = Faulty::start([Answer::new(500, &[], "oops"), Answer::ok("1")]).await;
    fetch(spec(&server.url("/"))).await.expect("payload");
    assert_eq!(server.connections(), 1);
}

#[test]
fn what_can_never_be_asked_is_refused_when_built() {
    let build = |spec| match source::build(&SourceSpec::Http(spec), TIMEOUT, RETRY, &Hosts::default()) {
        Ok(_) => panic!("built"),
        Err(error) => error,
    };
    for (url, expected) in [
        ("ftp://u:m4rked@h/x", "url: expected http:// or https:// and a host, got \"ftp\""),
        ("/leaderboard", "url: not an address: relative URL without a base"),
    ] {
        let error = build(spec(url));
        assert_eq!((error.to_string(), error.class), (expected.to_owned(), Class::Standing));
    }
    let error = build(HttpSource { headers: vec![header("authorization", "top\nsecret")], ..spec("http://h/") });
    assert_eq!(error.to_string(), "header authorization: not a header value");
    let error = build(HttpSource { method: "GET IT".into(), ..spec("http://h/") });
    assert_eq!(error.to_string(), "method \"GET IT\": not an HTTP method");
}

#[tokio::test]
async fn a_file_is_read_whole() {
    let file = tempfile::NamedTempFile::new().expect("file");
    std::fs::write(file.path(), "[1, 2]").expect("write");
    let payload = fetch_file(file.path(), 6).await.expect("payload");
    assert_eq!((payload.body.as_ref(), payload.attempts, payload.response.status), (&b"[1, 2]"[..], 1, None));
    assert!(payload.response.headers.is_empty());
}

#[tokio::test]
async fn a_file_that_cannot_be_read_says_why() {
    let dir = tempfile::tempdir().expect("dir");
    let (file, missing) = (dir.path().join("f"), dir.path().join("missing"));
    std::fs::write(&file, "1234567").expect("write");
    let pipe = dir.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).expect("pipe");
    for (path, expected) in [
        (&missing, "no such file or directory"),
        (&dir.path().to_owned(), "expected a file, got a directory"),
        (&pipe, "expected a file, got a pipe, socket or device"),
        (&file, "larger than max_body: expected at most 6 bytes, got 7"),
        (&file.join("x"), "not a directory"),
    ] {
        let error = fetch_file(path, 6).await.expect_err("error");
        assert_eq!(error.to_string(), format!("read {}: {expected}", path.display()));
        assert_eq!(error.class, Class::Standing);
        assert!(error.hint.is_some());
    }
}
