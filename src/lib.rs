//! **trackd**: cron + curl + jq + psql, as one daemon that loses nothing.
pub mod admin;
pub mod class;
pub mod clock;
pub mod config;
pub mod demo;
pub mod run;
pub mod schedule;
pub mod shape;
pub mod source;
pub mod status;
pub mod store;
