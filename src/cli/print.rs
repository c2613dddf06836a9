//! Tables: drawn on a terminal, tab-separated when piped, JSON lines for programs.

use super::failure::Failure;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{ContentArrangement, Table};
use jiff::{Timestamp, Unit};
use serde::Serialize;
use std::io::{IsTerminal, Write};
use std::time::Duration;

/// Rows under their headers.
pub(super) fn table(headers: &[&str], rows: &[Vec<String>]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    if std::io::stdout().is_terminal() {
        let mut table = Table::new();
        table.load_style(UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic).set_header(headers);
        table.add_rows(rows.iter().map(|row| row.iter().map(|cell| harmless(cell))));
        writeln!(out, "{table}")?;
    } else {
        writeln!(out, "{}", headers.join("\t"))?;
        for row in rows {
            let cells: Vec<String> = row.iter().map(|cell| harmless(cell)).collect();
            writeln!(out, "{}", cells.join("\t"))?;
        }
    }
    Ok(())
}

/// A cell on one line. What sources sent must not command a terminal.
pub(super) fn harmless(cell: &str) -> String {
    cell.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// One JSON object a line.
pub(super) fn json_lines(values: impl IntoIterator<Item = impl Serialize>) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    for value in values {
        serde_json::to_writer(&mut out, &value).map_err(std::io::Error::from)?;
        writeln!(out)?;
    }
    Ok(())
}

/// One line.
pub(super) fn line(text: impl std::fmt::Display) -> Result<(), Failure> {
    Ok(writeln!(std::io::stdout().lock(), "{text}")?)
}

/// A line on stderr. Where nobody reads it any more (`trackd check 2>&1 | head`) the exit code still tells.
pub(super) fn diagnostic(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// A time to the second (or finer where it has more), in UTC.
pub(super) fn time(at: Timestamp) -> String {
    let whole = at.round(Unit::Second).is_ok_and(|rounded| rounded == at);
    if whole {
        at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
    } else {
        at.strftime("%Y-%m-%d %H:%M:%S%.3fZ").to_string()
    }
}

/// A length of time; days as days, of which humantime makes months and odd hours.
pub(super) fn length(length: Duration) -> String {
    const DAY: u64 = 24 * 3600;
    match (length.as_secs() / DAY, length.as_secs() % DAY) {
        (days @ 1.., 0) => format!("{days}d"),
        (days @ 1.., rest) => format!("{days}d {}", humantime::format_duration(Duration::from_secs(rest))),
        _ => humantime::format_duration(length).to_string(),
    }
}

/// A time, or a dash.
pub(super) fn maybe(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "-".to_owned(), time)
}

#[cfg(test)]
mod tests {
    use super::{harmless, length};
    use std::time::Duration;

    #[test]
    fn days_are_days() {
        let texts = [59, 86_400 * 90, 86_400 * 40 + 3_660].map(|seconds| length(Duration::from_secs(seconds)));
        assert_eq!(texts, ["59s", "90d", "40d 1h 1m"]);
    }

    #[test]
    fn a_cell_is_one_line_that_commands_nothing() {
        assert_eq!(harmless("a\tb\r\nc\u{1b}[2J\u{9b}é"), "a b  c [2J é");
    }
}
