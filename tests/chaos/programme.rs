//! The programme: warm up, do the faults, heal, drain, stop, look.
//!
//! In: a stage and a plan. Out: a case for the audit, and complaints. Must not know: what is right.

use super::audit::Case;
use super::collect::collect;
use super::daemons::Usage;
use super::faults::inject;
use super::plan::Injection;
use super::source::now;
use super::stage::Stage;
use super::truth::Injected;
use super::watch::Watch;
use super::{leaks, support};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio_postgres::Client;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// How long the first run of every tracker may take.
const WARM: Duration = Duration::from_secs(60);
/// How long it may take after the last heal until every tracker has landed a run that was due after it.
const DRAIN: Duration = Duration::from_secs(150);
/// At the end a daemon stops within its drain and what lies around it.
const STOP: Duration = Duration::from_secs(30);
const KEEP: Duration = Duration::from_millis(300);

/// Runs all of it. `stop` ends the faults early.
pub async fn run(stage: &Stage, plan: &[Injection], verbose: bool, stop: impl Future<Output = ()>) -> Outcome<Case> {
    stage.settle()?;
    for daemon in &stage.daemons {
        daemon.lock().await.start()?;
    }
    let client = stage.database.client().await;
    until_all_succeeded(stage, &client, 0, WARM, "warm-up").await?;
    drop(client);
    let mut warm = Vec::new();
    for daemon in &stage.daemons {
        warm.push(leaks::usage(&*daemon.lock().await).await.ok_or("a daemon ended in the warm-up")?);
    }
    let watch = Watch::start(&stage.database, &stage.dir.join("transactions.log"))?;
    let faults = do_all(stage, plan, verbose, stop).await?;
    let healed = now();
    let client = stage.database.client().await;
    if let Err(error) = until_all_succeeded(stage, &client, healed, DRAIN, "drain").await {
        stage.complain(error.to_string());
    }
    at_rest(stage, &client, &warm).await?;
    drop(client);
    drop(watch);
    let lives = stop_all(stage).await?;
    let trackers = stage.fleet.lock().expect("no panic holds it").ever.clone();
    let client = stage.database.client().await;
    let mut states = Vec::new();
    for daemon in &stage.daemons {
        states.push(daemon.lock().await.state_dir());
    }
    let found = collect(&client, &trackers, &states).await?;
    let spools = spools(stage).await?;
    Ok(Case { trackers, answers: stage.source.memory(), lives, faults, found, spools })
}

/// Does the injections at their times, overlapping, and keeps the daemons up.
async fn do_all(
    stage: &Stage,
    plan: &[Injection],
    verbose: bool,
    stop: impl Future<Output = ()>,
) -> Outcome<Vec<Injected>> {
    let begun = Instant::now();
    let say = |what: &str, name: &str| {
        if verbose {
            println!("{:>8.1} s  {what} {name}", begun.elapsed().as_secs_f64());
        }
    };
    let mut plan = plan.iter();
    let mut next = plan.next();
    let mut running = FuturesUnordered::new();
    let mut done = Vec::new();
    let mut keep = tokio::time::interval(KEEP);
    tokio::pin!(stop);
    while next.is_some() || !running.is_empty() {
        let due = next.map_or(Duration::from_secs(3600), |next| next.at.saturating_sub(begun.elapsed()));
        tokio::select! {
            () = &mut stop, if next.is_some() => next = None,
            () = tokio::time::sleep(due), if next.is_some() => {
                let injection = next.expect("just asked");
                say("begin", injection.fault.name);
                running.push(inject(stage, injection));
                next = plan.next();
            }
            Some(ended) = running.next(), if !running.is_empty() => {
                let injected: Injected = ended?;
                say("heal ", injected.fault);
                done.push(injected);
            }
            _ = keep.tick() => stage.keep_daemons()?,
        }
    }
    done.sort_by_key(|injected| injected.began);
    Ok(done)
}

/// Waits until each tracker in force has landed a run of an instant after `since`, and none is under way for older ones.
async fn until_all_succeeded(stage: &Stage, client: &Client, since: i64, limit: Duration, what: &str) -> Outcome<()> {
    let deadline = Instant::now() + limit;
    // Runs that began before are over: their rows are there, or in the spool.
    let sql = "SELECT DISTINCT tracker FROM trackd.runs WHERE status = 'succeeded' \
               AND pg_xact_commit_timestamp(xmin) > to_timestamp($1::int8 / 1000.0) \
               AND NOT EXISTS (SELECT 1 FROM trackd.runs o WHERE o.status = 'running' AND o.tracker = runs.tracker \
               AND o.scheduled_at < to_timestamp($1::int8 / 1000.0))";
    loop {
        stage.keep_daemons()?;
        let names = |rows: Vec<tokio_postgres::Row>| rows.iter().map(|row| row.get(0)).collect::<BTreeSet<String>>();
        let succeeded = client.query(sql, &[&since]).await.map(names).unwrap_or_default();
        let fleet = stage.fleet.lock().expect("no panic holds it").now.clone();
        let missing: Vec<_> =
            fleet.iter().map(|tracker| &tracker.name).filter(|name| !succeeded.contains(*name)).collect();
        if missing.is_empty() && stage.spooled().await == 0 {
            return Ok(());
        }
        if Instant::now() > deadline {
            let spooled = stage.spooled().await;
            return Err(format!(
                "{what}: not within {limit:?}: nothing landed for {missing:?}, {spooled} files spooled"
            )
            .into());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// What the daemons and the server hold when all is calm again.
async fn at_rest(stage: &Stage, client: &Client, warm: &[Usage]) -> Outcome<()> {
    for (n, daemon) in stage.daemons.iter().enumerate() {
        match leaks::usage(&*daemon.lock().await).await {
            Some(end) => leaks::grown(n, warm[n], end).into_iter().for_each(|leak| stage.complain(leak)),
            None => stage.complain(format!("daemon {n} does not run at the end")),
        }
    }
    leaks::transactions(client).await?.into_iter().for_each(|leak| stage.complain(leak));
    Ok(())
}

/// Stops all in order. Returns the lives of all processes.
async fn stop_all(stage: &Stage) -> Outcome<Vec<super::truth::Life>> {
    let mut lives = Vec::new();
    for (n, daemon) in stage.daemons.iter().enumerate() {
        let mut daemon = daemon.lock().await;
        let stopped = daemon.stop(STOP).await;
        if stopped.is_none_or(|status| !status.success()) {
            stage.complain(format!("daemon {n} did not stop in order at the end: {stopped:?}"));
        }
        lives.append(&mut daemon.lives);
    }
    // What a firewall forgot is closed on the server's side now, or the proxy itself would be the leak.
    stage.proxy.set(support::proxy::Fault::Reset);
    let strays = leaks::sessions(&stage.server, &stage.database.name).await?;
    strays
        .into_iter()
        .chain(leaks::files(stage).await)
        .chain(leaks::secrets(stage))
        .for_each(|leak| stage.complain(leak));
    Ok(lives)
}

/// Whether this trackd keeps payloads on disk.
async fn spools(stage: &Stage) -> Outcome<bool> {
    let mut command = stage.daemons[0].lock().await.command(&["spool", "--help"]);
    Ok(command.stderr(std::process::Stdio::null()).status()?.success())
}
