//! What can go wrong between trackd and PostgreSQL, and what to do about it.
//!
//! In: errors of the driver and of the pool. Out: one error with class, SQLSTATE and hint.
//! Must not know: what the statement was for.

use crate::class::Class;
use std::error::Error as _;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Why a statement, a connection or a commit failed.
///
/// Reads "operation: cause", lower case as far as PostgreSQL's own words allow, each cause once, no values.
#[derive(Debug, Clone)]
pub struct Error {
    operation: String,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    /// The server answered with an error, or the connection broke.
    Driver(Arc<tokio_postgres::Error>),
    /// An own deadline passed.
    Timeout(Duration),
    /// No connection could be had.
    Unavailable(String),
    /// The server takes no writes.
    Standby,
    /// An earlier statement of this guard failed: nothing but a rollback is possible.
    Aborted,
    /// The connection was lost after COMMIT was sent: committed or not, only the ledger knows.
    UnknownCommit(Box<Error>),
    /// Something to be fixed before it is tried again.
    Refused { message: String, hint: Option<String> },
}

impl Error {
    pub(super) fn driver(operation: impl Into<String>, error: tokio_postgres::Error) -> Error {
        Error { operation: operation.into(), kind: Kind::Driver(Arc::new(error)) }
    }

    pub(super) fn timeout(operation: impl Into<String>, after: Duration) -> Error {
        Error { operation: operation.into(), kind: Kind::Timeout(after) }
    }

    pub(super) fn unavailable(operation: impl Into<String>, cause: impl Into<String>) -> Error {
        Error { operation: operation.into(), kind: Kind::Unavailable(cause.into()) }
    }

    pub(super) fn standby(operation: impl Into<String>) -> Error {
        Error { operation: operation.into(), kind: Kind::Standby }
    }

    pub(super) fn aborted(operation: impl Into<String>) -> Error {
        Error { operation: operation.into(), kind: Kind::Aborted }
    }

    pub(super) fn unknown_commit(cause: Error) -> Error {
        Error { operation: "commit".into(), kind: Kind::UnknownCommit(Box::new(cause)) }
    }

    /// Something to be fixed before it is tried again.
    pub fn refused(operation: impl Into<String>, message: impl Into<String>, hint: Option<String>) -> Error {
        Error { operation: operation.into(), kind: Kind::Refused { message: message.into(), hint } }
    }

    /// The same, with what else was tried.
    pub(super) fn and(mut self, others: &str) -> Error {
        self.operation = format!("{} (after {others})", self.operation);
        self
    }

    /// What happens next.
    pub fn class(&self) -> Class {
        match &self.kind {
            Kind::Driver(error) => match error.code() {
                Some(code) => Class::of_sqlstate(code.code()),
                None => driver_class(error),
            },
            Kind::Timeout(_) | Kind::Unavailable(_) | Kind::Standby | Kind::Aborted | Kind::UnknownCommit(_) => {
                Class::Retry
            }
            Kind::Refused { .. } => Class::Standing,
        }
    }

    /// The server's code, five characters, where the server answered.
    pub fn sqlstate(&self) -> Option<&str> {
        match &self.kind {
            Kind::Driver(error) => error.code().map(|code| code.code()),
            _ => None,
        }
    }

    /// The constraint a row broke, where the server named one.
    pub fn constraint(&self) -> Option<&str> {
        match &self.kind {
            Kind::Driver(error) => error.as_db_error().and_then(|db| db.constraint()),
            _ => None,
        }
    }

    /// A serialization failure or a deadlock: the same transaction may pass when it is begun anew.
    pub fn is_conflict(&self) -> bool {
        matches!(self.sqlstate(), Some("40001" | "40P01"))
    }

    /// A row with this key is there already.
    pub fn is_unique_violation(&self) -> bool {
        self.sqlstate() == Some("23505")
    }

    /// A row refers to one that is not there, or is referred to.
    pub fn is_foreign_key_violation(&self) -> bool {
        self.sqlstate() == Some("23503")
    }

    /// Whether the outcome of a commit is not known.
    pub fn is_unknown_commit(&self) -> bool {
        matches!(self.kind, Kind::UnknownCommit(_))
    }

