//! Behaviour of `/metrics`, and that what is shipped to watch trackd with asks for nothing that it does not have.

use crate::admin::{Admin, at, status, tracker};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use trackd::status::*;

const RULES: &str = include_str!("../../monitoring/trackd.rules.yml");
const DASHBOARD: &str = include_str!("../../monitoring/grafana.json");

/// A status in which everything that may be unknown is known.
fn whole() -> Status {
    let mut watched = tracker("a \"quoted\" \\ name", None, 7);
    watched.last_success = Some(at(-60));
    watched.totals =
        Totals { succeeded: 3, failed: 4, skipped: 5, missed: 6, kept: 1, rows_written: 18, rows_rejected: 2 };
    watched.stale = true;
    Status {
        workers: 16,
        workers_busy: 2,
        queued: 1,
        last_reload: Some(Reload { at: at(1), ok: false, message: "no".into(), class: None, hint: None }),
        pool: Pool { size: 5, idle: 3, borrowed: 2, waiting: 0, limit: 15 },
        spool: Spool { entries: 2, used: 4096, limit: 1 << 30, oldest: Some(at(-5)), bad: 1 },
        server: Some(Server {
            replication_lag: Some(Duration::from_millis(1500)),
            database_size_bytes: 8_000_000,
            clock_skew: jiff::SignedDuration::from_millis(-1500),
            ..Server::default()
        }),
        trackers: vec![watched],
        ..status(Phase::Degraded)
    }
}

/// The samples as they are written, and the labels of each metric.
async fn scrape(status: Status) -> (Vec<String>, BTreeMap<String, BTreeSet<String>>) {
    let admin = Admin::start(status).await;
    let response = admin.get("/metrics").await;
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/plain; version=0.0.4; charset=utf-8"), "{head}");
    let mut metrics: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut samples = Vec::new();
    for line in body.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (name, kind) = declared.split_once(' ').unwrap();
            assert!(metrics.insert(name.into(), BTreeSet::new()).is_none(), "{name} is there twice");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
        } else if !line.starts_with("# HELP ") {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let name = series.split('{').next().unwrap();
            let labels = series.split("=\"").map(|part| part.rsplit([',', '{']).next().unwrap().to_owned());
            let known = metrics.get_mut(name).unwrap_or_else(|| panic!("{name} has no type before its sample"));
            known.extend(labels.take(series.matches("=\"").count()));
            samples.push(line.to_owned());
        }
    }
    (samples, metrics)
}

#[tokio::test]
async fn a_scrape_shows_every_value_with_its_unit() {
    let (samples, _) = scrape(whole()).await;
    let name = r#"tracker="a \"quoted\" \\ name""#;
    for line in [
        r#"trackd_info{version="0.1.0",instance_id="host:1"} 1"#.to_owned(),
        r#"trackd_phase{phase="degraded"} 1"#.into(),
        r#"trackd_phase{phase="running"} 0"#.into(),
        "trackd_start_timestamp_seconds 1761634100".into(),
        "trackd_config_last_reload_successful 0".into(),
        r#"trackd_pool_connections{state="borrowed"} 2"#.into(),
        "trackd_spool_bytes 4096".into(),
        "trackd_spool_limit_bytes 1073741824".into(),
        "trackd_database_clock_skew_seconds -1.5".into(),
        format!(r#"trackd_runs_total{{{name},status="failed"}} 4"#),
        format!("trackd_rows_written_total{{{name}}} 18"),
        format!("trackd_last_success_timestamp_seconds{{{name}}} 1761634140"),
        format!("trackd_tracker_stale{{{name}}} 1"),
        format!("trackd_tracker_failures{{{name}}} 7"),
    ] {
        assert!(samples.contains(&line), "{line}\n{}", samples.join("\n"));
    }
}

#[tokio::test]
async fn what_is_not_known_has_no_sample_and_what_is_away_says_so() {
    let away = Status { database_error: Some("refused".into()), ..status(Phase::Degraded) };
    let (samples, metrics) = scrape(away).await;
    assert!(samples.contains(&"trackd_database_up 0".to_owned()), "{samples:?}");
    for unknown in [
        "trackd_database_size_bytes",
        "trackd_config_last_reload_timestamp_seconds",
        "trackd_last_success_timestamp_seconds",
    ] {
        assert!(metrics.contains_key(unknown) && !samples.iter().any(|line| line.starts_with(unknown)), "{unknown}");
    }
    let (samples, _) = scrape(status(Phase::Running)).await;
    assert!(samples.contains(&"trackd_database_up 1".to_owned()), "{samples:?}");
}

/// The metrics an expression of PromQL asks for, each with the labels it names.
fn asked(expression: &str) -> Vec<(String, Vec<String>)> {
    assert_eq!(expression.matches('(').count(), expression.matches(')').count(), "{expression}");
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(at) = rest.find("trackd_") {
        let name: String = rest[at..].chars().take_while(|c| word(*c)).collect();
        rest = &rest[at + name.len()..];
        let selector =
            rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or("", |(selector, _)| selector);
        let labels =
            selector.split(',').filter_map(|pair| pair.split(['=', '!']).next()).filter(|label| !label.is_empty());
        found.push((name, labels.map(str::to_owned).collect()));
    }
    found
}

async fn there_is_all_of(expressions: &[String]) {
    let (_, metrics) = scrape(whole()).await;
    for expression in expressions {
        for (name, labels) in asked(expression) {
            let known = metrics.get(&name).unwrap_or_else(|| panic!("{expression}: there is no {name}"));
            for label in labels {
                // Prometheus itself puts the address that it scraped and the job on each sample.
                let own = label == "instance" || label == "job";
                assert!(own || known.contains(&label), "{expression}: {name} has no label {label}, it has {known:?}");
            }
        }
    }
}

#[tokio::test]
async fn each_alert_rule_is_whole_and_asks_for_metrics_that_there_are() {
    let mut expressions = Vec::new();
    for rule in RULES.split("\n      - alert: ").skip(1) {
        for part in [
            "expr: ",
            "labels:\n          severity: ",
            "annotations:\n          summary: \"",
            "          description: \"",
        ] {
            assert!(rule.contains(part), "no {part} in {rule}");
        }
        let expression = rule.lines().find_map(|line| line.trim().strip_prefix("expr: ")).unwrap();
        assert!(!asked(expression).is_empty() || expression == "up{job=\"trackd\"} == 0", "{expression}");
        expressions.push(expression.to_owned());
    }
    assert!(expressions.len() >= 10 && !RULES.contains('\t'), "{expressions:?}");
    there_is_all_of(&expressions).await;
}

#[tokio::test]
async fn each_panel_of_the_dashboard_asks_for_metrics_that_there_are() {
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "two panels have one id");
    let mut expressions = Vec::new();
    for panel in panels {
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{panel}");
        expressions.extend(targets.iter().map(|target| target["expr"].as_str().unwrap().to_owned()));
    }
    assert!(expressions.iter().all(|expression| !asked(expression).is_empty()), "{expressions:?}");
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter().filter_map(|one| one["query"].as_str());
    expressions.extend(variables.map(str::to_owned));
    there_is_all_of(&expressions).await;
}
