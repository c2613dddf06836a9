//! COPY through a guard, in both directions.
//!
//! Must not know: what is copied.

use super::{Guard, State, flatten_timeout};
use crate::store::Error;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use std::fmt;
use std::pin::Pin;
use tokio::time::timeout;

impl Guard {
    /// Starts a binary `COPY … FROM STDIN`, after what was deferred.
    ///
    /// Cancel safety: as `flush`.
    ///
    /// # Errors
    /// As `flush`.
    pub async fn copy_in(&mut self, sql: &str) -> Result<CopyIn<'_>, Error> {
        self.flush().await?;
        let limit = self.limit();
        let lease = self.enter("copy")?;
        let answer = timeout(limit, lease.client().copy_in::<_, Bytes>(sql)).await;
        let mut sink = Box::pin(self.leave(sql, flatten_timeout("copy", limit, answer))?);
        let header = Bytes::from_static(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
        sink.feed(header).await.map_err(|error| Error::driver("copy", error))?;
        Ok(CopyIn { guard: self, sink, finished: false })
    }

    /// Starts a `COPY … TO STDOUT`, after what was deferred.
    ///
    /// Cancel safety: as `flush`.
    ///
    /// # Errors
    /// As `flush`.
    pub async fn copy_out(&mut self, sql: &str) -> Result<CopyOut<'_>, Error> {
        self.flush().await?;
        let limit = self.limit();
        let lease = self.enter("copy")?;
        let answer = timeout(limit, lease.client().copy_out(sql)).await;
        let stream = Box::pin(self.leave(sql, flatten_timeout("copy", limit, answer))?);
        Ok(CopyOut { guard: self, stream, ended: false })
    }
}

/// A COPY in progress. Dropped without `finish`, it fails and with it the guard.
pub struct CopyIn<'a> {
    guard: &'a mut Guard,
    sink: Pin<Box<tokio_postgres::CopyInSink<Bytes>>>,
    finished: bool,
}

impl fmt::Debug for CopyIn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyIn").field("finished", &self.finished).finish_non_exhaustive()
    }
}

impl CopyIn<'_> {
    /// Sends tuples of the binary format. Returns when the connection took them, not when they are written.
    ///
    /// Cancel safety: some of the tuples may be on their way; the guard can then only be rolled back.
    ///
    /// # Errors
    /// The connection broke. That the server refused a row is told by `finish`.
    pub async fn send(&mut self, tuples: Bytes) -> Result<(), Error> {
        let limit = self.guard.limit();
        self.guard.enter("copy")?;
        let sent = timeout(limit, self.sink.send(tuples)).await;
        let sent = flatten_timeout("copy", limit, sent);
        self.guard.leave("copy: data", sent)
    }

    /// Ends the COPY. Returns the rows written.
    ///
    /// Cancel safety: the guard can then only be rolled back.
    ///
    /// # Errors
    /// The server refused a row, or the connection broke.
    pub async fn finish(mut self) -> Result<u64, Error> {
        let limit = self.guard.limit();
        self.guard.enter("copy")?;
        let finish = async {
            self.sink.feed(Bytes::from_static(&[0xff, 0xff])).await?;
            self.sink.as_mut().finish().await
        };
        let answer = flatten_timeout("copy", limit, timeout(limit, finish).await);
        self.finished = true;
        self.guard.leave("copy: end", answer)
    }
}

impl Drop for CopyIn<'_> {
    fn drop(&mut self) {
        if !self.finished {
            // The server gets CopyFail, which aborts the transaction.
            self.guard.state = State::Failed;
        }
    }
}

/// A COPY from the server. Dropped before its end, the guard can only be rolled back.
pub struct CopyOut<'a> {
    guard: &'a mut Guard,
    stream: Pin<Box<tokio_postgres::CopyOutStream>>,
    ended: bool,
}

impl fmt::Debug for CopyOut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyOut").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl CopyOut<'_> {
    /// The next piece, about one row of the format asked for; nothing at the end. Memory is bounded by a piece.
    ///
    /// Cancel safety: a piece on its way may be lost; the guard can then only be rolled back.
    ///
    /// # Errors
    /// The server failed, or the connection broke.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if self.ended {
            return Ok(None);
        }
        let limit = self.guard.limit();
        self.guard.enter("copy")?;
        let piece = timeout(limit, self.stream.next()).await;
        let piece = match piece {
            Ok(piece) => piece.transpose().map_err(|error| Error::driver("copy", error)),
            Err(_) => Err(Error::timeout("copy", limit)),
        };
        let piece = self.guard.leave("copy: data", piece)?;
        self.ended = piece.is_none();
        Ok(piece)
    }
}

impl Drop for CopyOut<'_> {
    fn drop(&mut self) {
        if !self.ended {
            // The server still sends: only its end, or a cancel, frees the connection.
            self.guard.interrupted();
        }
    }
}
