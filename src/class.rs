//! The three classes of error, and the only tables that decide them.
//!
//! In: an SQLSTATE or an HTTP status. Out: what happens next (design, "Errors have one of three classes").
//! Must not know: tokio, the database client, the HTTP client, the clock.

use std::fmt;

/// What kind of failure this is, which decides what happens next.
///
/// ```text
///  retry     the other side is away or busy     backed off, tried again, never dropped
///  row       one row does not fit               that row is set aside, the others land
///  standing  it will fail again until changed   the run fails with a hint, shown red
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Network, 408/425/429/5xx, database away: backed off and tried again.
    Retry,
    /// This row does not fit: it goes to `trackd.rejects`, the others land.
    Row,
    /// Configuration, 401/403/404/410, not the documented shape: fails with a hint.
    Standing,
}

impl Class {
    /// The word used in `trackd.runs.error_class`, in logs and on pages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Class::Retry => "retry",
            Class::Row => "row",
            Class::Standing => "standing",
        }
    }

    /// The class of a PostgreSQL error code.
    ///
    /// Unknown codes are `Retry`: retry, and keep.
    ///
    /// Source: PostgreSQL manual, appendix A; design, section 5.
    pub fn of_sqlstate(code: &str) -> Class {
        match code {
            // lock_not_available, admin_shutdown, crash_shutdown, cannot_connect_now,
            // idle-session and database-dropped are the server's trouble, not ours.
            "55P03" | "57P01" | "57P02" | "57P03" | "57P05" => Class::Retry,
            // read_only_sql_transaction: a standby; another host, or later.
            "25006" => Class::Retry,
            // query_canceled by a timeout: the same statement may pass on a calmer server.
            "57014" => Class::Retry,
            // program_limit_exceeded: this row's key is too long for an index, or the row for a page.
            "54000" => Class::Row,
            // invalid_password and friends are 28; the database that is not there is 3D; 54 with a number is a
            // limit of the statement: too many columns, too complex.
            _ => match code.get(..2) {
                // 21 cardinality_violation: two rows whose keys only the server calls equal.
                Some("21" | "22" | "23" | "44") => Class::Row,
                Some("42" | "54" | "28" | "3D" | "3F" | "0A" | "0L" | "0P") => Class::Standing,
                // 08 connection, 40 rollback, 53 resources, 58 system, XX internal, and the unknown.
                _ => Class::Retry,
            },
        }
    }

    /// The class of an HTTP status that is not a success, or `None` for 2xx.
    ///
    /// Source: RFC 9110 section 15, RFC 6585; design, section 5.
    pub fn of_http_status(status: u16) -> Option<Class> {
        match status {
            200..=299 => None,
            408 | 425 | 429 | 500..=599 => Some(Class::Retry),
            _ => Some(Class::Standing),
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::Class;

    #[test]
    fn a_server_that_is_away_is_tried_again() {
        for code in ["08006", "40001", "40P01", "53300", "55P03", "57P01", "57P03", "25006", "57014"] {
            assert_eq!(Class::of_sqlstate(code), Class::Retry, "{code}");
        }
    }

    #[test]
    fn a_row_that_does_not_fit_is_that_rows_problem() {
        for code in ["22003", "22P02", "23502", "23503", "23505", "23514", "22P05", "21000", "54000"] {
            assert_eq!(Class::of_sqlstate(code), Class::Row, "{code}");
        }
    }

    #[test]
    fn a_missing_table_or_role_stands_until_somebody_acts() {
        for code in ["42P01", "42703", "42501", "28P01", "28000", "3D000", "54011"] {
            assert_eq!(Class::of_sqlstate(code), Class::Standing, "{code}");
        }
    }

    #[test]
    fn unknown_codes_are_kept_and_tried_again() {
        for code in ["", "9", "ZZ999", "XX000", "é"] {
            assert_eq!(Class::of_sqlstate(code), Class::Retry, "{code}");
        }
    }

    #[test]
    fn http_statuses_follow_the_table() {
        assert_eq!(Class::of_http_status(200), None);
        for status in [408, 425, 429, 500, 502, 503, 504, 599] {
            assert_eq!(Class::of_http_status(status), Some(Class::Retry), "{status}");
        }
        for status in [301, 400, 401, 403, 404, 405, 410, 422] {
            assert_eq!(Class::of_http_status(status), Some(Class::Standing), "{status}");
        }
    }
}
