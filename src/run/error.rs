//! Why a run failed: the stage, the class, the words.
//!
//! Must not know: what happens next.

use crate::class::Class;
use crate::shape::REJECTS_KEPT;
use crate::store::write::Failure;
use crate::{shape, source, store};
use std::fmt;

/// A run's failure, by stage.
#[derive(Debug)]
pub enum Error {
    /// The source gave no payload.
    Fetch(source::Error),
    /// The payload is not the documented shape.
    Shape(shape::Error),
    /// A row does not fit, and the tracker asks for all or nothing.
    BadRow {
        /// The table it was for.
        table: String,
        /// Why.
        reason: String,
        /// How many did not fit.
        rejected: u64,
    },
    /// The database refuses more rows than are set aside.
    Refused {
        /// The table they were for.
        table: String,
        /// Why the first was refused.
        reason: String,
    },
    /// The database refused, or is away.
    Land(store::Error),
    /// The instant has its row in the ledger already, and it is no success.
    Recorded(String),
    /// The database is away, and the spool has no room for what the source would give, or gave.
    NoRoom {
        /// What the spool said.
        reason: String,
        /// What to do about it.
        hint: Option<String>,
    },
}

impl Error {
    /// retry, row or standing.
    pub fn class(&self) -> Class {
        match self {
            Error::Fetch(error) => error.class,
            Error::Shape(_) | Error::Recorded(_) => Class::Standing,
            Error::BadRow { .. } | Error::Refused { .. } => Class::Row,
            Error::Land(error) => error.class(),
            Error::NoRoom { .. } => Class::Retry,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Fetch(error) => error.hint.clone(),
            Error::Shape(error) => error.hint.clone(),
            Error::BadRow { .. } => Some("on_bad_row = \"reject\" sets such rows aside and lands the others".into()),
            Error::Refused { .. } => {
                Some("correct the table's checks and references, or leave such rows out in `rows`".into())
            }
            Error::Land(error) => error.hint(),
            Error::Recorded(_) => None,
            Error::NoRoom { hint, .. } => hint.clone(),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        match failure {
            Failure::Shape(error) => Error::Shape(error),
            Failure::Store(error) => Error::Land(error),
            Failure::Refused { table, first } => Error::Refused { table, reason: first.reason },
            Failure::BadRow { table, reject, rejected } => Error::BadRow { table, reason: reject.reason, rejected },
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Fetch(error) => write!(f, "fetch: {error}"),
            Error::Shape(error) => write!(f, "shape: {}", error.message),
            Error::BadRow { table, reason, rejected } => {
                write!(f, "shape table {table}: {rejected} bad rows, the first: {reason}")
            }
            Error::Refused { table, reason } => {
                write!(f, "land table {table}: more than {REJECTS_KEPT} rows are refused, the first: {reason}")
            }
            Error::Land(error) => write!(f, "land: {error}"),
            Error::Recorded(text) => f.write_str(text),
            Error::NoRoom { reason, .. } => write!(f, "spool: {reason}"),
        }
    }
}

impl std::error::Error for Error {}
