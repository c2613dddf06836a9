//! The `file` source: a file as it is now.
//!
//! Must not know: HTTP, the store, shape, the schedule.

use super::{Ask, Error, Payload, Response, Source, said};
use crate::blocking::OneThread;
use crate::config::{FileSource, Template};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::fs;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A path that is read.
pub(super) struct File {
    path: Template,
    /// What a relative path is relative to.
    base: PathBuf,
    max_body: u64,
    timeout: Duration,
    thread: OneThread,
}

impl File {
    pub(super) fn new(source: &FileSource, timeout: Duration) -> File {
        File {
            path: source.path.clone(),
            base: source.base.clone(),
            max_body: source.max_body,
            timeout,
            thread: OneThread::new(),
        }
    }

    async fn fetch(&self, ask: &Ask) -> Result<Payload, Error> {
        let path = self.path.render(&ask.context);
        let path = self.base.join(path.map_err(|why| Error::standing(format!("file path: {why}"), None))?);
        let (reader, max_body) = (path.clone(), self.max_body);
        let timeout = || humantime::format_duration(self.timeout);
        let reading = self.thread.start(self.timeout, move || read(&reader, max_body)).await.map_err(|_| {
            let hint = "the disk, or the server of a network mount, does not answer";
            let message = format!("read {}: an earlier read is not done, another {} later", path.display(), timeout());
            Error { hint: Some(hint.into()), ..Error::retry(message) }
        })?;
        // At the timeout the thread is left to end by itself, and its bytes are dropped.
        let Ok(read) = tokio::time::timeout(self.timeout, reading).await else {
            return Err(Error::retry(format!("read {}: not done within the timeout of {}", path.display(), timeout())));
        };
        let read = read.map_err(|_| Error::retry(format!("read {}: the reading task ended early", path.display())))?;
        Ok(Payload { body: read?, response: Response::default(), attempts: 1 })
    }
}

impl Source for File {
    fn fetch<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<Payload, Error>> {
        Box::pin(self.fetch(ask))
    }
}

fn read(path: &Path, max_body: u64) -> Result<Bytes, Error> {
    let fault = |error: io::Error| explained(path, &error);
    // Asked before opening: opening a pipe would wait for somebody to write.
    let metadata = fs::metadata(path).map_err(fault)?;
    if !metadata.is_file() {
        let got = if metadata.is_dir() { "a directory" } else { "a pipe, socket or device" };
        let hint = Some("file.path names the file itself".to_owned());
        return Err(Error::standing(format!("read {}: expected a file, got {got}", path.display()), hint));
    }
    if metadata.len() > max_body {
        return Err(too_large(path, metadata.len(), max_body));
    }
    let mut body = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0).saturating_add(1));
    let file = fs::File::open(path).map_err(fault)?;
    file.take(max_body.saturating_add(1)).read_to_end(&mut body).map_err(fault)?;
    if body.len() as u64 > max_body {
        return Err(too_large(path, body.len() as u64, max_body));
    }
    Ok(Bytes::from(body))
}

fn too_large(path: &Path, got: u64, max_body: u64) -> Error {
    Error::standing(
        format!("read {}: larger than max_body: expected at most {max_body} bytes, got {got}", path.display()),
        Some("raise max_body, or make the file smaller".into()),
    )
}

fn explained(path: &Path, error: &io::Error) -> Error {
    let message = format!("read {}: {}", path.display(), said(error));
    let hint = match error.kind() {
        ErrorKind::NotFound => "nothing is at this path: check file.path, and that the file is written before the run",
        ErrorKind::PermissionDenied => "the user that runs trackd may not read this file",
        ErrorKind::NotADirectory => "a part of the path is a file: check file.path",
        _ => return Error::retry(message),
    };
    Error::standing(message, Some(hint.into()))
}
