//! `target_session_attrs`: which kind of server is asked for, and which kind a session has found.
//!
//! Must not know: hosts, words, how a session is opened.

use super::target::{Link, Opened};
use crate::store::Error;
use tokio_postgres::SimpleQueryMessage;

/// `target_session_attrs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attributes {
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
    PreferStandby,
}

impl Attributes {
    pub(super) const NAMES: [(&str, Attributes); 6] = [
        ("any", Attributes::Any),
        ("read-write", Attributes::ReadWrite),
        ("read-only", Attributes::ReadOnly),
        ("primary", Attributes::Primary),
        ("standby", Attributes::Standby),
        ("prefer-standby", Attributes::PreferStandby),
    ];

    /// What is told of a server that is of another kind.
    pub(super) fn missed(self, operation: String) -> Error {
        let asked = Attributes::NAMES.iter().find(|(_, value)| *value == self).map_or("", |(name, _)| *name);
        match self {
            Attributes::ReadWrite => Error::standby(operation),
            _ => Error::unavailable(operation, format!("the server is not what target_session_attrs={asked} asks for")),
        }
    }

    /// Whether a session is of this kind: told by the server at its start since PostgreSQL 14, else asked.
    pub(super) async fn suit(self, opened: &mut Opened) -> Result<bool, tokio_postgres::Error> {
        if self == Attributes::Any {
            return Ok(true);
        }
        let (standby, read_only) = match told(&opened.link) {
            Some(told) => told,
            None => ask(opened).await?,
        };
        Ok(match self {
            Attributes::Any => true,
            Attributes::ReadWrite => !read_only,
            Attributes::ReadOnly => read_only,
            Attributes::Primary => !standby,
            Attributes::Standby | Attributes::PreferStandby => standby,
        })
    }
}

/// Standby, read-only: what the server said of itself at the start.
fn told(link: &Link) -> Option<(bool, bool)> {
    let is_on = |name| link.parameter(name).map(|value| value == "on");
    let (standby, read_only) = (is_on("in_hot_standby")?, is_on("default_transaction_read_only")?);
    Some((standby, standby || read_only))
}

/// Standby, read-only: through the session, which nobody else drives yet.
async fn ask(opened: &mut Opened) -> Result<(bool, bool), tokio_postgres::Error> {
    let sql = "SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('transaction_read_only') = 'on'";
    let answer = tokio::select! {
        answer = opened.client.simple_query(sql) => answer?,
        ended = &mut opened.link => {
            ended?;
            Vec::new()
        }
    };
    let row = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some((row.get(0) == Some("t"), row.get(1) == Some("t"))),
        _ => None,
    });
    Ok(row.unwrap_or((true, true)))
}
