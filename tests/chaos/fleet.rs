//! The trackers of a programme, and the content of every answer: a function of the tracker and the instant alone.
//!
//! So what must be in the database follows from the answers that landed, and from nothing else.
//! In: chance. Out: trackers, their TOML, their rows. Pure: must not know sockets, processes, the clock.

use std::fmt::Write as _;

/// Milliseconds since the epoch.
pub type Millis = i64;

/// What a tracker keeps besides the snapshot that proves which answer landed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum History {
    /// Nothing more.
    Snapshot,
    Event,
    Change,
    State,
}

/// One tracker of the programme.
#[derive(Debug, Clone)]
pub struct Tracker {
    pub name: String,
    pub history: History,
    /// Between two instants, counted from the epoch; a divisor of a minute.
    pub period: Millis,
    /// Written as a cron expression with six fields, or as `every`.
    pub cron: bool,
    pub jitter: Millis,
    pub missed: &'static str,
    pub overlap: &'static str,
    /// Good rows of the snapshot in each answer.
    pub rows: usize,
    /// Keys the answer does not show any more are deleted (state).
    pub deletes: bool,
    /// When it was put into the configuration; `None`: it was in the first.
    pub came: Option<Millis>,
    /// When it was taken out of the configuration.
    pub gone: Option<Millis>,
}

/// What an answer holds for one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Keys of the snapshot's good rows.
    pub proof: Vec<String>,
    /// Further rows of the snapshot, which do not fit.
    pub bad: usize,
    /// Key and value of the rows of the other table.
    pub rows: Vec<(String, i64)>,
}

/// So many trackers, of all histories and rules.
pub fn fleet(count: usize, random: &mut fastrand::Rng) -> Vec<Tracker> {
    (0..count).map(|n| tracker(format!("t{n:02}"), n, random)).collect()
}

/// The `n`th tracker: what it is goes round, so that every kind is there; how it is timed is chance.
pub fn tracker(name: String, n: usize, random: &mut fastrand::Rng) -> Tracker {
    const HISTORIES: [History; 4] = [History::Snapshot, History::Event, History::Change, History::State];
    let period = [1_000, 2_000, 3_000, 5_000][random.usize(0..4)];
    Tracker {
        name,
        history: HISTORIES[n % 4],
        period,
        cron: random.f64() < 0.3,
        // Spread: an instant of somebody comes at every moment.
        jitter: if random.bool() { period - 200 } else { 0 },
        missed: ["all", "once", "skip"][n % 3],
        overlap: if random.f64() < 0.3 { "skip" } else { "coalesce" },
        // More than travels as arrays, now and then.
        rows: if n % 8 == 4 { 700 } else { random.usize(1..6) },
        deletes: random.bool(),
        came: None,
        gone: None,
    }
}

impl Tracker {
    /// The instants from `first` to `last`, both included.
    pub fn instants(&self, first: Millis, last: Millis) -> impl Iterator<Item = Millis> + use<> {
        let (period, first) = (self.period, first.div_euclid(self.period) * self.period);
        (0..).map(move |n| first + n * period).take_while(move |at| *at <= last)
    }

    /// Whether the schedule has this instant.
    pub fn has(&self, at: Millis) -> bool {
        at.rem_euclid(self.period) == 0
    }

    /// What every answer for this instant holds.
    pub fn content(&self, at: Millis) -> Content {
        let n = at / self.period;
        let rows = match self.history {
            History::Snapshot => Vec::new(),
            // A sliding window: what happened at this instant and at the four before.
            History::Event => (n - 4..=n).map(|event| (format!("e{event}"), event)).collect(),
            // Changes at every third instant; the last key comes and goes.
            History::Change => (0..3).filter(|k| *k < 2 || n / 5 % 2 == 0).map(|k| (format!("c{k}"), n / 3)).collect(),
            History::State => (0..4).filter(|k| (n / 2 + k) % 3 != 0).map(|k| (format!("s{k}"), n)).collect(),
        };
        Content { proof: (0..self.rows).map(|row| format!("p{row}")).collect(), bad: usize::from(n % 7 == 0), rows }
    }

    /// The answer with this serial number.
    pub fn body(&self, at: Millis, serial: u64) -> String {
        let content = self.content(at);
        let mut proof: Vec<String> =
            content.proof.iter().map(|k| format!(r#"{{"k":"{k}","serial":{serial},"n":1}}"#)).collect();
        proof.extend((0..content.bad).map(|n| format!(r#"{{"k":"bad{n}","serial":{serial},"n":"many"}}"#)));
        let row = |(k, v): &(String, i64)| format!(r#"{{"k":"{k}","v":{v},"serial":{serial}}}"#);
        let rows: Vec<String> = content.rows.iter().map(row).collect();
        format!(r#"{{"serial":{serial},"proof":[{}],"rows":[{}]}}"#, proof.join(","), rows.join(","))
    }

    /// Its part of the configuration. `timeout` is what reloads change: the schedule stays.
    pub fn toml(&self, source: &str, timeout: &str) -> String {
        let name = &self.name;
        let schedule = match self.cron {
            true => format!("schedule = \"*/{} * * * * *\"", self.period / 1_000),
            false => format!("every = \"{}s\"", self.period / 1_000),
        };
        let mut toml = format!(
            "[[tracker]]\nname = \"{name}\"\n{schedule}\njitter = \"{}ms\"\nmissed = \"{}\"\noverlap = \"{}\"\n\
             timeout = \"{timeout}\"\n\
             http = {{ url = \"{source}/{name}?at={{{{ run.scheduled_at }}}}&attempt={{{{ run.attempt }}}}\" }}\n\
             [[tracker.table]]\nname = \"{name}\"\nhistory = \"snapshot\"\nkey = [\"k\"]\nrows = \".proof[]\"\n\
             columns = {{ k = \"text\", serial = \"bigint\", n = \"integer\" }}\n",
            self.jitter, self.missed, self.overlap
        );
        let (history, columns) = match self.history {
            History::Snapshot => return toml,
            History::Event => ("history = \"event\"", "k = \"text\", serial = \"bigint\""),
            History::Change => ("history = \"change\"", "k = \"text\", v = \"bigint\""),
            History::State if self.deletes => {
                ("history = \"state\"\nabsent = \"delete\"", "k = \"text\", v = \"bigint\", serial = \"bigint\"")
            }
            History::State => ("history = \"state\"", "k = \"text\", v = \"bigint\", serial = \"bigint\""),
        };
        let _ = write!(
            toml,
            "[[tracker.table]]\nname = \"{name}_kept\"\n{history}\nkey = [\"k\"]\nrows = \".rows[]\"\ncolumns = {{ {columns} }}\n"
        );
        toml
    }
}
