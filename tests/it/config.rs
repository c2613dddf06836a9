//! Behaviour of `config`: each fault at its place, the layers, and what is never shown.

use proptest::prelude::*;
use std::path::{Path, PathBuf};
use std::time::Duration;
use trackd::config::{
    self, Config, DatabaseUrl, Environment, Faults, SourceSpec, Template, WebhookUrl, diff, template,
};
use trackd::schedule::{MissedPolicy, Schedule};
use trackd::shape::{Absent, History};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/config")
}

fn environment(pairs: &[(&str, &str)]) -> Environment {
    Environment::new(pairs.iter().copied(), false)
}

fn parse_in(text: &str, pairs: &[(&str, &str)]) -> Result<Config, Faults> {
    config::parse(text, Path::new("/etc/trackd/config.toml"), &environment(pairs))
}

fn parse(text: &str) -> Result<Config, Faults> {
    parse_in(text, &[])
}

fn faults(text: &str, pairs: &[(&str, &str)]) -> Vec<String> {
    parse_in(text, pairs).expect_err("the text has faults").lines().collect()
}

const SMALL: &str = r#"
[vars]
arena = "http://localhost"
season = 1.5

[[tracker]]
name = "Leader-board"
every = "15s"
http = { url = "{{ vars.arena }}/x", headers = { Authorization = "Bearer m4rked2" } }

[[tracker.table]]
name = "models"
history = "state"
key = ["id"]
rows = ".[]"
columns = { id = "text" }
"#;

/// Every `name.toml` gives exactly what `name.txt` holds. `TRACKD_BLESS=1` writes the texts anew, to be read.
#[test]
fn each_fixture_gives_exactly_its_faults() {
    let mut failed = Vec::new();
    let mut count = 0;
    for entry in std::fs::read_dir(fixtures()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        count += 1;
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap();
        let got = match config::parse(&text, Path::new(name), &environment(&[])) {
            Ok(_) => "no fault\n".to_owned(),
            Err(faults) => faults.render(false),
        };
        let expected = path.with_extension("txt");
        if std::env::var_os("TRACKD_BLESS").is_some() {
            std::fs::write(&expected, &got).unwrap();
        } else if std::fs::read_to_string(&expected).unwrap_or_default() != got {
            failed.push(format!("{}:\n{got}", path.display()));
        }
    }
    assert!(count >= 40, "{count} fixtures");
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn a_file_with_a_fault_of_every_kind_gives_each_at_its_line() {
    let text = std::fs::read_to_string(fixtures().join("everything.toml")).unwrap();
    let expected: Vec<usize> =
        text.lines().enumerate().filter(|(_, line)| line.contains("# fault")).map(|(i, _)| i + 1).collect();
    let mut got: Vec<usize> = faults(&text, &[])
        .iter()
        .map(|line| line.strip_prefix("/etc/trackd/config.toml:").unwrap().split(':').next().unwrap().parse().unwrap())
        .collect();
    got.dedup();
    assert!(expected.len() > 40);
    assert_eq!(got, expected);
}

#[test]
fn the_shipped_configuration_holds() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml");
    let config = config::load(&path, &environment(&[])).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(config.database.url, DatabaseUrl::Embedded);
    let tables: Vec<&str> = config.trackers.iter().flat_map(|t| &t.tables).map(|t| t.name.as_str()).collect();
    assert_eq!(
        tables,
        [
            "seasons",
            "llm_models",
            "leaderboard_snapshots",
            "trades",
            "model_chats",
            "chat_decisions",
            "account_values",
            "prices",
            "model_analytics"
        ]
    );
    let SourceSpec::Http(http) = &config.trackers[0].source else { panic!("not http") };
    assert_eq!(http.url.constant(), Some("https://nof1.ai/api/leaderboard"));
    assert_eq!(config.trackers[0].timeout, Duration::from_secs(30));
}

