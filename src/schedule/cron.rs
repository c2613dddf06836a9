//! Cron expressions in a time zone → instants.
//!
//! In: an expression, a zone, an instant. Out: the next instant, or a refusal that names the field.
//! Must not know: the clock, trackers, configuration files.
//!
//! ```text
//!  second (optional)  minute  hour  day-of-month  month  day-of-week      or @hourly, @daily, @midnight,
//!        0-59          0-59   0-23    1-31 L W     1-12    0-7 L #        @weekly, @monthly, @yearly, @annually
//! ```
//!
//! - Days follow Vixie cron: where day-of-month and day-of-week are both restricted, either of them is enough. A field
//!   with a `*`, also `*/2`, is not "restricted": then both must match (`0 0 */2 * MON` is Mondays with an odd date).
//! - When clocks go forward, a time of day that does not exist runs once, right after the gap. When they go back, a time
//!   of day that comes twice runs the first time only. Expressions with a `*` in the hour, minute or second, and those
//!   with more than [`MOST_TIMES`] times of day, follow elapsed time instead: nothing in the gap, both passes of the
//!   repeated hour.

use super::field::{self, Field, Kind};
use croner::parser::{CronParser, Seconds, Year};
use jiff::{Timestamp, Zoned, tz::TimeZone};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// A list of at most so many times of day is that many fixed-time jobs on the nights when clocks change.
pub const MOST_TIMES: u32 = 24;

/// A cron expression in a time zone. Cheap to clone; equal where text and zone are.
#[derive(Clone)]
pub struct Cron {
    text: Arc<str>,
    zone: TimeZone,
    /// One for each time of day, or a single one.
    patterns: Arc<[croner::Cron]>,
}

/// Why an expression is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CronError {
    /// Lower case, one line: names the field, what was expected and got.
    pub message: String,
    /// Bytes of the expression it is about.
    pub span: Range<usize>,
    /// What to write instead.
    pub hint: Option<String>,
}

impl Cron {
    /// Parses 5 or 6 fields or an @name; the zone is an IANA name's.
    ///
    /// # Errors
    /// The first part that does not fit its field, and dates that never come (30 February).
    pub fn parse(expression: &str, zone: TimeZone) -> Result<Cron, CronError> {
        let text = expression.trim();
        let fields = match text.strip_prefix('@') {
            Some(name) => Fields::read(named(name).map_err(|error| error.over(expression))?),
            None => Fields::read(expression),
        }?;
        let patterns = fields.patterns(zone.to_fixed_offset().is_err()).map_err(|error| error.over(expression))?;
        Ok(Cron { text: text.into(), zone, patterns: patterns.into() })
    }

    /// The first instant strictly after `after`, in whole seconds; `None` when the calendar ends first (year 5000).
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        self.patterns.iter().filter_map(|pattern| next_of(pattern, after, &self.zone)).min()
    }

    /// The expression as written, trimmed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The zone whose clock it follows.
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }
}

impl PartialEq for Cron {
    fn eq(&self, other: &Cron) -> bool {
        let same_zone = match (self.zone.iana_name(), other.zone.iana_name()) {
            (Some(one), Some(other)) => one == other,
            _ => self.zone == other.zone,
        };
        same_zone && self.text == other.text
    }
}

impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cron").field(&self.text).field(&self.zone.iana_name()).finish()
    }
}

impl fmt::Display for CronError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CronError {}

impl CronError {
    fn new(message: String, hint: Option<&str>) -> CronError {
        CronError { message, span: 0..0, hint: hint.map(str::to_owned) }
    }

    /// The same, about the whole of `expression`.
    fn over(mut self, expression: &str) -> CronError {
        let start = expression.len() - expression.trim_start().len();
        self.span = start..start + expression.trim().len();
        self
    }
}

/// The fields behind an @name.
fn named(name: &str) -> Result<&'static str, CronError> {
    match name.to_ascii_lowercase().as_str() {
        "hourly" => Ok("0 * * * *"),
        "daily" | "midnight" => Ok("0 0 * * *"),
        "weekly" => Ok("0 0 * * 0"),
        "monthly" => Ok("0 0 1 * *"),
        "yearly" | "annually" => Ok("0 0 1 1 *"),
        "reboot" => Err(CronError::new(
            "cron \"@reboot\": expected a time".to_owned(),
            Some("trackd runs what it missed when it starts: see `missed`; `trackd once` runs a tracker now"),
        )),
        other => Err(CronError::new(
            format!("cron \"@{other}\": unknown name"),
            Some("known are @hourly, @daily, @midnight, @weekly, @monthly, @yearly and @annually"),
        )),
    }
}

