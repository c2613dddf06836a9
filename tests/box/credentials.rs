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

/// Of all cases before, and of a daemon that has secrets in all places and fails.
pub fn none_told(service: &Service<'_>) -> Outcome<()> {
    let source = format!(
        "http = {{ url = \"http://me:{SECRET}@127.0.0.1:9/?key={SECRET}\", headers = {{ a = \"{SECRET}\" }}, query = {{ q = \"{SECRET}\" }} }}"
    );
    let database = PEER.replacen("trackd@", &format!("trackd:{SECRET}@"), 1);
    service.fresh(&config(&database, &(of_file("a") + &tracker("b", "1s", &source))))?;
    service
        .holds("runs that fail", "SELECT count(*) > 1 FROM trackd.runs WHERE tracker = 'b' AND status = 'failed'")?;
    let recorded = service.ask(&format!("SELECT count(*) FROM trackd.runs r WHERE r::text LIKE '%{SECRET}%'"))?;
    expect(recorded == "0", || format!("{recorded} rows of the ledger hold a secret"))?;
    // Of the entries of `su` the command line tells what a case asked for by it.
    let shown = service.machine.run(&format!(
        "cd / && pid=$(systemctl show -p MainPID --value trackd) && {{ journalctl -o json --all | grep -v '\"_COMM\":\"su\"'; \
         systemctl show trackd; systemctl status trackd --no-pager; cat /proc/$pid/cmdline /proc/$pid/environ; \
         for of in status runs check doctor 'spool ls'; do trackd $of; done; find /var/log -type f ! -name '*.journal' -exec cat {{}} +; \
         }} >/tmp/shown 2>&1; grep -aF {SECRET} /tmp/shown; wc -l </tmp/shown"
    ))?;
    expect(!shown.contains(SECRET), || format!("what was shown holds a secret: {shown}"))?;
    expect(shown.parse().is_ok_and(|lines: u32| lines > 100), || format!("only {shown} lines were searched"))
}
