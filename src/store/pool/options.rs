//! How a pool behaves, in SQLAlchemy's and `[database]`'s words.
//!
//! Must not know: where the values come from.

use super::events::Events;
use crate::store::{Error, Surroundings, Target};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How a pool behaves.
#[derive(Clone)]
pub struct PoolOptions {
    /// Where to connect to.
    pub target: Target,
    /// Connections kept, at least 1. Default 5.
    pub pool_size: u32,
    /// Further ones under load, closed when they come back and are not needed. Default 10.
    pub max_overflow: u32,
    /// Longest wait for a connection. Default 30 s.
    pub pool_timeout: Duration,
    /// No connection is lent at a greater age; up to a tenth less, so that they do not all end at once. Default 1 h.
    pub pool_recycle: Duration,
    /// Whether a connection that rested is asked before it is lent. Default true.
    pub pool_pre_ping: bool,
    /// A connection used so recently is not asked again: a busy pool pays no round trip for it. Default 1 s.
    pub ping_after: Duration,
    /// An answer that takes longer means a dead connection. Default 500 ms.
    pub ping_timeout: Duration,
    /// Whether a connection to a read-only standby is of no use. Default true.
    pub needs_write: bool,
    /// Longest statement; also bounds what is waited for an answer. Default 60 s.
    pub statement_timeout: Duration,
    /// Statements that take longer are told in the log. Default 1 s.
    pub slow_statement: Duration,
    /// Who is told of connections. Default nobody.
    pub events: Option<Arc<dyn Events>>,
}

impl fmt::Debug for PoolOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolOptions")
            .field("target", &self.target)
            .field("pool_size", &self.pool_size)
            .field("max_overflow", &self.max_overflow)
            .finish_non_exhaustive()
    }
}

impl PoolOptions {
    /// The defaults, for an address as `Target::parse` takes it, with what the environment of this process adds.
    ///
    /// # Errors
    /// Class standing: the address is not understood.
    pub fn new(url: &str) -> Result<PoolOptions, Error> {
        Ok(PoolOptions::to(Target::parse(url, None, &Surroundings::of_process())?))
    }

    /// The defaults, for a target.
    pub fn to(target: Target) -> PoolOptions {
        PoolOptions {
            target,
            pool_size: 5,
            max_overflow: 10,
            pool_timeout: Duration::from_secs(30),
            pool_recycle: Duration::from_secs(3600),
            pool_pre_ping: true,
            ping_after: Duration::from_secs(1),
            ping_timeout: Duration::from_millis(500),
            needs_write: true,
            statement_timeout: Duration::from_secs(60),
            slow_statement: Duration::from_secs(1),
            events: None,
        }
    }

    /// The most connections there can be.
    pub fn limit(&self) -> u32 {
        self.kept().saturating_add(self.max_overflow)
    }

    pub(super) fn kept(&self) -> u32 {
        self.pool_size.max(1)
    }
}
