//! Behaviour of `conf.d/`: files beside the configuration that are laid over it.

use crate::support::daemon::{Home, RARELY, file_tracker, stderr, stdout};
use crate::support::marked::MARK;
use crate::support::postgres::{Server, at_least};
use rustix::process::Signal;
use std::path::Path;
use trackd::config::{self, Config, Environment, Faults};

struct Files(tempfile::TempDir);

impl Files {
    fn new(main: &str, drop_ins: &[(&str, &str)]) -> Files {
        let files = Files(tempfile::tempdir().unwrap());
        std::fs::create_dir(files.0.path().join("conf.d")).unwrap();
        std::fs::write(files.main(), main).unwrap();
        for (name, text) in drop_ins {
            std::fs::write(files.drop_in(name), text).unwrap();
        }
        files
    }

    fn main(&self) -> std::path::PathBuf {
        self.0.path().join("config.toml")
    }

    fn drop_in(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join("conf.d").join(name)
    }

    fn load_in(&self, pairs: &[(&str, &str)]) -> Result<Config, Faults> {
        config::load(&self.main(), &Environment::new(pairs.iter().copied(), false))
    }

    fn load(&self) -> Config {
        self.load_in(&[]).unwrap_or_else(|faults| panic!("{faults}"))
    }

    /// A line a fault, without the directory.
    fn faults(&self) -> Vec<String> {
        let dir = format!("{}/", self.0.path().display());
        self.load_in(&[]).expect_err("there are faults").lines().map(|line| line.replace(&dir, "")).collect()
    }
}

#[test]
fn drop_ins_add_trackers_and_the_last_in_order_of_names_wins() {
    let files = Files::new(
        &("[daemon]\nworkers = 2\nper_host = 3\n".to_owned() + &file_tracker("main", "15s")),
        &[
            ("20-b.toml", "[daemon]\nworkers = 7\n"),
            ("10-a.toml", &("[daemon]\nworkers = 5\ndrain = \"7s\"\n".to_owned() + &file_tracker("a", "15s"))),
            ("30-c.toml", &file_tracker("c", "15s")),
        ],
    );
    let config = files.load();
    assert_eq!((config.daemon.workers, config.daemon.per_host, config.daemon.drain.as_secs()), (7, 3, 7));
    let names: Vec<&str> = config.trackers.iter().map(|tracker| tracker.name.as_str()).collect();
    assert_eq!(names, ["main", "a", "c"]);
    assert_eq!(config.path, files.main());
    assert_eq!(config.drop_ins, ["10-a.toml", "20-b.toml", "30-c.toml"].map(|name| files.drop_in(name)));
}

#[test]
fn a_list_that_is_no_list_of_trackers_is_replaced_and_variables_merge_to_any_depth() {
    let files = Files::new(
        "[vars]\nseasons = [{ season = 1 }, { season = 2 }]\na = { b = { c = 1, d = 1 } }\nkind = 1\n",
        &[("x.toml", "[vars]\nseasons = [{ season = 3 }]\na.b.c = 2\nkind = { other = true }\n")],
    );
    let expected = serde_json::json!({
        "seasons": [{ "season": 3 }], "a": { "b": { "c": 2, "d": 1 } }, "kind": { "other": true }
    });
    assert_eq!(*files.load().vars, expected);
}

#[test]
fn the_environment_wins_over_drop_ins_and_reaches_their_trackers() {
    let files = Files::new(
        "[daemon]\nworkers = 2\n",
        &[("x.toml", &("[daemon]\nworkers = 3\n".to_owned() + &file_tracker("a", "15s")))],
    );
    let config = files.load_in(&[("TRACKD_DAEMON__WORKERS", "9"), ("TRACKD_TRACKER__A__EVERY", "30s")]).unwrap();
    assert_eq!((config.daemon.workers, config.trackers[0].schedule_text.as_str()), (9, "every 30s"));
}

#[test]
fn every_fault_names_the_file_and_the_line_it_is_in() {
    let files = Files::new(
        "[daemon]\nworkers = 0\n",
        &[
            ("10-a.toml", "\n\n[log]\nformet = 2\n"),
            ("20-b.toml", "[log]\nlevel = \"loud\"\n[vars\n"),
            ("30-c.toml", "tracker = 3\n"),
        ],
    );
    assert_eq!(
        files.faults(),
        [
            "config.toml:2:11: `daemon.workers`: expected integer from 1 to 1024, got 0",
            "conf.d/10-a.toml:4:1: unknown key `formet`; did you mean `format`? known keys of log: level, format, file",
            "conf.d/20-b.toml:2:10: `log.level`: expected a log level, got \"loud\"; known levels: off, error, warn, info, debug, trace",
            "conf.d/20-b.toml:3:6: unclosed table, expected `]`",
            "conf.d/30-c.toml:1:11: `tracker`: expected array, got integer; a tracker is written as [[tracker]]",
        ]
    );
    let report = files.load_in(&[]).unwrap_err().render(false);
    assert!(report.contains("conf.d/10-a.toml:4:1\n  |\n4 | formet = 2\n  | ^^^^^^"), "{report}");
}

