//! trackd as a service of a real systemd, in a throw-away box with a PostgreSQL of its own.
//!
//! ```text
//!  a box a suite, booted once --> install --> cases, one after another, each from a fresh start --> purge
//! ```
//!
//! Run by deploy/test. Without root, or without what a box is made with, it says `skipped: …` and why, and succeeds.
//! usage: cargo test --test box -- [--suite NAME]... [--deb FILE [--newer FILE]] [--trackd FILE] [--keep] [--required] [PART OF A NAME]...

#![allow(unreachable_pub, reason = "one binary: what is public in it is for its own modules")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a report")]

mod credentials;
mod database;
mod install;
mod life;
mod machine;
mod reload;
mod sandbox;
mod service;

use machine::{Machine, Outcome};
use service::Service;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// What is wanted.
struct Options {
    suites: Vec<String>,
    trackd: PathBuf,
    /// Installed by dpkg, and what it is upgraded to; without them the files are put in place by hand.
    deb: Option<PathBuf>,
    newer: Option<PathBuf>,
    /// The box stays up after a failure, to be looked at.
    keep: bool,
    /// A box that cannot be made is a failure.
    required: bool,
    names: Vec<String>,
}

type Case = (&'static str, fn(&Service<'_>) -> Outcome<()>);

/// In this order: a boot ends what else runs in the box, and the last two are of the package.
const CASES: &[Case] = &[
    ("the_unit_is_sound_and_exposed_to_at_most_1_1", sandbox::sound),
    ("ten_trackers_land_in_the_embedded_database_and_the_status_says_so", database::embedded),
    ("ten_trackers_land_in_the_system_s_database_by_peer_authentication", database::peer),
    ("inside_the_sandbox_https_and_postgresql_over_tcp_work", sandbox::reaches_out),
    ("a_good_reload_is_in_force_when_it_returns", reload::good),
    ("a_bad_reload_fails_and_the_journal_says_why", reload::bad),
    ("a_reload_with_a_key_that_takes_a_restart_is_refused_whole", reload::restart),
    ("a_file_that_may_not_be_read_is_named_with_what_to_do", reload::unreadable),
    ("a_reload_waits_for_a_daemon_that_stands_still", reload::waits),
    ("a_daemon_that_is_killed_is_started_again_and_nothing_is_lost_or_doubled", life::killed),
    ("a_stuck_supervisor_is_found_by_the_watchdog_and_started_again", life::stuck),
    ("a_journald_that_stands_still_holds_up_no_run", life::journal_stands_still),
    ("a_bad_configuration_is_not_started_again", life::misconfigured),
    ("a_stop_under_load_drains_also_for_longer_than_the_unit_says", life::drains),
    ("a_start_that_goes_on_is_given_more_time", life::starts_slowly),
    ("a_start_without_the_database_is_ready_and_degraded_and_heals", database::away),
    ("a_password_of_credstore_is_used_and_changed_by_a_restart", credentials::of_systemd),
    ("a_token_beside_the_configuration_is_changed_by_a_reload", credentials::beside_the_configuration),
    ("a_second_instance_runs_beside_the_first", life::instance),
    ("no_secret_is_in_the_journal_nor_anywhere_else", credentials::none_told),
    ("a_boot_without_the_database_is_ready_and_degraded_and_heals", database::booted),
    ("an_upgrade_while_it_runs_restarts_it_and_loses_nothing", install::upgraded),
    ("a_purge_leaves_nothing", install::purged),
];

fn main() -> ExitCode {
    let options = match Options::read(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("box: {error}");
            return ExitCode::from(64);
        }
    };
    if let Err(why) = machine::available() {
        println!("skipped: tests in a box: {why}");
        return ExitCode::SUCCESS;
    }
    // Beside each other: most of the time a case waits.
    let failed: usize = std::thread::scope(|scope| {
        let options = &options;
        let suites = options.suites.iter().map(|suite| scope.spawn(move || (suite, in_box(suite, options))));
        let suites: Vec<_> = suites.collect();
        suites.into_iter().map(|suite| suite.join().map_or(1, |(suite, ended)| count(suite, ended))).sum()
    });
    if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn count(suite: &str, ended: Outcome<usize>) -> usize {
    ended.unwrap_or_else(|error| {
        println!("{suite}: FAILED  {error}");
        1
    })
}

/// All cases in a box of this suite. Returns how many failed.
fn in_box(suite: &str, options: &Options) -> Outcome<usize> {
    let begun = Instant::now();
    let machine = match Machine::up(suite) {
        Ok(machine) => machine,
        // No fault of trackd's: the archive of Debian is not reached, or this kernel lets no box be booted.
        Err(why) if !options.required => {
            println!("skipped: tests in a box of {suite}: {why}");
            return Ok(0);
        }
        Err(why) => return Err(why),
    };
    println!("{suite}: up ({:.1} s)", begun.elapsed().as_secs_f32());
    install::install(&machine, options)?;
    let service = Service::new(&machine, options);
    let mut failed = 0;
    for (name, case) in CASES {
        if !options.names.is_empty() && !options.names.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        let begun = Instant::now();
        let result = case(&service);
        let took = begun.elapsed().as_secs_f32();
        match result {
            Ok(()) => println!("{suite}: ok      {name} ({took:.1} s)"),
            Err(why) if why.starts_with("skipped: ") => println!("{suite}: {why} ({name})"),
            Err(why) => {
                failed += 1;
                println!("{suite}: FAILED  {name} ({took:.1} s)\n{why}\n{}", service.journal_tail());
            }
        }
    }
    if failed > 0 && options.keep {
        println!("{suite}: stays up: systemd-box run {}", machine.leave().display());
    }
    println!("{suite}: {failed} failed ({:.1} s)", begun.elapsed().as_secs_f32());
    Ok(failed)
}

impl Options {
    fn read(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
        let mut options = Options {
            suites: Vec::new(),
            trackd: PathBuf::from(env!("CARGO_BIN_EXE_trackd")),
            deb: None,
            newer: None,
            keep: false,
            required: false,
            names: Vec::new(),
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match word.as_str() {
                "--suite" => options.suites.push(value()?),
                "--trackd" => options.trackd = value()?.into(),
                "--deb" => options.deb = Some(value()?.into()),
                "--newer" => options.newer = Some(value()?.into()),
                "--keep" => options.keep = true,
                "--required" => options.required = true,
                word if word.starts_with('-') => return Err(format!("unknown option {word}")),
                name => options.names.push(name.to_owned()),
            }
        }
        if options.suites.is_empty() {
            options.suites = vec!["bookworm".into(), "trixie".into()];
        }
        Ok(options)
    }
}
