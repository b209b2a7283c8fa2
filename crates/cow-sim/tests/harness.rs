//! The harness itself: an honest machine passes, every broken one is caught.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_sim::disk::SimDisk;
use cow_sim::explore::{Explored, explore};
use cow_sim::fake::{BROKEN, Fake, HONEST};
use cow_sim::history::{HistoryConfig, Outcome, run_history};
use cow_sim::run::for_seeds;
use cow_sim::scripts;

const DISK_BLOCKS: u64 = 32_768;

fn history<const BUG: u8>(seed: u64, crashes: bool) -> Result<Outcome, String> {
    let config = HistoryConfig { crashes, ..HistoryConfig::default() };
    run_history::<Fake<BUG>>(seed, SimDisk::new(DISK_BLOCKS), &config)
}

#[test]
fn an_honest_machine_passes() {
    for crashes in [false, true] {
        let all: Outcome =
            for_seeds("an_honest_machine_passes", 150, |seed| history::<HONEST>(seed, crashes))
                .into_iter()
                .sum();
        println!("crashes {crashes}: {all:?}");
        assert!(all.commands > 1000);
        assert_eq!(all.crashes > 0, crashes);
    }
}

#[test]
fn an_honest_machine_survives_every_crash() {
    let config = HistoryConfig::default().engine;
    let scripts = scripts::all();
    let all: Explored = for_seeds("an_honest_machine_survives_every_crash", 30, |seed| {
        let script = &scripts[seed as usize % scripts.len()];
        explore::<Fake<HONEST>>(script, SimDisk::new(DISK_BLOCKS), &config, 8, seed)
    })
    .into_iter()
    .sum();
    println!("{all:?}");
    assert!(all.crashes > 2000);
}

/// Seeds until the fault is found.
fn caught<const BUG: u8>(crashes: bool) -> Option<(u64, String)> {
    // Where the search begins, for the one that takes long to find.
    let first = if BUG == cow_sim::fake::UNCHAINED { 1415 } else { 0 };
    (first..4000)
        .chain(0..first)
        .find_map(|seed| Some((seed, history::<BUG>(seed, crashes).err()?)))
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

macro_rules! canaries {
    ($($name:ident: $bug:expr, $crashes:expr;)*) => {$(
        #[test]
        fn $name() {
            let (seed, text) = caught::<{ $bug }>($crashes).expect("the oracle is blind to it");
            println!("caught at seed {seed}: {}", first_line(&text));
            assert!(BROKEN.contains(&$bug));
        }
    )*};
}

canaries! {
    a_flush_that_does_not_flush_is_caught: cow_sim::fake::FLUSH_WITHOUT_FLUSH, true;
    a_lost_write_is_caught: cow_sim::fake::LOSES_A_WRITE, true;
    half_a_group_is_caught: cow_sim::fake::HALF_A_GROUP, true;
    reordered_writes_are_caught: cow_sim::fake::REORDERS, true;
    unverified_bytes_are_caught: cow_sim::fake::UNVERIFIED, true;
    a_snapshot_that_changes_is_caught: cow_sim::fake::LEAKS_INTO_SNAPSHOT, false;
    an_early_verb_is_caught: cow_sim::fake::EARLY_VERB, true;
    unchained_records_are_caught: cow_sim::fake::UNCHAINED, true;
    an_early_flush_is_caught: cow_sim::fake::EARLY_FLUSH, true;
    a_stale_read_is_caught: cow_sim::fake::STALE_READ, false;
    an_unflushed_recovery_is_caught: cow_sim::fake::RECOVERY_UNFLUSHED, true;
}

#[test]
fn a_seed_gives_the_same_run_again() {
    let run = || {
        let outcome = history::<HONEST>(7, true).expect("the honest machine passes");
        (outcome.commands, outcome.crashes, outcome.device_ops)
    };
    assert_eq!(run(), run());
}
