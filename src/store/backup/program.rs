//! One of PostgreSQL's programs at work, connecting by its environment: in its arguments everybody could read a password.
//!
//! Must not know: which program, and what it does.

use crate::store::Target;
use crate::store::tools::Tool;
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Command;

/// Lines of what went wrong that are told.
const TOLD: usize = 4;
/// Bytes of a line that are told: a statement may be any length.
const LINE: usize = 500;
/// Before the name of a table, when its rows are copied.
const TABLES: [&str; 2] = ["dumping contents of table \"", "processing data for table \""];

/// A program that is to be run.
#[derive(Debug)]
pub(super) struct Program {
    name: String,
    command: Command,
}

/// Why it failed, in its own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) text: String,
}

impl Program {
    pub(super) fn new(tool: &Tool, target: &Target) -> Program {
        let mut command = Command::new(&tool.path);
        for variable in Target::variables_of_libpq() {
            command.env_remove(variable);
        }
        command.envs(target.environment());
        // In English, for its words are looked at; nobody is there to be asked for a password.
        command.env("LC_ALL", "C.UTF-8").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.kill_on_drop(true);
        let name = tool.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Program { name, command }
    }

    /// Of several hosts, only one that takes writes will do, unless the target asks for something else.
    pub(super) fn writes(&mut self) {
        const VARIABLE: &str = "PGTARGETSESSIONATTRS";
        let said = self.command.as_std().get_envs().any(|(name, value)| name == VARIABLE && value.is_some());
        if !said {
            self.command.env(VARIABLE, "read-write");
        }
    }

    pub(super) fn arg(&mut self, argument: impl AsRef<OsStr>) -> &mut Program {
        self.command.arg(argument);
        self
    }

    pub(super) fn args(&mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> &mut Program {
        self.command.args(arguments);
        self
    }

    /// Runs it to its end; `table` is told of each table whose rows are copied.
    ///
    /// Cancel safety: safe; it is killed.
    pub(super) async fn run(mut self, mut table: impl FnMut(&str)) -> Result<(), Said> {
        let failed = |error: std::io::Error| Said { text: format!("run {}: {error}", self.name) };
        let mut child = self.command.spawn().map_err(failed)?;
        let mut report = Report::default();
        if let Some(stderr) = child.stderr.take() {
            read(stderr, |line| match table_of(line) {
                Some(name) => table(name),
                None => report.add(line),
            })
            .await;
        }
        let status = child.wait().await.map_err(failed)?;
        if status.success() { Ok(()) } else { Err(report.said(&self.name, status)) }
    }
}

/// Each line, as far as it is worth telling.
async fn read(stderr: impl AsyncRead + Unpin, mut line: impl FnMut(&str)) {
    let mut lines = BufReader::new(stderr).split(b'\n');
    while let Ok(Some(bytes)) = lines.next_segment().await {
        let bytes = &bytes[..bytes.len().min(LINE)];
        line(String::from_utf8_lossy(bytes).trim_end());
    }
}

fn table_of(line: &str) -> Option<&str> {
    let rest = TABLES.iter().find_map(|words| line.split_once(words))?.1;
    rest.strip_suffix('"')
}

/// What is worth telling of many lines: from the first error on, else the last one.
#[derive(Debug, Default)]
struct Report {
    lines: VecDeque<String>,
    failed: bool,
}

impl Report {
    fn add(&mut self, line: &str) {
        // "pg_dump: error: …", and libpq's own words behind it.
        let fails = line.contains(": error: ") || line.contains(": fatal: ");
        if fails && !self.failed {
            self.failed = true;
            self.lines.clear();
        }
        if line.is_empty() || (self.failed && self.lines.len() == TOLD) {
            return;
        }
        if !self.failed {
            self.lines.clear();
        }
        self.lines.push_back(line.to_owned());
    }

    fn said(self, name: &str, status: std::process::ExitStatus) -> Said {
        let prefix = format!("{name}: ");
        let bare = |line: &String| {
            let line = line.strip_prefix(&prefix).unwrap_or(line);
            line.strip_prefix("error: ").or_else(|| line.strip_prefix("detail: ")).unwrap_or(line).to_owned()
        };
        let text = self.lines.iter().map(bare).collect::<Vec<_>>().join(": ");
        Said { text: if text.is_empty() { format!("{name}: {status}") } else { format!("{prefix}{text}") } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    fn said(lines: &[&str]) -> String {
        let mut report = Report::default();
        lines.iter().for_each(|line| report.add(line));
        report.said("pg_dump", std::process::ExitStatus::from_raw(256)).text
    }

    #[test]
    fn of_many_lines_the_error_is_told_and_what_belongs_to_it() {
        let lines = [
            "pg_dump: reading schemas",
            "pg_dump: error: query failed: ERROR:  permission denied for table a",
            "pg_dump: detail: Query was: LOCK TABLE public.a",
        ];
        let text = "pg_dump: query failed: ERROR:  permission denied for table a: Query was: LOCK TABLE public.a";
        assert_eq!(said(&lines), text);
        assert_eq!(said(&["pg_dump: reading schemas", "terminated"]), "pg_dump: terminated");
        assert_eq!(said(&[]), "pg_dump: exit status: 1");
        let many = said(&["pg_dump: error: a"; 100]);
        assert_eq!(many, "pg_dump: a: a: a: a");
    }

    #[test]
    fn the_tables_are_named_as_they_are_copied() {
        assert_eq!(table_of("pg_dump: dumping contents of table \"public.a\""), Some("public.a"));
        assert_eq!(table_of("pg_restore: processing data for table \"trackd.runs\""), Some("trackd.runs"));
        assert_eq!(table_of("pg_restore: creating TABLE \"public.a\""), None);
    }
}
