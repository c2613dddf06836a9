//! The plan: which fault is done to what, when, and for how long. All of it follows from the seed.
//!
//! Each target (network, server, a daemon, …) bears one fault at a time; faults of different targets overlap as
//! chance has it. In: a seed, a length, the faults wanted. Out: injections in the order of time. Pure.

use std::time::Duration;

/// What a fault is done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    Network,
    Server,
    Daemon(usize),
    Clock(usize),
    Config,
    Source,
    SpoolDisk,
    ServerDisk,
}

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    pub name: &'static str,
    pub what: &'static str,
    /// Without the number of the daemon.
    target: Target,
    /// How long it lasts, in milliseconds.
    lasts: (u64, u64),
    /// Nothing can land while it lasts, if there is one daemon.
    pub outage: bool,
}

const fn fault(name: &'static str, target: Target, lasts: (u64, u64), outage: bool, what: &'static str) -> Fault {
    Fault { name, what, target, lasts, outage }
}

use Target::{Clock, Config, Daemon, Network, Server, ServerDisk, Source, SpoolDisk};

/// All faults, in the order of the report.
pub const FAULTS: &[Fault] = &[
    fault("daemon-kill", Daemon(0), (100, 600), true, "kill -9 of a daemon, started again at once"),
    fault("daemon-down", Daemon(0), (3_000, 8_000), true, "kill -9 of a daemon, started again later"),
    fault("daemon-stall", Daemon(0), (11_000, 18_000), true, "a daemon stopped (SIGSTOP) for longer than a lease"),
    fault("daemon-power", Daemon(0), (500, 5_000), true, "a daemon's machine loses power, and what was not synced"),
    fault("daemon-restart", Daemon(0), (500, 3_000), true, "a daemon told to stop, started again"),
    fault("server-kill", Server, (300, 5_000), true, "kill -9 of PostgreSQL, started again"),
    fault("server-restart", Server, (300, 3_000), true, "orderly restart of PostgreSQL"),
    fault("net-delay", Network, (1_000, 5_000), false, "network 5 to 80 ms slower each way"),
    fault("net-freeze", Network, (500, 6_000), true, "network stands still, then goes on"),
    fault("net-strand", Network, (0, 10), false, "all connections half-open for good"),
    fault("net-reset", Network, (300, 4_000), true, "connections reset, new ones too"),
    fault("net-lose-commit", Network, (1_000, 4_000), true, "answers to COMMIT lost"),
    fault("net-cut-up", Network, (1_000, 3_000), true, "connections cut after n bytes to the server"),
    fault("net-cut-down", Network, (1_000, 3_000), true, "connections cut after n bytes from the server"),
    fault("reload-good", Config, (100, 2_000), false, "SIGHUPs, trackers added, changed, removed"),
    fault("reload-bad", Config, (500, 3_000), false, "SIGHUPs with a bad file"),
    fault("source-rubbish", Source, (1_000, 4_000), true, "200 with what is no JSON, or another shape"),
    fault("source-500", Source, (1_000, 4_000), true, "status 500 to 504"),
    fault("source-slow", Source, (3_000, 10_000), false, "answers take 0.5 to 2.5 s"),
    fault("source-hang", Source, (1_000, 5_000), true, "no answer at all"),
    fault("source-redirects", Source, (1_000, 4_000), true, "redirects in a circle"),
    fault("source-truncated", Source, (1_000, 4_000), true, "bodies that end too early"),
    fault("source-retry-after", Source, (1_000, 4_000), true, "429 and 503 with Retry-After"),
    fault("source-endless", Source, (1_000, 3_000), true, "bodies without end"),
    fault("source-mixed", Source, (3_000, 8_000), false, "every third answer one of the above"),
    fault("disk-spool", SpoolDisk, (1_000, 6_000), false, "the disk of the state directories full"),
    fault("disk-server", ServerDisk, (1_000, 5_000), true, "the server's disk full"),
    fault("clock-forward", Clock(0), (4_000, 10_000), false, "a daemon's clock 3 to 40 s fast, then set right"),
    fault("clock-back", Clock(0), (4_000, 10_000), true, "a daemon's clock 3 to 40 s slow, then set right"),
];

/// One fault at one time.
#[derive(Debug, Clone, Copy)]
pub struct Injection {
    pub fault: &'static Fault,
    pub target: Target,
    /// From the beginning of the programme.
    pub at: Duration,
    pub lasts: Duration,
    /// For whatever else it needs.
    pub dice: u64,
}

impl Injection {
    /// The daemon it is done to.
    pub fn daemon(&self) -> usize {
        match self.target {
            Daemon(n) | Clock(n) => n,
            _ => 0,
        }
    }
}

/// Pauses between two faults of one target, in milliseconds.
fn pause(target: Target) -> (u64, u64) {
    match target {
        Config => (2_000, 10_000),
        Network | Source => (4_000, 16_000),
        Server => (5_000, 20_000),
        Daemon(_) => (8_000, 30_000),
        SpoolDisk | ServerDisk | Clock(_) => (15_000, 60_000),
    }
}

/// The faults of these names.
///
/// # Errors
/// The first that is none, with all there are.
pub fn named(names: &[String]) -> Result<Vec<&'static Fault>, String> {
    if names.is_empty() {
        return Ok(FAULTS.iter().collect());
    }
    let of = |name: &String| {
        let known = || FAULTS.iter().map(|fault| fault.name).collect::<Vec<_>>().join(", ");
        FAULTS.iter().find(|fault| fault.name == name).ok_or_else(|| format!("no fault {name:?}, expected {}", known()))
    };
    names.iter().map(of).collect()
}

/// Faults for `length`, on so many daemons.
pub fn plan(faults: &[&'static Fault], daemons: usize, length: Duration, random: &mut fastrand::Rng) -> Vec<Injection> {
    let numbered = |target: Target| match target {
        Daemon(_) => (0..daemons).map(Daemon).collect(),
        Clock(_) => (0..daemons).map(Clock).collect(),
        other => vec![other],
    };
    let mut targets: Vec<Target> = Vec::new();
    for fault in faults {
        targets
            .extend(numbered(fault.target).into_iter().filter(|target| !targets.contains(target)).collect::<Vec<_>>());
    }
    let mut plan = Vec::new();
    for target in targets {
        let own: Vec<&Fault> =
            faults.iter().copied().filter(|fault| numbered(fault.target).contains(&target)).collect();
        plan.extend(timeline(&own, target, length, random));
    }
    plan.sort_by_key(|injection| injection.at);
    plan
}

/// One target's faults: each in turn, in a random order, until the time is up.
fn timeline(own: &[&'static Fault], target: Target, length: Duration, random: &mut fastrand::Rng) -> Vec<Injection> {
    let between =
        |(least, most): (u64, u64), random: &mut fastrand::Rng| Duration::from_millis(random.u64(least..=most));
    let mut timeline = Vec::new();
    // Soon: a short programme has some of each, too.
    let mut at = between((0, pause(target).1 / 2), random);
    let mut turn: Vec<&'static Fault> = Vec::new();
    loop {
        if turn.is_empty() {
            turn = own.to_vec();
            random.shuffle(&mut turn);
        }
        let Some(fault) = turn.pop() else { return timeline };
        let lasts = between(fault.lasts, random);
        if at + lasts > length {
            return timeline;
        }
        timeline.push(Injection { fault, target, at, lasts, dice: random.u64(..) });
        at += lasts + between(pause(target), random);
    }
}
