//! Writing: batches → rows of a data table, inside the caller's guard.
//!
//! ```text
//!  few rows   arrays in one statement, deferred: they travel with COMMIT
//!  many rows  binary COPY, chunk by chunk while the next is shaped: into the table (snapshot),
//!             or into a staging table of the transaction and then one merge for the set; so also
//!             where somebody gave a column another type, which would take the bytes for its own
//! ```
//!
//! Must not know: where batches come from, what a run is.

use super::late::{self, Next};
use super::merge::{self, Incoming, Merge};
use super::{Error, Guard, Statement, Wire, arrays, ledger};
use crate::shape::{self, History, Reject, Rows, Stamp, Table, Tally};
use bytes::Bytes;
use std::borrow::Cow;
use std::sync::Arc;
use tokio_postgres::types::Type;

/// Up to so many rows travel as arrays: below it a COPY's round trips cost more than they save.
const ARRAY_ROWS: u64 = 500;
/// And up to so many bytes.
const ARRAY_BYTES: usize = 256 * 1024;
/// Rows of a table kept for the status page.
const SAMPLE_ROWS: usize = 5;
/// And their bytes.
const SAMPLE_BYTES: usize = 16 * 1024;

/// A part of what shaping gives for one table.
#[derive(Debug)]
pub enum Part {
    /// Some rows.
    Rows(Rows),
    /// The table's last part.
    End(Tally),
}

/// The parts of all tables of a run, table after table.
pub trait Parts: Send {
    /// The next part.
    ///
    /// # Errors
    /// The body is not the documented shape; nothing of it may land.
    fn next(&mut self) -> impl Future<Output = Result<Part, shape::Error>> + Send;
}

/// Why rows did not land.
#[derive(Debug)]
pub enum Failure {
    /// The body is not the documented shape.
    Shape(shape::Error),
    /// The database refused, or is away.
    Store(Error),
    /// Rows were set aside, and the tracker asks for all or nothing.
    BadRow { table: String, reject: Reject, rejected: u64 },
    /// The server refuses so many rows that looking for further ones would do it more harm than good.
    Refused { table: String, first: Reject },
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Store(error)
    }
}

impl From<shape::Error> for Failure {
    fn from(error: shape::Error) -> Failure {
        Failure::Shape(error)
    }
}

/// What was written for one table.
#[derive(Debug)]
pub struct Written {
    /// Rows the program yielded.
    pub read: u64,
    /// Rows inserted, updated, closed or deleted.
    pub rows: u64,
    /// Rows set aside.
    pub rejected: u64,
    /// The first of them, for the run's record.
    pub first_reject: Option<Reject>,
    /// A few of the rows, for people.
    pub sample: Rows,
}

/// How a batch is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Care {
    /// As sets; a row the server refuses fails the guard.
    Sets,
    /// Staged and halved until the rows the server refuses stand alone; those are set aside.
    Halves,
}

/// Writes one table's rows. Its statements, made once for a configuration.
#[derive(Debug)]
pub struct Writer {
    table: Arc<Table>,
    types: Vec<Type>,
    arrays: Merges,
    staged: Merges,
}

/// What brings rows in.
#[derive(Debug, Clone)]
struct Merges {
    rows: Vec<Merge>,
    absent: Option<Merge>,
}

impl Merges {
    fn of(table: &Table, incoming: Incoming) -> Merges {
        Merges { rows: merge::rows(table, incoming), absent: merge::absent(table, incoming) }
    }

    fn late(table: &Table, incoming: Incoming, next: &Next) -> Merges {
        Merges { rows: late::rows(table, incoming, next), absent: late::absent(table, incoming, next) }
    }

    /// What is absent is not known where rows were set aside.
    fn of_rows(&self, rejected: bool) -> Vec<&Merge> {
        self.rows.iter().chain(self.absent.as_ref().filter(|_| !rejected)).collect()
    }
}

impl Writer {
    /// The writer of a table.
    pub fn new(table: Arc<Table>) -> Writer {
        Writer {
            types: table.columns.iter().map(|column| arrays::wire_type(&column.ty.scalar)).collect(),
            arrays: Merges::of(&table, Incoming::Arrays),
            staged: Merges::of(&table, Incoming::Staged),
            table,
        }
    }

