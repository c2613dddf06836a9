//! The one place that reads the wall clock.
//!
//! Everything else gets its times as arguments, or asks here. Lengths of time are measured with
//! `std::time::Instant`, never with this.

use jiff::Timestamp;

/// Now, to the microsecond: PostgreSQL keeps no more, and a time must be equal to itself after a round trip.
pub fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}
