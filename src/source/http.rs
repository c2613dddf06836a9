//! The `http` source: one request, with retries, redirects and bounds.
//!
//! ```text
//!  make --> attempt [ send --> redirect? send … --> head --> body ] --> Payload
//!              ^                                   |
//!              +---- wait (backoff, Retry-After) <-+ class retry, attempts left
//! ```
//!
//! One attempt has `timeout` from connecting to the last byte; what it waits for its turn at the host is not counted.
//! Must not know: the store, shape, the schedule.

use super::host::{self, Hosts, Member, Turn};
use super::request::{Maker, again};
use super::rules::Miss;
use super::{Ask, Error, Payload, Response, Source, body, client, page, retry};
use crate::class::Class;
use crate::config::{HttpSource, Retry};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::{Client, Method, Request, StatusCode, Url};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// An address that is asked.
pub(super) struct Http {
    client: Client,
    maker: Maker,
    timeout: Duration,
    retry: Retry,
    max_body: u64,
    max_redirects: usize,
    place: Place,
}

/// Where a source stands in line.
struct Place {
    hosts: Hosts,
    asker: u64,
    distance: Option<Duration>,
    group: String,
    /// At the host that was asked last: for most sources the only one, whose state lives as long as they do.
    home: Mutex<Option<Arc<Member>>>,
}

/// What there is left to wait: of this attempt for the other side, and of the run for its turns.
struct Left {
    exchange: Duration,
    turns: Duration,
}

impl Http {
    /// # Errors
    /// Standing: the request cannot be made whatever the run.
    pub(super) fn new(source: &HttpSource, timeout: Duration, retry: Retry, hosts: &Hosts) -> Result<Http, Error> {
        let client = client::shared()?;
        let maker = Maker::new(client.clone(), source)?;
        Ok(Http {
            place: Place::new(source, &maker, hosts),
            maker,
            client,
            timeout,
            retry,
            max_body: source.max_body,
            max_redirects: source.max_redirects,
        })
    }

    async fn fetch(&self, ask: &Ask) -> Result<Payload, Error> {
        let request = self.maker.make(&ask.context)?;
        let mut attempt = 1;
        let mut patience = retry::patience(&self.retry);
        let mut left = Left { exchange: self.timeout, turns: self.turns() };
        loop {
            left.exchange = self.timeout;
            let error = match self.attempt(&request, &mut left).await {
                Ok((response, body)) => return Ok(Payload { body, response, attempts: attempt }),
                Err(error) => Error { attempts: attempt, ..error },
            };
            let rest = error.rests.unwrap_or_default();
            // A host that rests longer than this run would go on trying is not waited for.
            if error.class != Class::Retry || attempt >= self.retry.attempts || rest > patience {
                return Err(error);
            }
            let asked = error.rests.or(error.retry_after);
            let wait = asked.unwrap_or_else(|| super::backoff(&self.retry, attempt));
            tracing::debug!(attempt, ?wait, %error, "source failed, trying again");
            tokio::time::sleep(wait).await;
            patience = patience.saturating_sub(wait);
            attempt += 1;
        }
    }

    async fn attempt(&self, request: &Request, left: &mut Left) -> Result<(Response, Bytes), Error> {
        self.place.settle(request.url());
        let (turn, answer) = self.send(again(request), left).await?;
        let reading = self.read(request, &turn, answer);
        tokio::time::timeout(left.exchange, reading).await.unwrap_or_else(|_| Err(self.late(request)))
    }

    async fn read(
        &self,
        request: &Request,
        turn: &Turn,
        answer: reqwest::Response,
    ) -> Result<(Response, Bytes), Error> {
        let status = answer.status();
        let url = answer.url().clone();
        let headers = texts(answer.headers());
        if !status.is_success() {
            return Err(self.refused(request, turn, answer).await);
        }
        let body = body::collect(answer, self.max_body).await;
        let body = body.map_err(|error| Error {
            message: format!("{} {}: {}", request.method(), client::shown_url(&url), error.message),
            status: Some(status.as_u16()),
            ..error
        })?;
        Ok((Response { status: Some(status.as_u16()), url: Some(url.into()), headers }, body))
    }

