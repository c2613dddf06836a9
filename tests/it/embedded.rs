//! Behaviour of `embedded`.
