//! What the tests share: throw-away PostgreSQL, servers that misbehave, waiting for events.

pub(crate) mod bouncer;
pub(crate) mod daemon;
pub(crate) mod faulty;
pub(crate) mod marked;
pub(crate) mod polls;
pub(crate) mod postgres;
pub(crate) mod proxy;
pub(crate) mod rows;