#[test]
fn what_the_shipped_configuration_shows_as_a_default_is_one() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml")).unwrap();
    let mut shown = String::new();
    for line in text.lines() {
        let bare = line.trim_start().strip_prefix("# ").unwrap_or(line);
        let key = bare.split([' ', '=']).next().unwrap_or("");
        let is_default =
            line.trim_start().starts_with("# ") && (bare.starts_with('[') || bare[key.len()..].starts_with(" = "));
        // These two name places that differ from machine to machine, and one has no default.
        let skip = !is_default
            || ["state_dir", "file"].contains(&key)
            || key.contains(|c: char| !c.is_ascii_lowercase() && !"_[]".contains(c));
        shown.push_str(if skip { line } else { bare });
        shown.push('\n');
    }
    let (plain, with_defaults) = (parse(&text).unwrap(), parse(&shown).unwrap_or_else(|faults| panic!("{faults}")));
    let difference = diff(&plain, &with_defaults);
    assert!(difference.restart.is_empty() && difference.level.is_none(), "{difference}");
    assert_eq!(plain.daemon.drain, with_defaults.daemon.drain);
    assert_eq!(plain.daemon.keep_runs, with_defaults.daemon.keep_runs);
    assert_eq!(plain.daemon.lease, with_defaults.daemon.lease);
    assert_ne!(text, shown);
    for (a, b) in plain.trackers.iter().zip(&with_defaults.trackers) {
        assert_eq!((a.missed, a.overlap, a.on_bad_row, a.retry), (b.missed, b.overlap, b.on_bad_row, b.retry));
        let histories = |t: &config::Tracker| t.tables.iter().map(|t| t.history).collect::<Vec<_>>();
        assert_eq!(histories(a), histories(b));
        let (SourceSpec::Http(a), SourceSpec::Http(b)) = (&a.source, &b.source) else { panic!("not http") };
        assert_eq!((&a.method, a.max_body, a.max_redirects), (&b.method, b.max_body, b.max_redirects));
    }
}

#[test]
fn the_ten_lines_of_the_readme_are_a_configuration() {
    let readme = include_str!("../../README.md");
    let lines = readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let config = parse(lines).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(config.trackers[0].tables[0].columns.len(), 3);
}

#[test]
fn the_configuration_of_the_package_asks_nobody_but_this_machine() {
    let text = include_str!("../../deploy/debian/config.toml");
    let config = parse(text).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(config.database.url, DatabaseUrl::Embedded);
    assert!(config.daemon.listen.is_some_and(|address| address.ip().is_loopback()), "{:?}", config.daemon.listen);
    for tracker in &config.trackers {
        let SourceSpec::Http(http) = &tracker.source else { panic!("not http") };
        assert_eq!(http.url.source(), format!("http://{}/api/status", config.daemon.listen.unwrap()));
    }
    assert_eq!(config.trackers.len(), 1);
}

#[test]
fn the_reference_names_every_key_there_is() {
    let reference = include_str!("../../docs/configuration.md");
    let table = "[[tracker]]\nname = \"x\"\n[[tracker.table]]\n";
    for text in [
        "[database]\nzz = 1".to_owned(),
        "[daemon]\nzz = 1".into(),
        "[alert]\nzz = 1".into(),
        "[alert]\nwebhook = { zz = 1 }".into(),
        "[log]\nzz = 1".into(),
        "[log]\nfile = { zz = 1 }".into(),
        "[defaults]\nretry = { zz = 1 }".into(),
        "[[tracker]]\nzz = 1".into(),
        "[[tracker]]\nhttp = { zz = 1 }".into(),
        "[[tracker]]\nfile = { zz = 1 }".into(),
        format!("{table}zz = 1"),
        format!("{table}columns.a = {{ zz = 1 }}"),
    ] {
        let faults = faults(&text, &[]);
        let unknown = faults.iter().find(|line| line.contains("unknown key `zz`")).unwrap();
        let keys = unknown.split_once("known keys of ").and_then(|(_, list)| list.split_once(": ")).unwrap().1;
        for key in keys.split(", ") {
            let named = |start: &str, end: &str| reference.contains(&format!("{start}{key}{end}"));
            assert!(named("| ", " |") || named("`", "`") || named("{ ", "") || named(", ", ""), "{text}: {key}");
        }
    }
}

