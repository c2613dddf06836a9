//! Where responses come from: one bounded, timed exchange → `Payload`.
//!
//! In: an `Ask` (what the templates may see). Out: the payload's bytes and what is known of the response.
//! Must not know: the store, shape programs, the schedule.

mod body;
mod client;
mod file;
mod host;
mod http;
mod page;
mod request;
mod retry;
mod rules;
pub mod webhook;

pub use host::Hosts;

use crate::class::Class;
use crate::config::{Retry, SourceSpec};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::time::Duration;

/// Makes a tracker's source.
///
/// What does not depend on the run is parsed here, so that a fetch costs its exchange and little else. Requests take
/// their turn at their host among all sources that share `hosts`.
///
/// # Errors
/// Standing: no run of this tracker could ask its source (an address or a header that is none).
pub fn build(spec: &SourceSpec, timeout: Duration, retry: Retry, hosts: &Hosts) -> Result<Box<dyn Source>, Error> {
    Ok(match spec {
        SourceSpec::Http(spec) => Box::new(http::Http::new(spec, timeout, retry, hosts)?),
        SourceSpec::File(spec) => Box::new(file::File::new(spec, timeout)),
    })
}

/// The wait after attempt `attempt` (from 1) of anything that is tried again: exponential with full jitter.
pub fn backoff(retry: &Retry, attempt: u32) -> Duration {
    retry::backoff(retry, attempt, fastrand::f64())
}

/// A kind of source. `command` and `sql` will be further ones.
pub trait Source: Send + Sync {
    /// Fetches once, with the retries its configuration allows.
    ///
    /// Cancel safety: safe; dropping the future closes the connection and nothing is kept.
    ///
    /// # Errors
    /// `source::Error` after the last attempt, with its class and a hint.
    fn fetch<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<Payload, Error>>;

    /// What it shares with other sources that must not ask all at once: its host. `None`: nothing.
    fn group(&self) -> Option<&str> {
        None
    }

    /// How long a fetch may wait for its turns, besides its attempts and the waits between them.
    fn turns(&self) -> Duration {
        Duration::ZERO
    }
}

/// What a request may depend on, besides its configuration.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The values of `{{ run… }}` and `{{ vars… }}`.
    pub context: minijinja::Value,
}

/// The bytes a source gave for one run, and what is known about them.
#[derive(Debug, Clone)]
pub struct Payload {
    /// The body, decompressed, at most `max_body` bytes.
    pub body: Bytes,
    /// What an HTTP source adds.
    pub response: Response,
    /// Attempts it took, from 1.
    pub attempts: u32,
}

/// What `$response` shows to programs. Empty for a file.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct Response {
    /// HTTP status.
    pub status: Option<u16>,
    /// The address that answered, after redirects.
    pub url: Option<String>,
    /// Header names in lower case; a repeated header is joined with ", ".
    pub headers: std::collections::BTreeMap<String, String>,
}

/// Why a source gave no payload.
///
/// Reads "status 503, expected 200" or "connect 127.0.0.1:9: connection refused": lower case, no full stop,
/// causes included once. Never holds a secret (no header values, no password of a URL).
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What happened.
    pub message: String,
    /// What happens next.
    pub class: Class,
    /// What to do about it.
    pub hint: Option<String>,
    /// The status, where there was an answer.
    pub status: Option<u16>,
    /// How long the source asked us to wait (Retry-After), already capped.
    pub retry_after: Option<Duration>,
    /// Attempts made, from 1.
    pub attempts: u32,
    /// The source was not asked: its host does not answer, and is asked again after so long.
    pub rests: Option<Duration>,
}

impl Error {
    /// The source is away or busy: the same request may pass later.
    fn retry(message: String) -> Error {
        Error { class: Class::Retry, ..Error::standing(message, None) }
    }

    /// It fails again until somebody changes something.
    fn standing(message: String, hint: Option<String>) -> Error {
        Error { message, class: Class::Standing, hint, status: None, retry_after: None, attempts: 1, rests: None }
    }
}

/// An operating system's error in our style: "connection refused", not "Connection refused (os error 111)".
fn said(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error ") {
        Some((text, _)) => text.chars().take(1).flat_map(char::to_lowercase).chain(text.chars().skip(1)).collect(),
        None => text,
    }
}
