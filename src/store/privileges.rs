//! What the role that connects lacks to make and write the tables of a configuration.
//!
//! In: tables. Out: what is missing, with the statement that grants it. Changes nothing.

use super::merge::{qualified, quote};
use super::{Error, Pool, Statement};
use crate::shape::Table;
use std::sync::Arc;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

/// Something that the role may not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lack {
    /// "may not create tables in schema public".
    pub what: String,
    /// For somebody who may.
    pub grant: String,
}

/// By catalog, not by `to_regclass`: that refuses to look into a schema the role may not use.
const QUESTION: &str = "SELECT t.schema, t.name, current_user::text AS role, \
    pg_catalog.current_database()::text AS database, n.oid IS NOT NULL AS has_schema, c.oid IS NOT NULL AS has_table, \
    pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE') AS may_create_schema, \
    coalesce(pg_catalog.has_schema_privilege(n.oid, 'USAGE'), false) AS may_use, \
    coalesce(pg_catalog.has_schema_privilege(n.oid, 'CREATE'), false) AS may_create, \
    ARRAY(SELECT p FROM unnest('{SELECT,INSERT,UPDATE,DELETE}'::text[]) AS p \
          WHERE c.oid IS NOT NULL AND NOT pg_catalog.has_table_privilege(c.oid, p)) AS lacking \
    FROM unnest($1::text[], $2::text[]) AS t(schema, name) \
    LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = t.schema \
    LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = t.name";

/// What the role of `pool` lacks for these tables and for the ledger.
///
/// Shape: empty where nothing is missing; each schema once, then each table.
///
/// Cancel safety: safe; it only reads.
///
/// # Errors
/// As the guard's.
pub async fn lacks(pool: &Pool, tables: &[Arc<Table>]) -> Result<Vec<Lack>, Error> {
    let ledger = ["trackd.runs", "trackd.rejects"].into_iter();
    let names = ledger.chain(tables.iter().map(|table| table.name.as_str()));
    let (schemas, names): (Vec<String>, Vec<String>) = names.map(parts).unzip();
    let question = Statement::new(QUESTION).bind(schemas, Type::TEXT_ARRAY).bind(names, Type::TEXT_ARRAY);
    let rows = pool.query(question).await?;
    let mut lacks: Vec<Lack> = Vec::new();
    for lack in rows.iter().filter_map(of_schema).chain(rows.iter().filter_map(of_table)) {
        if !lacks.contains(&lack) {
            lacks.push(lack);
        }
    }
    Ok(lacks)
}

fn parts(name: &str) -> (String, String) {
    let (schema, table) = name.split_once('.').unwrap_or(("public", name));
    (schema.to_owned(), table.to_owned())
}

fn of_schema(row: &Row) -> Option<Lack> {
    let (schema, role): (&str, &str) = (row.get("schema"), row.get("role"));
    let (named, to) = (quote(schema), quote(role));
    if !row.get::<_, bool>("has_schema") {
        return (!row.get::<_, bool>("may_create_schema")).then(|| Lack {
            what: format!("{role} may not create schema {schema} in database {}", row.get::<_, &str>("database")),
            grant: format!("CREATE SCHEMA {named} AUTHORIZATION {to}"),
        });
    }
    if !row.get::<_, bool>("may_use") {
        return Some(Lack {
            what: format!("{role} may not use schema {schema}"),
            grant: format!("GRANT USAGE, CREATE ON SCHEMA {named} TO {to}"),
        });
    }
    let must_create = !row.get::<_, bool>("has_table") && !row.get::<_, bool>("may_create");
    must_create.then(|| Lack {
        what: format!("{role} may not create tables in schema {schema}"),
        grant: format!("GRANT CREATE ON SCHEMA {named} TO {to}"),
    })
}

fn of_table(row: &Row) -> Option<Lack> {
    let lacking: Vec<&str> = row.get("lacking");
    if lacking.is_empty() {
        return None;
    }
    let table = format!("{}.{}", row.get::<_, &str>("schema"), row.get::<_, &str>("name"));
    let (role, privileges) = (row.get::<_, &str>("role"), lacking.join(", "));
    Some(Lack {
        what: format!("{role} lacks {privileges} on {table}"),
        grant: format!("GRANT {privileges} ON {} TO {}", qualified(&table), quote(role)),
    })
}
