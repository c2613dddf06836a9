//! Decimal digits ↔ PostgreSQL's binary numeric, exact: no float in between.
//!
//! In: digits as JSON or PostgreSQL writes them. Out: numeric's wire form, or an exact scaled integer.
//! Must not know: JSON, columns.
//!
//! Source: PostgreSQL `src/backend/utils/adt/numeric.c`, `numeric_send`, `make_result`, `apply_typmod`.

use std::fmt::Write as _;

/// Digits before and after the point that numeric holds.
const MAX_BEFORE: i64 = 131_072;
const MAX_AFTER: i64 = 16_383;

const POSITIVE: u16 = 0x0000;
const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
const INFINITY: u16 = 0xD000;
const NEGATIVE_INFINITY: u16 = 0xF000;

const OUT_OF_RANGE: &str = "out of range";

/// A decimal number as written: sign, digits around the point, exponent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Decimal<'a> {
    negative: bool,
    before: &'a [u8],
    after: &'a [u8],
    exponent: i64,
}

impl<'a> Decimal<'a> {
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let (negative, rest) = match text.as_bytes() {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        let (before, rest) = split_digits(rest);
        let (after, rest) = match rest {
            [b'.', rest @ ..] => split_digits(rest),
            rest => (&[][..], rest),
        };
        let exponent = match rest {
            [] => 0,
            [b'e' | b'E', rest @ ..] => exponent(rest)?,
            _ => return None,
        };
        (!before.is_empty() || !after.is_empty()).then_some(Decimal { negative, before, after, exponent })
    }

    /// Whether numeric can hold it.
    pub(super) fn fits(&self) -> bool {
        let (digits, point) = self.significant();
        self.scale() <= MAX_AFTER && (digits.is_empty() || point <= MAX_BEFORE)
    }

    /// The value times 10^power, rounded half away from zero, or refused when `exact` and there is a rest.
    pub(super) fn scaled(&self, power: i64, exact: bool) -> Result<i64, &'static str> {
        let (digits, point) = self.significant();
        let kept = point.saturating_add(power);
        if digits.is_empty() {
            return Ok(0);
        }
        if kept > 19 {
            return Err(OUT_OF_RANGE);
        }
        let rest = usize::try_from(kept).map_or(Some(&0), |kept| digits.get(kept));
        if exact && (kept < 0 || rest.is_some()) {
            return Err("not a whole number");
        }
        let whole = (0..usize::try_from(kept).unwrap_or(0))
            .fold(0_i128, |sum, i| sum * 10 + i128::from(digits.get(i).copied().unwrap_or(0)));
        let rounded = whole + i128::from(rest.is_some_and(|&d| d >= 5));
        i64::try_from(if self.negative { -rounded } else { rounded }).map_err(|_| OUT_OF_RANGE)
    }

    /// Digits after the point that the writing shows.
    fn scale(&self) -> i64 {
        (self.after.len() as i64).saturating_sub(self.exponent).max(0)
    }

    /// The digits (0 to 9) without zeros around them, and how many of them stand before the point.
    fn significant(&self) -> (Vec<u8>, i64) {
        let mut digits: Vec<u8> = self.before.iter().chain(self.after).map(|b| b - b'0').collect();
        let zeros = digits.iter().take_while(|&&d| d == 0).count();
        digits.drain(..zeros);
        let point = (self.before.len() as i64 - zeros as i64).saturating_add(self.exponent);
        trim_end(&mut digits);
        (digits, point)
    }

    fn encode(&self, typmod: Option<(u16, i16)>, out: &mut Vec<u8>) -> Result<(), &'static str> {
        if !self.fits() {
            return Err(OUT_OF_RANGE);
        }
        let (mut digits, mut point) = self.significant();
        let mut scale = self.scale();
        if let Some((precision, places)) = typmod {
            round(&mut digits, &mut point, i64::from(places));
            if !digits.is_empty() && point > i64::from(precision) - i64::from(places) {
                return Err(OUT_OF_RANGE);
            }
            scale = i64::from(places).max(0);
        }
        // Groups of four digits, aligned to the point.
        let weight = if digits.is_empty() { 0 } else { (point - 1).div_euclid(4) };
        let pad = if digits.is_empty() { 0 } else { (4 * (weight + 1) - point) as usize };
        let mut padded = vec![0; pad];
        padded.append(&mut digits);
        let groups: Vec<u16> = padded
            .chunks(4)
            .map(|group| (0..4).fold(0, |sum, i| sum * 10 + u16::from(group.get(i).copied().unwrap_or(0))))
            .collect();
        put(out, self.negative, weight as i16, scale as u16, &groups);
        Ok(())
    }
}

