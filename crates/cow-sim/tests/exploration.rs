//! The explorer itself: that its workloads are what they are said to be, that it gives the same run
//! for a seed, and that it finds what is planted.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_engine::Engine;
use cow_format::mutant;
use cow_sim::crashes::{Depth, Tally, explore};
use cow_sim::failures;
use cow_sim::swarm;
use cow_sim::workloads::{self, Workload};
use std::collections::BTreeSet;

fn named(name: &str) -> Workload {
    workloads::all().into_iter().find(|workload| workload.name == name).expect(name)
}

fn shallow() -> Depth {
    Depth { subsets: 32, second: 8, check: 4, most: 800, ..Depth::slice() }
}

#[test]
fn there_are_forty_workloads_with_names_and_all_pairs_of_verbs() {
    let names: BTreeSet<String> = workloads::named().into_iter().map(|w| w.name).collect();
    assert_eq!(names.len(), workloads::named().len(), "two have one name");
    assert!(names.len() >= 40, "{}", names.len());
    let pairs: BTreeSet<String> = workloads::pairs().into_iter().map(|w| w.name).collect();
    let verbs: BTreeSet<&str> = pairs.iter().filter_map(|pair| pair.split(", ").next()).collect();
    assert!(verbs.len() >= 25);
    for (first, second) in verbs.iter().flat_map(|a| verbs.iter().map(move |b| (a, b))) {
        assert!(pairs.contains(&format!("{first}, {second}")));
    }
}

#[test]
fn a_seed_gives_the_same_exploration_again() {
    for name in ["fold", "snapshot, write"] {
        let run = || explore::<Engine>(&named(name), shallow(), 3).unwrap();
        let found: Tally = run();
        assert_eq!(found, run());
        assert!(found.states > 10 && found.judged > found.states, "{found:?}");
    }
}

/// Faults of the protocol models, and a workload that each shows in. What has no fault passes with
/// the same seed.
#[test]
fn what_is_planted_is_found() {
    for (fault, workload) in [
        ("noverify", "twelve writes"),
        ("oneflush", "fold"),
        ("ackearly", "write and flush"),
        ("cleanclone", "a clean clone"),
        ("bitmapnow", "checkpoint under writes"),
        ("tablenow", "fold"),
        ("nohoist", "trim of a branch point"),
        ("walkdetached", "what is cut off is snapshotted"),
    ] {
        let found = (0..40).find_map(|seed| {
            mutant::plant(fault);
            let found = explore::<Engine>(&named(workload), shallow(), seed);
            mutant::plant("");
            Some((seed, found.err()?))
        });
        let (seed, text) = found.unwrap_or_else(|| panic!("{fault} lives on in {workload}"));
        println!("{fault}: seed {seed}: {}", text.lines().next().unwrap_or_default());
        explore::<Engine>(&named(workload), shallow(), seed).unwrap();
    }
}

/// A fold marks a map node as lost that it cannot read, for one bad block must not stop every volume. A device that
/// gives nothing for a while, or gives a block later that it did not give before, has lost nothing.
#[test]
fn what_cannot_be_read_for_a_while_is_not_lost() {
    let undo = "undo snapshots go for want of space";
    for (name, seed) in [(undo, 54), ("fold", 0), ("discard", 0)] {
        let found = failures::explore::<Engine>(&named(name), 3, seed).unwrap();
        assert!(found.states > 100 && found.refused > 10, "{name}: {found:?}");
    }
}

/// A device that lies is found out, and what it hides is not made up.
#[test]
fn devices_that_lie_are_survived() {
    let mut all = swarm::Lies::default();
    for seed in 0..60 {
        all += swarm::lying(seed).unwrap_or_else(|text| panic!("seed {seed}: {text}"));
    }
    println!("{all:?}");
    assert!(all.unreadable > 100 && all.right > 10_000, "{all:?}");
}

/// Data that does not match its checksum, given out, is found by a device that lies.
#[test]
fn data_that_is_given_out_unverified_is_found() {
    let found = (0..40).find_map(|seed| {
        mutant::plant("anydata");
        let found = swarm::lying(seed);
        mutant::plant("");
        Some((seed, found.err()?))
    });
    let (seed, text) = found.expect("nobody looks at what is read");
    println!("seed {seed}: {}", text.lines().next().unwrap_or_default());
    swarm::lying(seed).unwrap();
}