#[test]
fn an_empty_file_is_all_defaults() {
    let config = parse("").unwrap();
    assert_eq!(config.database.url, DatabaseUrl::Embedded);
    assert_eq!((config.database.pool_size, config.database.max_overflow), (5, 10));
    assert_eq!(config.daemon.listen, Some("127.0.0.1:8787".parse().unwrap()));
    assert_eq!(config.daemon.state_dir, Path::new("/var/lib/trackd"));
    assert_eq!(config.daemon.keep_runs, Some(Duration::from_secs(90 * 86_400)));
    assert_eq!(config.daemon.spool_max, 1 << 30);
    assert_eq!(config.log.level, "info");
    assert!(config.trackers.is_empty());
}

#[test]
fn a_rate_is_requests_per_second_minute_or_hour_evenly_spread() {
    let limit = |text: &str| {
        let text = format!(
            "[[tracker]]\nname = \"a\"\nevery = \"1m\"\nhttp = {{ url = \"http://h/\", rate_limit = \"{text}\" }}\n\
             [[tracker.table]]\nname = \"a\"\nhistory = \"snapshot\"\nrows = \".\"\ncolumns = {{ v = \"text\" }}\n"
        );
        parse(&text).map(|config| match &config.trackers[0].source {
            SourceSpec::Http(http) => http.rate_limit.expect("a rate"),
            SourceSpec::File(_) => panic!("a file"),
        })
    };
    for (text, milliseconds) in [("2/s", 500), ("1000/s", 1), ("30/m", 2000), ("500 / h", 7200), ("1/h", 3_600_000)] {
        assert_eq!(limit(text).unwrap(), Duration::from_millis(milliseconds), "{text}");
    }
    for text in ["", "2", "0/s", "-1/s", "2/d", "1001/s", "0.5/s", "/s", "99999999999/h"] {
        assert!(limit(text).unwrap_err().to_string().contains("http.rate_limit"), "{text}");
    }
    assert_eq!(parse("").unwrap().daemon.per_host, 4);
}

#[test]
fn an_alert_has_its_times_and_a_webhook_from_the_file_the_environment_or_a_credential() {
    let alert = |text: &str, pairs: &[(&str, &str)]| {
        parse_in(text, pairs).unwrap_or_else(|faults| panic!("{faults}")).alert.expect("it is there")
    };
    let url = |text: &str, pairs: &[(&str, &str)]| match alert(text, pairs).webhook.clone().expect("it is there").url {
        WebhookUrl::Given(url) => url.expose().to_owned(),
        WebhookUrl::File(file) => file.display().to_string(),
    };
    assert!(parse("").unwrap().alert.is_none());
    let told = alert("[alert]\ncommand = [\"page\"]", &[("TRACKD_ALERT_TEXT", "of a command that calls trackd")]);
    assert_eq!((told.after.as_secs(), told.timeout.as_secs()), (60, 10));
    assert_eq!(told.repeat, Some(Duration::from_secs(3600)));
    assert_eq!(alert("[alert]\ncommand = [\"page\"]\nrepeat = \"off\"", &[]).repeat, None);
    assert_eq!(url("[alert]\nwebhook = \"https://h/{{ vars.x }}\"\n[vars]\nx = \"p\"", &[]), "https://h/p");
    assert_eq!(url("[alert]", &[("TRACKD_ALERT__WEBHOOK", "https://h/e")]), "https://h/e");
    assert_eq!(url("[alert]\nwebhook = { url_file = \"hook\" }", &[]), "/etc/trackd/hook");
    let credentials = tempfile::tempdir().unwrap();
    let file = credentials.path().join("alert.webhook");
    std::fs::write(&file, "https://h/c\n").unwrap();
    let given = [("CREDENTIALS_DIRECTORY", credentials.path().to_str().unwrap())];
    assert_eq!(url("[alert]", &given), file.to_str().unwrap());
    assert!(!format!("{:?}", parse("[alert]\nwebhook = \"https://h/s3cret\"").unwrap()).contains("s3cret"));
}

