//! What can go wrong with the private PostgreSQL, and what to do about it.

use crate::class::Class;
use std::fmt;

/// The private PostgreSQL could not be made, started or stopped.
#[derive(Debug)]
pub struct EmbeddedError {
    message: String,
    class: Class,
    hint: Option<String>,
}

impl EmbeddedError {
    /// It will fail again until somebody acts on the hint.
    pub(crate) fn standing(message: impl Into<String>, hint: impl Into<String>) -> EmbeddedError {
        EmbeddedError { message: message.into(), class: Class::Standing, hint: Some(hint.into()) }
    }

    /// It may go better next time.
    pub(crate) fn retry(message: impl Into<String>) -> EmbeddedError {
        EmbeddedError { message: message.into(), class: Class::Retry, hint: None }
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> EmbeddedError {
        self.hint = Some(hint.into());
        self
    }

    /// The system refused to do `operation` with `path`.
    pub(crate) fn io(operation: &str, path: &std::path::Path, cause: impl fmt::Display) -> EmbeddedError {
        EmbeddedError::retry(format!("{operation} {}: {cause}", path.display()))
    }

    /// What happens next.
    pub fn class(&self) -> Class {
        self.class
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for EmbeddedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for EmbeddedError {}
