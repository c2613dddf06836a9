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