/// All six, checked.
struct Fields {
    second: Field,
    minute: Field,
    hour: Field,
    day: Field,
    month: Field,
    weekday: Field,
}

impl Fields {
    fn read(text: &str) -> Result<Fields, CronError> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (second, rest) = match words[..] {
            [second, ref rest @ ..] if rest.len() == 5 => (second, rest),
            ref rest if rest.len() == 5 => ("0", rest),
            _ => {
                let error = format!("cron {:?}: expected 5 or 6 fields, got {}", text.trim(), words.len());
                let hint = "[second] minute hour day-of-month month day-of-week, as in \"*/15 * * * *\"";
                return Err(CronError::new(error, Some(hint)).over(text));
            }
        };
        let read = |kind: &Kind, word| {
            kind.parse(word).map_err(|misfit| CronError {
                message: format!("{} field {:?}: {}", kind.name, misfit.part, misfit.expected),
                span: span_of(text, misfit.part),
                hint: None,
            })
        };
        Ok(Fields {
            second: read(&field::SECOND, second)?,
            minute: read(&field::MINUTE, rest[0])?,
            hour: read(&field::HOUR, rest[1])?,
            day: read(&field::DAY, rest[2])?,
            month: read(&field::MONTH, rest[3])?,
            weekday: read(&field::WEEKDAY, rest[4])?,
        })
    }

    fn patterns(&self, zone_changes: bool) -> Result<Vec<croner::Cron>, CronError> {
        if self.never() {
            let hint = "no month named here has such a day";
            return Err(CronError::new("day-of-month field: the date never comes".to_owned(), Some(hint)));
        }
        let clock = [&self.second, &self.minute, &self.hour];
        let times: u32 = clock.iter().map(|field| field.values.count_ones()).product();
        let fixed = clock.iter().all(|field| !field.star) && (2..=MOST_TIMES).contains(&times);
        if !(fixed && zone_changes) {
            return Ok(vec![self.pattern(&self.second.canonical, &self.minute.canonical, &self.hour.canonical)?]);
        }
        // croner sees a fixed-time job only in a single time of day.
        let mut patterns = Vec::new();
        for hour in ones(self.hour.values) {
            for minute in ones(self.minute.values) {
                for second in ones(self.second.values) {
                    patterns.push(self.pattern(&second.to_string(), &minute.to_string(), &hour.to_string())?);
                }
            }
        }
        Ok(patterns)
    }

    fn pattern(&self, second: &str, minute: &str, hour: &str) -> Result<croner::Cron, CronError> {
        CronParser::builder()
            .seconds(Seconds::Required)
            .year(Year::Disallowed)
            .dom_and_dow(self.day.star || self.weekday.star)
            .build()
            .parse(&format!(
                "{second} {minute} {hour} {} {} {}",
                self.day.canonical, self.month.canonical, self.weekday.canonical
            ))
            .map_err(|cause| CronError::new(format!("cron: {cause}"), None))
    }

    /// Whether no month has a day like this; a weekday that is enough by itself always comes.
    fn never(&self) -> bool {
        const LONGEST: [u32; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let by_weekday = !self.weekday.star && !self.day.star;
        let first_day = self.day.values.trailing_zeros();
        !by_weekday
            && !self.day.floating
            && ones(self.month.values).all(|month| first_day > LONGEST[month as usize - 1])
    }
}

/// The places of the bits that are set, upwards.
fn ones(bits: u64) -> impl Iterator<Item = u32> {
    (0..u64::BITS).filter(move |at| bits & (1 << at) != 0)
}

/// Where `part`, a slice of `text`, lies in it.
fn span_of(text: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr() as usize - text.as_ptr() as usize;
    start..start + part.len()
}

fn next_of(pattern: &croner::Cron, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    // croner counts in whole seconds and would carry the fraction along.
    let whole = i64::try_from(after.as_nanosecond().div_euclid(1_000_000_000)).ok()?;
    // A croner that ever answered with the past would stop its tracker or turn the daemon in circles: step over it.
    [0, 1, 60, 3_600, 86_400].into_iter().find_map(|skip| {
        let from = Zoned::new(Timestamp::from_second(whole.checked_add(skip)?).ok()?, zone.clone());
        let next = pattern.find_next_occurrence(&from, false).ok()?.timestamp();
        (next > after).then_some(next)
    })
}

#[cfg(test)]
#[path = "cron_tests.rs"]
mod tests;
