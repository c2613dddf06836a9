//! `systemctl reload`: it waits, and fails where the configuration is bad.

use crate::machine::{Outcome, expect};
use crate::service::{PEER, Service, config, of_file};

/// What was added is there when it returns.
pub fn good(service: &Service<'_>) -> Outcome<()> {
    service.fresh(&config(PEER, &of_file("a")))?;
    service.configure(&config(PEER, &(of_file("a") + &of_file("b"))))?;
    let since = service.now()?;
    let status = service.machine.run("systemctl reload trackd && trackd status")?;
    expect(status.contains("\nb\t"), || format!("the new tracker is not there:\n{status}"))?;
    service.tells("reloaded", 1, &since)?;
    service.lands_more("b", 2)
}

/// Nothing changes, and every fault is told.
pub fn bad(service: &Service<'_>) -> Outcome<()> {
    service.fresh(&config(PEER, &of_file("a")))?;
    service.configure(&config(PEER, &(of_file("a") + "[[tracker]]\nname = \"b\"\nevery = \"soon\"\n")))?;
    let since = service.now()?;
    let said = service.machine.say("systemctl reload trackd")?;
    expect(said.code == Some(1), || format!("systemctl reload: status {:?}, expected 1\n{}", said.code, said.text))?;
    service.tells("reload-refused", 1, &since)?;
    service.tells("config-fault", 2, &since)?;
    let shell = format!("journalctl -u trackd --since '{since}' -o cat | grep -F 'status=78/CONFIG'");
    service.machine.eventually("the exit status in the journal", &shell)?;
    expect(service.property("ActiveState")? == "active", || "not active any more".to_owned())?;
    service.lands_more("a", 2)
}

/// Nothing changes where one key takes a restart, and a restart takes all.
pub fn restart(service: &Service<'_>) -> Outcome<()> {
    service.fresh(&config(PEER, &of_file("a")))?;
    let both = config(PEER, &(of_file("a") + &of_file("b")));
    service.configure(&format!("{both}\n[daemon]\nworkers = 3\n"))?;
    let (since, machine) = (service.now()?, service.machine);
    let check = machine.say("trackd check --against-running")?;
    let named = check.text.contains("daemon.workers: cannot change while trackd runs");
    expect(check.code == Some(78) && named, || format!("status {:?}: {}", check.code, check.text))?;
    let said = machine.say("systemctl reload trackd")?;
    expect(said.code == Some(1), || format!("systemctl reload: status {:?}, expected 1\n{}", said.code, said.text))?;
    service.tells("reload-refused", 1, &since)?;
    let status = machine.run("trackd status")?;
    expect(!status.contains("\nb\t"), || format!("the new tracker is there:\n{status}"))?;
    service.lands_more("a", 2)?;
    machine.run("systemctl restart trackd")?;
    service.lands_more("b", 2)
}

/// It stands still for a second.
pub fn waits(service: &Service<'_>) -> Outcome<()> {
    service.fresh(&config(PEER, &of_file("a")))?;
    service.configure(&config(PEER, &(of_file("a") + &of_file("b"))))?;
    let (pid, machine) = (service.property("MainPID")?, service.machine);
    let took = machine.run(&format!(
        "kill -STOP {pid}; (sleep 1; kill -CONT {pid}) & begun=$(date +%s%N); systemctl reload trackd || exit 1; \
         echo $((($(date +%s%N) - begun) / 1000000))"
    ))?;
    let took: u32 = took.parse().map_err(|error| format!("{took:?}: {error}"))?;
    expect(took >= 900, || format!("returned after {took} ms, while the daemon stood still"))?;
    let status = machine.run("trackd status")?;
    expect(status.contains("\nb\t"), || format!("the new tracker is not there:\n{status}"))
}

/// Of a drop-in, as root's editor leaves it where root's umask is strict; and of all of it, for who is not of the group.
pub fn unreadable(service: &Service<'_>) -> Outcome<()> {
    const DO: &str = "chgrp trackd FILE, chmod 640 FILE";
    service.fresh(&config(PEER, &of_file("a")))?;
    let machine = service.machine;
    machine.write("/etc/trackd/conf.d/10-root.toml", &of_file("b"))?;
    machine.run("chown root:root /etc/trackd/conf.d/10-root.toml && chmod 600 /etc/trackd/conf.d/10-root.toml")?;
    let reload = machine.say("trackd reload")?;
    machine.run("rm /etc/trackd/conf.d/10-root.toml")?;
    let named = reload.text.contains("/etc/trackd/conf.d/10-root.toml: Permission denied") && reload.text.contains(DO);
    expect(reload.code == Some(78) && named, || format!("status {:?}: {}", reload.code, reload.text))?;
    let check = machine.say("cd / && runuser -u nobody -- trackd check")?;
    let named = check.text.contains("--> /etc/trackd/config.toml") && check.text.contains(DO);
    expect(check.code == Some(78) && named, || format!("status {:?}: {}", check.code, check.text))
}
