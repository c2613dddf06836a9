//! `http = { … }` and `file = { … }`: where a tracker's payloads come from.
//!
//! In: a node. Out: a checked source with its templates compiled. Must not know: how a request is made.

use super::checked::{FileSource, HttpSource, SecretTemplate};
use super::fault::{Fault, quote};
use super::node::{Entry, Node};
use super::read::Fields;
use super::template::Template;
use super::tracker::Context;
use std::time::Duration;

const MAX_BODY: u64 = 64 << 20;
/// A body is held in memory.
const MAX_BODY_LIMIT: u64 = 4 << 30;

/// `http` of a tracker.
pub(super) fn http(node: &Node, context: &Context<'_>) -> Result<Option<HttpSource>, Fault> {
    let mut fields = Fields::new("http", node, context.sink)?;
    let url = fields.require("url", |node| url(node, context));
    let rest = rest(fields, context);
    Ok(url.map(|url| HttpSource { url, ..rest }))
}

/// `http` of the defaults: all but the URL.
pub(super) fn check_defaults(node: &Node, context: &Context<'_>) -> Result<(), Fault> {
    rest(Fields::new("http", node, context.sink)?, context);
    Ok(())
}

/// Everything but the URL, which is left empty.
fn rest(mut fields: Fields<'_>, context: &Context<'_>) -> HttpSource {
    let http = HttpSource {
        method: fields.get("method", method).unwrap_or_else(|| "GET".into()),
        url: Template::default(),
        headers: fields.get("headers", |node| headers(node, context, "http.headers")).unwrap_or_default(),
        query: fields.get("query", |node| query(node, context)).unwrap_or_default(),
        body: fields.get("body", |node| Ok(template(node, node.text()?, context)?.0)),
        max_body: fields.get("max_body", |node| node.size(1..=MAX_BODY_LIMIT)).unwrap_or(MAX_BODY),
        max_redirects: fields
            .get("max_redirects", |node| node.integer(0..=20))
            .map_or(5, |n| n.unsigned_abs() as usize),
        rate_limit: fields.get("rate_limit", rate_limit),
    };
    fields.finish();
    http
}

/// `file` of a tracker.
pub(super) fn file(node: &Node, context: &Context<'_>) -> Result<Option<FileSource>, Fault> {
    let mut fields = Fields::new("file", node, context.sink)?;
    let path = fields.require("path", |node| {
        let (path, example) = shown(node, node.text()?, context)?;
        match example.is_empty() || example.contains('\0') {
            true => Err(node.fault(format!("expected a path, got {}", quote(&example)))),
            false => Ok(path),
        }
    });
    let max_body = fields.get("max_body", |node| node.size(1..=MAX_BODY_LIMIT)).unwrap_or(MAX_BODY);
    fields.finish();
    Ok(path.map(|path| FileSource { path, base: context.folder.clone(), max_body }))
}

/// Compiles a text and fills it for an imagined run.
fn template(node: &Node, text: &str, context: &Context<'_>) -> Result<(Template, String), Fault> {
    Template::compile(text).and_then(|template| template.with(&context.credentials).bind(&context.vars)).map_err(
        |(message, span)| {
            let hint = match message.contains("`credential") {
                true => context.credentials.hint(),
                false => "templates see `vars`, `run` and `credential`".to_owned(),
            };
            Fault::new(node.place.part(span), message).hint(hint)
        },
    )
}

/// As `template`, of what is shown in logs.
fn shown(node: &Node, text: &str, context: &Context<'_>) -> Result<(Template, String), Fault> {
    if Template::compile(text).is_ok_and(|template| template.sees("credential")) {
        return Err(node.fault("expected a text without `credential`: it is shown in logs").hint(
            "of a request the headers, the query and the body may hold secrets: http.headers.authorization = \"Bearer {{ credential.NAME }}\"",
        ));
    }
    template(node, text, context)
}

