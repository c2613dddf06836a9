//! The request of a tracker: templates → a `reqwest::Request`.
//!
//! A request made of constant texts only is made once, when the tracker is built. Must not know: connections,
//! retries.

use super::Error;
use crate::config::{HttpSource, Template};
use minijinja::Value;
use reqwest::header::{ACCEPT, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, Request, Url};

/// How to make the request of a run.
pub(super) enum Maker {
    /// The same for every run.
    Ready(Request),
    /// Depends on the run.
    Each(Parts),
}

/// A request in texts.
pub(super) struct Parts {
    client: Client,
    method: Method,
    url: Template,
    headers: Vec<(HeaderName, Template)>,
    query: Vec<(String, Template)>,
    body: Option<Template>,
}

impl Maker {
    /// # Errors
    /// Standing: an address, a method or a header that is none.
    pub(super) fn new(client: Client, source: &HttpSource) -> Result<Maker, Error> {
        let method = Method::from_bytes(source.method.as_bytes());
        let mut headers = Vec::with_capacity(source.headers.len());
        for (name, value) in &source.headers {
            let header = name.parse().map_err(|_| fault(format!("header {name:?}: not a header name")))?;
            headers.push((header, value.0.clone()));
        }
        let parts = Parts {
            client,
            method: method.map_err(|_| fault(format!("method {:?}: not an HTTP method", source.method)))?,
            url: source.url.clone(),
            headers,
            query: source.query.clone(),
            body: source.body.clone(),
        };
        Ok(if parts.constant() { Maker::Ready(parts.fill(&Value::UNDEFINED)?) } else { Maker::Each(parts) })
    }

    /// Its address, where that is the same for every run.
    pub(super) fn url(&self) -> Option<&Url> {
        match self {
            Maker::Ready(request) => Some(request.url()),
            Maker::Each(_) => None,
        }
    }

    /// The request of one run.
    pub(super) fn make(&self, context: &Value) -> Result<Request, Error> {
        match self {
            Maker::Ready(request) => Ok(again(request)),
            Maker::Each(parts) => parts.fill(context),
        }
    }
}

/// The same request once more.
pub(super) fn again(request: &Request) -> Request {
    request.try_clone().expect("a body made of text can be cloned")
}

impl Parts {
    fn constant(&self) -> bool {
        let headers = self.headers.iter().map(|(_, text)| text);
        let query = self.query.iter().map(|(_, text)| text);
        let mut texts = headers.chain(query).chain([&self.url]).chain(&self.body);
        texts.all(|text| text.constant().is_some())
    }

    fn fill(&self, context: &Value) -> Result<Request, Error> {
        let text = self.url.render(context).map_err(|why| fault(format!("url: {why}")))?;
        // The text is not shown: it may hold a password. The template's own text is in the configuration.
        let mut url: Url = text.parse().map_err(|why| fault(format!("url: not an address: {why}")))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(fault(format!("url: expected http:// or https:// and a host, got {:?}", url.scheme())));
        }
        for (name, value) in &self.query {
            let value = value.render(context).map_err(|why| fault(format!("query {name}: {why}")))?;
            url.query_pairs_mut().append_pair(name, &value);
        }
        let mut request = self.client.request(self.method.clone(), url).headers(self.headers(context)?);
        if let Some(body) = &self.body {
            request = request.body(body.render(context).map_err(|why| fault(format!("body: {why}")))?);
        }
        request.build().map_err(|why| fault(format!("request: {}", super::client::root(&why))))
    }

    fn headers(&self, context: &Value) -> Result<HeaderMap, Error> {
        let mut headers = HeaderMap::with_capacity(self.headers.len() + 1);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let mut given_accept = false;
        for (name, text) in &self.headers {
            let value = text.render(context).map_err(|why| fault(format!("header {name}: {why}")))?;
            // The value is not shown: it may be a secret.
            let value = HeaderValue::from_str(&value);
            let mut value = value.map_err(|_| fault(format!("header {name}: not a header value")))?;
            value.set_sensitive(true);
            if *name == ACCEPT && !std::mem::replace(&mut given_accept, true) {
                headers.remove(ACCEPT);
            }
            headers.append(name, value);
        }
        Ok(headers)
    }
}

fn fault(message: String) -> Error {
    Error::standing(message, None)
}