fn split_digits(bytes: &[u8]) -> (&[u8], &[u8]) {
    bytes.split_at(bytes.iter().take_while(|b| b.is_ascii_digit()).count())
}

/// The exponent, capped far outside of what any type holds.
fn exponent(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let size = digits.iter().fold(0_i64, |sum, b| (sum * 10 + i64::from(b - b'0')).min(1 << 40));
    Some(if negative { -size } else { size })
}

fn trim_end(digits: &mut Vec<u8>) {
    while digits.last() == Some(&0) {
        digits.pop();
    }
}

/// Rounds half away from zero to so many places after the point.
fn round(digits: &mut Vec<u8>, point: &mut i64, places: i64) {
    let Ok(kept) = usize::try_from(*point + places) else { return digits.clear() };
    let Some(&next) = digits.get(kept) else { return };
    digits.truncate(kept);
    if next >= 5 {
        while digits.last() == Some(&9) {
            digits.pop();
        }
        match digits.last_mut() {
            Some(last) => *last += 1,
            None => {
                digits.push(1);
                *point += 1;
            }
        }
    }
    trim_end(digits);
}

fn put(out: &mut Vec<u8>, negative: bool, weight: i16, scale: u16, groups: &[u16]) {
    let sign = if negative && !groups.is_empty() { NEGATIVE } else { POSITIVE };
    let weight = if groups.is_empty() { 0 } else { weight };
    out.extend_from_slice(&(groups.len() as u16).to_be_bytes());
    out.extend_from_slice(&weight.to_be_bytes());
    out.extend_from_slice(&sign.to_be_bytes());
    out.extend_from_slice(&scale.to_be_bytes());
    for group in groups {
        out.extend_from_slice(&group.to_be_bytes());
    }
}

/// Appends the wire form of a number.
///
/// # Errors
/// It is no number, or numeric (or this precision) cannot hold it: why.
pub(super) fn numeric(text: &str, typmod: Option<(u16, i16)>, out: &mut Vec<u8>) -> Result<(), &'static str> {
    if quick(text.as_bytes(), typmod, out).is_some() {
        return Ok(());
    }
    if let Some(decimal) = Decimal::parse(text) {
        return decimal.encode(typmod, out);
    }
    let sign = match text.to_ascii_lowercase().as_str() {
        "nan" => NAN,
        _ if typmod.is_some() => return Err(""),
        "infinity" | "inf" | "+infinity" | "+inf" => INFINITY,
        "-infinity" | "-inf" => NEGATIVE_INFINITY,
        _ => return Err(""),
    };
    for half in [0, 0, sign, 0] {
        out.extend_from_slice(&half.to_be_bytes());
    }
    Ok(())
}

