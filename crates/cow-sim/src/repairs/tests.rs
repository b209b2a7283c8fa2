use super::*;
use crate::run::{for_range, for_seeds, is_told};

/// Repairs of what workloads leave, with crashes at every operation, twice, and failures.
#[test]
fn repairs_survive_crashes_and_failures() {
    let mut all = Tally::default();
    for found in for_seeds("repairs_survive", 24, |seed| explore(Depth::slice(), seed)) {
        all += found;
    }
    println!("{all:?}");
    assert!(is_told() || all.repairs > 12 && all.states > 500 && all.second > 100, "{all:?}");
    assert!(is_told() || all.failures > 100, "{all:?}");
}

/// Seeds that have found something, of repairs or of what is asked of them, long after the first ones.
#[test]
fn seeds_that_found_something() {
    // Counts: reclaim, cut off. Then what is past the end of a volume; torn checkpoints beside lost frames; and a
    // lost checkpoint that a torn write makes whole.
    let seeds = [89, 472, 655, 132, 481, 922, 420, 127, 741, 751, 1342];
    for seed in seeds {
        for_range("seeds_that_found_something", seed..seed + 1, |seed| {
            explore(Depth::slice(), seed)
        });
    }
}
