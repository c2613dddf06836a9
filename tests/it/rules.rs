//! Behaviour of `rules`.
