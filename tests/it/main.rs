//! The behaviour of trackd, in one test binary: real PostgreSQL, real sockets, real processes.
//!
//! Tests run in parallel, take nothing that exists already, and never sleep to wait.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by failing")]
#![allow(unreachable_pub, reason = "one binary: what is public in it is for its own modules")]

mod admin;
mod alert;
mod backup;
mod chaos;
mod claims;
mod cli;
mod config;
mod connect;
mod control;
mod daemon;
mod demo;
mod doctor;
mod dropins;
mod embedded;
mod examples;
mod failover;
mod faults;
mod health;
mod hosts;
mod init;
mod landing;
mod man;
mod metrics;
mod once;
mod outage;
mod package;
mod pool;
mod prune;
mod recorded;
mod replay;
mod rules;
mod schedule;
mod secrets;
mod shape;
mod source;
mod spool;
mod store;
mod supervisor;
mod support;
mod tables;
mod transaction;