#[test]
fn a_credential_fills_what_is_not_shown_and_its_change_is_a_change_of_its_tracker() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("credentials")).unwrap();
    let put = |text: &str| std::fs::write(folder.path().join("credentials/api.token"), text).unwrap();
    let keys = "headers = { a = 'Bearer {{ credential[\"api.token\"] }}' }, query = { t = '{{ credential[\"api.token\"] }}' }, \
                body = '{{ run.attempt }} {{ credential[\"api.token\"] }}'";
    let with = |name: &str, keys: &str| {
        format!(
            "[[tracker]]\nname = \"{name}\"\nevery = \"15s\"\nhttp = {{ url = \"http://h/\", {keys} }}\n[[tracker.table]]\n\
             name = \"{name}\"\nhistory = \"snapshot\"\nkey = [\"k\"]\nrows = \".\"\ncolumns = {{ k = \"text\" }}\n"
        )
    };
    let text = with("secret", keys) + &with("open", "method = \"GET\"");
    let read = || config::parse(&text, &folder.path().join("config.toml"), &environment(&[])).unwrap();
    put("m4rked-one\n");
    let one = read();
    let SourceSpec::Http(http) = &one.trackers[0].source else { panic!("no http") };
    assert_eq!(http.headers[0].1.0.constant(), Some("Bearer m4rked-one"));
    assert_eq!(http.query[0].1.constant(), Some("m4rked-one"));
    let context = template::value(&serde_json::json!({"run": {"attempt": 2}}));
    assert_eq!(http.body.as_ref().unwrap().render(&context).unwrap(), "2 m4rked-one");
    assert!(!format!("{one:?}").contains("m4rked"));
    assert!(diff(&one, &read()).changed.is_empty());
    put("m4rked-two\n");
    assert_eq!(diff(&one, &read()).changed, ["secret"]);
}

#[test]
fn a_credential_that_is_not_there_or_would_be_shown_is_a_fault() {
    let url = faults(&SMALL.replace("{{ vars.arena }}", "http://h/{{ credential.token }}"), &[]).join("\n");
    assert!(url.contains("`http.url`: expected a text without `credential`: it is shown in logs"), "{url}");
    let missing = faults(&SMALL.replace("m4rked2", "{{ credential.token }}"), &[]).join("\n");
    assert!(missing.contains("undefined value `credential.token`"), "{missing}");
    assert!(missing.contains("a credential is a file that trackd may read: /etc/trackd/credentials/NAME"), "{missing}");
}

#[test]
fn what_is_told_and_how_is_no_tracker_s_change() {
    let of = |alert: &str| parse(&format!("{SMALL}\n[alert]\ncommand = [\"page\"]\n{alert}")).unwrap();
    let diff = diff(&of(""), &of("repeat = \"2h\""));
    assert_eq!(diff.to_string(), "added 0, changed 0, removed 0, [alert] is another");
}

#[test]
fn a_lease_is_long_enough_to_be_renewed() {
    let lease = |text: &str| parse(&format!("[daemon]\nlease = {text}")).map(|config| config.daemon.lease);
    assert_eq!(lease("\"3s\"").unwrap(), Duration::from_secs(3));
    assert_eq!(parse("").unwrap().daemon.lease, Duration::from_secs(10));
    for text in ["\"2s\"", "\"11m\"", "10"] {
        assert!(lease(text).unwrap_err().to_string().contains("lease"), "{text}");
    }
    let diff = diff(&parse("").unwrap(), &parse("[daemon]\nlease = \"3s\"").unwrap());
    assert_eq!(diff.restart.iter().map(|restart| restart.key).collect::<Vec<_>>(), ["daemon.lease"]);
}

#[test]
fn runs_are_kept_for_a_time_or_forever() {
    let keep = |text: &str| parse(&format!("[daemon]\nkeep_runs = {text}")).unwrap().daemon.keep_runs;
    assert_eq!(keep("\"7d\""), Some(Duration::from_secs(7 * 86_400)));
    assert_eq!(keep("\"forever\""), None);
    for text in ["0", "\"0s\"", "\"never\"", "\"59m\""] {
        assert!(
            parse(&format!("[daemon]\nkeep_runs = {text}")).unwrap_err().to_string().contains("keep_runs"),
            "{text}"
        );
    }
}