/// An address; what may be a secret is not shown.
pub(super) fn url(node: &Node, context: &Context<'_>) -> Result<Template, Fault> {
    let (template, example) = shown(node, node.text()?, context)?;
    let rest = ["http://", "https://"].iter().find_map(|scheme| example.strip_prefix(scheme));
    let host = rest.and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or("");
    // Neither is shown: a URL may hold a password or a token.
    match () {
        () if rest.is_none() => Err(node.fault("expected a URL that begins with http:// or https://")),
        () if host.is_empty() => Err(node.fault("expected a URL with a host")),
        () if example.contains(|c: char| c.is_whitespace() || c.is_control()) => {
            Err(node.fault("expected a URL without spaces").hint("write a space as %20, or put it into `query`"))
        }
        () => Ok(template),
    }
}

fn method(node: &Node) -> Result<String, Fault> {
    let text = node.text()?;
    if !text.is_empty() && text.chars().all(|c| is_token(c) && !c.is_ascii_lowercase()) {
        return Ok(text.to_owned());
    }
    let fault = node.fault(format!("expected an HTTP method, got {}", quote(text)));
    Err(match text.chars().all(|c| c.is_ascii_alphabetic()) && !text.is_empty() {
        true => fault.hint(format!("methods are in capitals: \"{}\"", text.to_uppercase())),
        false => fault.hint("for example \"GET\" or \"POST\""),
    })
}

/// `2/s`: so many requests in a second, minute or hour, evenly spread. Gives the time between two.
fn rate_limit(node: &Node) -> Result<Duration, Fault> {
    const MOST: u32 = 1000;
    let text = node.text()?;
    let (count, unit) = text.split_once('/').unwrap_or((text, ""));
    let seconds = match unit.trim() {
        "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3600),
        _ => None,
    };
    let count = count.trim().parse().ok().filter(|count: &u32| *count > 0);
    let fault = || node.fault(format!("expected requests per time, got {}", quote(text)));
    let (Some(seconds), Some(count)) = (seconds, count) else {
        return Err(fault().hint("for example \"2/s\", \"30/m\" or \"500/h\""));
    };
    match Duration::from_secs(seconds) / count {
        distance if distance < Duration::from_secs(1) / MOST => Err(fault().hint(format!("at most {MOST}/s"))),
        distance => Ok(distance),
    }
}

/// `what`: where they stand.
pub(super) fn headers(node: &Node, context: &Context<'_>, what: &str) -> Result<Vec<(String, SecretTemplate)>, Fault> {
    let entries = node.table()?;
    let sink = context.sink;
    let mut headers: Vec<(String, SecretTemplate)> = Vec::new();
    let mut names: Vec<String> = Vec::new();
    for Entry { key, place, node } in entries {
        if key.is_empty() || !key.chars().all(is_token) {
            sink.push(Fault::new(place, format!("expected the name of a header, got {}", quote(&key))));
        } else if names.iter().any(|name| name.eq_ignore_ascii_case(&key)) {
            sink.push(Fault::new(place, format!("the header `{key}` is given twice")));
        } else {
            names.push(key.clone());
            let value = header(&node, context).map_err(|fault| fault.about(&format!("{what}.{key}")));
            headers.extend(sink.keep(value).map(|value| (key, SecretTemplate(value))));
        }
    }
    Ok(headers)
}

fn header(node: &Node, context: &Context<'_>) -> Result<Template, Fault> {
    let (template, example) = template(node, node.text()?, context)?;
    match example.contains(|c: char| c.is_control() && c != '\t') {
        true => Err(node.fault("expected a value of one line")),
        false => Ok(template),
    }
}

fn query(node: &Node, context: &Context<'_>) -> Result<Vec<(String, Template)>, Fault> {
    let mut query = Vec::new();
    for Entry { key, node, .. } in node.table()? {
        let text = node.scalar().and_then(|text| template(&node, &text, context));
        let text = text.map_err(|fault| fault.about(&format!("http.query.{}", key.escape_debug())));
        query.extend(context.sink.keep(text).map(|(template, _)| (key, template)));
    }
    Ok(query)
}

/// Source: RFC 9110, section 5.6.2.
fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}
