//! Where rows land: the embedded database, the system's own, and none for a while.

use crate::machine::{Outcome, PATIENCE, PAUSE, expect};
use crate::service::{PEER, Service, config, of_file};
use std::time::Instant;

fn ten() -> String {
    (0..10).map(|number| of_file(&format!("t{number}"))).collect()
}

/// The first minute after an installation.
pub fn embedded(service: &Service<'_>) -> Outcome<()> {
    service.fresh(&config("embedded", &ten()))?;
    let count = "SELECT count(DISTINCT tracker) = 10 FROM trackd.runs WHERE status = 'succeeded'";
    let shell = format!("cd / && [ \"$(trackd psql -- -XAtqc \"{count}\")\" = t ]");
    service.machine.eventually("rows of ten trackers", &shell)?;
    let jit = service.machine.run("cd / && trackd psql -- -XAtqc 'SHOW jit'")?;
    expect(jit == "off", || format!("jit is {jit}: its code would not run in the sandbox"))?;
    let shell = "systemctl status trackd --no-pager | grep -E 'Status: \"running: 10 trackers.*; next t[0-9] at 20'";
    service.machine.eventually("systemctl status", shell).map(drop)
}

/// No password anywhere.
pub fn peer(service: &Service<'_>) -> Outcome<()> {
    service.fresh(&config(PEER, &ten()))?;
    service.holds(
        "rows of ten trackers",
        "SELECT count(DISTINCT tracker) = 10 FROM trackd.runs WHERE status = 'succeeded'",
    )?;
    let role = service
        .ask("SELECT DISTINCT usename FROM pg_stat_activity WHERE usename = 'trackd' AND client_addr IS NULL")?;
    expect(role == "trackd", || format!("connected as {role:?}"))?;
    // As documented, typed by root at home: nobody else may enter it.
    let machine = service.machine;
    machine.run("cd /root && runuser -u trackd -- trackd check && runuser -u trackd -- trackd reload")?;
    machine.run("id member >/dev/null 2>&1 || useradd --groups trackd member")?;
    machine.run("cd /root && runuser -u member -- trackd reload && systemctl stop trackd")?;
    let said = machine.say("cd /root && runuser -u member -- trackd reload")?;
    expect(said.code == Some(69) && said.text.contains("no daemon runs"), || {
        format!("a member, where none runs: status {:?}, expected 69: {}", said.code, said.text)
    })
}

/// As after a boot at which PostgreSQL fails.
pub fn away(service: &Service<'_>) -> Outcome<()> {
    service.cleared(&config(PEER, &of_file("a")))?;
    let (machine, since) = (service.machine, service.now()?);
    machine.run("systemctl stop 'postgresql@*-main.service'")?;
    machine.run("systemctl start trackd")?;
    service.becomes("StatusText", "'degraded since 20'*")?;
    service.tells("degraded", 1, &since)?;
    machine.eventually(
        "payloads wait",
        "systemctl show -p StatusText trackd | grep -E '[3-9] payloads waiting in the spool'",
    )?;
    machine.run("systemctl start postgresql@*-main.service --all")?;
    service.becomes("StatusText", "running:*")?;
    service.tells("recovered", 1, &since)?;
    service.holds("what waited lands", "SELECT count(*) > 5 FROM a")?;
    machine.run("systemctl stop trackd")?;
    service.is_whole("a")
}

/// All units go and come as at a boot, and PostgreSQL does not come. systemd 252 has no soft-reboot: there the manager
/// itself stays. Nobody is inside meanwhile: who is stopped there, as all are before they are killed, stands still out here.
pub fn booted(service: &Service<'_>) -> Outcome<()> {
    service.fresh(&config(PEER, &of_file("a")))?;
    service.lands_more("a", 2)?;
    let (machine, since) = (service.machine, service.now()?);
    let server = machine.run("systemctl list-units --plain --no-legend 'postgresql@*' | cut -d' ' -f1")?;
    machine.run(&format!("systemctl enable trackd && systemctl mask {server}"))?;
    machine.write("/run/systemd/system/low.target", "[Unit]\nRequires=basic.target\nAllowIsolate=yes\n")?;
    let back = "[Unit]\nAfter=trackd.service\n[Service]\nType=oneshot\nExecStart=touch /run/is-back\n";
    machine.write("/run/systemd/system/back.service", back)?;
    let wants = "/run/systemd/system/multi-user.target.wants";
    machine.run(&format!("mkdir -p {wants} && ln -s ../back.service {wants}/"))?;
    machine.run(
        "if systemctl --help | grep -q soft-reboot; then systemctl soft-reboot; \
         else systemctl daemon-reload && systemctl isolate low.target && systemctl isolate default.target; fi",
    )?;
    let begun = Instant::now();
    while !machine.has("/run/is-back")? {
        expect(begun.elapsed() < PATIENCE, || "it did not come back".into())?;
        std::thread::sleep(PAUSE);
    }
    machine.run(&format!("rm {wants}/back.service"))?;
    service.becomes("StatusText", "'degraded since 20'*")?;
    service.tells("stopped", 1, &since)?;
    service.tells("degraded", 1, &since)?;
    machine.run(&format!("systemctl unmask {server} && systemctl start {server}"))?;
    service.becomes("StatusText", "running:*")?;
    service.lands_more("a", 2)?;
    machine.run("systemctl stop trackd")?;
    service.is_whole("a")
}
