//! The suite is worth what it catches: each fault of the protocol models, planted in the engine
//! itself, must be found by the same histories that the engine passes.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_engine::{AckMode, Engine};
use cow_format::mutant;
use cow_sim::disk::Faults;
use cow_sim::explore::explore;
use cow_sim::history::{HistoryConfig, run_history};
use cow_sim::sim::Tolerance;
use cow_sim::{PoolOptions, format, scripts, small_config};
use std::panic::{AssertUnwindSafe, catch_unwind};

#[derive(Clone, Copy)]
enum How {
    Crashes,
    Misreads,
    LostCheckpoints,
    /// Little room, so that what is freed is soon given out again.
    Tight,
    /// The same, and no write may go to what the newest checkpoint uses: a crash shows that too
    /// seldom.
    Watched,
    /// Short lives of clients that write the same few contents again and again.
    Short,
    /// A block of data goes bad after a recovery.
    Rot,
    /// Limits, rules, holds, and prunes.
    Policies,
    /// Writes are acknowledged when they are accepted.
    Writeback,
    /// The same, and writes of data fail.
    Moving,
}

/// Name, what it breaks, and the histories that find it.
const MUTANTS: &[(&str, &str, How)] = &[
    ("noverify", "recovery believes the unflushed tail without reading its data", How::Crashes),
    ("noreread", "recovery believes a misread", How::Misreads),
    ("oneflush", "a checkpoint is written without the flush before it", How::Crashes),
    ("ackearly", "a flush is acknowledged without a device flush", How::Crashes),
    ("nochain", "frames of another history are accepted", How::Short),
    ("earlyfree", "overwritten blocks are given out before any checkpoint", How::Tight),
    ("reusenow", "freed blocks are given out before their checkpoint is durable", How::Watched),
    (
        "noquarantine",
        "freed blocks are given out while a fallback needs them",
        How::LostCheckpoints,
    ),
    ("punchearly", "freed blocks are discarded while a fallback needs them", How::LostCheckpoints),
    ("reusepunched", "freed blocks are given out before their discard is complete", How::Tight),
    ("nofence", "recovery leaves no fence behind what it accepted", How::Short),
    ("nofencedur", "a fence does not vouch for the frames before it", How::Rot),
    // `onesb` dies in `fence.rs`: histories meet it too rarely.
    ("cleanclone", "a clean clone starts from a root of before the fold", How::Crashes),
    ("nocursor", "kills during a walk are judged against the walked node", How::Crashes),
    ("walkafter", "the walker takes deletes sequenced after the freeze", How::Crashes),
    ("bitmapnow", "the bitmap holds blocks of records after the freeze", How::Crashes),
    ("tablenow", "the node table is written as it is, not as it was at the freeze", How::Crashes),
    ("nohoist", "trim leaves the deaths that it cleared in the rows of the children", How::Crashes),
    (
        "walkdetached",
        "nodes are spliced while a discard of theirs is not all given back",
        How::Crashes,
    ),
    ("trimstale", "trim frees blocks and leaves the pointers to them", How::Tight),
    ("pruneheld", "a prune counts what is held as what may go", How::Policies),
    ("keepless", "last=N keeps one less", How::Policies),
    ("keeptimed", "rules count and take snapshots with a time of their own", How::Policies),
    ("limitauto", "automatic snapshots count for the limit of a volume", How::Policies),
    ("flushblind", "a flush does not wait for the data that its frames name", How::Writeback),
    ("readbehind", "a block is read from the device while it is written", How::Writeback),
    ("reuseflying", "a block is given out again while it is written", How::Writeback),
    ("foldrush", "a fold merges data that may still move", How::Moving),
    ("moveblind", "a Move takes the place of a newer write", How::Moving),
    ("moveapart", "a flush covers data that moved, and not the Move", How::Moving),
    ("noexcuse", "a Move excuses nothing in recovery", How::Moving),
    ("excusecut", "a Move excuses though it is cut itself", How::Moving),
    ("movetwice", "a replay applies a Move that the checkpoint has", How::Moving),
    ("movefolded", "a replay folds between a record and the Move of its data", How::Moving),
    ("grouponce", "a group snapshot counts once for a limit of several volumes", How::Policies),
];

