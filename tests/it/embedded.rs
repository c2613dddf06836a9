//! Behaviour of `store::embedded`, `store::migrate`: real clusters, real kills.

use crate::support::daemon::PATIENCE;
use crate::support::postgres::{Server, connect, eventually};
use rustix::process::{Pid, Signal};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use trackd::class::Class;
use trackd::store::embedded::{Binaries, Cluster, SUPPORTED, search_path};
use trackd::store::migrate::migrate;

/// A state directory that the server's account may pass; a server that a failed test left in it is killed.
struct State(tempfile::TempDir);

impl State {
    fn new() -> State {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        State(dir)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("state")
    }

    fn data(&self) -> PathBuf {
        self.path().join("postgres/data")
    }

    fn postmaster(&self) -> Option<Pid> {
        let text = std::fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
        Pid::from_raw(text.lines().next()?.trim().parse().ok()?)
    }

    fn kill(&self) {
        let pid = self.postmaster().unwrap();
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let Some(pid) = self.postmaster() else { return };
        // Only if it is that server still: a pid is used again.
        if std::fs::read_link(format!("/proc/{}/cwd", pid.as_raw_nonzero())).is_ok_and(|cwd| cwd == self.data()) {
            let _ = rustix::process::kill_process(pid, Signal::QUIT);
        }
    }
}

#[tokio::test]
async fn a_cluster_is_made_once_and_its_data_is_there_at_the_next_start() {
    let state = State::new();
    let cluster = Cluster::open(&state.path()).await.unwrap();
    connect(&cluster.conninfo()).await.batch_execute("CREATE TABLE kept AS SELECT 42 AS n").await.unwrap();
    assert!(cluster.close().await, "nobody else used it");
    assert_eq!(state.postmaster(), None);
    let cluster = Cluster::open(&state.path()).await.unwrap();
    let row = connect(&cluster.conninfo()).await.query_one("SELECT n FROM kept", &[]).await.unwrap();
    assert_eq!(row.get::<_, i32>(0), 42);
    assert!(cluster.close().await);
}

#[tokio::test]
async fn a_cluster_is_utf8_with_checksums_durable_and_on_the_socket_only() {
    let state = State::new();
    let cluster = Cluster::open(&state.path()).await.unwrap();
    let client = connect(&cluster.conninfo()).await;
    for (setting, expected) in [
        ("server_encoding", "UTF8"),
        ("data_checksums", "on"),
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("full_page_writes", "on"),
        ("listen_addresses", ""),
    ] {
        let row = client.query_one("SELECT current_setting($1)", &[&setting]).await.unwrap();
        assert_eq!(row.get::<_, String>(0), expected, "{setting}");
    }
    drop(client);
    let pid = state.postmaster().unwrap().as_raw_nonzero();
    assert_ne!(std::fs::metadata(format!("/proc/{pid}")).unwrap().uid(), 0, "never as root");
    assert_eq!(std::fs::metadata(state.data()).unwrap().mode() & 0o077, 0, "its data is its own");
    assert!(cluster.close().await);
}

#[tokio::test]
async fn an_initdb_killed_in_the_middle_is_started_over() {
    let state = State::new();
    drop(Cluster::address(&state.path()).unwrap());
    let half = state.path().join("postgres/data.new");
    std::fs::create_dir(&half).unwrap();
    std::fs::write(half.join("PG_VERSION"), "15\n").unwrap();
    let cluster = Cluster::open(&state.path()).await.unwrap();
    assert!(!half.exists());
    assert!(cluster.close().await);
}

#[tokio::test]
async fn two_that_open_at_once_share_one_server_and_the_last_stops_it() {
    let state = State::new();
    let path = state.path();
    let (one, two) = tokio::join!(Cluster::open(&path), Cluster::open(&path));
    let (one, two) = (one.unwrap(), two.unwrap());
    let pid = state.postmaster().unwrap();
    assert!(!one.close().await, "the other one still uses it");
    drop(one);
    assert_eq!(state.postmaster(), Some(pid));
    connect(&two.conninfo()).await.batch_execute("SELECT 1").await.unwrap();
    assert!(two.close().await);
    assert_eq!(state.postmaster(), None);
}