    /// The table.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// Writes the table's parts up to its `Part::End`.
    ///
    /// Cancel safety: dropping the future leaves the guard to be rolled back.
    ///
    /// # Errors
    /// `Failure`; the guard can then only be dropped.
    pub async fn write(
        &self,
        guard: &mut Guard,
        stamp: &Stamp,
        parts: &mut impl Parts,
        care: Care,
    ) -> Result<Written, Failure> {
        let (head, mut tally) = self.head(parts).await?;
        let sample = sample(&head);
        let fits = tally.is_some() && care == Care::Sets && !self.table.columns.iter().any(|column| column.ty.array);
        let mut set_aside = Vec::new();
        let rows = match &tally {
            Some(tally) if fits => self.by_arrays(guard, stamp, &head, tally).await?,
            _ => {
                let staged = care == Care::Halves || !self.takes_copies(guard).await?;
                let sent = self.copy(guard, care, staged, head, parts, &mut tally).await?;
                match care {
                    Care::Sets if !staged => sent,
                    Care::Sets => self.merge_staged(guard, stamp, tally.as_ref()).await?,
                    Care::Halves => self.merge_halves(guard, stamp, sent, tally.as_ref(), &mut set_aside).await?,
                }
            }
        };
        let mut tally = tally.unwrap_or_default();
        tally.rejected += set_aside.len() as u64;
        tally.rejects.append(&mut set_aside);
        if !tally.rejects.is_empty() {
            guard.defer(ledger::set_aside(stamp.run_id, &self.table.name, &tally.rejects));
        }
        let first_reject = tally.rejects.into_iter().next();
        Ok(Written { read: tally.read, rows, rejected: tally.rejected, first_reject, sample })
    }

    /// Takes parts until the table ends or there is more than arrays should carry.
    async fn head(&self, parts: &mut impl Parts) -> Result<(Rows, Option<Tally>), Failure> {
        let mut head = Rows::default();
        while head.count <= ARRAY_ROWS && head.data.len() <= ARRAY_BYTES {
            match parts.next().await? {
                Part::End(tally) => return Ok((head, Some(tally))),
                Part::Rows(rows) if head.count == 0 => head = rows,
                Part::Rows(rows) => {
                    head.data.extend_from_slice(&rows.data);
                    head.count += rows.count;
                }
            }
        }
        Ok((head, None))
    }

    /// Sends few rows as arrays. A snapshot's count is known, so its statement waits for COMMIT.
    async fn by_arrays(&self, guard: &mut Guard, stamp: &Stamp, rows: &Rows, tally: &Tally) -> Result<u64, Failure> {
        if rows.count == 0 && (self.arrays.absent.is_none() || tally.rejected > 0) {
            return Ok(0);
        }
        let merges = self.merges(guard, stamp, Incoming::Arrays).await?;
        let merges = merges.of_rows(tally.rejected > 0);
        let arrays = arrays::columns(rows, &self.types);
        for merge in &merges {
            let statement =
                Statement::new(merge.sql.clone()).bind(stamp.at, Type::TIMESTAMPTZ).bind(stamp.run_id, Type::UUID);
            let bind = |statement: Statement, (array, ty): (&Bytes, &Type)| {
                statement.bind(Wire(array.clone()), arrays::of(ty))
            };
            guard.defer(arrays.iter().zip(&self.types).fold(statement, bind));
        }
        if self.table.history == History::Snapshot {
            return Ok(rows.count);
        }
        let counts = guard.flush().await?;
        Ok(counted(&merges, &counts))
    }