#[test]
fn the_environment_is_a_layer_over_the_file() {
    let pairs = [
        ("TRACKD_VARS__ARENA", "https://example.org"),
        ("TRACKD_VARS__SEASON", "2"),
        ("TRACKD_VARS__FRESH", "0042x"),
        ("TRACKD_DATABASE__POOL_SIZE", "7"),
        ("TRACKD_database__pool_pre_ping", "false"),
        ("TRACKD_DAEMON__LISTEN", ""),
        ("TRACKD_TRACKER__LEADER_BOARD__EVERY", "1m"),
        ("TRACKD_TRACKER__LEADER_BOARD__TABLE__MODELS__ABSENT", "delete"),
        ("TRACKD_TRACKER__LEADER_BOARD__HTTP__HEADERS__AUTHORIZATION", "Bearer m4rked3"),
        ("TRACKD_DEFAULTS__RETRY", "{ attempts = 2, base = \"2s\" }"),
        ("TRACKD_DEFAULTS__RETRY__ATTEMPTS", "3"),
        ("TRACKD_CONFIG", "/nowhere"),
        ("OTHER", "x"),
    ];
    let config = parse_in(SMALL, &pairs).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!((config.database.pool_size, config.database.pool_pre_ping, config.daemon.listen), (7, false, None));
    assert_eq!(*config.vars, serde_json::json!({"arena": "https://example.org", "season": 2, "fresh": "0042x"}));
    let tracker = &config.trackers[0];
    assert_eq!((tracker.retry.attempts, tracker.retry.base), (3, Duration::from_secs(2)));
    assert_eq!(tracker.schedule_text, "every 1m");
    assert_eq!(tracker.tables[0].history, History::State { absent: Absent::Delete });
    let SourceSpec::Http(http) = &tracker.source else { panic!("not http") };
    assert_eq!(http.url.constant(), Some("https://example.org/x"));
    assert_eq!(http.headers.len(), 1);
    assert_eq!(http.headers[0].1.0.constant(), Some("Bearer m4rked3"));
}

#[test]
fn a_fault_of_the_environment_names_the_variable() {
    let pairs = [
        ("TRACKD_DATABASE__POOL_SIZ", "7"),
        ("TRACKD_DATABASE__POOL_TIMEOUT", "soon"),
        ("TRACKD_DATABASE__URL__X", "1"),
        ("TRACKD_TRACKER__LEADERBORD__EVERY", "1m"),
        ("TRACKD_VARS__SEASON", "last"),
        ("TRACKD_LOG", "debug"),
    ];
    assert_eq!(
        faults(&SMALL.replace("[vars]", "[database]\nurl = \"embedded\"\n[vars]"), &pairs),
        [
            "TRACKD_DATABASE__POOL_SIZ: unknown key `pool_siz`; did you mean `pool_size`? known keys of database: url, \
             password_file, pool_size, max_overflow, pool_timeout, pool_recycle, pool_pre_ping, statement_timeout",
            "TRACKD_DATABASE__POOL_TIMEOUT: `database.pool_timeout`: \"soon\" is not a length of time: expected number \
             at 0; a length of time is text with units, such as \"30s\", \"1m 30s\", \"12h\", \"1d\"",
            "TRACKD_DATABASE__URL__X: `x` is below a string, expected a table",
            "TRACKD_LOG: `log`: expected table, got string",
            "TRACKD_TRACKER__LEADERBORD__EVERY: nothing is named `leaderbord`; did you mean `Leader-board`? known names: Leader-board",
            "TRACKD_VARS__SEASON: `vars.season`: expected float as in the file, got string",
        ]
    );
}

