use super::*;
use crate::run::{for_seeds, is_told};

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
