//! Putting trackd into a box: a package by dpkg, or the same files by hand; and what becomes of it later.

use crate::Options;
use crate::machine::{Machine, Outcome, expect};
use crate::service::{PEER, Service, config, of_file};
use std::path::Path;

const NONE: &str = "skipped: no package was given (--deb, --newer)";

/// Installs trackd, a source, and a role of the database; nothing is started.
pub fn install(machine: &Machine, options: &Options) -> Outcome<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    machine.put(&root.join("tests/box/feed.pl"), "/srv/feed.pl")?;
    machine.write("/srv/feed.json", "{\"v\":\"x\"}")?;
    machine.run("chmod 644 /srv/feed.*; systemd-run --quiet --unit=feed perl /srv/feed.pl")?;
    match &options.deb {
        Some(deb) => {
            machine.put(deb, "/srv/trackd.deb")?;
            machine.run("DEBIAN_FRONTEND=noninteractive dpkg -i /srv/trackd.deb && systemctl stop trackd")?;
        }
        None => by_hand(machine, root, &options.trackd)?,
    }
    machine.run("su postgres -c 'createuser trackd'").map(drop)
}

fn by_hand(machine: &Machine, root: &Path, trackd: &Path) -> Outcome<()> {
    machine.run("useradd --system --home-dir /var/lib/trackd trackd; install -d -m 750 -g trackd /etc/trackd")?;
    for (file, to) in [
        (trackd, "/usr/bin/trackd"),
        (&root.join("systemd/trackd.service"), "/usr/lib/systemd/system/trackd.service"),
        (&root.join("systemd/trackd@.service"), "/usr/lib/systemd/system/trackd@.service"),
        (&root.join("systemd/trackd.catalog"), "/usr/lib/systemd/catalog/trackd.catalog"),
    ] {
        machine.put(file, to)?;
    }
    machine.run("journalctl --update-catalog && systemctl daemon-reload").map(drop)
}

/// An upgrade under a running service.
pub fn upgraded(service: &Service<'_>) -> Outcome<()> {
    let newer = service.options.newer.as_ref().ok_or(NONE)?;
    service.fresh(&config(PEER, &of_file("a")))?;
    service.lands_more("a", 3)?;
    let (pid, machine) = (service.property("MainPID")?, service.machine);
    machine.put(newer, "/srv/newer.deb")?;
    machine.run("DEBIAN_FRONTEND=noninteractive dpkg -i --force-confold /srv/newer.deb")?;
    service.becomes("ActiveState", "active")?;
    expect(service.property("MainPID")? != pid, || "the service was not restarted".to_owned())?;
    service.lands_more("a", 3)?;
    machine.run("systemctl stop trackd")?;
    service.is_whole("a")
}

/// Removed with all that it made. Nothing comes after it.
pub fn purged(service: &Service<'_>) -> Outcome<()> {
    service.options.deb.as_ref().ok_or(NONE)?;
    service.fresh(&config("embedded", &of_file("a")))?;
    service
        .machine
        .run("systemctl enable --quiet trackd@more && DEBIAN_FRONTEND=noninteractive dpkg --purge trackd")?;
    let left = service.machine.run(
        "ls -d /etc/trackd /var/lib/trackd /var/log/trackd /run/trackd /usr/share/doc/trackd 2>/dev/null; \
         find / -xdev \\( -path /proc -o -path /sys -o -path /srv -o -path /var/log/journal \\) -prune -o -name '*trackd*' -print \
         | grep -v -e ^/run/credentials -e ^/etc/credstore -e ^/var/lib/postgresql; \
         pgrep -u trackd 2>/dev/null; true",
    )?;
    expect(left.is_empty(), || format!("left behind:\n{left}"))
}
