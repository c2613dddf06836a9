//! The command line.

use clap::Parser;
use std::path::PathBuf;
use std::time::Duration;

/// Hurts trackd and PostgreSQL in every way, and counts what is lost, doubled or leaked: exit status 1 if anything is.
#[derive(Debug, Parser)]
#[command(
    name = "chaos",
    bin_name = "deploy/chaos",
    after_help = "exit status: 0 all in order, 1 something is lost, doubled or leaked, 2 usage"
)]
pub struct Options {
    /// Repeats the same plan, the same trackers and the same answers; by default chance
    #[arg(long)]
    pub seed: Option<u64>,
    /// How long faults are done; warm-up, drain and audit come on top
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Trackers
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub trackers: u16,
    /// Daemons on one configuration and one database
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=3))]
    pub daemons: u8,
    /// Only these; all by default
    #[arg(long, value_delimiter = ',')]
    pub faults: Vec<String>,
    /// Prints the faults there are
    #[arg(long)]
    pub list: bool,
    /// Another trackd than this checkout's, for example one that is broken on purpose
    #[arg(long, value_name = "FILE", default_value = env!("CARGO_BIN_EXE_trackd"), hide_default_value = true)]
    pub trackd: PathBuf,
    /// Keeps configuration, logs and everything seen in this directory, also when all is in order
    #[arg(long)]
    pub keep: Option<PathBuf>,
    /// Says each fault when it begins and ends
    #[arg(long, short)]
    pub verbose: bool,
}

impl Options {
    pub fn length(&self) -> Duration {
        Duration::try_from_secs_f64(self.minutes * 60.0).unwrap_or_default()
    }
}
