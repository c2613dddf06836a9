//! Chaos: nothing is lost, nothing is there twice, whatever dies. The proof, to be repeated by anybody.
//!
//! ```text
//!  seed --> plan (pure)                                                  +--> report, exit status
//!             \                                                          |
//!  stage --> programme: warm up, faults, heal, drain, stop --> Case --> audit (pure)
//!    PostgreSQL behind a proxy, daemons,      \ source: numbers and remembers every answer
//!    source, disks, configuration
//! ```
//!
//! Run by `deploy/chaos`; `--help` tells the rest. tests/it/chaos.rs doctors end states and sees that the audit sees.

#![allow(unreachable_pub, reason = "one binary: what is public in it is for its own modules")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a report")]

mod account;
mod answer;
mod audit;
mod collect;
mod daemons;
mod disk;
mod faults;
mod fleet;
mod found;
mod leaks;
mod model;
mod options;
mod plan;
mod power;
mod programme;
mod recovery;
mod report;
mod source;
mod stage;
mod truth;
mod watch;

#[allow(dead_code, clippy::unwrap_used, reason = "shared with the tests, which use more of it")]
#[path = "../it/support/mod.rs"]
mod support;

use clap::Parser;
use options::Options;
use plan::Injection;
use stage::Stage;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    if options.list {
        plan::FAULTS.iter().for_each(|fault| println!("{:<20} {}", fault.name, fault.what));
        return ExitCode::SUCCESS;
    }
    if let Err(error) = plan::named(&options.faults) {
        eprintln!("chaos: {error}");
        return ExitCode::from(2);
    }
    match chaos(&options).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all is in order.
async fn chaos(options: &Options) -> Outcome<bool> {
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(0..1_000_000));
    println!(
        "chaos: --seed {seed} --minutes {} --trackers {} --daemons {}",
        options.length().as_secs_f64() / 60.0,
        options.trackers,
        options.daemons
    );
    let dir = directory(options, seed)?;
    let in_order = in_directory(options, seed, &dir).await;
    if matches!(in_order, Ok(true)) && options.keep.is_none() {
        std::fs::remove_dir_all(&dir)?;
    } else {
        println!("configuration, logs, answers, faults and rows are in {}", dir.display());
    }
    in_order
}

fn directory(options: &Options, seed: u64) -> Outcome<PathBuf> {
    let Some(dir) = &options.keep else {
        return Ok(tempfile::Builder::new().prefix(&format!("trackd-chaos-{seed}-")).tempdir()?.keep());
    };
    std::fs::create_dir_all(dir)?;
    Ok(dir.canonicalize()?)
}

async fn in_directory(options: &Options, seed: u64, dir: &Path) -> Outcome<bool> {
    let mut random = fastrand::Rng::with_seed(seed);
    let faults = plan::named(&options.faults)?;
    let daemons = usize::from(options.daemons);
    let fleet = fleet::fleet(usize::from(options.trackers), &mut random);
    let plan = plan::plan(&faults, daemons, options.length(), &mut random);
    let stepped = plan.iter().any(|injection| injection.fault.name.starts_with("clock"));
    let power = plan.iter().any(|injection| injection.fault.name == "daemon-power");
    let stage = Stage::build(dir, options, seed, stepped, power).await?;
    fleet.into_iter().for_each(|tracker| stage.fleet.lock().expect("no panic holds it").add(tracker));
    let plan = possible(&stage, plan);
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = async {
        tokio::select! { _ = term.recv() => (), _ = interrupt.recv() => () }
    };
    let case = programme::run(&stage, &plan, options.verbose, stop).await?;
    let verdict = audit::audit(&case);
    report::keep(dir, &case, &verdict)?;
    println!("\n{}\n{}", report::table(&case, &verdict), report::sums(&verdict));
    print!("{}", report::wrongs(&case, &verdict));
    let complaints = stage.complaints.lock().expect("no panic holds it");
    complaints.iter().for_each(|complaint| println!("LEAK: {complaint}"));
    println!("{} findings, {} complaints", verdict.findings.len(), complaints.len());
    Ok(verdict.findings.is_empty() && complaints.is_empty())
}

/// Leaves out what cannot be done here, and says so.
fn possible(stage: &Stage, mut plan: Vec<Injection>) -> Vec<Injection> {
    let mut told = Vec::new();
    plan.retain(|injection| {
        let why = faults::impossible(stage, injection);
        if let Some(why) = why
            && !told.contains(&injection.fault.name)
        {
            println!("skipped: {}: {why}", injection.fault.name);
            told.push(injection.fault.name);
        }
        why.is_none()
    });
    plan
}
