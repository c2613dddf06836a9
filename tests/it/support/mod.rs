//! What the tests share: throw-away PostgreSQL, servers that misbehave, waiting for events.

pub(crate) mod faulty;
