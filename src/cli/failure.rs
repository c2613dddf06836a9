//! Why a command failed, and the exit code that says so.

use super::print;
use crate::admin::control::Refusal;
use crate::daemon::ledger::Unusable;
use crate::log;
use crate::spool;
use crate::store;
use crate::store::embedded::EmbeddedError;
use crate::store::migrate::MigrateError;
use std::process::ExitCode;

/// EX_USAGE.
pub(super) const USAGE: u8 = 64;
/// EX_UNAVAILABLE: the database, or the daemon.
const UNAVAILABLE: u8 = 69;
/// EX_CONFIG.
const CONFIG: u8 = 78;

/// What is told on stderr, and the code.
#[derive(Debug)]
pub(super) struct Failure {
    code: u8,
    message: String,
    hint: Option<String>,
}

impl Failure {
    /// The work itself failed.
    pub(super) fn work(message: impl Into<String>) -> Failure {
        Failure { code: 1, message: message.into(), hint: None }
    }

    /// The arguments do not fit.
    pub(super) fn usage(message: impl Into<String>) -> Failure {
        Failure { code: USAGE, message: message.into(), hint: None }
    }

    /// The configuration, rendered with its places.
    pub(super) fn config(message: impl Into<String>) -> Failure {
        Failure { code: CONFIG, message: message.into(), hint: None }
    }

    /// The database cannot be used.
    pub(super) fn database(message: impl Into<String>, hint: Option<String>) -> Failure {
        Failure { code: UNAVAILABLE, message: message.into(), hint }
    }

    /// No daemon answers.
    pub(super) fn no_daemon(message: impl Into<String>) -> Failure {
        Failure { code: UNAVAILABLE, message: message.into(), hint: None }
    }

    pub(super) fn with_hint(mut self, hint: Option<String>) -> Failure {
        self.hint = hint;
        self
    }

    /// For who asked the daemon.
    pub(super) fn into_refusal(self) -> Refusal {
        let hint = self.hint.map_or_else(String::new, |hint| format!(" ({hint})"));
        let told = self.message + &hint;
        match self.code {
            USAGE => Refusal::Wish(told),
            UNAVAILABLE => Refusal::Now(told),
            _ => Refusal::Failed(told),
        }
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }

    pub(super) fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Tells it and gives the code. An empty message was told already.
    pub(super) fn tell(self) -> ExitCode {
        if !self.message.is_empty() {
            let prefix = if self.code == CONFIG && self.message.starts_with("error") { "" } else { "trackd: " };
            told(&format!("{prefix}{}", self.message));
        }
        if let Some(hint) = self.hint {
            told(&format!("  hint: {hint}"));
        }
        ExitCode::from(self.code)
    }
}

/// Tells a line, or more. In the journal each is an entry of its own, and an error: without its priority systemd takes
/// what a service says on stderr for information, and `journalctl -p err` does not show why it did not start.
fn told(text: &str) {
    match log::stderr_is_the_journal() {
        true => text.lines().for_each(|line| print::diagnostic(format!("<3>{line}"))),
        false => print::diagnostic(text),
    }
}

impl From<Unusable> for Failure {
    fn from(error: Unusable) -> Failure {
        Failure::database(error.message, error.hint)
    }
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Failure {
        Failure::database(error.to_string(), error.hint())
    }
}

impl From<spool::Error> for Failure {
    fn from(error: spool::Error) -> Failure {
        Failure::work(error.to_string()).with_hint(error.hint())
    }
}

/// A store's error as the daemon sees it.
pub(super) fn unusable(error: &store::Error) -> Unusable {
    Unusable { class: error.class(), message: error.to_string(), hint: error.hint() }
}

pub(super) fn embedded_unusable(error: &EmbeddedError) -> Unusable {
    Unusable { class: error.class(), message: error.to_string(), hint: error.hint().map(str::to_owned) }
}

pub(super) fn migration_unusable(error: &MigrateError) -> Unusable {
    Unusable { class: error.class(), message: error.to_string(), hint: error.hint().map(str::to_owned) }
}

/// An interrupted reader (`trackd runs | head`) is no failure.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Failure { code: 0, message: String::new(), hint: None },
            // Of what was read; says itself what it is.
            std::io::ErrorKind::InvalidData => Failure::work(error.to_string()),
            _ => Failure::work(format!("write: {error}")),
        }
    }
}