#[tokio::test]
async fn an_orphan_is_adopted_as_it_runs() {
    let state = State::new();
    drop(Cluster::open(&state.path()).await.unwrap());
    let pid = state.postmaster().unwrap();
    let cluster = Cluster::open(&state.path()).await.unwrap();
    assert_eq!(state.postmaster(), Some(pid));
    assert!(cluster.close().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orphan_that_is_still_recovering_is_waited_for() {
    let state = State::new();
    let cluster = Cluster::open(&state.path()).await.unwrap();
    assert!(cluster.close().await);
    let released = state.0.path().join("released");
    let settings =
        format!("restore_command = 'while [ ! -e \"{}\" ]; do sleep 0.05; done; false'\n", released.display());
    std::fs::write(state.data().join("postgresql.auto.conf"), settings).unwrap();
    std::fs::write(state.data().join("recovery.signal"), "").unwrap();
    let owner = std::fs::metadata(state.data()).unwrap();
    std::os::unix::fs::chown(state.data().join("recovery.signal"), Some(owner.uid()), Some(owner.gid())).unwrap();
    let mut command = Command::new(Binaries::find(&search_path(), None).unwrap().program("pg_ctl"));
    command.arg("-D").arg(state.data()).args(["-W", "-l", "/dev/null", "start"]).current_dir("/");
    if rustix::process::geteuid().is_root() {
        command.uid(owner.uid()).gid(owner.gid());
    }
    assert!(command.stdout(Stdio::null()).status().unwrap().success());
    eventually("the server process", PATIENCE, async || state.postmaster().is_some()).await;
    let path = state.path();
    let opening = tokio::spawn(async move { Cluster::open(&path).await });
    eventually("a refused connection", PATIENCE, async || {
        opening.is_finished() || said(&state.data().join("log"), "the database system is starting up")
    })
    .await;
    std::fs::write(&released, "").unwrap();
    let cluster = opening.await.unwrap().unwrap();
    assert!(cluster.close().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_on_its_way_down_is_waited_for_and_started_again() {
    let state = State::new();
    let cluster = Cluster::open(&state.path()).await.unwrap();
    let client = connect(&cluster.conninfo()).await;
    // A smart shutdown: it lets nobody in, and goes when this session does.
    rustix::process::kill_process(state.postmaster().unwrap(), Signal::TERM).unwrap();
    let path = state.path();
    let opening = tokio::spawn(async move { Cluster::open(&path).await });
    eventually("a refused connection", PATIENCE, async || {
        opening.is_finished() || said(&state.data().join("log"), "the database system is shutting down")
    })
    .await;
    drop(client);
    let again = opening.await.unwrap().unwrap();
    connect(&again.conninfo()).await.batch_execute("SELECT 1").await.unwrap();
    drop(cluster);
    assert!(again.close().await);
}

/// Whether a file of this directory has the text.
fn said(log: &Path, text: &str) -> bool {
    let files = std::fs::read_dir(log).into_iter().flatten().flatten();
    files.filter_map(|file| std::fs::read_to_string(file.path()).ok()).any(|content| content.contains(text))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_recovers_even_while_a_session_of_it_still_works() {
    let state = State::new();
    let cluster = Cluster::open(&state.path()).await.unwrap();
    let client = connect(&cluster.conninfo()).await;
    client.batch_execute("CREATE TABLE kept AS SELECT 42 AS n").await.unwrap();
    // Busy without ever waiting: such a session notices the end of its server only when it ends itself.
    let busy = connect(&cluster.conninfo()).await;
    let query = "SELECT sum(sqrt(a + b)) FROM generate_series(1, 4000) AS a, generate_series(1, 4000) AS b";
    let busy = tokio::spawn(async move { busy.batch_execute(query).await });
    let active =
        "SELECT FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%sum(sqrt%' AND pid <> pg_backend_pid()";
    eventually("the busy session", PATIENCE, async || !client.query(active, &[]).await.unwrap().is_empty()).await;
    state.kill();
    drop(cluster);
    let cluster = Cluster::open(&state.path()).await.unwrap();
    let row = connect(&cluster.conninfo()).await.query_one("SELECT n FROM kept", &[]).await.unwrap();
    assert_eq!(row.get::<_, i32>(0), 42);
    let _ = busy.await;
    assert!(cluster.close().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_server_that_nobody_waited_for_does_not_keep_the_next_one_from_starting() {
    let state = State::new();
    let cluster = Cluster::open(&state.path()).await.unwrap();
    state.kill();
    drop(cluster);
    // Its locks now name a process that ended, whose parent goes on and never asks for it.
    let mut parent = Command::new("sh");
    parent.args(["-c", "sleep 600 & echo $!; exec sleep 601"]).current_dir("/").stdout(Stdio::piped());
    if rustix::process::geteuid().is_root() {
        // PostgreSQL asks after processes of its own account only.
        let owner = std::fs::metadata(state.data()).unwrap();
        parent.uid(owner.uid()).gid(owner.gid());
    }
    let mut parent = parent.spawn().unwrap();
    let mut pid = String::new();
    BufReader::new(parent.stdout.take().unwrap()).read_line(&mut pid).unwrap();
    // The shell would ask; what it becomes does not.
    let becomes = format!("/proc/{}/cmdline", parent.id());
    eventually("no shell any more", PATIENCE, async || std::fs::read(&becomes).unwrap().starts_with(b"sleep\0")).await;
    let dead = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(dead, Signal::KILL).unwrap();
    let stat = format!("/proc/{}/stat", pid.trim());
    eventually("a dead process", PATIENCE, async || std::fs::read_to_string(&stat).unwrap().contains(") Z ")).await;
    for file in [state.data().join("postmaster.pid"), state.path().join("postgres/socket/.s.PGSQL.5432.lock")] {
        let text = std::fs::read_to_string(&file).unwrap();
        let (_, rest) = text.split_once('\n').unwrap();
        std::fs::write(&file, format!("{pid}{rest}")).unwrap();
    }
    let cluster = Cluster::open(&state.path()).await;
    parent.kill().unwrap();
    parent.wait().unwrap();
    assert!(cluster.unwrap().close().await);
}

#[tokio::test]
async fn a_state_directory_too_long_for_a_socket_works_and_is_found_again() {
    let state = State::new();
    let path = state.0.path().join("x".repeat(60)).join("y".repeat(60));
    std::fs::create_dir_all(&path).unwrap();
    let cluster = Cluster::open(&path).await.unwrap();
    let conninfo = cluster.conninfo();
    let short = conninfo.split('\'').nth(1).unwrap().to_owned();
    assert!(short.starts_with("/tmp/trackd-") && short.len() < 60, "{conninfo}");
    assert_eq!(std::fs::metadata(&short).unwrap().mode() & 0o777, 0o700);
    assert_eq!(Cluster::address(&path).unwrap(), conninfo);
    connect(&conninfo).await.batch_execute("SELECT 1").await.unwrap();
    assert!(cluster.close().await);
    std::fs::remove_dir(&short).unwrap();
}

#[tokio::test]
async fn without_postgresql_the_error_says_what_to_install() {
    let state = State::new();
    let error = Cluster::open_with(&state.path(), Vec::new()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "start embedded PostgreSQL: no initdb and postgres on PATH, in /usr/lib/postgresql or in /usr/pgsql-*"
    );
    assert_eq!(error.class(), Class::Standing);
    assert!(error.hint().is_some_and(|hint| hint.starts_with("apt-get install postgresql")), "{error:?}");
}

#[tokio::test]
async fn data_of_a_version_that_is_not_installed_is_left_alone_and_named() {
    let state = State::new();
    drop(Cluster::address(&state.path()).unwrap());
    let have = Binaries::find(&search_path(), None).unwrap();
    let other = SUPPORTED.into_iter().find(|major| *major != have.major).unwrap();
    std::fs::create_dir(state.data()).unwrap();
    std::fs::write(state.data().join("PG_VERSION"), format!("{other}\n")).unwrap();
    let error = Cluster::open_with(&state.path(), vec![have.dir.clone()]).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("start embedded PostgreSQL: the data directory is of version {other}, installed: {}", have.major)
    );
    assert_eq!(error.class(), Class::Standing);
    assert!(error.hint().is_some_and(|hint| hint.contains(&format!("apt-get install postgresql-{other}"))));
    assert_eq!(std::fs::read_dir(state.data()).unwrap().count(), 1, "nothing was added");
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_in_psql_is_psqls_and_the_server_is_stopped_after_it() {
    let state = State::new();
    std::fs::write(
        state.0.path().join("config.toml"),
        "[database]\nurl = \"embedded\"\n[daemon]\nlisten = \"\"\nstate_dir = \"state\"\n",
    )
    .unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_trackd"));
    command.args(["psql", "--", "-Xc", "SELECT pg_sleep(600)"]).current_dir(state.0.path());
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).stdin(Stdio::null()).stderr(Stdio::null());
    // A group of its own is what a terminal would signal.
    let mut trackd = command.process_group(0).spawn().unwrap();
    let sleeps = "SELECT FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'";
    eventually("psql's query", PATIENCE, async || {
        let conninfo = Cluster::address(&state.path()).unwrap();
        let Ok((client, connection)) = tokio_postgres::connect(&conninfo, tokio_postgres::NoTls).await else {
            return false;
        };
        tokio::spawn(connection);
        client.query(sleeps, &[]).await.is_ok_and(|rows| !rows.is_empty())
    })
    .await;
    rustix::process::kill_process_group(Pid::from_child(&trackd), Signal::INT).unwrap();
    let mut ended = None;
    eventually("the end of trackd", PATIENCE, async || {
        ended = trackd.try_wait().unwrap();
        ended.is_some()
    })
    .await;
    assert_eq!(ended.and_then(|status| status.code()), Some(1), "psql's statement failed, trackd was not killed");
    assert_eq!(state.postmaster(), None, "the server was stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_that_migrate_at_once_all_succeed_and_one_applies() {
    let database = Server::shared().database().await;
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let mut client = database.client().await;
        tasks.push(tokio::spawn(async move { migrate(&mut client).await }));
    }
    let mut applied = Vec::new();
    for task in tasks {
        applied.extend(task.await.expect("no panic").expect("migrated"));
    }
    assert_eq!(applied, ["V1__ledger", "V2__claims", "V3__whole"]);
    assert_eq!(migrate(&mut database.client().await).await.expect("again"), Vec::<String>::new());
}

#[tokio::test]
async fn a_schema_of_a_newer_trackd_is_refused() {
    let database = Server::shared().database().await;
    let mut client = database.client().await;
    migrate(&mut client).await.expect("migrated");
    let newer =
        "INSERT INTO trackd.schema_history SELECT 99, 'later', applied_on, '1' FROM trackd.schema_history LIMIT 1";
    client.batch_execute(newer).await.expect("pretend");
    let error = migrate(&mut client).await.expect_err("refused");
    assert_eq!(error.to_string(), "migrate schema trackd: the database is at version V99__later, this program knows 3");
    assert_eq!(error.class(), trackd::class::Class::Standing);
    assert!(error.hint().is_some_and(|hint| hint.contains("newer trackd")));
}

#[tokio::test]
async fn a_schema_of_another_build_is_refused() {
    let database = Server::shared().database().await;
    let mut client = database.client().await;
    migrate(&mut client).await.expect("migrated");
    client.batch_execute("UPDATE trackd.schema_history SET checksum = '1'").await.expect("pretend");
    let error = migrate(&mut client).await.expect_err("refused");
    assert!(error.to_string().contains("differs from this program's V1__ledger"), "{error}");
}