const MOST_SEEDS: u64 = 2500;

fn run(name: &'static str, how: How, seed: u64) -> Result<(), String> {
    mutant::plant(name);
    let ring = [256, 64, 128][seed as usize % 3];
    let options = match how {
        How::Tight | How::Watched => PoolOptions::tight(),
        _ => PoolOptions { journal_blocks: ring, ..PoolOptions::default() },
    };
    let mut pool = format(&options);
    if matches!(how, How::Misreads) {
        pool.misread_openings(100_000);
    }
    let moving = matches!(how, How::Moving);
    let ack = if moving || matches!(how, How::Writeback) {
        AckMode::Writeback
    } else {
        AckMode::Writethrough
    };
    let mut engine = small_config(ack);
    if moving {
        engine.layer_bytes = [64 << 10, 2000, 500][seed as usize % 3];
    }
    if matches!(how, How::Watched) {
        // Seldom enough as it is, and this makes a run shorter.
        engine.slice = usize::MAX;
    }
    // Every fourth seed goes through a script, crashing everywhere.
    if seed % 4 == 3 && matches!(how, How::Crashes) {
        let scripts = scripts::all();
        let script = &scripts[(seed / 4) as usize % scripts.len()];
        return explore::<Engine>(script, pool, &engine, 4, seed).map(drop);
    }
    let usual = HistoryConfig { engine, ..HistoryConfig::default() };
    let config = match how {
        How::Policies => usual.with_policies(),
        How::Moving => HistoryConfig {
            faults: Faults { data_error_ppm: 250_000, ..Faults::default() },
            tolerance: Tolerance { io: true, no_space: true, corrupt: false },
            ..usual
        },
        How::LostCheckpoints => HistoryConfig { lose_checkpoints: true, ..usual },
        How::Watched => HistoryConfig { watch: true, ..usual },
        How::Rot => HistoryConfig { lose_checkpoints: seed % 2 == 1, rot: true, ..usual },
        How::Short => {
            HistoryConfig { lives: 30, commands: 3, palette: 2, short_lives: true, ..usual }
        }
        _ => usual,
    };
    run_history::<Engine>(seed, pool, &config).map(drop)
}

/// Where the search begins, for those that take long to find.
fn hint(name: &str) -> u64 {
    match name {
        "excusecut" => 615,
        "grouponce" => 404,
        "movefolded" => 80,
        "nochain" => 280,
        "nocursor" => 257,
        "nohoist" => 190,
        "noquarantine" => 60,
        "readbehind" => 40,
        "reuseflying" => 41,
        "reusenow" => 900,
        "reusepunched" => 1663,
        "trimstale" => 216,
        "walkafter" => 42,
        _ => 0,
    }
}

fn first_caught(name: &'static str, how: How) -> Option<(u64, String)> {
    let hint = hint(name);
    (hint..MOST_SEEDS).chain(0..hint).find_map(|seed| {
        let outcome = catch_unwind(AssertUnwindSafe(|| run(name, how, seed)));
        match outcome {
            Ok(Ok(())) => None,
            Ok(Err(text)) => Some((seed, text)),
            Err(_) => Some((seed, "an assertion of the engine's own".to_owned())),
        }
    })
}

#[test]
fn every_mutant_dies() {
    let mut survivors = Vec::new();
    let only = std::env::var("COW_SIM_MUTANT").ok();
    for &(name, what, how) in MUTANTS {
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        match first_caught(name, how) {
            Some((seed, text)) => {
                let line: String =
                    text.lines().next().unwrap_or_default().chars().take(120).collect();
                // It is the fault that was found: the engine without it passes the same run.
                assert_eq!(run("", how, seed), Ok(()), "{name}, seed {seed}");
                println!("{name:>13}: seed {seed:>4}: {what}: {line}");
            }
            None => survivors.push(name),
        }
    }
    assert!(survivors.is_empty(), "not caught in {MOST_SEEDS} seeds: {survivors:?}");
}
