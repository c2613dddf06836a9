//! The HTTP client every tracker shares, and how its errors read.
//!
//! Must not know: trackers, retries, templates.

use super::{Error, said};
use reqwest::{Client, Request, Url};
use std::error::Error as StdError;
use std::fmt::Write as _;
use std::io;
use std::sync::OnceLock;
use std::time::Duration;

/// The process's one client: one pool of kept-alive connections, whichever tracker asks.
///
/// It follows no redirect: limits differ by tracker, so `http` follows them itself.
///
/// # Errors
/// TLS cannot be set up at all; the next call tries again.
pub(super) fn shared() -> Result<Client, Error> {
    static CLIENT: OnceLock<Client> = OnceLock::new();
    if let Some(client) = CLIENT.get() {
        return Ok(client.clone());
    }
    // Err means that somebody installed one before, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let made = builder().build().or_else(|error| {
        tracing::warn!(error = %root(&error), "no certificate authorities found: https will fail, install ca-certificates");
        builder().tls_certs_only([]).build()
    });
    let made = made.map_err(|error| Error::standing(format!("http client: {}", root(&error)), None))?;
    Ok(CLIENT.get_or_init(|| made).clone())
}

fn builder() -> reqwest::ClientBuilder {
    Client::builder()
        .user_agent(concat!("trackd/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .pool_idle_timeout(Duration::from_secs(90))
        .tcp_keepalive(Duration::from_secs(30))
        .tcp_nodelay(true)
}

/// `GET https://host/path?key=…`: what a message may show of a request.
///
/// Without user, password, fragment and the values of the query, where keys and tokens are put.
pub(super) fn shown(request: &Request) -> String {
    format!("{} {}", request.method(), shown_url(request.url()))
}

/// The part of `shown` after the method.
pub(super) fn shown_url(url: &Url) -> String {
    let mut text = format!("{}://{}{}", url.scheme(), authority(url), url.path());
    for (index, (name, _)) in url.query_pairs().enumerate() {
        let _ = write!(text, "{}{name}=…", if index == 0 { '?' } else { '&' });
    }
    text
}

/// The error of a request that brought no response.
pub(super) fn no_answer(request: &Request, error: &reqwest::Error) -> Error {
    let url = request.url();
    let port = url.port_or_known_default().map(|port| format!(":{port}")).unwrap_or_default();
    let peer = format!("{}{port}", url.host_str().unwrap_or_default());
    let cause = root(error);
    if let Some(certificate) = untrusted(error) {
        let hint = "the certificate is not valid for this address or not trusted here: check the address, this \
            machine's clock and the package ca-certificates";
        return Error::standing(format!("connect {peer}: {certificate}"), Some(hint.into()));
    }
    if error.is_connect() {
        return Error::retry(format!("connect {peer}: {cause}"));
    }
    Error::retry(format!("{}: connection cut before a response: {cause}", shown(request)))
}

/// The cause at the bottom, once: what stands above it repeats it.
pub(super) fn root(error: &reqwest::Error) -> String {
    let mut deepest: &(dyn StdError + 'static) = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    match deepest.downcast_ref::<io::Error>() {
        Some(error) => said(error),
        None => deepest.to_string(),
    }
}

fn untrusted(error: &reqwest::Error) -> Option<String> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = next {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let tls = inner.and_then(|inner| inner.downcast_ref()).or_else(|| error.downcast_ref());
        if let Some(tls @ rustls::Error::InvalidCertificate(_)) = tls {
            return Some(tls.to_string());
        }
        next = error.source();
    }
    None
}

fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::shown_url;

    #[test]
    fn a_shown_address_has_no_password_and_no_query_values() {
        let url = "https://me:hunter2@h.example:8443/a%20b/c?key=s3cret&page=2#frag".parse().unwrap();
        assert_eq!(shown_url(&url), "https://h.example:8443/a%20b/c?key=…&page=…");
    }
}
