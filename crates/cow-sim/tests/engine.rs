//! The engine in the simulated world.
//!
//! Each test takes `COW_SIM_SEEDS` and `COW_SIM_START` from the environment and prints, when it
//! fails, how to run that seed again.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_engine::{AckMode, Config, Engine};
use cow_sim::disk::Faults;
use cow_sim::explore::{Explored, explore};
use cow_sim::history::{HistoryConfig, Outcome, run_history};
use cow_sim::run::{for_seeds, is_told};
use cow_sim::sim::Tolerance;
use cow_sim::{PoolOptions, format, scripts, small_config};
use std::time::Instant;

/// The pool of a seed: rings of several lengths.
fn pool(seed: u64) -> PoolOptions {
    PoolOptions { journal_blocks: [256, 64, 128][seed as usize % 3], ..PoolOptions::default() }
}

fn config(seed: u64, crashes: bool) -> HistoryConfig {
    let ack = [AckMode::Writeback, AckMode::Writethrough, AckMode::Writeback, AckMode::Journaled]
        [seed as usize % 4];
    // Little memory for layers in some, so that a replay folds on the way.
    let layer_bytes = [64 << 10, 2000, 64 << 10, 8000, 500][seed as usize % 5];
    let engine = Config { layer_bytes, sparse: seed.is_multiple_of(2), ..small_config(ack) };
    HistoryConfig { engine, crashes, ..HistoryConfig::default() }
}

fn histories_of(test: &str, count: u64, config: impl Fn(u64) -> HistoryConfig + Sync) -> Outcome {
    let begun = Instant::now();
    let run = |seed| {
        let config = config(seed);
        let mut disk = format(&pool(seed));
        disk.misread_openings(config.faults.misread_ppm);
        run_history::<Engine>(seed, disk, &config)
    };
    let all: Outcome = for_seeds(test, count, run).into_iter().sum();
    println!("{test}: {all:?} in {:.1} s", begun.elapsed().as_secs_f64());
    all
}

#[test]
fn histories() {
    histories_of("histories", 60, |seed| config(seed, false));
}

/// The same, and all that clients can see is compared with the oracle after every command. In some
/// runs several commands are in progress together, and in every other one the machine dies.
#[test]
fn compared_histories() {
    histories_of("compared_histories", 120, |seed| HistoryConfig {
        compare: true,
        commands: 30,
        in_flight: [1, 1, 3][seed as usize % 3],
        ..config(seed, seed % 2 == 1)
    });
}

#[test]
fn crash_histories() {
    histories_of("crash_histories", 200, |seed| config(seed, true));
}

/// The newest checkpoint is unreadable after the crash: the one before it, and the journal that
/// was kept for it, bring everything back.
#[test]
fn lost_checkpoint_histories() {
    let all = histories_of("lost_checkpoint_histories", 100, |seed| HistoryConfig {
        lose_checkpoints: true,
        ..config(seed, true)
    });
    assert!(all.lost > 0, "no checkpoint was ever lost");
}

/// Many short lives, with recoveries cut short on the way, of clients that write the same few
/// contents again and again: what one recovery has cut, no later one brings back, though its data
/// may have come to stand where it belongs.
#[test]
fn short_histories() {
    histories_of("short_histories", 60, |seed| HistoryConfig {
        lives: 30,
        commands: 3,
        palette: 2,
        short_lives: true,
        ..config(seed, true)
    });
}

/// A block of data goes bad after a recovery, in every other run together with the newest
/// checkpoint: no more is missing than that block, and nothing without an error.
#[test]
fn rot_histories() {
    histories_of("rot_histories", 60, |seed| HistoryConfig {
        rot: true,
        lose_checkpoints: seed % 2 == 1,
        ..config(seed, true)
    });
}

/// Little room: what is freed is soon given out again, and often there is none.
#[test]
fn tight_histories() {
    let begun = Instant::now();
    let run = |seed| {
        let disk = format(&PoolOptions::tight());
        let config = HistoryConfig { watch: true, ..config(seed, true) };
        run_history::<Engine>(seed, disk, &config)
    };
    let all: Outcome = for_seeds("tight_histories", 100, run).into_iter().sum();
    println!("tight_histories: {all:?} in {:.1} s", begun.elapsed().as_secs_f64());
}

/// Budgets and reserves of volumes, in pools that are often full: no write to a volume for which
/// space is kept is refused, and no other for want of a budget that it does not have.
#[test]
fn share_histories() {
    let begun = Instant::now();
    let run = |seed| {
        let options = PoolOptions { journal_blocks: 16_300, ..PoolOptions::default() };
        let config = HistoryConfig { shares: true, watch: true, ..config(seed, seed % 2 == 1) };
        run_history::<Engine>(seed, format(&options), &config)
    };
    let all: Outcome = for_seeds("share_histories", 30, run).into_iter().sum();
    println!("share_histories: {all:?} in {:.1} s", begun.elapsed().as_secs_f64());
    assert!(all.refused > 0, "no pool was ever full");
}

