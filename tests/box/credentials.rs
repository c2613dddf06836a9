//! Secrets: where the service finds them, how they are changed, and that nothing tells of them.

use crate::machine::{Outcome, expect};
use crate::service::{PEER, SECRET, Service, TCP, config, of_file, tracker};

fn password(service: &Service<'_>, password: &str) -> Outcome<()> {
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'trackd'";
    let sql = format!("ALTER ROLE trackd PASSWORD '{password}'; {end}");
    service.machine.run(&format!("su postgres -c \"psql -qXc \\\"{sql}\\\"\" >/dev/null")).map(drop)
}

/// systemd copies them when it starts a service: one that is changed needs a restart.
pub fn of_systemd(service: &Service<'_>) -> Outcome<()> {
    let put = |text: &str| {
        let shell = format!(
            "install -d -m 700 /etc/credstore && printf '%s\\n' {text} >/etc/credstore/trackd.database.password"
        );
        service.machine.run(&shell).map(drop)
    };
    let (one, two) = (format!("{SECRET}-one"), format!("{SECRET}-two"));
    service.cleared(&config(TCP, &of_file("a")))?;
    password(service, &one)?;
    put(&one)?;
    service.machine.run("systemctl start trackd")?;
    service.lands_more("a", 2)?;
    password(service, &two)?;
    put(&two)?;
    let said = service.machine.say("systemctl reload trackd")?;
    let directory = service.machine.run("cat /run/credentials/trackd.service/database.password")?;
    expect(directory == one, || "systemd refreshes credentials at a reload now: say so in docs/service.md".to_owned())?;
    expect(said.code == Some(0), || format!("a reload that changes nothing fails:\n{}", said.text))?;
    service.machine.run("systemctl restart trackd")?;
    service.lands_more("a", 2)
}

/// Files that the daemon reads itself.
pub fn beside_the_configuration(service: &Service<'_>) -> Outcome<()> {
    let put = |name: &str, text: &str| {
        let file = format!("/etc/trackd/credentials/{name}");
        service.machine.write(&file, &format!("{text}\n"))?;
        service
            .machine
            .run(&format!(
                "chgrp -R trackd /etc/trackd/credentials && chmod 750 /etc/trackd/credentials && chmod 640 {file}"
            ))
            .map(drop)
    };
    let (one, two) = (format!("{SECRET}-one"), format!("{SECRET}-two"));
    let source =
        "http = { url = \"http://127.0.0.1:8081/\", headers = { authorization = \"{{ credential.token }}\" } }";
    service.cleared(&config(TCP, &(tracker("h", "1s", source) + &of_file("a"))))?;
    password(service, &one)?;
    put("token", &one)?;
    put("database.password", &one)?;
    service.machine.run("systemctl start trackd")?;
    service.holds("the first token", &format!("SELECT count(*) > 0 FROM h WHERE v = '{one}'"))?;
    password(service, &two)?;
    put("token", &two)?;
    put("database.password", &two)?;
    service.machine.run("systemctl reload trackd")?;
    service
        .holds("the second token, and the second password", &format!("SELECT count(*) > 1 FROM h WHERE v = '{two}'"))?;
    service.lands_more("a", 1)?;
    expect(service.property("NRestarts")? == "0", || "it was restarted".to_owned())?;
    service.machine.run("systemctl stop trackd")?;
    service.is_whole("a")
}

/// Of all cases before.
pub fn none_told(service: &Service<'_>) -> Outcome<()> {
    service.fresh(&config(PEER, &of_file("a")))?;
    let told = service.machine.run(&format!("journalctl -u trackd -o json --all | grep -c {SECRET}; true"))?;
    expect(told == "0", || format!("{told} entries of the journal hold a secret"))?;
    let entries = service.machine.run("journalctl -u trackd -o json --all | wc -l")?;
    expect(entries.parse().is_ok_and(|entries: u32| entries > 20), || format!("only {entries} entries were searched"))
}
