//! Behaviour of `source`.