/// Scrubs while clients write, delete and take snapshots in a pool where what is freed is soon given out
/// again, and the machine dies: they call nothing damaged.
#[test]
fn scrub_histories() {
    let begun = Instant::now();
    let run = |seed| {
        let disk = format(&PoolOptions::tight());
        let config = HistoryConfig { scrubs: true, in_flight: 6, ..config(seed, seed % 2 == 0) };
        run_history::<Engine>(seed, disk, &config)
    };
    let all: Outcome = for_seeds("scrub_histories", 40, run).into_iter().sum();
    println!("scrub_histories: {all:?} in {:.1} s", begun.elapsed().as_secs_f64());
    assert!(all.scrubbed > 10_000, "only {} blocks were read", all.scrubbed);
}

/// Limits, rules, holds and times of snapshots, and prunes: what goes is what the model lets go, and
/// frees what is said. In every other run the machine dies, perhaps in the middle of a prune.
#[test]
fn policy_histories() {
    let all = histories_of("policy_histories", 100, |seed| {
        HistoryConfig { compare: seed % 3 == 0, ..config(seed, seed % 2 == 1) }.with_policies()
    });
    assert!(all.pruned > 200, "only {} snapshots were pruned", all.pruned);
}

/// Reads that give an older version or a flipped bit, and are right when repeated.
#[test]
fn misread_histories() {
    histories_of("misread_histories", 40, |seed| HistoryConfig {
        faults: Faults { misread_ppm: 50_000, ..Faults::default() },
        ..config(seed, true)
    });
}

/// Reads and writes that fall short and go on, and operations that take seconds while others
/// overtake them; in every other run the machine dies.
#[test]
fn slow_histories() {
    let all = histories_of("slow_histories", 120, |seed| HistoryConfig {
        faults: Faults {
            short_ppm: [300_000, 0, 100_000][seed as usize % 3],
            slow_ppm: [0, 100_000, 50_000][seed as usize % 3],
            ..Faults::default()
        },
        compare: seed % 5 == 0,
        commands: 30,
        in_flight: 6,
        ..config(seed, seed % 2 == 1)
    });
    assert!(is_told() || all.short > 500 && all.slow > 500, "{all:?}");
}

/// Writes, flushes and reads that fail: an operation may fail, but what was acknowledged stays.
#[test]
fn failure_histories() {
    histories_of("failure_histories", 60, |seed| {
        let rate = |of: u64| if seed % 3 == of { 20_000 } else { 0 };
        HistoryConfig {
            faults: Faults {
                write_error_ppm: rate(0),
                flush_error_ppm: rate(1),
                read_error_ppm: rate(2),
                ..Faults::default()
            },
            tolerance: Tolerance { io: true, no_space: true, corrupt: false },
            ..config(seed, true)
        }
    });
}

/// Writes of data that fail, often twice in a row: what was acknowledged moves, and is there
/// afterwards, flushed or not. In every third run a checkpoint is lost too.
#[test]
fn moving_histories() {
    histories_of("moving_histories", 120, |seed| HistoryConfig {
        faults: Faults { data_error_ppm: 250_000, ..Faults::default() },
        tolerance: Tolerance { io: true, no_space: true, corrupt: false },
        lose_checkpoints: seed % 3 == 2,
        ..config(seed, true)
    });
}

/// The machine dies at every device operation of every script, in several ways, and again in
/// the middle of recovering from it, and again after it.
#[test]
fn every_crash_point() {
    let scripts = scripts::all();
    let begun = Instant::now();
    let count = 4 * scripts.len() as u64;
    let found = for_seeds("every_crash_point", count, |seed| {
        let script = &scripts[seed as usize % scripts.len()];
        let sparse = seed % 2 == 0;
        let ack = if seed % 3 == 2 { AckMode::Writethrough } else { AckMode::Writeback };
        let config = Config { sparse, ..small_config(ack) };
        let found = explore::<Engine>(script, format(&pool(seed)), &config, 12, seed)?;
        println!("  {}: {found:?}", script.name);
        Ok(found)
    });
    let runs = found.len() as u64;
    let all: Explored = found.into_iter().sum();
    println!("every_crash_point: {all:?} in {:.1} s", begun.elapsed().as_secs_f64());
    assert!(runs < count || all.crashes >= 20_000, "only {} crashes", all.crashes);
}
