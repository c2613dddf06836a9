//! Deaths, starts and stops, as systemd sees them.

use crate::machine::{Outcome, expect};
use crate::service::{PEER, Service, config, of_file, tracker};

/// SIGKILL, three times in the middle of runs.
pub fn killed(service: &Service<'_>) -> Outcome<()> {
    service.fresh(&config(PEER, &of_file("a")))?;
    for restarts in 1..=3 {
        service.lands_more("a", 2)?;
        service.machine.run("kill -KILL $(systemctl show -p MainPID --value trackd)")?;
        service.becomes("NRestarts", &restarts.to_string())?;
        service.becomes("SubState", "running")?;
    }
    service.lands_more("a", 2)?;
    service.machine.run("systemctl stop trackd")?;
    service.is_whole("a")
}

/// Only the thread of the supervisor is stopped, by ptrace: all others go on, and no switch for tests is in the program.
pub fn stuck(service: &Service<'_>) -> Outcome<()> {
    service.cleared(&config(PEER, &of_file("a")))?;
    service.drop_in("WatchdogSec=4s")?;
    let (machine, since) = (service.machine, service.now()?);
    machine.run("systemctl start trackd")?;
    service.lands_more("a", 6)?;
    expect(service.property("NRestarts")? == "0", || "restarted although nothing was stuck".to_owned())?;
    let pid = service.property("MainPID")?;
    // PTRACE_ATTACH stops this one thread; that its tracer waits for it lets it be cleared up when it is dead.
    let attach = format!(
        "my $call = `uname -m` =~ /x86_64/ ? 101 : 117; syscall($call, 16, {pid}, 0, 0) == 0 or die $!; 1 while waitpid({pid}, 0x40000000) > 0"
    );
    machine.run(&format!("systemd-run --quiet perl -e '{attach}'"))?;
    service.becomes("NRestarts", "1")?;
    let shell = format!("journalctl -u trackd --since '{since}' -o cat | grep -F 'Watchdog timeout'");
    machine.eventually("the watchdog in the journal", &shell)?;
    service.becomes("SubState", "running")?;
    service.lands_more("a", 2)?;
    machine.run("systemctl stop trackd")?;
    service.is_whole("a")
}

/// A journald whose disk hangs, say. Its socket holds some hundred lines: of so many trackers, those of two seconds.
pub fn journal_stands_still(service: &Service<'_>) -> Outcome<()> {
    let more: Vec<String> = (0..20).map(|i| of_file(&format!("m{i}"))).collect();
    let level = "[log]\nlevel = \"debug\"\n".to_owned();
    service.cleared(&(level + &config(PEER, &(of_file("a") + &more.concat()))))?;
    service.drop_in("WatchdogSec=4s")?;
    service.machine.run("systemctl start trackd")?;
    let (machine, since) = (service.machine, service.now()?);
    let signal = |name: &str| {
        machine.run(&format!("kill -{name} $(systemctl show -p MainPID --value systemd-journald)")).map(drop)
    };
    signal("STOP")?;
    let landed = service.lands_more("a", 10);
    signal("CONT")?;
    landed?;
    expect(service.property("NRestarts")? == "0", || "the watchdog bit".to_owned())?;
    service.tells("run-succeeded", 30, &since)?;
    machine.run("systemctl stop trackd")?;
    service.is_whole("a")
}

/// Exit status 78.
pub fn misconfigured(service: &Service<'_>) -> Outcome<()> {
    service.cleared("[database]\nurl = 7\n")?;
    let since = service.now()?;
    let said = service.machine.say("systemctl start trackd")?;
    expect(said.code == Some(1), || format!("systemctl start: status {:?}, expected 1", said.code))?;
    let seen = ["ActiveState", "Result", "ExecMainStatus", "NRestarts"].map(|name| service.property(name));
    let seen: Outcome<Vec<String>> = seen.into_iter().collect();
    let seen = seen?.join(" ");
    expect(seen == "failed exit-code 78 0", || format!("got {seen}, expected failed exit-code 78 0"))?;
    let told = service.machine.run(&format!("journalctl -u trackd -p err --since '{since}' -o cat"))?;
    expect(told.contains("`database.url`: expected"), || format!("the journal's errors do not say why:\n{told}"))
}

/// Runs of four seconds, a unit that says two.
pub fn drains(service: &Service<'_>) -> Outcome<()> {
    let slow = |name: &str| tracker(name, "1s", "http = { url = \"http://127.0.0.1:8081/slow/4\" }");
    service.cleared(&config(PEER, &["a", "b", "c"].map(slow).concat()))?;
    service.drop_in("TimeoutStopSec=2s\nWatchdogSec=2s")?;
    service.machine.run("systemctl start trackd")?;
    service.becomes("StatusText", "*', 3 running'*")?;
    service.machine.run("systemctl stop trackd")?;
    let result = service.property("Result")?;
    expect(result == "success", || format!("the stop ended with {result}"))?;
    let runs = service
        .ask("SELECT count(*) >= 3 AND bool_and(status IN ('succeeded', 'missed', 'skipped')) FROM trackd.runs")?;
    expect(runs == "t", || "a run was cut off".to_owned())?;
    service.machine.run("! pgrep -x trackd 2>/dev/null").map(drop)
}

/// Another process migrates for longer than the unit says that a start takes.
pub fn starts_slowly(service: &Service<'_>) -> Outcome<()> {
    service.cleared(&config(PEER, &of_file("a")))?;
    service.drop_in("TimeoutStartSec=3s")?;
    // The number of the lock of all who migrate: "trackd" and a 1, as bytes.
    let hold = "SELECT pg_advisory_lock(x'747261636b640001'::bigint), pg_sleep(6)";
    service
        .machine
        .run(&format!("systemd-run --quiet --unit=migrates --uid=postgres psql -XAtqd trackd -c \"{hold}\""))?;
    service.holds("the lock is held", "SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND granted")?;
    let took = service
        .machine
        .run("begun=$(date +%s%N); systemctl start trackd || exit 1; echo $((($(date +%s%N) - begun) / 1000000))")?;
    let took: u32 = took.parse().map_err(|error| format!("{took:?}: {error}"))?;
    expect(took > 3_500, || format!("started within {took} ms: the lock did not hold it up"))
}

/// `trackd@NAME.service`, with a file, a state and a socket of its own.
pub fn instance(service: &Service<'_>) -> Outcome<()> {
    service.fresh(&config(PEER, &of_file("a")))?;
    let machine = service.machine;
    let more = "[daemon]\nlisten = \"127.0.0.1:8788\"\nstate_dir = \"/var/lib/trackd-more\"\n";
    machine.write("/etc/trackd/more.toml", &(more.to_owned() + &config("embedded", &of_file("m"))))?;
    machine
        .run("chgrp trackd /etc/trackd/more.toml && chmod 640 /etc/trackd/more.toml && systemctl start trackd@more")?;
    machine.run("systemctl reload trackd@more && systemctl reload trackd")?;
    let status = machine.run("cd / && trackd --config /etc/trackd/more.toml status 2>&1")?;
    expect(status.contains("\nm\t") && status.contains("workers busy"), || format!("not asked: {status}"))?;
    let shell =
        "cd / && [ \"$(trackd --config /etc/trackd/more.toml psql -- -XAtqc 'SELECT count(*) > 1 FROM m')\" = t ]";
    machine.eventually("rows of the second", shell)?;
    service.lands_more("a", 1)?;
    machine.run("systemctl stop trackd@more && rm /etc/trackd/more.toml && ! ls -d /run/trackd-more 2>/dev/null && rm -r /var/lib/trackd-more").map(drop)
}
