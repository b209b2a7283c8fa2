//! The property `keep`: what its rules keep, against what they say.

use super::Rng;
use super::verbs::{apply, create, snap};
use crate::{KEEP, Keep, SnapOptions, Tree, TreeError};
use cow_format::NodeId;
use cow_format::entry::NodeKind;
use proptest::prelude::*;
use std::collections::BTreeSet;

pub(super) const HOUR: u64 = 3_600_000_000_000;
const DAY: u64 = 24 * HOUR;
/// Monday, 3 January 2000, 00:00 UTC.
const MONDAY: u64 = 10_959 * DAY;
const NAMES: [&str; 6] = ["last", "hourly", "daily", "weekly", "monthly", "yearly"];

fn keep(text: &str) -> Keep {
    Keep::parse(text).unwrap_or_else(|what| panic!("{text}: {what}"))
}

fn kept(text: &str, created: &[u64]) -> Vec<usize> {
    let kept = keep(text).kept(created);
    assert_eq!(kept.len(), created.len());
    (0..created.len()).filter(|&at| kept[at]).collect()
}

#[test]
fn what_is_no_rule_is_refused_and_named() {
    for (text, word) in [
        ("", "is not RULE=NUMBER"),
        ("last", "is not RULE=NUMBER"),
        ("last=0", "last: \"0\""),
        ("last=+7", "last: \"+7\""),
        ("last=7,", "is not RULE=NUMBER"),
        ("daily=7,daily=8", "daily twice"),
        ("daily=7, weekly=4", "\" weekly\" is no rule"),
        ("yearly=99999999999999999999", "is not a number"),
    ] {
        let error = Keep::parse(text).expect_err(text);
        assert!(error.contains(word), "{text}: {error}");
    }
    assert_eq!(keep("daily=7,last=1"), keep("last=1,daily=7"));
}

#[test]
fn periods_begin_where_the_calendar_says() {
    // The newest of each period; periods without a snapshot do not count.
    let times = [MONDAY - 1, MONDAY, MONDAY + 1, MONDAY + HOUR, MONDAY + 5 * HOUR];
    assert_eq!(kept("last=2", &times), [3, 4]);
    assert_eq!(kept("hourly=3", &times), [2, 3, 4]);
    assert_eq!(kept("daily=9", &times), [0, 4]);
    assert_eq!(kept("weekly=2", &times), [0, 4]);
    assert_eq!(kept("weekly=2", &[MONDAY, MONDAY + 7 * DAY - 1]), [1]);
    // 31 December 1999, 1 January, 29 February, 1 March, 31 December 2000, 1 January 2001.
    let days = [10_956, 10_957, 11_016, 11_017, 11_322, 11_323].map(|day| day * DAY);
    assert_eq!(kept("monthly=9", &days), [0, 1, 2, 3, 4, 5]);
    assert_eq!(kept("yearly=9", &days), [0, 4, 5]);
    assert_eq!(kept("yearly=2", &days), [4, 5]);
    // 1 and 28 February 1970, and the first moment of all.
    assert_eq!(kept("monthly=9", &[0, 31 * DAY, 58 * DAY, 59 * DAY]), [0, 2, 3]);
}

#[test]
fn a_clock_that_was_wrong_makes_none_the_newest() {
    let times = [MONDAY, MONDAY + 36_500 * DAY, MONDAY + DAY, MONDAY + 2 * DAY];
    assert_eq!(kept("daily=2", &times), [2, 3]);
}

/// What the rules say, one snapshot at a time.
pub(super) fn should_be_kept(rules: &[(usize, usize)], created: &[u64], at: usize) -> bool {
    rules.iter().any(|&(rule, count)| {
        let newer = &created[at + 1..];
        if rule == 0 {
            return newer.len() < count;
        }
        // Months and years by counting them off from 1970.
        let period = |ns: u64| -> u64 {
            let (mut day, mut month) = (ns / DAY, 0);
            match rule {
                1 => return ns / HOUR,
                2 => return day,
                3 => return (day + 3) / 7,
                _ => {}
            }
            loop {
                let year = 1970 + month / 12;
                let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
                let february = if leap { 29 } else { 28 };
                let days = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
                let days = days[(month % 12) as usize];
                if day < days {
                    break if rule == 4 { month } else { month / 12 };
                }
                (day, month) = (day - days, month + 1);
            }
        };
        let own = period(created[at]);
        let newer: BTreeSet<u64> = newer.iter().map(|&ns| period(ns)).collect();
        !newer.contains(&own) && newer.len() < count
    })
}

pub(super) fn text_of(rules: &[(usize, usize)]) -> String {
    let rules: Vec<String> =
        rules.iter().map(|(rule, count)| format!("{}={count}", NAMES[*rule])).collect();
    rules.join(",")
}

