//! A server-side cursor: a large answer in pieces of bounded memory.
//!
//! Must not know: what is read.

use super::{Guard, Statement};
use crate::store::Error;
use tokio_postgres::Row;

/// An answer read piece by piece. It ends with its guard at the latest.
#[derive(Debug)]
pub struct Cursor<'a> {
    guard: &'a mut Guard,
    name: u32,
    rows: u32,
    ended: bool,
}

impl Guard {
    /// Opens a cursor on a query, to be read `rows` rows at a time, one round trip each.
    ///
    /// Cancel safety: as `Guard::flush`.
    ///
    /// # Errors
    /// As `flush`.
    pub async fn cursor(&mut self, query: Statement, rows: u32) -> Result<Cursor<'_>, Error> {
        self.cursors += 1;
        let name = self.cursors;
        let declare = format!("DECLARE trackd_cursor_{name} NO SCROLL CURSOR FOR {}", query.sql);
        self.query(query.with(declare)).await?;
        Ok(Cursor { guard: self, name, rows: rows.max(1), ended: false })
    }
}

impl Cursor<'_> {
    /// The next rows; none at the end.
    ///
    /// Cancel safety: dropping the future leaves the guard to be rolled back.
    ///
    /// # Errors
    /// As `Guard::query`.
    pub async fn next(&mut self) -> Result<Vec<Row>, Error> {
        if self.ended {
            return Ok(Vec::new());
        }
        let fetch = format!("FETCH FORWARD {} FROM trackd_cursor_{}", self.rows, self.name);
        let rows = self.guard.query(Statement::new(fetch)).await?;
        self.ended = (rows.len() as u64) < u64::from(self.rows);
        Ok(rows)
    }

    /// Frees what the server holds for it, with the guard's next flight.
    pub fn close(self) {
        self.guard.defer(Statement::new(format!("CLOSE trackd_cursor_{}", self.name)));
    }
}
