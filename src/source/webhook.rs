//! Posts a text of JSON to an address, once.
//!
//! In: a checked webhook and a body. Out: that it was taken, or why not. The address is a secret but for its host: many
//! services put their token into the path. Must not know: alerts, retries.

use super::{client, said};
use crate::config::{Webhook, WebhookUrl};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Url};
use std::path::Path;

/// Posts `body`; its files are read anew, so that what they hold can be changed at any time.
///
/// Cancel safety: safe; dropping it closes the connection, and the body may have arrived.
///
/// # Errors
/// One line without secrets: a file that cannot be read, no answer, a status that is not 2xx.
pub async fn post(webhook: &Webhook, body: String) -> Result<(), String> {
    let client: Client = client::shared().map_err(|error| error.message)?;
    let url = address(webhook).await?;
    let headers = headers(webhook).await?;
    let shown = format!("POST {}", host(&url));
    let sent = client.post(url).headers(headers).body(body).send().await;
    // Its text, and that of its causes, may name the whole address.
    let answer = sent.map_err(|error| format!("{shown}: {}", client::root(&error.without_url())))?;
    match answer.status() {
        status if status.is_success() => Ok(()),
        status => Err(format!("{shown}: status {}, expected 2xx", status.as_u16())),
    }
}

async fn address(webhook: &Webhook) -> Result<Url, String> {
    let text = match &webhook.url {
        WebhookUrl::Given(url) => url.expose().to_owned(),
        WebhookUrl::File(file) => line(file).await?,
    };
    let url = text.parse::<Url>().ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    // The text is not shown.
    url.ok_or_else(|| "webhook: expected an address that begins with http:// or https://".to_owned())
}

async fn headers(webhook: &Webhook) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    for (name, value) in &webhook.headers {
        let header: HeaderName = name.parse().map_err(|_| format!("header {name:?}: not a header name"))?;
        headers.insert(header, secret(name, value.expose())?);
    }
    if let Some(file) = &webhook.token_file {
        headers.insert(AUTHORIZATION, secret("authorization", &format!("Bearer {}", line(file).await?))?);
    }
    Ok(headers)
}

fn secret(name: &str, value: &str) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::from_str(value).map_err(|_| format!("header {name}: not a header value"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The first line of a file.
async fn line(file: &Path) -> Result<String, String> {
    let text = tokio::fs::read_to_string(file).await;
    let text = text.map_err(|error| format!("read {}: {}", file.display(), said(&error)))?;
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

/// `https://host:port/…`
fn host(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}/…", url.scheme(), url.host_str().unwrap_or_default())
}
