//! What was looked at, and what came of it.

use crate::cli::failure::Failure;
use crate::cli::print;
use crate::status::health::Trouble;
use serde::Serialize;

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) check: &'static str,
    pub(super) outcome: Outcome,
    pub(super) what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hint: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    Ok,
    /// Runs land, but not for ever, or not as well as they could.
    Warn,
    /// Runs fail.
    Fail,
}

impl Finding {
    pub(super) fn ok(check: &'static str, what: impl Into<String>) -> Finding {
        Finding { check, outcome: Outcome::Ok, what: what.into(), hint: None }
    }

    pub(super) fn warn(check: &'static str, what: impl Into<String>, hint: impl Into<String>) -> Finding {
        Finding { check, outcome: Outcome::Warn, what: what.into(), hint: Some(hint.into()) }
    }

    pub(super) fn fail(check: &'static str, what: impl Into<String>, hint: Option<String>) -> Finding {
        Finding { check, outcome: Outcome::Fail, what: what.into(), hint }
    }

    pub(super) fn of(trouble: Trouble) -> Finding {
        let outcome = if trouble.fatal { Outcome::Fail } else { Outcome::Warn };
        Finding { check: trouble.check, outcome, what: trouble.what, hint: Some(trouble.hint) }
    }
}

/// The report: a line each, or a JSON object a line.
pub(super) fn show(findings: &[Finding], json: bool) -> Result<(), Failure> {
    if json {
        return print::json_lines(findings);
    }
    findings.iter().map(line).try_for_each(print::line)
}

fn line(finding: &Finding) -> String {
    let outcome = match finding.outcome {
        Outcome::Ok => "ok",
        Outcome::Warn => "warn",
        Outcome::Fail => "fail",
    };
    let hint = finding.hint.as_ref().map(|hint| format!("; to do: {hint}")).unwrap_or_default();
    print::harmless(&format!("{outcome:<5}{:<12} {}{hint}", finding.check, finding.what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line_with_what_to_do() {
        let warned = Finding::warn("tls", "not in use\non the way", "set sslmode");
        assert_eq!(line(&warned), "warn tls          not in use on the way; to do: set sslmode");
        assert_eq!(line(&Finding::ok("privileges", "all")), "ok   privileges   all");
    }
}
