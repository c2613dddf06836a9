//! The shipped config.toml on the Alpha Arena's recorded responses, to the last digit.
//!
//! The responses are published data, too large to carry along: the tests read them from `../shared` where that is.

use crate::shape::agrees_with_jq;
use crate::support::daemon::{Home, stderr};
use crate::support::faulty::Faulty;
use crate::support::postgres::{Database, Server};
use std::path::{Path, PathBuf};
use trackd::config::environment::Environment;
use trackd::config::file::parse;

const FIRST: &str = "2025-10-26";
const SECOND: &str = "2025-10-28T065103Z";

/// The folder of one recording; `None`, said aloud, where there are none.
pub fn recording(name: &str) -> Option<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data/alpha-arena").join(name);
    if !folder.is_dir() {
        println!("skipped: no recorded responses in {}", folder.display());
        return None;
    }
    Some(folder)
}

/// The shipped configuration on this database and this arena.
fn shipped(database: &Database, arena: &str) -> Home {
    let mut home = Home::new(database, "");
    home.put("config.toml", include_str!("../../config.toml"));
    home.set("TRACKD_DATABASE__URL", &database.url());
    home.set("TRACKD_DAEMON__STATE_DIR", "state");
    home.set("TRACKD_VARS__ARENA", arena);
    home
}

async fn figure(database: &Database, sql: &str) -> String {
    database.client().await.query_one(&format!("SELECT ({sql})::text"), &[]).await.unwrap().get(0)
}

async fn figures(database: &Database, expected: &[(&str, &str)]) {
    for (sql, value) in expected {
        assert_eq!(figure(database, sql).await, *value, "{sql}");
    }
}

/// What stays the same when the second recording comes again.
const SETTLED: [(&str, &str); 10] = [
    ("SELECT count(*) FROM llm_models", "6"),
    ("SELECT count(*) FROM trades", "269"),
    ("SELECT sum(realized_net_pnl) FROM trades", "7671.76196918"),
    ("SELECT sum(entry_tid) FROM trades", "144753953988999088"),
    ("SELECT count(*) FROM model_chats", "100"),
    ("SELECT count(*) FROM chat_decisions", "455"),
    ("SELECT count(failed_response) FROM model_chats", "2"),
    ("SELECT count(*) FROM seasons", "2"),
    ("SELECT count(*) FROM trackd.rejects", "0"),
    (
        "SELECT return_pct FROM leaderboard_snapshots WHERE model_id = 'claude-sonnet-4-5' ORDER BY taken_at DESC LIMIT 1",
        "-14.469999999999999",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn the_recorded_arena_lands_to_the_last_digit_and_only_once() {
    let (Some(first), Some(second)) = (recording(FIRST), recording(SECOND)) else { return };
    let database = Server::shared().database().await;

    let arena = Faulty::files(&first).await;
    let output = shipped(&database, &arena.url("")).trackd(&["once", "--all"]);
    // It has no conversations: their run fails by a 404, and the others land.
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    figures(
        &database,
        &[
            (
                "SELECT string_agg(tracker || ' ' || http_status, ' ') FROM trackd.runs WHERE status = 'failed'",
                "conversations 404",
            ),
            ("SELECT count(*) FROM trackd.runs WHERE status = 'succeeded'", "5"),
            ("SELECT count(*) FROM trades", "230"),
            ("SELECT count(*) FROM leaderboard_snapshots", "6"),
        ],
    )
    .await;

    let arena = Faulty::files(&second).await;
    let home = shipped(&database, &arena.url(""));
    for snapshots in ["12", "18"] {
        let output = home.trackd(&["once", "--all"]);
        assert!(output.status.success(), "{}", stderr(&output));
        figures(&database, &SETTLED).await;
        figures(
            &database,
            &[
                ("SELECT count(*) FROM leaderboard_snapshots", snapshots),
                (
                    "SELECT string_agg(rank || ' ' || model_id, ', ' ORDER BY rank) FROM leaderboard_snapshots \
                     WHERE taken_at = (SELECT max(taken_at) FROM leaderboard_snapshots) AND rank IN (1, 6)",
                    "1 qwen3-max, 6 gpt-5",
                ),
            ],
        )
        .await;
    }
}

#[test]
fn every_program_of_the_shipped_configuration_gives_on_each_recording_what_jq_gives() {
    let text = include_str!("../../config.toml");
    let config = parse(text, Path::new("config.toml"), &Environment::default()).unwrap();
    for recording in [FIRST, SECOND].into_iter().filter_map(recording) {
        for tracker in &config.trackers {
            let url = text.split(&format!("name = \"{}\"", tracker.name)).nth(1).unwrap();
            let endpoint = url.split("{{ vars.arena }}/").nth(1).unwrap().split('"').next().unwrap();
            let Ok(body) = std::fs::read_to_string(recording.join(format!("{endpoint}.json"))) else {
                assert_eq!((endpoint, recording.ends_with(FIRST)), ("conversations", true));
                continue;
            };
            for table in &tracker.tables {
                let columns: Vec<_> = table.columns.iter().map(|c| (&*c.name, c.program.source())).collect();
                agrees_with_jq(&body, table.rows.source(), &columns);
            }
        }
    }
}