    /// The statements for a run: others, where one of a later instant has landed.
    async fn merges(&self, guard: &mut Guard, stamp: &Stamp, incoming: Incoming) -> Result<Cow<'_, Merges>, Error> {
        Ok(match (late::next(guard, &self.table, stamp).await?, incoming) {
            (Some(next), _) => Cow::Owned(Merges::late(&self.table, incoming, &next)),
            (None, Incoming::Arrays) => Cow::Borrowed(&self.arrays),
            (None, Incoming::Staged) => Cow::Borrowed(&self.staged),
            (None, Incoming::Range) => Cow::Owned(Merges::of(&self.table, incoming)),
        })
    }

    /// Whether rows may be copied into the table itself: a snapshot, each of whose columns has, and keeps, the type that
    /// they are the bytes of.
    async fn takes_copies(&self, guard: &mut Guard) -> Result<bool, Error> {
        if self.table.history != History::Snapshot {
            return Ok(false);
        }
        let columns = || self.table.columns.iter();
        let same = Statement::new(merge::OF_THESE_TYPES)
            .bind(merge::qualified(&self.table.name), Type::TEXT)
            .bind(columns().map(|column| column.name.clone()).collect::<Vec<_>>(), Type::TEXT_ARRAY)
            .bind(columns().map(|column| column.ty.to_string()).collect::<Vec<_>>(), Type::TEXT_ARRAY);
        guard.defer(Statement::new(merge::hold(&self.table)));
        let found = guard.query(same).await?;
        Ok(found.first().is_some_and(|row| row.get::<_, i64>(0) == columns().len() as i64))
    }

    /// Streams the head and all further parts by COPY. Returns the rows sent.
    async fn copy(
        &self,
        guard: &mut Guard,
        care: Care,
        staged: bool,
        head: Rows,
        parts: &mut impl Parts,
        tally: &mut Option<Tally>,
    ) -> Result<u64, Failure> {
        if staged {
            guard.defer(Statement::new(merge::create_staging(&self.table, care == Care::Halves)));
        }
        let mut copy = guard.copy_in(&merge::copy(&self.table, staged)).await?;
        if head.count > 0 {
            copy.send(Bytes::from(head.data)).await?;
        }
        while tally.is_none() {
            match parts.next().await? {
                Part::Rows(rows) => copy.send(Bytes::from(rows.data)).await?,
                Part::End(end) => *tally = Some(end),
            }
        }
        Ok(copy.finish().await?)
    }

    async fn merge_staged(&self, guard: &mut Guard, stamp: &Stamp, tally: Option<&Tally>) -> Result<u64, Failure> {
        let merges = self.merges(guard, stamp, Incoming::Staged).await?;
        let merges = merges.of_rows(tally.is_some_and(|tally| tally.rejected > 0));
        let statement = |merge: &Merge| {
            Statement::new(merge.sql.clone()).bind(stamp.at, Type::TIMESTAMPTZ).bind(stamp.run_id, Type::UUID)
        };
        // A fresh table has no statistics, and the merge is planned by them.
        guard.defer(Statement::new(merge::analyze_staging(&self.table)));
        merges.iter().for_each(|merge| guard.defer(statement(merge)));
        let counts = guard.flush().await?;
        Ok(counted(&merges, &counts))
    }

    /// Merges the staged rows in halves: a half that the server refuses is split until single rows stand alone.
    ///
    /// Up to `REJECTS_KEPT` of them: each costs the server subtransactions, of which it has a limited number.
    async fn merge_halves(
        &self,
        guard: &mut Guard,
        stamp: &Stamp,
        staged: u64,
        tally: Option<&Tally>,
        set_aside: &mut Vec<Reject>,
    ) -> Result<u64, Failure> {
        let merges = self.merges(guard, stamp, Incoming::Range).await?;
        let merges: Vec<&Merge> = merges.rows.iter().collect();
        let mut written = 0;
        let mut ranges = vec![(1, staged as i64)];
        while let Some((first, last)) = ranges.pop() {
            if first > last {
                continue;
            }
            guard.batch("set a savepoint", "SAVEPOINT trackd_half").await?;
            for merge in &merges {
                guard.defer(ranged(&merge.sql, stamp, first, last));
            }
            match guard.flush().await {
                Ok(counts) => {
                    written += counted(&merges, &counts);
                    guard.batch("release a savepoint", "RELEASE SAVEPOINT trackd_half").await?;
                }
                Err(error) if error.class() == crate::class::Class::Row => {
                    guard.rollback_to("trackd_half").await?;
                    if first < last {
                        let middle = first + (last - first) / 2;
                        // The first half is popped first: rows keep their order.
                        ranges.extend([(middle + 1, last), (first, middle)]);
                    } else if set_aside.len() < shape::REJECTS_KEPT {
                        set_aside.push(self.refused(guard, first, &error).await?);
                    } else {
                        let first = set_aside.swap_remove(0);
                        return Err(Failure::Refused { table: self.table.name.clone(), first });
                    }
                }
                Err(error) => return Err(Failure::Store(error)),
            }
        }
        let bad = !set_aside.is_empty() || tally.is_some_and(|tally| tally.rejected > 0);
        let all = self.merges(guard, stamp, Incoming::Staged).await?;
        if let Some(absent) = all.absent.as_ref().filter(|_| !bad) {
            guard.defer(
                Statement::new(absent.sql.clone()).bind(stamp.at, Type::TIMESTAMPTZ).bind(stamp.run_id, Type::UUID),
            );
            written += guard.flush().await?.iter().sum::<u64>();
        }
        Ok(written)
    }

    async fn refused(&self, guard: &mut Guard, row: i64, error: &Error) -> Result<Reject, Failure> {
        let found = guard.query(Statement::new(merge::staged_row(&self.table)).bind(row, Type::INT8)).await?;
        let row = found.first().map_or_else(|| "null".to_owned(), |row| row.get(0));
        Ok(Reject { row, reason: error.to_string() })
    }
}

/// The rows that these, the last of a flight, have written.
fn counted(merges: &[&Merge], counts: &[u64]) -> u64 {
    let ours = &counts[counts.len() - merges.len()..];
    merges.iter().zip(ours).filter(|(merge, _)| merge.counts).map(|(_, count)| count).sum()
}

fn ranged(sql: &str, stamp: &Stamp, first: i64, last: i64) -> Statement {
    Statement::new(sql.to_owned())
        .bind(stamp.at, Type::TIMESTAMPTZ)
        .bind(stamp.run_id, Type::UUID)
        .bind(first, Type::INT8)
        .bind(last, Type::INT8)
}

/// The first tuples of a batch.
fn sample(rows: &Rows) -> Rows {
    let mut end = 0;
    let mut count = 0;
    while count < rows.count.min(SAMPLE_ROWS as u64) {
        let next = end + tuple_length(&rows.data[end..]);
        if next > SAMPLE_BYTES && count > 0 {
            break;
        }
        (end, count) = (next, count + 1);
    }
    Rows { data: rows.data[..end].to_vec(), count }
}

fn tuple_length(tuple: &[u8]) -> usize {
    let fields = u16::from_be_bytes([tuple[0], tuple[1]]);
    (0..fields).fold(2, |at, _| {
        let length = i32::from_be_bytes([tuple[at], tuple[at + 1], tuple[at + 2], tuple[at + 3]]);
        at + 4 + length.max(0) as usize
    })
}
