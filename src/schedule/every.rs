//! Stand-in of the skeleton.
use jiff::Timestamp;
use std::time::Duration;
#[derive(Debug, Clone, PartialEq)]
pub struct Every {}
impl Every {
    /// `period` is 100 ms to 365 days, whole milliseconds. Err: one line.
    pub fn new(_period: Duration) -> Result<Every, String> {
        Ok(Every {})
    }
    pub fn next_after(&self, _after: Timestamp) -> Option<Timestamp> {
        None
    }
}
