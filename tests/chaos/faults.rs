//! Doing the faults: begin, wait, heal; and writing down when that was.
//!
//! Must not know: the plan, what becomes of the data.

use super::fleet::{Tracker, tracker};
use super::plan::{Injection, Target};
use super::source::now;
use super::stage::Stage;
use super::support::proxy;
use super::truth::{Injected, Outage};
use rustix::process::Signal;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// A daemon that takes longer to stop is killed, and complained about: its drain is 10 s.
const STOP: Duration = Duration::from_secs(30);
/// Trackers that come and go by reloads.
const MOST_GUESTS: usize = 5;

type Outcome = std::io::Result<()>;

/// Why this fault cannot be done here.
pub fn impossible(stage: &Stage, injection: &Injection) -> Option<&'static str> {
    match injection.target {
        _ if injection.fault.name == "daemon-power" && !stage.power => Some("there is no C compiler"),
        Target::ServerDisk if !stage.server_disk.is_small() => Some("this process may not mount a file system"),
        Target::SpoolDisk if !stage.spool_disk.is_small() => Some("this process may not mount a file system"),
        Target::Clock(_) if super::daemons::faketime().is_none() => Some("libfaketime is not installed"),
        _ => None,
    }
}

/// Does it, from its beginning to its heal.
pub async fn inject(stage: &Stage, injection: &Injection) -> std::io::Result<Injected> {
    let began = now();
    let name = injection.fault.name;
    match injection.target {
        Target::Daemon(n) => daemon(stage, n, injection).await?,
        Target::Server => server(stage, injection).await,
        Target::Network => network(stage, injection).await,
        Target::Config => config(stage, injection).await?,
        Target::Clock(n) => clock(stage, n, injection).await?,
        Target::Source => {
            stage.source.set(Some(name));
            sleep(injection.lasts).await;
            stage.source.set(None);
        }
        Target::SpoolDisk | Target::ServerDisk => {
            let disk = if name == "disk-spool" { &stage.spool_disk } else { &stage.server_disk };
            disk.fill();
            sleep(injection.lasts).await;
            disk.empty();
        }
    }
    let healed = now();
    let one_of_many = matches!(injection.target, Target::Daemon(_) | Target::Clock(_)) && stage.daemons.len() > 1;
    let only = one_of_many.then(|| injection.daemon());
    let outage = match name {
        // The next instants have run already, and are on record for all daemons.
        "clock-forward" => Some(Outage { from: healed, to: healed + 1_000 * step(injection), only: None }),
        _ => injection.fault.outage.then_some(Outage { from: began, to: healed, only }),
    };
    Ok(Injected { fault: name, daemon: injection.daemon(), began, healed, outage })
}

async fn daemon(stage: &Stage, n: usize, injection: &Injection) -> Outcome {
    match injection.fault.name {
        "daemon-stall" => {
            stage.daemons[n].lock().await.signal(Signal::STOP);
            sleep(injection.lasts).await;
            stage.daemons[n].lock().await.signal(Signal::CONT);
            return Ok(());
        }
        "daemon-restart" => {
            let stopped = stage.daemons[n].lock().await.stop(STOP).await;
            if stopped.is_none_or(|status| !status.success()) {
                stage.complain(format!("daemon {n} was told to stop, and did not in order: {stopped:?}"));
            }
        }
        "daemon-power" => stage.daemons[n].lock().await.lose_power()?,
        _ => stage.daemons[n].lock().await.kill(),
    }
    sleep(injection.lasts).await;
    stage.daemons[n].lock().await.start()
}

async fn server(stage: &Stage, injection: &Injection) {
    let order = |order: fn(&super::support::postgres::Server)| {
        let server = Arc::clone(&stage.server);
        async move { tokio::task::spawn_blocking(move || order(&server)).await.expect("the server does as ordered") }
    };
    match injection.fault.name {
        "server-kill" => order(|server| server.kill()).await,
        _ => order(|server| server.stop()).await,
    }
    sleep(injection.lasts).await;
    order(|server| server.start()).await;
}

async fn network(stage: &Stage, injection: &Injection) {
    let dice = injection.dice;
    let bytes = (dice % 30_000) as usize;
    stage.proxy.set(match injection.fault.name {
        "net-delay" => proxy::Fault::Delay(Duration::from_millis(5 + dice % 75)),
        "net-freeze" => proxy::Fault::Freeze,
        "net-strand" => proxy::Fault::Strand,
        "net-reset" => proxy::Fault::Reset,
        "net-lose-commit" => proxy::Fault::LoseCommits,
        "net-cut-up" => proxy::Fault::CutUp(bytes),
        _ => proxy::Fault::CutDown(bytes),
    });
    sleep(injection.lasts).await;
    stage.proxy.set(proxy::Fault::None);
}

async fn config(stage: &Stage, injection: &Injection) -> Outcome {
    let mut random = fastrand::Rng::with_seed(injection.dice);
    if injection.fault.name == "reload-bad" {
        let good = stage.config();
        stage.break_config(&match random.u8(0..4) {
            0 => good.replace("[daemon]", "[deamon]"),
            1 => good + "[[tracker]]\nname = \"broken\"\nschedule = \"61 * * * *\"\n",
            2 => good[..good.len() / 2].to_owned() + "\n[[tracker",
            _ => String::from("\u{0}\u{1}"),
        })?;
    } else {
        change(stage, &mut random);
        stage.settle()?;
    }
    let times = random.u32(1..=30);
    for _ in 0..times {
        hang_up(stage);
        sleep(injection.lasts / times).await;
    }
    if injection.fault.name == "reload-bad" {
        stage.settle()?;
        hang_up(stage);
    }
    Ok(())
}

/// A guest comes, a guest goes, or those that stay are changed. Nobody's schedule is: its instants are audited.
fn change(stage: &Stage, random: &mut fastrand::Rng) {
    let mut fleet = stage.fleet.lock().expect("no panic holds it");
    let guests: Vec<usize> = (0..fleet.now.len()).filter(|n| fleet.now[*n].name.starts_with('g')).collect();
    match random.u8(0..3) {
        0 if guests.len() < MOST_GUESTS => {
            // Of a new name: one that was away for a while may, or may not, have missed instants.
            let n = fleet.ever.len();
            fleet.add(Tracker { came: Some(now()), ..tracker(format!("g{n}"), n, random) });
        }
        1 if !guests.is_empty() => fleet.remove(guests[random.usize(0..guests.len())], now()),
        _ => fleet.patient = !fleet.patient,
    }
}

/// Tells all daemons to reload.
fn hang_up(stage: &Stage) {
    for daemon in &stage.daemons {
        // One that is being stopped reads no configuration any more, one that was just started reads it now.
        if let Ok(daemon) = daemon.try_lock()
            && daemon.catches_hangups()
        {
            daemon.signal(Signal::HUP);
        }
    }
}

/// So many seconds is a clock wrong.
fn step(injection: &Injection) -> i64 {
    3 + (injection.dice % 38) as i64
}

async fn clock(stage: &Stage, n: usize, injection: &Injection) -> Outcome {
    let stepped = if injection.fault.name == "clock-back" { -step(injection) } else { step(injection) };
    stage.daemons[n].lock().await.set_clock(stepped)?;
    sleep(injection.lasts).await;
    stage.daemons[n].lock().await.set_clock(0)
}
