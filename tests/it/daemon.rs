//! Behaviour of `daemon`.