#[test]
fn the_places_of_state_and_database_follow_the_environment() {
    let state = |pairs: &[(&str, &str)], root| {
        let env = Environment::new(pairs.iter().copied(), root);
        config::parse("", Path::new("config.toml"), &env).unwrap().daemon.state_dir
    };
    let home = ("HOME", "/home/ada");
    assert_eq!(state(&[home], false), Path::new("/home/ada/.local/state/trackd"));
    assert_eq!(state(&[home], true), Path::new("/var/lib/trackd"));
    assert_eq!(state(&[home, ("XDG_STATE_HOME", "/x")], false), Path::new("/x/trackd"));
    assert_eq!(state(&[home, ("STATE_DIRECTORY", "/s/trackd:/t")], true), Path::new("/s/trackd"));
    let config = parse_in("", &[("DATABASE_URL", "postgres://db")]).unwrap();
    assert!(matches!(&config.database.url, DatabaseUrl::Server(url) if url.expose() == "postgres://db"));
    let config = parse_in("[database]\nurl = \"embedded\"", &[("DATABASE_URL", "postgres://db")]).unwrap();
    assert_eq!(config.database.url, DatabaseUrl::Embedded);
}

#[test]
fn a_tracker_overrides_the_defaults_key_by_key() {
    let text = SMALL.replace(
        "[[tracker]]",
        "[defaults]\nschedule = \"@hourly\"\ntimezone = \"Europe/Berlin\"\nmissed = \"all\"\nretry = { base = \"3s\" }\n\
         http = { max_body = 10, headers = { accept = \"text/csv\", authorization = \"no\" } }\n[[tracker]]\nretry = { attempts = 9 }",
    );
    let config = parse(&text).unwrap_or_else(|faults| panic!("{faults}"));
    let tracker = &config.trackers[0];
    assert!(matches!(tracker.schedule, Schedule::Every(_)));
    assert_eq!(tracker.missed.policy, MissedPolicy::All);
    assert_eq!((tracker.retry.attempts, tracker.retry.base), (9, Duration::from_secs(3)));
    let SourceSpec::Http(http) = &tracker.source else { panic!("not http") };
    assert_eq!(http.max_body, 10);
    let headers: Vec<_> = http.headers.iter().map(|(k, v)| (k.as_str(), v.0.constant().unwrap())).collect();
    assert_eq!(headers, [("Authorization", "Bearer m4rked2"), ("accept", "text/csv")]);
}

#[test]
fn secrets_are_in_no_debug_output_and_in_no_report() {
    let text = r#"
vars = { token = "m4rked2", "b c" = 0.12345678901234567890123 }
database = { url = "postgres://u:m4rked2@h/d", pol_size = 1 }
[[tracker]]
name = "x"
every = "1s"
http = { url = "http://h/?t={{ vars.token }}", headers = { A = "m4rked2", "b b" = "m4rked2", C = "m4rked2\n" }, x = 1 }
table = [{ name = "t", history = "snapshot", rows = ".", columns = { a = "text" } }]
[broken]
token = "m4rked2
"#;
    let faults = parse(text).unwrap_err();
    for shown in [faults.render(true), faults.render(false), format!("{faults:?}"), faults.to_string()] {
        assert!(!shown.contains("m4rked2"), "{shown}");
    }
    assert!(faults.len() >= 5, "{faults}");
    for request in [
        r#"url = "ftp://u:m4rked2@h/p""#,
        r#"url = "https://u:hun/m4rked2@h/?a=m4rked2", no = 1"#,
        r#"url = "https://h/?a=m4rked2&b={{ vars.no }}""#,
        r#"url = "https://h/", body = "m4rked2 {{ vars.no }}""#,
        r#"url = "https://h/", body = ["m4rked2"]"#,
        r#"url = "https://h/", query = { a = "m4rked2", b = [1] }"#,
        r#"url = "https://h/", query.a = { b = "m4rked2" }"#,
        r#"url = ["https://h/?a=m4rked2"]"#,
        r#"url = "https://h/", body = "m4rked2" no"#,
        r#"url = "https://h/", queery = { key = "m4rked2" }"#,
        r#"url = "https://h/", headrs = [{ a = ["m4rked2"] }]"#,
        r#"url = "https://h/", pasword = "m4rked2""#,
    ] {
        for table in ["", "[[tracker.table]]\n"] {
            let text = format!("[[tracker]]\nname = \"x\"\nevery = \"1h\"\n{table}http = {{ {request} }}\n");
            let shown = parse(&text).unwrap_err().render(false);
            assert!(shown.contains("http =") && !shown.contains("m4rked2"), "{shown}");
        }
    }
    for misplaced in [
        "[database]\nulr = \"postgres://u:m4rked2@h/d\"",
        "[database]\npassword = \"m4rked2\"",
        "[database]\nparams = { sslpassword = \"m4rked2\" }",
        "[database]\npassword = [\"m4rked2\"]",
        "[databse]\nurl = \"postgres://u:m4rked2@h/d\"",
        "databse = { password = \"m4rked2\" }",
        "database_url = \"postgres://u:m4rked2@h/d\"",
        "[daemon]\npassword = \"m4rked2\"",
        "[[tracker]]\nheadrs = { a = \"m4rked2\" }",
        "[[tracker]]\nauth_token = \"m4rked2\"",
        "[[tracker]]\ntokn = \"m4rked2\"",
        "[[tracker]]\nfile = { toke = \"m4rked2\" }",
        "[[tracker]]\n[[tracker.table]]\nx = [\"m4rked2\"]",
        "[log]\nx = \"m4rked2\"",
        "x = \"m4rked2\"",
    ] {
        let shown = parse(misplaced).unwrap_err().render(false);
        assert!(shown.contains("unknown") && !shown.contains("m4rked2"), "{shown}");
    }
    let pairs = [("TRACKD_DATABASE__URL", "postgres://u:m4rked2@h"), ("TRACKD_VARS__ARENA", "http://m4rked2")];
    let config = parse_in(SMALL, &pairs).unwrap();
    assert!(!format!("{config:?}").contains("m4rked2"), "{config:?}");
    assert!(!format!("{:?}", environment(&pairs)).contains("m4rked2"));
    let bad = parse_in(SMALL, &[("TRACKD_DATABASE__URL", "mysql://u:m4rked2@h")]).unwrap_err();
    assert!(!bad.render(false).contains("m4rked2"));
}

