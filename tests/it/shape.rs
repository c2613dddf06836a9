//! Behaviour of `shape`.