    /// Sends it, and again where the answers point, at most `max_redirects` times. The turn is the last host's.
    async fn send(&self, mut request: Request, left: &mut Left) -> Result<(Turn, reqwest::Response), Error> {
        for followed in 0.. {
            let (turn, answer) = self.ask(&request, left).await?;
            let Some(target) = target(&answer) else { return Ok((turn, answer)) };
            let target = target.map_err(|why| Error {
                status: Some(answer.status().as_u16()),
                ..Error::standing(format!("{}: redirect: {why}", client::shown(&request)), None)
            })?;
            if followed == self.max_redirects {
                let to = client::shown_url(&target);
                let message = format!("{}: more than {followed} redirects, the last to {to}", client::shown(&request));
                let hint = "the address leads in a circle or asks for a log-in; ask the last address itself, or raise max_redirects";
                let status = Some(answer.status().as_u16());
                return Err(Error { status, ..Error::standing(message, Some(hint.into())) });
            }
            request = redirected(request, answer.status(), target);
        }
        unreachable!("the loop ends at max_redirects")
    }

    /// One request, in its turn, up to the head of its answer.
    async fn ask(&self, request: &Request, left: &mut Left) -> Result<(Turn, reqwest::Response), Error> {
        let asked = Instant::now();
        let turn = self.place.member(request.url()).turn(left.turns).await?;
        left.turns = left.turns.saturating_sub(asked.elapsed());
        let begun = Instant::now();
        let answered = tokio::time::timeout(left.exchange, self.client.execute(again(request))).await;
        left.exchange = left.exchange.saturating_sub(begun.elapsed());
        let (error, miss) = match answered {
            Ok(Ok(answer)) => {
                turn.answered();
                return Ok((turn, answer));
            }
            Ok(Err(error)) => {
                let miss = if error.is_connect() { Miss::Connect } else { Miss::Silent };
                (client::no_answer(request, &error), miss)
            }
            Err(_) => (self.late(request), Miss::Silent),
        };
        match error.class {
            Class::Retry => turn.missed(miss, &error),
            // Somebody is there: a certificate that is not trusted is this tracker's trouble.
            _ => turn.answered(),
        }
        Err(error)
    }

    fn late(&self, request: &Request) -> Error {
        let timeout = humantime::format_duration(self.timeout);
        Error::retry(format!("{}: no complete response within the timeout of {timeout}", client::shown(request)))
    }

    /// The error of an answer that is not 2xx.
    async fn refused(&self, request: &Request, turn: &Turn, answer: reqwest::Response) -> Error {
        const PAGE: u64 = 64 << 10;
        let status = answer.status();
        let asked = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = asked.and_then(|text| retry::retry_after(&self.retry, text, crate::clock::now()));
        if let (429 | 503, Some(wait)) = (status.as_u16(), retry_after) {
            turn.pause(wait);
        }
        let at = client::shown_url(answer.url());
        // Read to its end where it is short, which keeps the connection; a page that does not come is no matter.
        let page = body::collect(answer, self.max_body.min(PAGE)).await.unwrap_or_default();
        let page = page::excerpt(request, &page);
        let page = if page.is_empty() { page } else { format!(": {page}") };
        Error {
            message: format!("{} {at}: status {}, expected 2xx{page}", request.method(), status.as_u16()),
            class: Class::of_http_status(status.as_u16()).unwrap_or(Class::Retry),
            hint: hint(status).map(str::to_owned),
            status: Some(status.as_u16()),
            retry_after,
            attempts: 1,
            rests: None,
        }
    }
}

impl Source for Http {
    fn fetch<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<Payload, Error>> {
        Box::pin(self.fetch(ask))
    }

    fn group(&self) -> Option<&str> {
        Some(&self.place.group)
    }