#[test]
fn a_reload_names_what_it_changes() {
    let old = parse(SMALL).unwrap();
    let same = diff(&old, &parse(&SMALL.replace("every = \"15s\"", "# why\nevery   = '15s'")).unwrap());
    assert_eq!(
        (same.unchanged.as_slice(), same.to_string().as_str()),
        (&["Leader-board".to_owned()][..], "added 0, changed 0, removed 0")
    );
    let changes = [
        SMALL.replace("15s", "16s"),
        SMALL.replace("m4rked2", "m4rked4"),
        SMALL.replace("season = 1.5", "season = 2"),
        SMALL.replace("[vars]", "[defaults]\ntimeout = \"31s\"\n[vars]"),
        SMALL.replace("{ id = \"text\" }", "{ id = \"text\", a = \"text\" }"),
        SMALL.replace("\".[]\"", "\".\""),
    ];
    for text in changes {
        assert_eq!(
            diff(&old, &parse(&text).unwrap()).to_string(),
            "added 0, changed 1 (Leader-board), removed 0",
            "{text}"
        );
    }
    let restart = |key: &str| diff(&old, &parse(&format!("{SMALL}\n[daemon]\n{key}")).unwrap()).restart;
    let [workers] = restart("workers = 2").try_into().expect("one key");
    assert_eq!(
        workers.to_string(),
        "daemon.workers: cannot change while trackd runs: 16 is in force, 2 is configured now; workers are started at \
         the start"
    );
    assert_eq!(restart("spool_max = \"2GiB\""), []);
    let new = SMALL
        .replace("Leader-board", "other")
        .replace("[vars]", "[database]\npool_size = 6\n[daemon]\ndrain = \"1s\"\n[log]\nlevel = \"debug\"\n[vars]");
    let change = diff(&old, &parse(&new).unwrap());
    assert_eq!(
        change.to_string(),
        "added 1 (other), changed 0, removed 1 (Leader-board), connections anew for database.pool_size, daemon.drain anew, \
         log.level is debug"
    );
}

