//! trackd in a box: its configuration, its life by systemctl, what it landed.
//!
//! In: a box in which it is installed. Must not know: the cases.

use crate::Options;
use crate::machine::{Machine, Outcome, expect};

/// The system's own PostgreSQL, by peer authentication.
pub const PEER: &str = "postgres://trackd@%2Frun%2Fpostgresql/trackd";
/// The same server over TCP, which asks for a password.
pub const TCP: &str = "postgres://trackd@127.0.0.1/trackd";
/// Passwords and tokens; whatever else is said of it, it is in no journal.
pub const SECRET: &str = "m4rked-secret";

/// The installed service.
pub struct Service<'m> {
    pub machine: &'m Machine,
    pub options: &'m Options,
}

impl<'m> Service<'m> {
    pub fn new(machine: &'m Machine, options: &'m Options) -> Service<'m> {
        Service { machine, options }
    }

    /// A start from nothing with this configuration: no state, no drop-in, no secret, no row of an earlier case.
    pub fn fresh(&self, config: &str) -> Outcome<()> {
        self.cleared(config)?;
        self.machine.run("systemctl start trackd").map(drop)
    }

    /// As `fresh`, but for the start.
    pub fn cleared(&self, config: &str) -> Outcome<()> {
        self.machine.run(
            "systemctl stop trackd 2>/dev/null; rm -rf /etc/systemd/system/trackd.service.d /etc/credstore/trackd.* \
             /etc/trackd/credentials /var/lib/trackd/*; systemctl daemon-reload; systemctl reset-failed 2>/dev/null; \
             systemctl start postgresql@*-main.service --all; su postgres -c 'dropdb --if-exists --force trackd'; \
             su postgres -c 'createdb -O trackd trackd'",
        )?;
        self.configure(config)
    }

    /// Writes the configuration, readable for the service.
    pub fn configure(&self, config: &str) -> Outcome<()> {
        self.machine.write("/etc/trackd/config.toml", config)?;
        self.machine.run("chgrp trackd /etc/trackd/config.toml && chmod 640 /etc/trackd/config.toml").map(drop)
    }

    /// Adds a drop-in to the unit.
    pub fn drop_in(&self, lines: &str) -> Outcome<()> {
        self.machine.write("/etc/systemd/system/trackd.service.d/box.conf", &format!("[Service]\n{lines}\n"))?;
        self.machine.run("systemctl daemon-reload").map(drop)
    }

    /// A property of the unit.
    pub fn property(&self, name: &str) -> Outcome<String> {
        self.machine.run(&format!("systemctl show --property={name} --value trackd"))
    }

    /// Waits until a property is that.
    pub fn becomes(&self, name: &str, value: &str) -> Outcome<()> {
        let shell = format!("v=$(systemctl show -p {name} --value trackd); echo \"$v\"; [[ $v == {value} ]]");
        self.machine.eventually(&format!("{name} is {value}"), &shell).map(drop)
    }

    /// Waits until its journal has an event so many times since a moment that `now` gave.
    pub fn tells(&self, event: &str, times: u32, since: &str) -> Outcome<()> {
        let shell = format!(
            "n=$(journalctl -u trackd EVENT={event} --since '{since}' -o cat | wc -l); echo \"$n\"; [ \"$n\" -ge {times} ]"
        );
        self.machine.eventually(&format!("event {event}"), &shell).map(drop)
    }

    /// The box's clock, as the journal takes it.
    pub fn now(&self) -> Outcome<String> {
        self.machine.run("date '+%F %T.%6N'")
    }

    /// Asks the system's PostgreSQL. Returns what it answers, unaligned.
    pub fn ask(&self, sql: &str) -> Outcome<String> {
        self.machine.run(&format!("su postgres -c \"psql -XAtq -d trackd -c \\\"{sql}\\\"\""))
    }

    /// Waits until a query of the system's PostgreSQL gives `t`.
    pub fn holds(&self, what: &str, sql: &str) -> Outcome<()> {
        let shell =
            format!("r=$(su postgres -c \"psql -XAtq -d trackd -c \\\"{sql}\\\"\" 2>&1); echo \"$r\"; [ \"$r\" = t ]");
        self.machine.eventually(what, &shell).map(drop)
    }

    /// Of one tracker, which runs each second: so many more instants have landed.
    pub fn lands_more(&self, tracker: &str, more: u32) -> Outcome<()> {
        let landed = format!("count(*) FROM trackd.runs WHERE tracker = '{tracker}' AND status = 'succeeded'");
        let before = self.ask(&format!("SELECT {landed}"))?;
        let enough = landed.replacen("count(*)", &format!("count(*) >= {before} + {more}"), 1);
        self.holds(&format!("{tracker} goes on"), &format!("SELECT {enough}"))
    }

    /// Each instant has one row of the ledger, and a row of the table exactly where that says so.
    pub fn is_whole(&self, tracker: &str) -> Outcome<()> {
        let holes = self.ask(&format!(
            "SELECT count(*) FROM (SELECT scheduled_at, lead(scheduled_at) OVER (ORDER BY scheduled_at) AS next FROM trackd.runs \
             WHERE tracker = '{tracker}') AS i WHERE next - scheduled_at <> interval '1s'"
        ))?;
        expect(holes == "0", || format!("{tracker}: {holes} instants have no row of the ledger, or two"))?;
        let wrong = self.ask(&format!(
            "SELECT count(*) FROM trackd.runs r WHERE tracker = '{tracker}' AND (status = 'succeeded') <> \
             ((SELECT count(*) FROM {tracker} d WHERE d.run_id = r.run_id) = 1)"
        ))?;
        expect(wrong == "0", || format!("{tracker}: {wrong} runs whose rows are not what the ledger says"))?;
        let strange = self.ask(&format!(
            "SELECT count(*) FROM {tracker} WHERE run_id NOT IN (SELECT run_id FROM trackd.runs WHERE status = 'succeeded')"
        ))?;
        expect(strange == "0", || format!("{tracker}: {strange} rows of no run"))
    }

    /// The end of its journal, for a case that failed.
    pub fn journal_tail(&self) -> String {
        let shell = "systemctl status trackd --no-pager -n 0 | head -12; journalctl -u trackd -n 25 --no-pager -o short-precise";
        self.machine.say(shell).map_or_else(|error| error, |said| said.text)
    }
}

/// A configuration with this database and these trackers.
pub fn config(database: &str, trackers: &str) -> String {
    format!("[database]\nurl = \"{database}\"\n[defaults]\nretry = {{ attempts = 2 }}\n{trackers}")
}

/// A tracker that runs each second and lands one row, of a file.
pub fn of_file(name: &str) -> String {
    tracker(name, "1s", "file = { path = \"/srv/feed.json\" }")
}

/// A tracker of this source, which lands `v` in the table of its name.
pub fn tracker(name: &str, every: &str, source: &str) -> String {
    format!(
        "[[tracker]]\nname = \"{name}\"\nevery = \"{every}\"\n{source}\n[[tracker.table]]\nname = \"{name}\"\n\
         history = \"snapshot\"\nrows = \".\"\ncolumns = {{ v = \"text\" }}\n"
    )
}
