//! A slice of the campaign in every run of the test suite, with seeds that nobody has seen, and
//! every workload once in each way.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_sim::campaign::{self, Size, Tally};
use cow_sim::run::{for_range, for_seeds, fresh_start, is_told};
use std::time::Instant;

/// What a slice must come to.
const STATES: u64 = 200_000;
const HISTORIES: u64 = 2_000;
/// Seeds between two looks at what was done.
const BATCH: u64 = 128;

/// New seeds in every run, until there are enough crash states and histories. A failure prints the
/// seed; with `COW_SIM_START` and `COW_SIM_SEEDS` just those are run.
#[test]
fn slice() {
    let begun = Instant::now();
    let run = |seed| campaign::run(seed, Size::Slice);
    let mut all = Tally::default();
    if is_told() {
        all = for_seeds("slice", 1, run).into_iter().sum();
    } else {
        let start = fresh_start();
        println!("slice: from seed {start} on");
        let mut next = start;
        while all.states() < STATES || all.histories() < HISTORIES {
            for_range("slice", next..next + BATCH, run).into_iter().for_each(|one| all += one);
            next += BATCH;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("slice: {all}");
    println!(
        "slice: {seconds:.1} s, {:.0} crash states and {:.1} histories a second",
        all.states() as f64 / seconds,
        all.histories() as f64 / seconds
    );
}