/// The common case without an allocation: few digits, no exponent, nothing to round.
fn quick(text: &[u8], typmod: Option<(u16, i16)>, out: &mut Vec<u8>) -> Option<()> {
    let (negative, text) = match text {
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let (before, whole, rest) = quick_digits(text)?;
    let (after, part) = match rest {
        [] => (0, 0),
        [b'.', rest @ ..] => {
            let (count, part, rest) = quick_digits(rest)?;
            rest.is_empty().then_some((count, part))?
        }
        _ => return None,
    };
    let scale = match typmod {
        None => after,
        Some((precision, places)) => {
            let places = usize::try_from(places).ok()?;
            (after <= places && before + places <= usize::from(precision)).then_some(places)?
        }
    };
    // Sixteen digits on each side: four groups, then four.
    let mut groups = [0_u16; 8];
    split(whole, &mut groups[..4]);
    split(part * 10_u64.pow(16 - after as u32), &mut groups[4..]);
    let first = groups.iter().position(|&g| g != 0).unwrap_or(8);
    let last = groups.iter().rposition(|&g| g != 0).map_or(first, |last| last + 1);
    put(out, negative, 3 - first as i16, scale as u16, &groups[first..last]);
    Some(())
}

/// One to sixteen digits: how many, their value, and what follows.
fn quick_digits(text: &[u8]) -> Option<(usize, u64, &[u8])> {
    let (mut value, mut count) = (0_u64, 0);
    while let Some(digit) = text.get(count).map(|b| b.wrapping_sub(b'0')).filter(|&d| d < 10) {
        if count == 16 {
            return None;
        }
        value = value * 10 + u64::from(digit);
        count += 1;
    }
    (count > 0).then_some((count, value, &text[count..]))
}

fn split(mut value: u64, groups: &mut [u16]) {
    for group in groups.iter_mut().rev() {
        if value == 0 {
            return;
        }
        *group = (value % 10_000) as u16;
        value /= 10_000;
    }
}

/// A numeric field back to text, as PostgreSQL shows it.
pub(super) fn text(field: &[u8]) -> Option<String> {
    let mut halves = field.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    let (_, weight, sign, scale) = (halves.next()?, halves.next()? as i16, halves.next()?, halves.next()?);
    match sign {
        NAN => return Some("NaN".into()),
        INFINITY => return Some("Infinity".into()),
        NEGATIVE_INFINITY => return Some("-Infinity".into()),
        _ => {}
    }
    let groups: Vec<u16> = halves.collect();
    let group = |at: i32| usize::try_from(at).ok().and_then(|at| groups.get(at)).copied().unwrap_or(0);
    let weight = i32::from(weight);
    let mut out = String::from(if sign == NEGATIVE { "-" } else { "" });
    write!(out, "{}", if weight < 0 { 0 } else { group(0) }).expect("a String takes everything");
    for at in 1..=weight {
        write!(out, "{:04}", group(at)).expect("a String takes everything");
    }
    if scale > 0 {
        out.push('.');
        let end = out.len() + usize::from(scale);
        let mut at = weight + 1;
        while out.len() < end {
            write!(out, "{:04}", group(at)).expect("a String takes everything");
            at += 1;
        }
        out.truncate(end);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn halves(input: &str, typmod: Option<(u16, i16)>) -> Result<Vec<u16>, &'static str> {
        let mut out = Vec::new();
        numeric(input, typmod, &mut out)?;
        Ok(out.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect())
    }

    fn shown(input: &str, typmod: Option<(u16, i16)>) -> Result<String, &'static str> {
        let mut out = Vec::new();
        numeric(input, typmod, &mut out)?;
        Ok(text(&out).unwrap())
    }

    /// ndigits, weight, sign, dscale, then base-10000 digits, as `select numeric_send(…)` gives them.
    #[test]
    fn wire_form_is_that_of_numeric_send() {
        assert_eq!(halves("0", None), Ok(vec![0, 0, 0, 0]));
        assert_eq!(halves("-0.00", None), Ok(vec![0, 0, 0, 2]));
        assert_eq!(halves("1", None), Ok(vec![1, 0, 0, 0, 1]));
        assert_eq!(halves("10000", None), Ok(vec![1, 1, 0, 0, 1]));
        assert_eq!(halves("0.0001", None), Ok(vec![1, 0xFFFF, 0, 4, 1]));
        assert_eq!(halves("-14.469999999999999", None), Ok(vec![5, 0, NEGATIVE, 15, 14, 4699, 9999, 9999, 9990]));
        assert_eq!(halves("236046654097081", None), Ok(vec![4, 3, 0, 0, 236, 466, 5409, 7081]));
        assert_eq!(halves("1e-20", None), Ok(vec![1, 0xFFFB, 0, 20, 1]));
        assert_eq!(halves("1.5e20", None), Ok(vec![2, 5, 0, 0, 1, 5000]));
        assert_eq!(halves("NaN", None), Ok(vec![0, 0, NAN, 0]));
    }

    #[test]
    fn precision_and_scale_round_half_away_from_zero_and_refuse_what_does_not_fit() {
        assert_eq!(shown("1.25", Some((4, 1))).as_deref(), Ok("1.3"));
        assert_eq!(shown("-1.25", Some((4, 1))).as_deref(), Ok("-1.3"));
        assert_eq!(shown("999.94", Some((4, 1))).as_deref(), Ok("999.9"));
        assert_eq!(shown("999.95", Some((4, 1))), Err(OUT_OF_RANGE));
        assert_eq!(shown("0.5", Some((3, 0))).as_deref(), Ok("1"));
        assert_eq!(shown("0.04", Some((3, 0))).as_deref(), Ok("0"));
        assert_eq!(shown("1550", Some((2, -2))).as_deref(), Ok("1600"));
        assert_eq!(shown("0.00124", Some((2, 4))).as_deref(), Ok("0.0012"));
        assert_eq!(shown("0.01", Some((2, 4))), Err(OUT_OF_RANGE));
        assert_eq!(shown("007", Some((1, 0))).as_deref(), Ok("7"));
    }

    #[test]
    fn numeric_takes_its_whole_range_and_no_more() {
        assert!(halves("1e131071", None).is_ok());
        assert_eq!(halves("1e131072", None), Err(OUT_OF_RANGE));
        assert!(halves("1e-16383", None).is_ok());
        assert_eq!(halves("1e-16384", None), Err(OUT_OF_RANGE));
        assert_eq!(halves("1e99999999999999999999", None), Err(OUT_OF_RANGE));
        assert_eq!(halves("abc", None), Err(""));
        assert_eq!(halves("", None), Err(""));
    }

    #[test]
    fn instants_scale_exactly() {
        let scaled = |text, power, exact| Decimal::parse(text).unwrap().scaled(power, exact);
        assert_eq!(scaled("1761605381.192", 6, false), Ok(1_761_605_381_192_000));
        assert_eq!(scaled("0.0000005", 6, false), Ok(1));
        assert_eq!(scaled("-0.0000005", 6, false), Ok(-1));
        assert_eq!(scaled("0.00000049", 6, false), Ok(0));
        assert_eq!(scaled("0.00000005", 6, false), Ok(0));
        assert_eq!(scaled("5.0", 0, true), Ok(5));
        assert_eq!(scaled("5e2", 0, true), Ok(500));
        assert_eq!(scaled("5.5", 0, true), Err("not a whole number"));
        assert_eq!(scaled("0.05", 0, true), Err("not a whole number"));
        assert_eq!(scaled("1e19", 0, true), Err(OUT_OF_RANGE));
        assert_eq!(scaled("-9223372036854775808", 0, true), Ok(i64::MIN));
    }

    proptest! {
        #[test]
        fn digits_come_back_as_they_went_in(number in "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,40})?") {
            let expected = if number.bytes().any(|b| (b'1'..=b'9').contains(&b)) { &number } else { number.trim_start_matches('-') };
            let got = shown(&number, None);
            prop_assert_eq!(got.as_deref(), Ok(expected));
        }

        #[test]
        fn the_quick_way_and_the_general_way_agree(number in "-?[0-9]{1,16}(\\.[0-9]{1,16})?", precision in 1u16..40, places in 0i16..20) {
            for typmod in [None, Some((precision, places))] {
                let (mut general, mut either) = (Vec::new(), Vec::new());
                let expected = Decimal::parse(&number).unwrap().encode(typmod, &mut general);
                prop_assert_eq!(numeric(&number, typmod, &mut either), expected);
                if expected.is_ok() {
                    prop_assert_eq!(either, general);
                }
            }
        }
    }
}