#[test]
fn what_takes_a_restart_is_named_with_both_values_and_without_a_secret() {
    let old = parse(SMALL).unwrap();
    let new = SMALL.replace(
        "[vars]",
        "[database]\nurl = \"postgres://u:m4rked3@h/d\"\n[daemon]\nper_host = 2\nlease = \"20s\"\nstate_dir = \"/srv/t\"\n\
         [log]\nformat = \"json\"\nfile = { dir = \"/var/log/t\" }\n[vars]",
    );
    let told: Vec<String> = diff(&old, &parse(&new).unwrap()).restart.iter().map(ToString::to_string).collect();
    let begins = [
        "database.url: cannot change while trackd runs: \"embedded\" is in force, a server's address is configured now; ",
        "daemon.per_host: cannot change while trackd runs: 4 is in force, 2 is configured now; ",
        "daemon.lease: cannot change while trackd runs: 10s is in force, 20s is configured now; ",
        "daemon.state_dir: cannot change while trackd runs: \"",
        "log.format: cannot change while trackd runs: auto is in force, json is configured now; ",
        "log.file: cannot change while trackd runs: none is in force, { dir = \"/var/log/t\", rotation = \"daily\", keep = 14 } is",
    ];
    assert_eq!(told.len(), begins.len(), "{told:?}");
    for (line, begin) in told.iter().zip(begins) {
        assert!(line.starts_with(begin), "{line}");
    }
    assert!(!told.join("\n").contains("m4rked"), "{told:?}");
}

#[test]
fn the_file_is_found_where_it_is_named() {
    let named = config::locate(Some(Path::new("a.toml")), &environment(&[("TRACKD_CONFIG", "b.toml")])).unwrap();
    assert_eq!(named, Path::new("a.toml"));
    assert_eq!(config::locate(None, &environment(&[("TRACKD_CONFIG", "b.toml")])).unwrap(), Path::new("b.toml"));
    let missing = config::load(Path::new("/nowhere/x.toml"), &environment(&[])).unwrap_err();
    assert_eq!(
        missing.lines().next().unwrap(),
        "/nowhere/x.toml: read configuration: No such file or directory (os error 2)"
    );
}

#[test]
fn a_file_source_is_found_from_the_folder_of_the_configuration() {
    let text = SMALL.replace(
        "http = { url = \"{{ vars.arena }}/x\", headers = { Authorization = \"Bearer m4rked2\" } }",
        "file = { path = \"in/{{ run.id }}.json\" }",
    );
    let config = parse(&text).unwrap_or_else(|faults| panic!("{faults}"));
    let SourceSpec::File(file) = &config.trackers[0].source else { panic!("not a file") };
    let context = minijinja::context! { run => minijinja::context! { id => "7" } };
    assert_eq!(file.base.join(file.path.render(&context).unwrap()), Path::new("/etc/trackd/in/7.json"));
}

#[test]
fn numbers_in_templates_keep_their_digits() {
    let vars = template::value(&serde_json::json!({"a": 236046654097081_i64, "b": 1.5, "c": ["x", null]}));
    let (template, _) = Template::compile("{{ vars.a }} {{ vars.b }} {{ vars.c[0] }}").unwrap().bind(&vars).unwrap();
    assert_eq!(template.constant(), Some("236046654097081 1.5 x"));
}

fn check_never_panics(text: &str) {
    if let Err(faults) = parse_in(text, &[("TRACKD_VARS__A", text), ("TRACKD_TRACKER__X__TABLE", text)]) {
        assert!(!faults.is_empty());
        assert!(!faults.render(false).is_empty());
        assert!(faults.lines().all(|line| !line.contains('\n')));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_gives_a_configuration_or_faults(text in "\\PC{0,80}|[\\[\\]{}='\"a-z0-9.,\n#\\\\ é]{0,80}") {
        check_never_panics(&text);
    }

    #[test]
    fn a_mangled_configuration_gives_a_configuration_or_faults(
        cut in 0usize..9_000, length in 0usize..40, insert in "[\\[\\]{}='\"a-z0-9.,\n\\\\ é]{0,6}"
    ) {
        let text = include_str!("../../config.toml");
        let floor = |i: usize| (0..=i.min(text.len())).rev().find(|&i| text.is_char_boundary(i)).unwrap();
        let (start, end) = (floor(cut), floor(cut + length));
        check_never_panics(&format!("{}{insert}{}", &text[..start], &text[end..]));
    }
}
