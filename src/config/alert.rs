//! `[alert]`: who is told when a state begins or ends.
//!
//! In: a node. Out: checked values. Must not know: how somebody is told.

use super::checked::{Alert, Webhook, WebhookUrl};
use super::fault::Fault;
use super::file::path;
use super::node::Node;
use super::read::Fields;
use super::request;
use super::secret::Secret;
use super::tracker::Context;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// The credential that holds the webhook's address.
const CREDENTIAL: &str = "alert.webhook";

/// `[alert]`; `None` if it is at fault.
pub(super) fn read(node: &Node, context: &Context<'_>) -> Option<Alert> {
    let sink = context.sink;
    let mut fields = sink.keep(Fields::new("alert", node, sink).map_err(|fault| fault.about("alert")))?;
    let (has_command, has_webhook) = (fields.entry("command").is_some(), fields.entry("webhook").is_some());
    let command = fields.get("command", command);
    let webhook = fields.get("webhook", |node| webhook(node, context)).flatten();
    let credential = || Some(Webhook::at(WebhookUrl::File(context.credentials.file(CREDENTIAL)?)));
    let webhook = if has_webhook { webhook } else { credential() };
    if !(has_command || has_webhook || webhook.is_some()) {
        fields.fault("missing key: `command`, `webhook`, or both,".into());
    }
    let alert = Alert {
        command,
        webhook,
        after: fields.get("after", |node| node.duration(Duration::ZERO..=DAY)).unwrap_or(MINUTE),
        repeat: fields.get("repeat", repeat).unwrap_or(Some(HOUR)),
        timeout: fields.get("timeout", |node| node.duration(SECOND..=MINUTE)).unwrap_or(SECOND * 10),
    };
    fields.finish();
    Some(alert)
}

fn command(node: &Node) -> Result<Vec<String>, Fault> {
    let hint = "a program and its arguments, without a shell: [\"/usr/local/bin/page\", \"--urgent\"]";
    let words = node.list().map_err(|fault| fault.hint(hint))?;
    let argv = words.iter().map(|word| word.text().map(str::to_owned)).collect::<Result<Vec<_>, _>>();
    let argv = argv.map_err(|fault| fault.hint(hint))?;
    match argv.first().map(String::as_str) {
        None | Some("") => Err(node.fault("expected a program").hint(hint)),
        Some(_) if argv.iter().any(|word| word.contains('\0')) => Err(node.fault("expected words without NUL")),
        Some(_) => Ok(argv),
    }
}

/// An address, or a table.
fn webhook(node: &Node, context: &Context<'_>) -> Result<Option<Webhook>, Fault> {
    if node.table().is_err() {
        node.text().map_err(|fault| fault.hint("an address, or { url = \"…\", headers = { … } }"))?;
        return Ok(Some(Webhook::at(WebhookUrl::Given(url(node, context)?))));
    }
    let mut fields = Fields::new("alert.webhook", node, context.sink)?;
    fields.exclusive("url", "url_file");
    let given = fields.get("url", |node| url(node, context)).map(WebhookUrl::Given);
    let file = fields.get("url_file", path).map(|file| WebhookUrl::File(context.folder.join(file)));
    let headers = fields.get("headers", |node| headers(node, context)).unwrap_or_default();
    let token_file = fields.get("token_file", path).map(|file| context.folder.join(file));
    fields.finish();
    Ok(given.or(file).map(|url| Webhook { url, headers, token_file }))
}

fn url(node: &Node, context: &Context<'_>) -> Result<Secret, Fault> {
    let template = request::url(node, context)?;
    constant(template.constant(), node)
}

fn headers(node: &Node, context: &Context<'_>) -> Result<Vec<(String, Secret)>, Fault> {
    let headers = request::headers(node, context, "alert.webhook.headers")?;
    headers.into_iter().map(|(name, value)| Ok((name, constant(value.0.constant(), node)?))).collect()
}

fn constant(text: Option<&str>, node: &Node) -> Result<Secret, Fault> {
    text.map(Secret::new).ok_or_else(|| node.fault("expected a text that does not depend on `run`"))
}

fn repeat(node: &Node) -> Result<Option<Duration>, Fault> {
    match node.text() {
        Ok("off") => Ok(None),
        _ => {
            let length = node.duration(MINUTE..=DAY * 365).map(Some);
            length.map_err(|fault| fault.hint("for example \"1h\"; \"off\" tells each change once"))
        }
    }
}
