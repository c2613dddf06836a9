//! Paths → responses, and the rules every response follows.
//!
//! Must not know: connections, how the status is made.

use super::metrics;
use super::page::Page;
use crate::clock;
use crate::status::{Phase, Status, Tracker};
use axum::extract::{Request, State};
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::watch;

/// Trackers named in one line.
const NAMED: usize = 10;

#[derive(Clone)]
struct Shown {
    status: watch::Receiver<Arc<Status>>,
    page: Arc<Page>,
}

impl Shown {
    fn now(&self) -> Arc<Status> {
        self.status.borrow().clone()
    }
}

/// `local`: the listener is on loopback, so only names of this machine are answered.
pub(super) fn router(status: watch::Receiver<Arc<Status>>, local: bool) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/healthz", get(healthy))
        .route("/readyz", get(ready))
        .route("/api/status", get(api_status))
        .route("/metrics", get(scraped))
        .route("/page.css", get(async || asset("text/css; charset=utf-8", include_str!("page.css"))))
        .route("/page.js", get(async || asset("text/javascript; charset=utf-8", include_str!("page.js"))))
        .fallback(async || (StatusCode::NOT_FOUND, "not found: /, /healthz, /readyz, /api/status, /metrics\n"))
        .layer(from_fn_with_state(local, guarded))
        .with_state(Shown { status, page: Arc::new(Page::new()) })
}

async fn index(State(shown): State<Shown>) -> Response {
    match shown.page.render(&shown.now(), clock::now()) {
        Ok(html) => Html(html).into_response(),
        Err(error) => {
            tracing::error!(%error, "admin: page not rendered");
            (StatusCode::INTERNAL_SERVER_ERROR, "the page cannot be shown; /api/status has its values\n")
                .into_response()
        }
    }
}

/// Whether the process is well: a database that is away does not make it worth a restart.
async fn healthy(State(shown): State<Shown>) -> String {
    let status = shown.now();
    let troubles = match status.phase {
        Phase::Degraded => vec![away(&status)],
        _ => troubles(&status),
    };
    if troubles.is_empty() { "ok\n".into() } else { format!("ok, degraded: {}\n", troubles.join("; ")) }
}

/// Whether runs land.
async fn ready(State(shown): State<Shown>) -> Response {
    let status = shown.now();
    let reason = match status.phase {
        Phase::Running => {
            let troubles = troubles(&status);
            let text = if troubles.is_empty() {
                "ready\n".into()
            } else {
                format!("ready, degraded: {}\n", troubles.join("; "))
            };
            return text.into_response();
        }
        Phase::Starting => "starting".to_owned(),
        Phase::Draining => "draining: stops when its runs are done".to_owned(),
        Phase::Degraded => away(&status),
    };
    (StatusCode::SERVICE_UNAVAILABLE, reason + "\n").into_response()
}

fn away(status: &Status) -> String {
    format!("database away: {}", status.database_error.as_deref().unwrap_or("no error known"))
}

/// What is not as it should be, and keeps no run from landing.
pub(super) fn troubles(status: &Status) -> Vec<String> {
    let stale = status.trackers.iter().filter(|tracker| tracker.stale);
    let standing = status.trackers.iter().filter(|tracker| tracker.standing.is_some());
    let server = status.server.iter().flat_map(|server| server.troubles()).map(|trouble| trouble.what);
    server.chain(named(stale, "stale")).chain(named(standing, "with a standing fault")).collect()
}

/// "3 trackers stale: a, b, c"
fn named<'a>(trackers: impl Iterator<Item = &'a Tracker>, what: &str) -> Option<String> {
    let names: Vec<&str> = trackers.map(|tracker| tracker.name.as_str()).collect();
    let more = if names.len() > NAMED { format!(" and {} more", names.len() - NAMED) } else { String::new() };
    let plural = if names.len() == 1 { "tracker" } else { "trackers" };
    let shown = names[..names.len().min(NAMED)].join(", ");
    (!names.is_empty()).then(|| format!("{} {plural} {what}: {shown}{more}", names.len()))
}

async fn api_status(State(shown): State<Shown>) -> Response {
    Json(&*shown.now()).into_response()
}

async fn scraped(State(shown): State<Shown>) -> Response {
    ([(header::CONTENT_TYPE, metrics::TYPE)], metrics::render(&shown.now())).into_response()
}

fn asset(kind: &'static str, text: &'static str) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, kind)], text)
}

/// Nothing of another site is loaded, nothing of this one is shown inside another.
const RULES: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (header::CACHE_CONTROL, "no-store"),
];

async fn guarded(State(local): State<bool>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).map(|host| host.to_str().unwrap_or_default().to_owned());
    let mut response = match host {
        // A page of another site whose name was made to point at this machine sends that name.
        Some(host) if local && !names_this_machine(&host) => {
            let why = "this address answers to localhost and to IP addresses only, not to the name it was asked by\n";
            (StatusCode::MISDIRECTED_REQUEST, why).into_response()
        }
        _ => next.run(request).await,
    };
    for (name, value) in RULES {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn names_this_machine(host: &str) -> bool {
    let Ok(uri) = host.parse::<Uri>() else { return false };
    let name = uri.host().unwrap_or_default();
    let address = name.trim_start_matches('[').trim_end_matches(']');
    address.parse::<IpAddr>().is_ok() || name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::names_this_machine;

    #[test]
    fn only_addresses_and_localhost_name_this_machine() {
        for host in ["127.0.0.1:8787", "[::1]:8787", "localhost", "localhost:1", "trackd.localhost:8787", "10.0.0.7"] {
            assert!(names_this_machine(host), "{host}");
        }
        for host in ["evil.example:8787", "localhost.evil.example", "127.0.0.1.evil.example", "", "a b"] {
            assert!(!names_this_machine(host), "{host}");
        }
    }
}