    /// For those before it, each at a distance, and once for one that hangs and for a pause that the host asks for.
    fn turns(&self) -> Duration {
        let distances = self.place.distances().saturating_mul(self.retry.attempts);
        self.timeout.saturating_add(self.retry.max).saturating_add(distances)
    }
}

impl Place {
    fn new(source: &HttpSource, maker: &Maker, hosts: &Hosts) -> Place {
        let place = Place {
            hosts: hosts.clone(),
            asker: host::asker(),
            distance: source.rate_limit,
            group: host::group(&source.url),
            home: Mutex::default(),
        };
        if let Some(url) = maker.url() {
            place.settle(url);
        }
        place
    }

    /// Makes the host of this address the one whose state is kept.
    fn settle(&self, url: &Url) {
        let mut home = self.home.lock().unwrap_or_else(PoisonError::into_inner);
        if !home.as_ref().is_some_and(|member| member.is_at(url)) {
            *home = Some(self.hosts.enter(url, self.asker, self.distance));
        }
    }

    fn home(&self) -> Option<Arc<Member>> {
        self.home.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The place at the host of this address, which a redirect may have named.
    fn member(&self, url: &Url) -> Arc<Member> {
        let home = self.home().filter(|member| member.is_at(url));
        home.unwrap_or_else(|| self.hosts.enter(url, self.asker, None))
    }

    /// What those that may be before it keep of each other.
    fn distances(&self) -> Duration {
        self.home().map_or(Duration::ZERO, |member| member.distance()).saturating_mul(self.hosts.most())
    }
}

/// Where an answer points, if it is a redirect.
fn target(answer: &reqwest::Response) -> Option<Result<Url, String>> {
    if !matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = answer.headers().get(LOCATION)?;
    let target = location.to_str().ok().and_then(|location| answer.url().join(location).ok());
    Some(match target {
        Some(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
        Some(url) => Err(format!("expected http or https, got {:?}", url.scheme())),
        None => Err("its location is not an address".to_owned()),
    })
}

/// The request to send to `target`, as browsers do it; configured headers, which may be secrets, stay with the
/// origin they were meant for.
///
/// Source: RFC 9110 section 15.4; Fetch standard, "HTTP-redirect fetch".
fn redirected(mut request: Request, status: StatusCode, target: Url) -> Request {
    let to_get = status == StatusCode::SEE_OTHER && request.method() != Method::HEAD
        || matches!(status.as_u16(), 301 | 302) && request.method() == Method::POST;
    if to_get {
        *request.method_mut() = Method::GET;
        *request.body_mut() = None;
        request.headers_mut().remove(CONTENT_TYPE);
        request.headers_mut().remove(CONTENT_LENGTH);
    }
    if request.url().origin() != target.origin() {
        let accept = request.headers_mut().remove(ACCEPT);
        let content_type = request.headers_mut().remove(CONTENT_TYPE);
        request.headers_mut().clear();
        request.headers_mut().extend(accept.map(|value| (ACCEPT, value)));
        request.headers_mut().extend(content_type.map(|value| (CONTENT_TYPE, value)));
    }
    *request.url_mut() = target;
    request
}

fn hint(status: StatusCode) -> Option<&'static str> {
    Some(match status.as_u16() {
        401 | 403 => "the source does not accept these credentials: check http.headers",
        404 | 410 => "nothing is at this address: check http.url",
        405 => "the source does not take this method here: check http.method",
        400 | 422 => "the source does not understand the request: check http.query and http.body",
        406 => "the source does not give JSON here: set the header accept",
        429 => "the source asks for fewer requests: poll less often",
        304 => "nothing changed since the time or tag asked for: leave out such headers, a run keeps what it got",
        300..=399 => "the source points elsewhere without saying where: check http.url",
        _ => return None,
    })
}

fn texts(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut texts = BTreeMap::<String, String>::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        texts
            .entry(name.as_str().to_owned())
            .and_modify(|text| {
                text.push_str(", ");
                text.push_str(&value);
            })
            .or_insert_with(|| value.into_owned());
    }
    texts
}