/// Times in the order in which snapshots were taken; now and then the clock is set.
fn times(seed: u64, count: usize) -> Vec<u64> {
    let mut rng = Rng(seed);
    let mut now = MONDAY;
    let mut step = |_| {
        let steps = [1, HOUR / 3, HOUR, 5 * HOUR, DAY, 9 * DAY, 40 * DAY];
        now += steps[rng.below(steps.len())] + rng.next() % HOUR;
        if rng.chance(5) {
            now = if rng.chance(50) { now - now.min(20 * DAY) } else { now + 300 * DAY };
        }
        now
    };
    (0..count).map(&mut step).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..Default::default() })]

    #[test]
    fn rules_keep_what_they_say(
        seed: u64,
        count in 0_usize..60,
        counts in proptest::array::uniform6(proptest::option::weighted(0.4, 1_usize..9)),
    ) {
        let rules: Vec<(usize, usize)> = counts.iter().enumerate().filter_map(|(rule, count)| Some((rule, (*count)?))).collect();
        prop_assume!(!rules.is_empty());
        let created = times(seed, count);
        let all = keep(&text_of(&rules)).kept(&created);
        for (at, kept) in all.iter().enumerate() {
            prop_assert_eq!(*kept, should_be_kept(&rules, &created, at), "snapshot {} of {}", at, text_of(&rules));
        }
        // The newest stays.
        prop_assert_ne!(all.last(), Some(&false));
        // A union of its rules: more rules never keep less.
        let mut union = vec![false; created.len()];
        for rule in &rules {
            let one = keep(&text_of(&[*rule])).kept(&created);
            union.iter_mut().zip(one).for_each(|(any, one)| *any |= one);
        }
        prop_assert_eq!(&all, &union);
        // Once pruned, nothing more goes.
        let left: Vec<u64> = created.iter().zip(&all).filter(|(_, kept)| **kept).map(|(ns, _)| *ns).collect();
        prop_assert!(keep(&text_of(&rules)).kept(&left).iter().all(|kept| *kept));
    }
}

fn set(tree: &mut Tree, name: &str, key: &str, value: Option<&str>) -> Result<(), TreeError> {
    let changes = [(key.to_owned(), value.map(str::to_owned))];
    let records = tree.plan_set_props(name, &changes)?;
    apply(tree, Ok(records));
    Ok(())
}

fn not_kept(tree: &Tree, volume: &str) -> Vec<String> {
    let id = tree.volume_by_name(volume).unwrap();
    let names = |id: NodeId| tree.node(id).unwrap().entry.name.to_string();
    tree.not_kept(id).unwrap().into_iter().map(names).collect()
}

fn is_flagged(tree: &Tree, name: &str) -> bool {
    tree.node(tree.resolve(name).unwrap()).unwrap().entry.policy
}

#[test]
fn a_volume_obeys_its_property() {
    let mut tree = Tree::default();
    create(&mut tree, "v");
    for name in ["a", "b", "c", "d", "e"] {
        snap(&mut tree, "v", name);
    }
    assert!(not_kept(&tree, "v").is_empty() && !is_flagged(&tree, "v"));
    let error = set(&mut tree, "v", KEEP, Some("last=two")).unwrap_err();
    assert_eq!(error.to_string(), "keep: last: \"two\" is not a number from 1 to 1048576");
    set(&mut tree, "v", KEEP, Some("last=2")).unwrap();
    assert_eq!(not_kept(&tree, "v"), ["a", "b", "c"]);
    // Held ones count, and stay.
    let plan = tree.plan_hold("v@e", "t", true);
    apply(&mut tree, plan);
    let plan = tree.plan_hold("v@a", "t", true);
    apply(&mut tree, plan);
    assert_eq!(not_kept(&tree, "v"), ["b", "c"]);
    // The property and its flag go on with the head; automatic ones count, and those with a
    // time of their own do not.
    let auto = SnapOptions { kind: NodeKind::Auto, ..SnapOptions::default() };
    let plan = tree.plan_snapshot(&[("v", "auto")], &auto, 10);
    apply(&mut tree, plan);
    let timed = SnapOptions { expiry_ns: 99, ..SnapOptions::default() };
    let plan = tree.plan_snapshot(&[("v", "timed")], &timed, 10);
    apply(&mut tree, plan);
    let plan = tree.plan_rollback(&[("v", "d")], false, 100, |_| false);
    apply(&mut tree, plan);
    assert!(is_flagged(&tree, "v") && !is_flagged(&tree, "v@timed"));
    assert_eq!(not_kept(&tree, "v"), ["b", "c", "d"]);
    snap(&mut tree, "v", "f");
    snap(&mut tree, "v", "g");
    assert_eq!(not_kept(&tree, "v"), ["b", "c", "d", "auto"]);
    set(&mut tree, "v", KEEP, None).unwrap();
    assert!(not_kept(&tree, "v").is_empty() && !is_flagged(&tree, "v"));
}