#[test]
fn a_name_that_two_files_use_is_a_fault_that_names_both() {
    let files = Files::new(&file_tracker("a", "15s"), &[("x.toml", &("\n".to_owned() + &file_tracker("a", "30s")))]);
    let line = "conf.d/x.toml:3:8: the name `a` is used by two trackers, the first one: config.toml:2:8";
    assert!(files.faults().contains(&line.to_owned()), "{:?}", files.faults());
    let report = files.load_in(&[]).unwrap_err().render(false);
    assert!(report.contains("^^^") && report.contains("--- the first one"), "{report}");
}

#[test]
fn what_is_hidden_or_has_another_ending_is_not_read() {
    let wrong = "nonsense = 1\n";
    let names = ["README", ".x.toml", ".#x.toml", "x.toml~", "x.toml.dpkg-new", "x.TOML"];
    let files = Files::new("", &names.map(|name| (name, wrong)));
    assert_eq!(files.load().drop_ins, Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_file_of_another_name_has_drop_ins_of_its_own() {
    let files = Files::new("", &[("x.toml", "nonsense = 1\n")]);
    let second = files.main().with_file_name("second.toml");
    std::fs::write(&second, "").unwrap();
    std::fs::create_dir(second.with_file_name("second.d")).unwrap();
    std::fs::write(second.with_file_name("second.d").join("y.toml"), "[daemon]\nworkers = 3\n").unwrap();
    let config = config::load(&second, &Environment::default()).unwrap();
    assert_eq!((config.daemon.workers, config.drop_ins.len()), (3, 1));
}

#[test]
fn a_drop_in_that_cannot_be_read_is_a_fault_that_names_it() {
    let files = Files::new("", &[("good.toml", "")]);
    std::fs::create_dir(files.drop_in("dir.toml")).unwrap();
    std::os::unix::fs::symlink("/nonexistent", files.drop_in("gone.toml")).unwrap();
    let faults = files.faults();
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(faults[0].starts_with("config.toml: read drop-in conf.d/dir.toml: "), "{faults:?}");
    assert!(faults[1].starts_with("config.toml: read drop-in conf.d/gone.toml: No such file"), "{faults:?}");
}

#[test]
fn a_secret_that_a_drop_in_replaced_is_not_shown() {
    let files = Files::new(
        "database = { url = \"postgres://u:m4rked@h/d\", pool_sise = 3 }\n",
        &[("x.toml", "[database]\nurl = \"postgres://u:m4rked2@h/d\"\nzz = 1\n")],
    );
    let report = files.load_in(&[]).unwrap_err().render(false) + &files.faults().join("\n");
    assert!(report.contains("pool_sise") && report.contains("x.toml:3:1"), "{report}");
    assert!(!report.contains(MARK), "{report}");
}

#[test]
fn a_state_directory_is_found_in_a_drop_in_though_files_have_faults() {
    let files = Files::new("nonsense = 1\n", &[("x.toml", "[daemon]\nstate_dir = \"/x\"\n")]);
    assert_eq!(config::state_dir(&files.main(), &Environment::default()), Path::new("/x"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_reads_drop_ins_anew_and_a_check_names_them() {
    let database = Server::shared().database().await;
    let home = Home::new(&database, &file_tracker("a", RARELY));
    let mut daemon = home.run();
    daemon.says("ready", 1).await;

    std::fs::create_dir(home.path("conf.d")).unwrap();
    home.put("b.json", r#"{"rows":[{"k":"a","v":1}]}"#);
    home.put("conf.d/b.toml", file_tracker("b", "200ms"));
    let check = home.trackd(&["check"]);
    assert!(
        stdout(&check).contains("config.toml, ") && stdout(&check).contains("conf.d/b.toml: 2 trackers"),
        "{check:?}"
    );
    daemon.signal(Signal::HUP);
    daemon.says("configuration reloaded", 1).await;
    at_least(&database.client().await, "SELECT count(*) FROM b", 1).await;

    home.put("conf.d/c.toml", "nonsense = 1\n");
    daemon.signal(Signal::HUP);
    daemon.says("reload refused", 1).await;
    assert!(daemon.said("conf.d/c.toml:1:1: unknown key `nonsense`") >= 1, "{}", daemon.log());
    let check = home.trackd(&["check"]);
    assert!(check.status.code() == Some(78) && stderr(&check).contains("1 fault in "), "{check:?}");
}
