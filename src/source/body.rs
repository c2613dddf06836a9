//! A response's body, collected under a bound.
//!
//! In: a response whose head arrived. Out: its bytes, decompressed, at most `max_body` of them.
//! Must not know: trackers, retries.

use super::Error;
use super::client::root;
use bytes::{Bytes, BytesMut};
use reqwest::Response;

/// A server may announce any length: more than this is reserved only as bytes arrive.
const RESERVE_AT_ONCE: u64 = 8 << 20;

/// Collects the body, holding at most `max_body` bytes and one chunk.
///
/// A body of one chunk is not copied. Cancel safety: dropping it closes the connection.
///
/// # Errors
/// Standing when the body is larger than `max_body`; retry when it ends before its time.
pub(super) async fn collect(mut response: Response, max_body: u64) -> Result<Bytes, Error> {
    // None when the body is compressed: its length says nothing about what comes out of it.
    let announced = response.content_length();
    if let Some(length) = announced.filter(|&length| length > max_body) {
        return Err(too_large(&format!("{length} bytes announced"), max_body));
    }
    let Some(first) = next(&mut response, 0, announced, max_body).await? else { return Ok(Bytes::new()) };
    let got = first.len() as u64;
    let Some(second) = next(&mut response, got, announced, max_body).await? else { return Ok(first) };
    let reserve = announced.unwrap_or(2 * (got + second.len() as u64)).min(RESERVE_AT_ONCE);
    let mut body = BytesMut::with_capacity(usize::try_from(reserve).unwrap_or(0).max(first.len() + second.len()));
    body.extend_from_slice(&first);
    body.extend_from_slice(&second);
    drop((first, second));
    while let Some(chunk) = next(&mut response, body.len() as u64, announced, max_body).await? {
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

async fn next(
    response: &mut Response,
    got: u64,
    announced: Option<u64>,
    max_body: u64,
) -> Result<Option<Bytes>, Error> {
    match response.chunk().await {
        Ok(Some(chunk)) if got + chunk.len() as u64 > max_body => {
            Err(too_large(&format!("more after {} bytes", got + chunk.len() as u64), max_body))
        }
        Ok(chunk) => Ok(chunk),
        Err(error) => Err(cut(got, announced, &error)),
    }
}

fn too_large(got: &str, max_body: u64) -> Error {
    Error::standing(
        format!("body larger than max_body: expected at most {max_body} bytes, got {got}"),
        Some("raise max_body, or ask the source for less".into()),
    )
}

fn cut(got: u64, announced: Option<u64>, error: &reqwest::Error) -> Error {
    let cause = root(error);
    Error::retry(match announced {
        Some(length) => format!("body cut after {got} of {length} bytes: {cause}"),
        None => format!("body cut after {got} bytes: {cause}"),
    })
}
