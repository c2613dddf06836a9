//! Who else works on a database: what is restored there would be mixed with what they write.
//!
//! Must not know: what is done about them.

use crate::store::{Error, Pool, Statement};
use std::time::Duration;

/// A session that has just ended is shown for a moment.
const MOMENT: Duration = Duration::from_millis(200);
const LOOKS: u32 = 10;

/// Sessions as trackd makes them. Names of other roles' sessions are shown to those only who may see them.
const QUESTION: &str = "SELECT format('%s from %s', pid, coalesce(host(client_addr), 'this host')) \
    FROM pg_catalog.pg_stat_activity WHERE datname = pg_catalog.current_database() \
    AND backend_type = 'client backend' AND pid <> pg_catalog.pg_backend_pid() \
    AND application_name IN ('trackd', pg_catalog.current_setting('application_name')) ORDER BY pid LIMIT 5";

/// Other trackds with a connection to the database of `pool`, as "4711 from 10.0.0.1"; at most five. `pool` must be of
/// one connection, or it finds its own.
///
/// Takes two seconds where there are some, for those that end meanwhile.
///
/// Cancel safety: safe.
///
/// # Errors
/// As the guard's.
pub async fn others(pool: &Pool) -> Result<Vec<String>, Error> {
    for look in 1.. {
        let rows = pool.query(Statement::new(QUESTION)).await?;
        if rows.is_empty() || look == LOOKS {
            return Ok(rows.iter().map(|row| row.get(0)).collect());
        }
        tokio::time::sleep(MOMENT).await;
    }
    Ok(Vec::new())
}
