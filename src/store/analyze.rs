//! Brings the planner's statistics of tables that changed up to date.
//!
//! PostgreSQL does that by itself once a tenth of a table has changed; in a history of years, all of the last weeks is
//! less than that. Must not know: who asks, and when.

use super::merge::qualified;
use super::{Error, Pool, Statement};
use tokio_postgres::types::Type;

/// What was analyzed.
#[derive(Debug, Default)]
pub struct Analyzed {
    /// The tables, as they were named.
    pub tables: Vec<String>,
    /// Those that could not be, and why.
    pub failed: Vec<(String, Error)>,
}

/// Tables of the role (nobody else may analyze them) with rows that changed since they were last analyzed.
const CHANGED: &str = "SELECT t.name, t.quoted FROM unnest($1::text[], $2::text[]) AS t(name, quoted) \
    JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass(t.quoted) AND c.relkind = 'r' \
    JOIN pg_catalog.pg_stat_all_tables s ON s.relid = c.oid \
    WHERE s.n_mod_since_analyze > 0 AND pg_catalog.pg_has_role(c.relowner, 'USAGE') ORDER BY t.name";

/// Analyzes those of `tables`, and of the ledger's, that changed. A transaction each.
///
/// Cancel safety: safe; a table that was on its way is not analyzed.
///
/// # Errors
/// The database is away. A table that cannot be analyzed is named in the answer, the others go on.
pub async fn analyze(pool: &Pool, tables: &[String]) -> Result<Analyzed, Error> {
    let ledger = ["trackd.runs", "trackd.rejects"].map(str::to_owned);
    let names: Vec<String> = ledger.iter().chain(tables).cloned().collect();
    let quoted: Vec<String> = names.iter().map(|name| qualified(name)).collect();
    let question = Statement::new(CHANGED).bind(names, Type::TEXT_ARRAY).bind(quoted, Type::TEXT_ARRAY);
    let changed = pool.query(question).await?;
    let mut analyzed = Analyzed::default();
    for row in &changed {
        match one(pool, row.get("quoted")).await {
            Ok(()) => analyzed.tables.push(row.get("name")),
            Err(error) if error.is_away() && error.sqlstate().is_none() => return Err(error),
            Err(error) => analyzed.failed.push((row.get("name"), error)),
        }
    }
    Ok(analyzed)
}

async fn one(pool: &Pool, quoted: &str) -> Result<(), Error> {
    let mut guard = pool.begin().await?;
    guard.batch("analyze", &format!("ANALYZE {quoted}")).await?;
    guard.commit().await.map(drop)
}
