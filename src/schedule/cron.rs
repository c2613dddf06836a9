//! Stand-in of the skeleton.
use jiff::Timestamp;
#[derive(Debug, Clone, PartialEq)]
pub struct Cron {}
/// Why an expression is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CronError {
    /// Lower case, one line: names the field, what was expected and got.
    pub message: String,
    /// Bytes of the expression it is about.
    pub span: std::ops::Range<usize>,
    pub hint: Option<String>,
}
impl Cron {
    /// Parses 5 or 6 fields or an @name; the zone is an IANA name's.
    pub fn parse(_expression: &str, _zone: jiff::tz::TimeZone) -> Result<Cron, CronError> {
        Ok(Cron {})
    }
    pub fn next_after(&self, _after: Timestamp) -> Option<Timestamp> {
        None
    }
}
