//! Status values → metrics in Prometheus' text format, version 0.0.4.
//!
//! Pure. One table says which there are; alert rules and dashboard of `monitoring/` use no others. Names end in their
//! unit; a value that is not known has no sample. Must not know: HTTP.

use crate::status::{Phase, Status, Tracker};
use jiff::Timestamp;
use std::fmt::Write as _;

/// What a scraper is told that it reads.
pub(super) const TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

struct Metric {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    samples: fn(&Status, &mut Samples<'_>),
}

const GAUGE: &str = "gauge";
const COUNTER: &str = "counter";

const fn gauge(name: &'static str, help: &'static str, samples: fn(&Status, &mut Samples<'_>)) -> Metric {
    Metric { name, kind: GAUGE, help, samples }
}

const fn counter(name: &'static str, help: &'static str, samples: fn(&Status, &mut Samples<'_>)) -> Metric {
    Metric { name, kind: COUNTER, help, samples }
}

/// All of them, in the order shown.
const METRICS: &[Metric] = &[
    gauge("trackd_info", "Always 1; labels say which trackd this is.", |s, out| {
        out.labelled(&[("version", s.version), ("instance_id", &s.instance)], 1.0);
    }),
    gauge("trackd_start_timestamp_seconds", "When the daemon started.", |s, out| out.one(time(s.started_at))),
    gauge("trackd_phase", "1 for the phase the daemon is in, 0 for the others.", |s, out| {
        let phases = [
            (Phase::Starting, "starting"),
            (Phase::Running, "running"),
            (Phase::Degraded, "degraded"),
            (Phase::Draining, "draining"),
        ];
        for (phase, name) in phases {
            out.labelled(&[("phase", name)], flag(s.phase == phase));
        }
    }),
    gauge(
        "trackd_config_generation",
        "1 for the configuration of the start, one more at each good reload.",
        |s, out| {
            out.one(s.config_generation as f64);
        },
    ),
    gauge(
        "trackd_config_last_reload_successful",
        "Whether the latest reload was good; 1 before the first.",
        |s, out| {
            out.one(flag(s.last_reload.as_ref().is_none_or(|reload| reload.ok)));
        },
    ),
    gauge("trackd_config_last_reload_timestamp_seconds", "When the latest reload ended.", |s, out| {
        out.some(s.last_reload.as_ref().map(|reload| time(reload.at)));
    }),
    gauge("trackd_workers", "Runs that there can be at the same time.", |s, out| out.one(s.workers as f64)),
    gauge("trackd_workers_busy", "Runs that go on now.", |s, out| out.one(s.workers_busy as f64)),
    gauge("trackd_runs_queued", "Due runs that wait for a worker.", |s, out| out.one(s.queued as f64)),
    gauge("trackd_database_up", "0 while the database is away.", |s, out| out.one(flag(s.database_error.is_none()))),
    gauge("trackd_database_size_bytes", "Size of the database.", |s, out| {
        out.some(s.server.as_ref().map(|server| server.database_size_bytes as f64));
    }),
    gauge("trackd_database_clock_skew_seconds", "The server's clock minus this host's.", |s, out| {
        out.some(s.server.as_ref().map(|server| server.clock_skew.as_secs_f64()));
    }),
    gauge(
        "trackd_database_replication_lag_seconds",
        "How far the slowest standby is behind, if there is one.",
        |s, out| {
            out.some(s.server.as_ref().and_then(|server| server.replication_lag).map(|lag| lag.as_secs_f64()));
        },
    ),
    gauge("trackd_pool_connections", "Open connections.", |s, out| {
        out.labelled(&[("state", "idle")], s.pool.idle.into());
        out.labelled(&[("state", "borrowed")], s.pool.borrowed.into());
    }),
    gauge("trackd_pool_connections_limit", "The most connections there can be.", |s, out| out.one(s.pool.limit.into())),
    gauge("trackd_pool_waiting", "Tasks that wait for a connection.", |s, out| out.one(s.pool.waiting.into())),
    gauge("trackd_spool_payloads", "Payloads that wait for the database.", |s, out| out.one(s.spool.entries as f64)),
    gauge("trackd_spool_bytes", "Bytes of the disk that the spool takes.", |s, out| out.one(s.spool.used as f64)),
    gauge("trackd_spool_limit_bytes", "The most that the spool may take: daemon.spool_max.", |s, out| {
        out.one(s.spool.limit as f64);
    }),
    gauge("trackd_spool_oldest_timestamp_seconds", "The earliest instant that waits in the spool.", |s, out| {
        out.some(s.spool.oldest.map(time));
    }),
    gauge("trackd_spool_bad_files", "Files that were not whole, and lie in bad/.", |s, out| {
        out.one(s.spool.bad as f64)
    }),
    counter("trackd_runs_total", "Instants that ended, by what became of them.", |s, out| {
        for tracker in &s.trackers {
            let totals = &tracker.totals;
            let counts = [
                ("succeeded", totals.succeeded),
                ("failed", totals.failed),
                ("skipped", totals.skipped),
                ("missed", totals.missed),
            ];
            for (status, count) in counts {
                out.labelled(&[("tracker", &tracker.name), ("status", status)], count as f64);
            }
        }
    }),
    counter("trackd_runs_spooled_total", "Runs whose payload had to wait in the spool.", |s, out| {
        each(s, out, |tracker| Some(tracker.totals.kept as f64));
    }),
    counter("trackd_rows_written_total", "Rows that landed.", |s, out| {
        each(s, out, |tracker| Some(tracker.totals.rows_written as f64));
    }),
    counter("trackd_rows_rejected_total", "Rows that did not fit, and lie in trackd.rejects.", |s, out| {
        each(s, out, |tracker| Some(tracker.totals.rows_rejected as f64));
    }),
    gauge("trackd_last_success_timestamp_seconds", "The scheduled instant of the latest success.", |s, out| {
        each(s, out, |tracker| tracker.last_success.map(time));
    }),
    gauge("trackd_next_run_timestamp_seconds", "The next scheduled instant.", |s, out| {
        each(s, out, |tracker| tracker.next_run.map(time));
    }),
    gauge("trackd_tracker_stale", "1: no success for as long as fresh_within.", |s, out| {
        each(s, out, |tracker| Some(flag(tracker.stale)));
    }),
    gauge("trackd_tracker_standing", "1: a fault that does not pass by itself.", |s, out| {
        each(s, out, |tracker| Some(flag(tracker.standing.is_some())));
    }),
    gauge("trackd_tracker_failures", "Failures in a row, since the latest success.", |s, out| {
        each(s, out, |tracker| Some(tracker.failures_in_a_row.into()));
    }),
];

/// The whole page.
pub(super) fn render(status: &Status) -> String {
    let mut text = String::new();
    for Metric { name, kind, help, samples } in METRICS {
        text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        samples(status, &mut Samples { name, text: &mut text });
    }
    text
}

/// Where one metric's samples go.
struct Samples<'t> {
    name: &'static str,
    text: &'t mut String,
}

impl Samples<'_> {
    fn one(&mut self, value: f64) {
        self.labelled(&[], value);
    }

    fn some(&mut self, value: Option<f64>) {
        value.into_iter().for_each(|value| self.one(value));
    }

    fn labelled(&mut self, labels: &[(&str, &str)], value: f64) {
        self.text.push_str(self.name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let open = if index == 0 { '{' } else { ',' };
            // Writing to a String cannot fail.
            let _ = write!(self.text, "{open}{label}=\"{}\"", escaped(text));
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{close} {value}");
    }
}

/// One sample for each tracker that has a value.
fn each(status: &Status, out: &mut Samples<'_>, value: fn(&Tracker) -> Option<f64>) {
    for tracker in &status.trackers {
        value(tracker).into_iter().for_each(|value| out.labelled(&[("tracker", &tracker.name)], value));
    }
}

fn flag(yes: bool) -> f64 {
    f64::from(u8::from(yes))
}

fn time(at: Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1000.0
}

fn escaped(text: &str) -> String {
    text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}
