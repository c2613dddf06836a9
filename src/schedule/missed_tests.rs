use super::*;
use crate::schedule::{cron::Cron, every::Every};
use jiff::tz::TimeZone;
use proptest::prelude::*;
use std::time::Duration;

fn every(millis: u64) -> Schedule {
    Schedule::Every(Every::new(Duration::from_millis(millis)).unwrap())
}

fn cron(text: &str) -> Schedule {
    Schedule::Cron(Cron::parse(text, TimeZone::UTC).unwrap())
}

fn rules(policy: MissedPolicy, max_age: u64, limit: u32) -> Missed {
    Missed { policy, max_age: Duration::from_secs(max_age), limit }
}

fn seconds(instants: &[Timestamp]) -> Vec<i64> {
    instants.iter().map(|at| at.as_second()).collect()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

#[test]
fn each_policy_deals_out_the_same_instants() {
    let deal = |policy, max_age, limit| {
        let dealt = catch_up(&every(10_000), &rules(policy, max_age, limit), &Span::new(at(100), at(155)));
        (seconds(&dealt.run), seconds(&dealt.missed))
    };
    assert_eq!(deal(MissedPolicy::Skip, 1_000, 100), (vec![], vec![110, 120, 130, 140, 150]));
    assert_eq!(deal(MissedPolicy::Once, 1_000, 100), (vec![150], vec![110, 120, 130, 140]));
    assert_eq!(deal(MissedPolicy::All, 1_000, 100), (vec![110, 120, 130, 140, 150], vec![]));
    assert_eq!(deal(MissedPolicy::All, 1_000, 2), (vec![140, 150], vec![110, 120, 130]));
    assert_eq!(deal(MissedPolicy::All, 25, 100), (vec![130, 140, 150], vec![110, 120]));
    assert_eq!(deal(MissedPolicy::Once, 4, 100), (vec![], vec![110, 120, 130, 140, 150]));
}

#[test]
fn the_span_is_open_at_its_start_and_closed_at_its_end() {
    let dealt = catch_up(&every(10_000), &rules(MissedPolicy::All, 99, 9), &Span::new(at(110), at(120)));
    assert_eq!(seconds(&dealt.run), [120]);
    assert_eq!(
        catch_up(&every(10_000), &rules(MissedPolicy::All, 99, 9), &Span::new(at(120), at(110))),
        CatchUp::default()
    );
}

#[test]
fn ten_years_of_ten_a_second_are_counted_without_being_walked() {
    let (last, now) = (at(1_000_000_000), at(1_315_360_000));
    let dealt = catch_up(&every(100), &rules(MissedPolicy::All, 86_400, 100), &Span::new(last, now));
    assert_eq!((dealt.run.len(), dealt.missed.len(), dealt.run.last()), (100, MOST_LISTED, Some(&now)));
    assert_eq!(dealt.uncounted + 10_100, 3_153_600_000);
}

#[test]
fn ten_years_of_a_fast_expression_end_with_the_newest_ones() {
    let dealt = catch_up(
        &cron("* * * * * *"),
        &rules(MissedPolicy::All, 60, 10),
        &Span::new(at(1_000_000_000), at(1_315_360_000)),
    );
    assert_eq!(seconds(&dealt.run), (1_315_359_991..=1_315_360_000).collect::<Vec<_>>());
    assert_eq!(dealt.missed.len(), MOST_LISTED);
    assert!(dealt.missed.windows(2).all(|pair| pair[1].as_second() - pair[0].as_second() == 1), "no hole among them");
    assert!(dealt.uncounted >= 10_000);
}

#[test]
fn instants_that_have_their_row_are_not_dealt_again() {
    let recorded = [at(120), at(140)];
    let span = Span { recorded: &recorded, ..Span::new(at(100), at(155)) };
    let dealt = catch_up(&every(10_000), &rules(MissedPolicy::Once, 1_000, 100), &span);
    assert_eq!((seconds(&dealt.run), seconds(&dealt.missed), dealt.uncounted), (vec![150], vec![110, 130], 0));
    let span = Span { most_listed: 1, ..span };
    let dealt = catch_up(&every(10_000), &rules(MissedPolicy::Once, 1_000, 100), &span);
    assert_eq!((seconds(&dealt.run), seconds(&dealt.missed), dealt.uncounted), (vec![150], vec![130], 1));
}

proptest! {
    #[test]
    fn no_instant_is_lost_and_none_is_dealt_twice(
        period in 100u64..5_000, span in 0u64..3_000_000, policy in 0..3, max_age in 0u64..4_000, limit in 0u32..50,
        recorded in proptest::collection::btree_set(0i64..600, 0..20), most_listed in 0..=MOST_LISTED,
    ) {
        let policy = [MissedPolicy::Skip, MissedPolicy::Once, MissedPolicy::All][policy as usize];
        let schedule = every(period);
        let last = at(1_700_000_000);
        let now = last.checked_add(Duration::from_millis(span)).unwrap();
        let first = last.as_millisecond().div_euclid(period as i64) + 1;
        let instant = |n: &i64| Timestamp::from_millisecond((first + n) * period as i64).unwrap();
        let recorded: Vec<_> = recorded.iter().map(instant).collect();
        let span = Span { recorded: &recorded, most_listed, ..Span::new(last, now) };
        let dealt = catch_up(&schedule, &rules(policy, max_age, limit), &span);
        let together: Vec<_> = dealt.missed.iter().chain(&dealt.run).copied().collect();
        let mut all = Vec::new();
        let mut next = schedule.next_after(last).unwrap();
        while next <= now {
            if recorded.binary_search(&next).is_err() {
                all.push(next);
            }
            next = schedule.next_after(next).unwrap();
        }
        prop_assert_eq!(dealt.uncounted as usize + together.len(), all.len());
        prop_assert_eq!(&all[dealt.uncounted as usize..], &together[..]);
    }
}
