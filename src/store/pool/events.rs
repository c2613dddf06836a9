//! What happens to connections, for a program that wants to know.
//!
//! Must not know: who listens.

use std::time::Duration;

/// A connection, as events name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen<'a> {
    /// From 1, in the order of connecting, within this process.
    pub number: u64,
    /// `host:port`, or the socket's path.
    pub place: &'a str,
}

/// Why a connection was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// It reached `pool_recycle`.
    Recycled,
    /// It was lost, or its state was not known.
    Broken,
    /// It did not answer the ping as it should.
    Invalid,
    /// It was one more than `pool_size`, and nobody waited.
    Overflow,
    /// The pool was reset, changed or closed.
    Reset,
}

/// A listener. Called on the task that borrows, gives back or connects, where the pool may hold a lock of its own: it
/// must neither wait nor ask the pool for its numbers. One that panics is told of in the log.
pub trait Events: Send + Sync {
    /// A connection was made, which took so long.
    fn connected(&self, _connection: Seen<'_>, _took: Duration) {}
    /// A connect failed.
    fn failed(&self, _error: &crate::store::Error) {}
    /// A connection was lent, after a wait.
    fn borrowed(&self, _connection: Seen<'_>, _waited: Duration) {}
    /// A connection came back.
    fn returned(&self, _connection: Seen<'_>, _held: Duration) {}
    /// A connection was closed.
    fn closed(&self, _connection: Seen<'_>, _why: End) {}
}