    /// Whether the database could not be reached at all, or the connection broke: another one may do.
    pub fn is_away(&self) -> bool {
        match &self.kind {
            Kind::Driver(error) => error.as_db_error().is_none_or(|db| {
                let code = db.code().code();
                code.starts_with("08") || code.starts_with("57P") || code.starts_with("53") || code == "25006"
            }),
            Kind::Timeout(_) | Kind::Unavailable(_) | Kind::Standby | Kind::UnknownCommit(_) => true,
            Kind::Aborted | Kind::Refused { .. } => false,
        }
    }

    /// Whether what answered is a standby, where a server that takes writes is needed.
    pub fn is_standby(&self) -> bool {
        matches!(self.kind, Kind::Standby) || self.sqlstate() == Some("25006")
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match &self.kind {
            Kind::Refused { hint, .. } => hint.clone(),
            Kind::Driver(error) => match error.as_db_error() {
                Some(db) => db.hint().map(str::to_owned).or_else(|| hint_of(db.code().code()).map(str::to_owned)),
                None => transport_hint(&flatten(error)).map(str::to_owned),
            },
            Kind::UnknownCommit(_) => Some("trackd looks the run up in trackd.runs before it tries again".into()),
            _ => None,
        }
    }
}

/// Transport errors are worth another try; what our own settings cause is not.
fn driver_class(error: &tokio_postgres::Error) -> Class {
    if transport_hint(&flatten(error)).is_some() { Class::Standing } else { Class::Retry }
}

/// Words of the driver and of rustls, which have no codes, and what a person does about them.
const TRANSPORT: [(&str, &str); 9] = [
    ("password missing", "set database.password_file, $PGPASSWORD or a line of ~/.pgpass"),
    ("server does not support TLS", "set ssl = on on the server, or sslmode=disable or prefer in database.url"),
    ("not valid for name", "name the host as its certificate does, or ask for less: sslmode=verify-ca"),
    ("UnknownIssuer", "sslrootcert names the authority that signed the server's certificate"),
    ("BadSignature", "sslrootcert names the authority that signed the server's certificate"),
    ("certificate expired", "renew the server's certificate"),
    ("invalid peer certificate", "sslmode and sslrootcert say what is asked of the server's certificate"),
    ("channel binding", "channel_binding=require needs TLS, a password, and a server that offers SCRAM-SHA-256-PLUS"),
    ("invalid configuration", "correct database.url"),
];

fn transport_hint(text: &str) -> Option<&'static str> {
    TRANSPORT.iter().find(|(words, _)| text.contains(words)).map(|(_, hint)| *hint)
}

/// What a person does about a code, for those a person can do something about.
fn hint_of(code: &str) -> Option<&'static str> {
    Some(match code {
        "28P01" | "28000" => {
            "check user and password of database.url, and the server's pg_hba.conf; over a socket it may go by the \
             user who asks: `runuser -u trackd -- trackd …` asks as the daemon does"
        }
        "3D000" => "create the database, or correct its name in database.url",
        "42501" => "grant the role of database.url what the message names, or make it the owner of the table",
        "42P01" | "42703" => "the table changed under trackd: `trackd check` shows what is missing",
        "53300" => "raise max_connections on the server, or lower database.pool_size and max_overflow",
        "53100" => "the server's disk is full: free some space",
        "25006" => "this server is a read-only standby: name the primary in database.url",
        "57P03" => "the server is starting up or recovering",
        _ => return None,
    })
}

/// The error and its causes, each once: the driver's text may already contain its cause.
fn flatten(error: &tokio_postgres::Error) -> String {
    if let Some(db) = error.as_db_error() {
        let mut text = format!("{} (SQLSTATE {})", db.message(), db.code().code());
        if let Some(detail) = db.detail() {
            // DETAIL of a class-22/23 error quotes the row's values, which reached us from outside anyway.
            text.push_str(": ");
            text.push_str(detail.trim_end_matches('.'));
        }
        return text;
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.operation)?;
        match &self.kind {
            Kind::Driver(error) => f.write_str(&flatten(error)),
            Kind::Timeout(after) => write!(f, "no answer within {after:?}"),
            Kind::Unavailable(cause) => f.write_str(cause),
            Kind::Standby => f.write_str("the server is a read-only standby"),
            Kind::Aborted => f.write_str("the transaction is aborted by an earlier error"),
            Kind::UnknownCommit(cause) => write!(f, "the answer was lost ({cause})"),
            Kind::Refused { message, .. } => f.write_str(message),
        }
    }
}

// The cause is part of the text already, so there is no `source`: printing a chain would say it twice.
impl std::error::Error for Error {}
