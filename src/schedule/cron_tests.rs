use super::*;
use jiff::SignedDuration;
use jiff::civil::DateTime;
use jiff::tz::AmbiguousOffset;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn cron(text: &str, zone: &str) -> Cron {
    Cron::parse(text, TimeZone::get(zone).unwrap()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The next instants, on the clock of the zone, with its offset.
fn nexts(text: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    let cron = cron(text, zone);
    let mut at: Timestamp = after.parse().unwrap();
    (0..count)
        .map(|_| {
            at = cron.next_after(at).unwrap();
            at.to_zoned(cron.zone().clone()).strftime("%d %H:%M:%S%z").to_string()
        })
        .collect()
}

fn refusal(text: &str) -> (String, String) {
    let error = Cron::parse(text, TimeZone::UTC).expect_err(text);
    (error.message, text[error.span].to_owned())
}

#[test]
fn berlin_in_spring_runs_a_skipped_time_once_right_after_the_gap() {
    let after = "2026-03-28T12:00:00Z";
    assert_eq!(nexts("30 2 * * *", "Europe/Berlin", after, 2), ["29 03:00:00+0200", "30 02:30:00+0200"]);
    assert_eq!(nexts("0,30 2 * * *", "Europe/Berlin", after, 2), ["29 03:00:00+0200", "30 02:00:00+0200"]);
    assert_eq!(
        nexts("*/30 * * * *", "Europe/Berlin", "2026-03-29T00:15:00Z", 3),
        ["29 01:30:00+0100", "29 03:00:00+0200", "29 03:30:00+0200"]
    );
}

#[test]
fn berlin_in_autumn_runs_a_repeated_time_once_and_an_interval_in_both_passes() {
    let after = "2026-10-24T12:00:00Z";
    assert_eq!(nexts("30 2 * * *", "Europe/Berlin", after, 2), ["25 02:30:00+0200", "26 02:30:00+0100"]);
    assert_eq!(
        nexts("0,30 2 * * *", "Europe/Berlin", after, 3),
        ["25 02:00:00+0200", "25 02:30:00+0200", "26 02:00:00+0100"]
    );
    assert_eq!(
        nexts("*/30 * * * *", "Europe/Berlin", "2026-10-24T23:45:00Z", 5),
        ["25 02:00:00+0200", "25 02:30:00+0200", "25 02:00:00+0100", "25 02:30:00+0100", "25 03:00:00+0100"]
    );
}

#[test]
fn new_york_follows_the_same_rules() {
    let spring = "2026-03-07T18:00:00Z";
    assert_eq!(nexts("30 2 * * *", "America/New_York", spring, 2), ["08 03:00:00-0400", "09 02:30:00-0400"]);
    let autumn = "2026-10-31T18:00:00Z";
    assert_eq!(nexts("30 1 * * *", "America/New_York", autumn, 2), ["01 01:30:00-0400", "02 01:30:00-0500"]);
    assert_eq!(
        nexts("0 * * * *", "America/New_York", "2026-11-01T04:30:00Z", 3),
        ["01 01:00:00-0400", "01 01:00:00-0500", "01 02:00:00-0500"]
    );
}

#[test]
fn lord_howe_changes_by_half_an_hour() {
    assert_eq!(
        nexts("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00:00Z", 2),
        ["04 02:30:00+1100", "05 02:15:00+1100"]
    );
    assert_eq!(
        nexts("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T00:00:00Z", 2),
        ["05 01:45:00+1100", "06 01:45:00+1030"]
    );
    assert_eq!(
        nexts("*/15 * * * *", "Australia/Lord_Howe", "2026-04-04T14:25:00Z", 5),
        ["05 01:30:00+1100", "05 01:45:00+1100", "05 01:30:00+1030", "05 01:45:00+1030", "05 02:00:00+1030"]
    );
}

#[test]
fn leap_days_come_every_four_years_and_wait_for_2104() {
    let cron = cron("0 0 29 2 *", "UTC");
    let next = |after: &str| cron.next_after(after.parse().unwrap()).unwrap().to_string();
    assert_eq!(next("2026-01-01T00:00:00Z"), "2028-02-29T00:00:00Z");
    assert_eq!(next("2096-02-29T00:00:00Z"), "2104-02-29T00:00:00Z");
}

#[test]
fn a_day_of_month_or_a_weekday_is_enough_unless_one_has_a_star() {
    let days = |text| nexts(text, "UTC", "2026-11-01T12:00:00Z", 4).join(" ").replace(" 00:00:00+0000", "");
    assert_eq!(days("0 0 13 * FRI"), "06 13 20 27");
    assert_eq!(days("0 0 13,14 * FRI"), "06 13 14 20");
    assert_eq!(days("0 0 */2 * MON"), "09 23 07 21", "November's odd Mondays, then December's");
    assert_eq!(days("0 0 13 * *"), "13 13 13 13");
    assert_eq!(days("0 0 * * 7"), "08 15 22 29");
}

#[test]
fn steps_lists_names_and_extras_do_what_they_say() {
    let after = "2026-11-20T12:00:00Z";
    assert_eq!(nexts("*/20 * * * * *", "UTC", after, 2), ["20 12:00:20+0000", "20 12:00:40+0000"]);
    assert_eq!(nexts("5,10-14/2 9 * dec sat-sun", "UTC", after, 2), ["05 09:05:00+0000", "05 09:10:00+0000"]);
    assert_eq!(nexts("0 0 L * *", "UTC", after, 2), ["30 00:00:00+0000", "31 00:00:00+0000"]);
    assert_eq!(nexts("0 0 * * fri#2", "UTC", after, 2), ["11 00:00:00+0000", "08 00:00:00+0000"]);
    assert_eq!(nexts("0 0 * * FRIL", "UTC", after, 2), ["27 00:00:00+0000", "25 00:00:00+0000"]);
    assert_eq!(nexts("0 0 15W * *", "UTC", after, 2), ["15 00:00:00+0000", "15 00:00:00+0000"]);
    assert_eq!(nexts("0 0 LW * *", "UTC", "2026-10-01T00:00:00Z", 1), ["30 00:00:00+0000"]);
}

#[test]
fn names_stand_for_their_fields() {
    let one = |text| nexts(text, "UTC", "2026-11-20T12:34:56.789Z", 1).remove(0);
    assert_eq!(one("@hourly"), "20 13:00:00+0000");
    assert_eq!(one(" @Daily "), "21 00:00:00+0000");
    assert_eq!(one("@midnight"), "21 00:00:00+0000");
    assert_eq!(one("@weekly"), "22 00:00:00+0000");
    assert_eq!(one("@monthly"), "01 00:00:00+0000");
    assert_eq!(one("@yearly"), one("@annually"));
    let reboot = Cron::parse("@reboot", TimeZone::UTC).unwrap_err();
    assert_eq!(reboot.message, "cron \"@reboot\": expected a time");
    assert!(reboot.hint.unwrap().contains("missed"));
    assert_eq!(refusal("@fortnightly").0, "cron \"@fortnightly\": unknown name");
}

#[test]
fn each_bad_field_is_named_and_pointed_at() {
    for (text, message, part) in [
        ("61 * * * *", "minute field \"61\": expected 0-59", "61"),
        ("60 0 * * * *", "second field \"60\": expected 0-59", "60"),
        ("0 24 * * *", "hour field \"24\": expected 0-23", "24"),
        ("0 0 1,32 * *", "day-of-month field \"32\": expected 1-31", "32"),
        ("0 0 0 * *", "day-of-month field \"0\": expected 1-31", "0"),
        ("0 0 * 13 *", "month field \"13\": expected 1-12 or JAN-DEC", "13"),
        ("0 0 * * FOO", "day-of-week field \"FOO\": expected 0-7 or SUN-SAT", "FOO"),
        ("0 0 * * é", "day-of-week field \"é\": expected 0-7 or SUN-SAT", "é"),
        ("*/0 * * * *", "minute field \"*/0\": expected a step of 1-59", "*/0"),
        ("*/90 * * * *", "minute field \"*/90\": expected a step of 1-59", "*/90"),
        ("30-10 * * * *", "minute field \"30-10\": expected a range that goes upwards", "30-10"),
        ("5/10 * * * *", "minute field \"5/10\": expected a step after `*` or a range, as in `5-59/…`", "5/10"),
        ("+5 * * * *", "minute field \"+5\": expected 0-59", "+5"),
        ("1,,2 * * * *", "minute field \"\": expected 0-59", ""),
        ("0 0 * * MON#6", "day-of-week field \"MON#6\": expected `#1` to `#5`", "MON#6"),
        ("0 L * * *", "hour field \"L\": expected 0-23", "L"),
        (" 0 0 * * ", "cron \"0 0 * *\": expected 5 or 6 fields, got 4", "0 0 * *"),
        ("", "cron \"\": expected 5 or 6 fields, got 0", ""),
    ] {
        assert_eq!(refusal(text), (message.to_owned(), part.to_owned()), "{text}");
    }
}

#[test]
fn dates_that_never_come_are_refused_at_once() {
    for text in ["0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 30,31 FEB *", "0 0 31W 2 *", "0 0 30 2 */2"] {
        assert_eq!(refusal(text).0, "day-of-month field: the date never comes", "{text}");
    }
    for text in ["0 0 29 2 *", "0 0 31 2,3 *", "0 0 30 2 MON", "0 0 L 2 *"] {
        assert!(cron(text, "UTC").next_after(Timestamp::UNIX_EPOCH).is_some(), "{text}");
    }
}

#[test]
fn expressions_are_equal_by_text_and_zone() {
    assert_eq!(cron("0 2 * * *", "Europe/Berlin"), cron(" 0 2 * * * ", "Europe/Berlin"));
    assert_ne!(cron("0 2 * * *", "Europe/Berlin"), cron("0 2 * * *", "Europe/Paris"));
    assert_ne!(cron("0 2 * * *", "UTC"), cron("0 3 * * *", "UTC"));
}

/// One field as text, and whether a value matches it, told apart from the code under test.
type Piece = (String, Vec<i8>, bool);

fn piece(low: i8, high: i8) -> impl Strategy<Value = Piece> {
    let all = Just(("*".to_owned(), (low..=high).collect(), true));
    let step =
        (2..=6i8).prop_map(move |step| (format!("*/{step}"), (low..=high).step_by(step as usize).collect(), true));
    let list = proptest::collection::vec(low..=high, 1..4).prop_map(|values| {
        let text: Vec<_> = values.iter().map(i8::to_string).collect();
        (text.join(","), values, false)
    });
    let range = (low..=high, low..=high, 1..4i8).prop_map(|(one, other, step)| {
        let (first, last) = (one.min(other), one.max(other));
        (format!("{first}-{last}/{step}"), (first..=last).step_by(step as usize).collect(), false)
    });
    prop_oneof![3 => all, 1 => step, 1 => list, 1 => range]
}

proptest! {
    #[test]
    fn the_next_instant_is_the_one_a_second_by_second_search_finds(
        second in piece(0, 59), minute in piece(0, 59), hour in piece(0, 23), day in piece(1, 31), month in piece(1, 12),
        weekday in piece(0, 6), start in 0i64..4_000_000_000,
    ) {
        let fields = [&second, &minute, &hour, &day, &month, &weekday];
        let text: Vec<_> = fields.iter().map(|field| field.0.as_str()).collect();
        let cron = match Cron::parse(&text.join(" "), TimeZone::UTC) {
            Err(error) if error.message.ends_with("never comes") => return Ok(()),
            parsed => parsed.unwrap(),
        };
        let matches = |at: i64| {
            let at = Timestamp::from_second(at).unwrap().to_zoned(TimeZone::UTC);
            let by_day = day.1.contains(&at.day());
            let by_weekday = weekday.1.contains(&at.weekday().to_sunday_zero_offset());
            let day_fits = if day.2 || weekday.2 { by_day && by_weekday } else { by_day || by_weekday };
            second.1.contains(&at.second()) && minute.1.contains(&at.minute()) && hour.1.contains(&at.hour())
                && month.1.contains(&at.month()) && day_fits
        };
        let next = cron.next_after(Timestamp::from_millisecond(start * 1_000 + 500).unwrap()).unwrap();
        prop_assert!(next.as_second() > start && next.subsec_nanosecond() == 0 && matches(next.as_second()));
        let first = (start + 1..=start + 8_000).find(|at| matches(*at));
        prop_assert!(first.is_none_or(|first| first == next.as_second()), "{first:?} before {next}");
        prop_assert!(cron.next_after(next).unwrap() > next);
    }
}

/// Zones whose clocks change in all the ways there are: by an hour, half an hour, two hours, at midnight, by a whole day.
const ZONES: [&str; 12] = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Sao_Paulo",
    "Asia/Beirut",
    "Africa/Cairo",
    "Antarctica/Troll",
    "Europe/Dublin",
    "Pacific/Apia",
    "Asia/Tehran",
    "America/Havana",
    "Africa/Casablanca",
];

/// The instant of a time of day, by the rules for jobs with fixed times: after a gap, and once where it comes twice.
fn fixed_time(at: DateTime, zone: &TimeZone) -> Timestamp {
    let ambiguous = zone.to_ambiguous_timestamp(at);
    match ambiguous.offset() {
        AmbiguousOffset::Gap { .. } => {
            zone.preceding(ambiguous.later().unwrap()).next().expect("a gap is a change").timestamp()
        }
        _ => ambiguous.earlier().unwrap(),
    }
}

proptest! {
    #[test]
    fn around_a_change_of_clocks_the_instants_are_those_the_rules_name(
        minute in piece(0, 59), hour in piece(0, 23), day in piece(1, 31), weekday in piece(0, 6),
        zone in 0..ZONES.len(), change in 0usize..60, offset in -90_000i64..90_000,
    ) {
        let text = format!("{} {} {} * {}", minute.0, hour.0, day.0, weekday.0);
        let cron = Cron::parse(&text, TimeZone::get(ZONES[zone]).unwrap()).unwrap();
        let zone = cron.zone();
        let Some(change) = zone.following("1995-01-01T00:00:00Z".parse().unwrap()).nth(change) else { return Ok(()) };
        let start = change.timestamp().as_second() + offset;
        let end = start + 2 * 86_400;
        let fits = |at: DateTime| {
            let by_day = day.1.contains(&at.day());
            let by_weekday = weekday.1.contains(&at.weekday().to_sunday_zero_offset());
            let day_fits = if day.2 || weekday.2 { by_day && by_weekday } else { by_day || by_weekday };
            day_fits && minute.1.contains(&at.minute()) && hour.1.contains(&at.hour())
        };
        let choices = |piece: &Piece| piece.1.iter().collect::<BTreeSet<_>>().len() as u32;
        let expected: BTreeSet<i64> = if !minute.2 && !hour.2 && choices(&minute) * choices(&hour) <= MOST_TIMES {
            let first = Timestamp::from_second((start - 2 * 86_400).div_euclid(60) * 60).unwrap();
            let minutes = (0..6 * 1440).map(|n| (first + SignedDuration::from_mins(n)).to_zoned(TimeZone::UTC).datetime());
            minutes.filter(|at| fits(*at)).map(|at| fixed_time(at, zone).as_second()).collect()
        } else {
            let local = |at: i64| Timestamp::from_second(at).unwrap().to_zoned(zone.clone()).datetime();
            (start.div_euclid(60) * 60..=end).step_by(60).filter(|at| fits(local(*at))).collect()
        };
        let mut got = BTreeSet::new();
        let mut at = Timestamp::from_second(start).unwrap();
        while let Some(next) = cron.next_after(at).filter(|next| next.as_second() <= end) {
            got.insert(next.as_second());
            at = next;
        }
        let expected: BTreeSet<i64> = expected.range(start + 1..=end).copied().collect();
        prop_assert_eq!(got, expected, "{}, {:?}, after {}", text, zone.iana_name(), start);
    }
}
