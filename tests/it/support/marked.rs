//! Secrets of tests: each contains a mark, and what trackd logs, prints, serves or records holds none. Looked for where
//! the tests meet trackd: its output, its answers, the files below its directories, its databases and their servers.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tokio_postgres::NoTls;

/// In every secret of a test, and nowhere else.
pub const MARK: &str = "m4rked";

/// No lookup waits longer for a database: one that a test has hurt is looked at by its server's files alone.
const PATIENCE: Duration = Duration::from_secs(5);

/// Panics with the lines of what was shown that hold a secret, unless a test fails already.
pub fn unmarked(shown: &str, text: &str) {
    let lines: Vec<&str> = text.lines().filter(|line| line.contains(MARK)).collect();
    assert!(lines.is_empty() || std::thread::panicking(), "a secret is in {shown}:\n{}", lines.join("\n"));
}

/// Panics when a file below `dir` holds a secret, unless it is one of those that the test put there.
pub fn unmarked_below(dir: &Path, put: &[PathBuf]) {
    let found = marked_below(dir, put);
    assert!(found.is_empty() || std::thread::panicking(), "a secret is in {found:?}");
}

/// The files below `dir` that hold a secret, besides those that the test put there.
pub fn marked_below(dir: &Path, put: &[PathBuf]) -> Vec<PathBuf> {
    let output = Command::new("grep").args(["-rlaF", "-D", "skip", MARK]).arg(dir).output().expect("run grep");
    let listed = String::from_utf8_lossy(&output.stdout);
    listed.lines().map(PathBuf::from).filter(|path| !put.contains(path)).collect()
}

/// Panics when a row of the database holds a secret, as text or as bytes.
pub fn unmarked_rows(url: &str) {
    let url = url.to_owned();
    // A runtime of its own: this is called where a test's runtime may be about to end.
    let looked = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async { tokio::time::timeout(PATIENCE, rows(&url)).await.ok()?.ok() })
    });
    let found = looked.join().expect("the lookup ends").unwrap_or_default();
    assert!(found.is_empty() || std::thread::panicking(), "a secret is in rows of {}", found.join(", "));
}

/// The tables with such rows.
async fn rows(url: &str) -> Result<Vec<String>, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    let connection = tokio::spawn(connection);
    let tables = "SELECT oid::regclass::text FROM pg_class WHERE relkind IN ('r', 'm') AND relnamespace NOT IN \
                  ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)";
    let bytes: String = MARK.bytes().map(|byte| format!("{byte:02x}")).collect();
    let mut found = Vec::new();
    for table in client.query(tables, &[]).await? {
        let table: String = table.get(0);
        let sql = format!("SELECT FROM {table} t WHERE t::text LIKE '%{MARK}%' OR t::text LIKE '%{bytes}%' LIMIT 1");
        if !client.query(&sql, &[]).await?.is_empty() {
            found.push(table);
        }
    }
    drop(client);
    let _ = connection.await;
    Ok(found)
}
