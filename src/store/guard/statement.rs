//! A statement and its parameters, as they travel: unnamed, in one round trip.
//!
//! Must not know: connections.

use bytes::{BufMut, Bytes, BytesMut};
use std::borrow::Cow;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

/// One statement with its parameters, sent unnamed in one round trip: nothing stays on the connection.
#[derive(Debug)]
pub struct Statement {
    pub(super) sql: Cow<'static, str>,
    params: Vec<(Box<dyn ToSql + Sync + Send>, Type)>,
}

impl Statement {
    /// A statement without parameters.
    pub fn new(sql: impl Into<Cow<'static, str>>) -> Statement {
        Statement { sql: sql.into(), params: Vec::new() }
    }

    /// Adds the next parameter, `$1` first.
    ///
    /// A value that the type does not take fails the statement, and nothing of its flight lands.
    pub fn bind(mut self, value: impl ToSql + Sync + Send + 'static, ty: Type) -> Statement {
        self.params.push((Box::new(value), ty));
        self
    }

    pub(super) fn params(&self) -> Vec<(&(dyn ToSql + Sync), Type)> {
        self.params.iter().map(|(value, ty)| (&**value as &(dyn ToSql + Sync), ty.clone())).collect()
    }

    /// The same parameters for another text.
    pub(super) fn with(self, sql: String) -> Statement {
        Statement { sql: sql.into(), ..self }
    }
}

/// What a statement would do that is the guard's to do, or outlive it; judged by its first words, which is where a
/// statement says what it is. Procedures and functions cannot do either, the server sees to that.
pub(super) fn forbidden(sql: &str) -> Option<(&'static str, &'static str)> {
    let (first, rest) = word(sql);
    let (second, _) = word(rest);
    let is = |word: &str, of: &[&str]| of.iter().any(|known| known.eq_ignore_ascii_case(word));
    if is(first, &["BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT"])
        || is(first, &["PREPARE"]) && is(second, &["TRANSACTION"])
    {
        return Some((
            "begins or ends a transaction",
            "the guard does: commit, rollback, drop, savepoint, rollback_to",
        ));
    }
    if is(first, &["SET"]) && !is(second, &["LOCAL", "TRANSACTION", "CONSTRAINTS"]) {
        return Some(("would hold for the next borrower, too", "SET LOCAL holds until the transaction ends"));
    }
    is(first, &["LISTEN", "PREPARE", "RESET", "DISCARD"])
        .then_some(("would change the session, which the next borrower has", "what a session keeps is nobody's here"))
}

/// The next word, after blanks, comments and empty statements, and what follows it.
fn word(mut sql: &str) -> (&str, &str) {
    loop {
        sql = sql.trim_start_matches(|c: char| c.is_whitespace() || c == ';');
        sql = if sql.starts_with("--") {
            sql.split_once('\n').map_or("", |(_, rest)| rest)
        } else if sql.starts_with("/*") {
            after_comment(sql)
        } else {
            break;
        };
    }
    sql.split_at(sql.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(sql.len()))
}

/// What follows a comment, which may hold others.
fn after_comment(sql: &str) -> &str {
    let (mut depth, mut at) = (0_usize, 0);
    let bytes = sql.as_bytes();
    while at < bytes.len() {
        let ends = match &bytes[at..bytes.len().min(at + 2)] {
            b"/*" => {
                depth += 1;
                false
            }
            b"*/" => {
                depth = depth.saturating_sub(1);
                true
            }
            _ => {
                at += 1;
                continue;
            }
        };
        at += 2;
        if ends && depth == 0 {
            break;
        }
    }
    sql.get(at..).unwrap_or_default()
}

/// A parameter that is already in PostgreSQL's binary form.
#[derive(Debug, Clone)]
pub struct Wire(pub Bytes);

impl ToSql for Wire {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.put_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::forbidden;

    #[test]
    fn what_ends_the_transaction_or_outlives_it_is_known_by_its_first_words() {
        let others = [
            "COMMIT",
            "end",
            ";;\n rollback to savepoint a",
            "/* a /* b */ c */ Abort",
            "-- why\nBEGIN",
            "start transaction",
            "PREPARE TRANSACTION 'a'",
            "SET search_path TO a",
            "set session b = 1",
            "LISTEN a",
            "prepare a AS SELECT 1",
            "RESET ALL",
            "DISCARD ALL",
        ];
        for sql in others {
            assert!(forbidden(sql).is_some(), "{sql}");
        }
        let own = [
            "SELECT 1",
            "SET LOCAL a = 1",
            "set\ntransaction READ ONLY",
            "SET CONSTRAINTS ALL DEFERRED",
            "SAVEPOINT a",
            "RELEASE SAVEPOINT a",
            "DO $$ BEGIN NULL; END $$",
            "",
            "-- COMMIT",
            "/* COMMIT",
            "ending",
            "\"commit\"",
            "/* é */ SELECT 1",
        ];
        for sql in own {
            assert!(forbidden(sql).is_none(), "{sql}");
        }
    }
}
