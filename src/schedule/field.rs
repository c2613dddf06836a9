//! One field of a cron expression: checked, and rewritten in the numbers that croner takes.
//!
//! In: the text between two blanks. Out: what it matches, or what was expected instead.
//! Must not know: other fields, dates, zones.

/// What one field matches.
#[derive(Debug, Clone, Default)]
pub(super) struct Field {
    /// In croner's words: numbers only.
    pub(super) canonical: String,
    /// One bit a value; days given as `15W` count, `L` and `5#2` do not.
    pub(super) values: u64,
    /// Holds a `*`, with or without a step: Vixie cron's word for "not restricted".
    pub(super) star: bool,
    /// Holds `L` or `#`, whose days depend on the month.
    pub(super) floating: bool,
}

/// A part that does not fit its field.
#[derive(Debug)]
pub(super) struct Misfit<'a> {
    /// The part, a slice of the field.
    pub(super) part: &'a str,
    /// What it should have been.
    pub(super) expected: String,
}

/// What a field may hold.
#[derive(Debug)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    low: u8,
    high: u8,
    /// Names of the values, the first is `low`.
    names: &'static [&'static str],
}

pub(super) const SECOND: Kind = Kind { name: "second", low: 0, high: 59, names: &[] };
pub(super) const MINUTE: Kind = Kind { name: "minute", low: 0, high: 59, names: &[] };
pub(super) const HOUR: Kind = Kind { name: "hour", low: 0, high: 23, names: &[] };
pub(super) const DAY: Kind = Kind { name: "day-of-month", low: 1, high: 31, names: &[] };
pub(super) const MONTH: Kind = Kind {
    name: "month",
    low: 1,
    high: 12,
    names: &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"],
};
pub(super) const WEEKDAY: Kind =
    Kind { name: "day-of-week", low: 0, high: 7, names: &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"] };

impl Kind {
    /// Reads a list of parts.
    pub(super) fn parse<'a>(&self, text: &'a str) -> Result<Field, Misfit<'a>> {
        let mut field = Field::default();
        let mut parts = Vec::new();
        for part in text.split(',') {
            let canonical = self.part(part, &mut field).map_err(|expected| Misfit { part, expected })?;
            parts.push(canonical);
        }
        // croner knows `*` only alone.
        field.canonical = if parts.iter().any(|part| part == "*") { "*".to_owned() } else { parts.join(",") };
        Ok(field)
    }

    fn part(&self, part: &str, field: &mut Field) -> Result<String, String> {
        if let Some(canonical) = self.floating(part, field)? {
            return Ok(canonical);
        }
        let (base, step) = match part.split_once('/') {
            Some((base, step)) => (base, Some(self.step(step)?)),
            None => (part, None),
        };
        let (first, last, canonical) = self.base(base, step.is_some(), field)?;
        for value in (first..=last).step_by(step.unwrap_or(1)) {
            field.values |= 1 << self.fold(value);
        }
        Ok(match step {
            None | Some(1) => canonical,
            Some(step) => format!("{canonical}/{step}"),
        })
    }

    /// `*`, `5` or `1-5`, as its first value, its last value and its canonical text.
    fn base(&self, base: &str, stepped: bool, field: &mut Field) -> Result<(u8, u8, String), String> {
        if base == "*" {
            field.star = true;
            return Ok((self.low, self.high, "*".to_owned()));
        }
        if let Some((first, last)) = base.split_once('-') {
            let first = self.value(first)?;
            let mut last = self.value(last)?;
            if self.high == WEEKDAY.high && last == 0 && first > 0 {
                last = 7;
            }
            if first > last {
                return Err("expected a range that goes upwards".to_owned());
            }
            return Ok((first, last, format!("{first}-{last}")));
        }
        let value = self.value(base)?;
        if stepped {
            return Err(format!("expected a step after `*` or a range, as in `{value}-{}/…`", self.high));
        }
        Ok((value, value, value.to_string()))
    }

    /// `L`, `LW`, `15W`, `5L` and `5#2`, where the field has them.
    fn floating(&self, part: &str, field: &mut Field) -> Result<Option<String>, String> {
        let upper = part.to_ascii_uppercase();
        if self.name == DAY.name {
            if upper == "L" || upper == "LW" {
                field.floating = true;
                return Ok(Some(upper));
            }
            if let Some(day) = upper.strip_suffix('W') {
                let day = self.value(day)?;
                field.values |= 1 << day;
                return Ok(Some(format!("{day}W")));
            }
        }
        if self.name == WEEKDAY.name {
            let nth = match upper.split_once('#') {
                Some((day, nth @ ("1" | "2" | "3" | "4" | "5"))) => Some((day, nth)),
                Some(_) => return Err("expected `#1` to `#5`".to_owned()),
                None => upper.strip_suffix('L').map(|day| (day, "L")),
            };
            if let Some((day, nth)) = nth {
                field.floating = true;
                return Ok(Some(format!("{}#{nth}", self.fold(self.value(day)?))));
            }
        }
        Ok(None)
    }

    fn value(&self, text: &str) -> Result<u8, String> {
        if let Some(at) = self.names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
            return Ok(self.low + u8::try_from(at).expect("a field has at most 12 names"));
        }
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse::<u8>() {
            Ok(value) if digits && (self.low..=self.high).contains(&value) => Ok(value),
            _ => Err(self.expected()),
        }
    }

    fn step(&self, text: &str) -> Result<usize, String> {
        let most = usize::from(self.high - self.low);
        match text.parse::<usize>() {
            Ok(step) if (1..=most).contains(&step) && !text.starts_with('+') => Ok(step),
            _ => Err(format!("expected a step of 1-{most}")),
        }
    }

    /// Sunday is 0 and 7.
    fn fold(&self, value: u8) -> u8 {
        if self.high == WEEKDAY.high { value % 7 } else { value }
    }

    fn expected(&self) -> String {
        let range = format!("expected {}-{}", self.low, self.high);
        match (self.names.first(), self.names.last()) {
            (Some(first), Some(last)) => format!("{range} or {first}-{last}"),
            _ => range,
        }
    }
}
