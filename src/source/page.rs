//! What an error page may tell: its beginning on one line, without anything that was sent.
//!
//! In: the page, and the request it answers. Out: a part of a message, often empty. Must not know: statuses, retries.

use reqwest::Request;
use reqwest::header::{ACCEPT, CONTENT_TYPE};

/// Characters shown.
const SHOWN: usize = 120;
/// Bytes of a page looked at: white space and markup may stand in front of what it says.
const READ: usize = 8 << 10;
/// Shorter words are in every page.
const SHORTEST: usize = 4;
/// What was sent is searched for in the page: beyond so much of it the page is not shown at all.
const SENT: usize = 64 << 10;

/// The beginning of the page; empty where it is not text.
///
/// Servers repeat in error pages what they were sent, whole or in part, decoded or as HTML or JSON escapes it. So each
/// value that was sent is taken out, and each run in it that no escape touches; and that before the page is cut, or a
/// secret at the cut would stay.
pub(super) fn excerpt(request: &Request, page: &[u8]) -> String {
    let text = String::from_utf8_lossy(&page[..page.len().min(READ)]);
    // Where the page goes on, its last word may be half a secret.
    let text =
        if page.len() > READ { text.rsplit_once(char::is_whitespace).map_or("", |(whole, _)| whole) } else { &text };
    if text.contains(|c: char| c == '\u{fffd}' || (c.is_control() && !c.is_whitespace())) {
        return String::new();
    }
    let Some(secrets) = sent(request) else { return String::new() };
    let text = secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "[secret]"));
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// Words of the request that may be secrets, the longest first; `None` when they are too many.
fn sent(request: &Request) -> Option<Vec<String>> {
    let mut values: Vec<String> = Vec::new();
    for (name, value) in request.headers().iter().filter(|(_, value)| value.is_sensitive()) {
        if *name != ACCEPT && *name != CONTENT_TYPE {
            values.extend(String::from_utf8_lossy(value.as_bytes()).split_whitespace().map(str::to_owned));
        }
    }
    let url = request.url();
    values.extend(url.query_pairs().map(|(_, value)| value.into_owned()));
    let pairs = url.query().into_iter().flat_map(|query| query.split('&'));
    values.extend(pairs.filter_map(|pair| pair.split_once('=')).map(|(_, value)| value.to_owned()));
    let body = request.body().and_then(|body| body.as_bytes()).unwrap_or_default();
    values.push(String::from_utf8_lossy(body).into_owned());
    if values.iter().map(String::len).sum::<usize>() > SENT {
        return None;
    }
    let runs = values.iter().flat_map(|value| value.split(|c: char| !unescaped(c))).map(str::to_owned);
    let mut words: Vec<String> = runs.chain(values.iter().cloned()).filter(|word| word.len() >= SHORTEST).collect();
    words.sort_unstable_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
    words.dedup();
    Some(words)
}

/// As they are in a URL, in HTML and in JSON.
fn unescaped(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~')
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderValue;
    use reqwest::{Body, Method};

    fn request(url: &str, header: &str, body: &str) -> Request {
        let mut request = Request::new(Method::POST, url.parse().unwrap());
        let mut value = HeaderValue::from_str(header).unwrap();
        value.set_sensitive(true);
        request.headers_mut().insert("x-key", value);
        *request.body_mut() = Some(Body::from(body.to_owned()));
        request
    }

    #[test]
    fn an_excerpt_is_one_short_line_of_text() {
        let of = |page: &[u8]| excerpt(&request("http://h/", "", ""), page);
        assert_eq!(of(b"<h1>Bad\n\tGateway</h1>\r\n"), "<h1>Bad Gateway</h1>");
        assert_eq!(of("é".repeat(500).as_bytes()), format!("{}…", "é".repeat(120)));
        assert_eq!(
            of(&[b"not found ".repeat(20).as_slice(), &b"x".repeat(READ)].concat()),
            format!("{}…", "not found ".repeat(12))
        );
        assert_eq!(of(b"\x1f\x8b\x08\x00\xff"), "");
        assert_eq!(of(b"\x1b[31mred"), "");
        assert_eq!(of(b""), "");
    }

    #[test]
    fn nothing_that_was_sent_is_told_however_the_page_writes_it() {
        let request =
            request("http://h/?key=queryVALUE%2Fplus%2Bmore", "Bearer headerVALUE", r#"{"pw":"bodyVALUE<x>&quote"}"#);
        for page in [
            "key queryVALUE/plus+more",
            "/?key=queryVALUE%2Fplus%2Bmore",
            "Bearer headerVALUE",
            "headerVALUE&amp;bodyVALUE&lt;x&gt;",
            "\\\"bodyVALUE\\u003cx\\u003e\\u0026quote",
        ] {
            let told = excerpt(&request, page.as_bytes());
            assert!(!told.contains("VALUE") && told.contains("[secret]"), "{told}");
        }
        let keyed = self::request("http://h/?token=VALUE", "", "");
        assert_eq!(excerpt(&keyed, b"no such token: token=VALUE"), "no such token: token=[secret]");
    }

    #[test]
    fn a_secret_at_the_cut_leaves_no_half_of_it() {
        let request = request("http://h/", "tokenthatislong", "");
        for before in [SHOWN - 20..SHOWN + 2, READ - 20..READ + 2].into_iter().flatten() {
            let told = excerpt(&request, format!("{}tokenthatislong", " x".repeat(before / 2)).as_bytes());
            assert!(!told.contains("tok"), "{before}: {told}");
            let told = excerpt(&request, format!("{}tokenthatislong and more", " ".repeat(before)).as_bytes());
            assert!(!told.contains("tok"), "{before}: {told}");
        }
    }

    #[test]
    fn a_page_is_not_told_where_too_much_was_sent_to_look_for() {
        assert_eq!(excerpt(&request("http://h/", "", &"a ".repeat(SENT)), b"no such field"), "");
    }
}
