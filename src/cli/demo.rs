//! `trackd demo`: the arena simulator and a daemon that polls it, in one process.

use super::failure::Failure;
use super::{print, run};
use crate::config::{self, Environment};
use crate::daemon::signal::Signals;
use crate::demo;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// A directory with this file is the demo's own, and may be removed by `--fresh`.
const MARK: &str = "trackd-demo";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// End by itself after so long.
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    length: Option<Duration>,
    /// Start over: forget what earlier demos collected.
    #[arg(long)]
    fresh: bool,
    /// What the arena's chance begins with.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Address of the status page.
    #[arg(long, default_value = "127.0.0.1:8787")]
    listen: SocketAddr,
}

pub(super) async fn demo(args: Args, mut signals: Signals) -> Result<(), Failure> {
    let home = home(args.fresh)?;
    let arena = TcpListener::bind("127.0.0.1:0")
        .await
        .map_err(|error| Failure::work(format!("listen on 127.0.0.1: {error}")))?;
    let address = arena.local_addr().map_err(|error| Failure::work(format!("listen on 127.0.0.1: {error}")))?;
    let text = demo::config_text(&format!("http://{address}"), &args.listen.to_string(), &home);
    let path = home.join("config.toml");
    std::fs::write(&path, &text).map_err(|error| Failure::work(format!("write {}: {error}", path.display())))?;
    let load = {
        let path = path.clone();
        move || config::load(&path, &Environment::new(Vec::<(String, String)>::new(), false))
    };
    let config = load().map_err(|faults| Failure::config(faults.render(false)))?;
    welcome(&path, args.listen)?;
    if let Some(length) = args.length {
        signals.stop_in(length);
    }
    let again: Arc<crate::daemon::Load> = Arc::new(move || load().map_err(|faults| faults.lines().collect()));
    // Beside the user's own daemon, whose runtime directory is taken.
    let runtime_dir = config.daemon.state_dir.clone();
    // The arena lives as long as the daemon: whichever ends, both do.
    let status = tokio::select! {
        status = run::daemon(config, &runtime_dir, again, signals) => status?,
        ended = demo::serve(arena, args.seed, std::future::pending()) => {
            let why = ended.err().map_or_else(String::new, |error| format!(": {error}"));
            return Err(Failure::work(format!("the arena ended{why}")));
        }
    };
    let totals = &status.totals;
    print::line(format!(
        "\n{} runs landed {} rows, {} failed, {} rows set aside",
        totals.succeeded, totals.rows_written, totals.failed, totals.rows_rejected
    ))?;
    for tracker in &status.trackers {
        let (runs, rows) = (tracker.totals.succeeded, tracker.totals.rows_written);
        print::line(format!("  {:<16} {runs:>4} runs {rows:>7} rows", tracker.name))?;
    }
    print::line(format!("It is all still there: {} --config {} psql", program(), path.display()))?;
    match (totals.failed, totals.succeeded) {
        (0, 1..) => Ok(()),
        _ => Err(Failure::work(format!("{} runs failed, {} succeeded", totals.failed, totals.succeeded))),
    }
}

fn welcome(config: &Path, page: SocketAddr) -> Result<(), Failure> {
    print::line(format!(
        "The arena plays, trackd follows it.\n\n  page   http://{page}/\n  psql   {} --config {} psql\n",
        program(),
        config.display()
    ))?;
    let query = |(title, sql): &(&str, &str)| print::line(format!("-- {title}\n{}\n", sql.trim()));
    demo::QUERIES.iter().try_for_each(query)
}

/// How to call this program again: a checkout's is not on PATH.
fn program() -> String {
    std::env::current_exe().map_or_else(|_| "trackd".into(), |path| path.display().to_string())
}

/// The demo's own state directory.
fn home(fresh: bool) -> Result<PathBuf, Failure> {
    let environment = Environment::of_process();
    let state = environment.state_dir();
    let home = state.with_file_name(format!("{}-demo", state.file_name().unwrap_or_default().to_string_lossy()));
    let failed = |error: std::io::Error| Failure::work(format!("make {}: {error}", home.display()));
    if fresh && home.exists() {
        if !home.join(MARK).exists() {
            return Err(Failure::work(format!("remove {}: it has no file {MARK}, so it is no demo's", home.display())));
        }
        if home.join("postgres/data/postmaster.pid").exists() {
            return Err(Failure::work(format!("remove {}: its database runs", home.display()))
                .with_hint(Some("stop the other demo first".into())));
        }
        std::fs::remove_dir_all(&home).map_err(failed)?;
    }
    std::fs::create_dir_all(&home).map_err(failed)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o711);
    std::fs::set_permissions(&home, mode).map_err(failed)?;
    std::fs::write(home.join(MARK), "made by `trackd demo`; `trackd demo --fresh` removes this directory\n")
        .map_err(failed)?;
    Ok(home)
}
