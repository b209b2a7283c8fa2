//! The histories that find planted faults.

use cow_engine::{AckMode, Engine};
use cow_format::mutant;
use cow_sim::disk::Faults;
use cow_sim::explore::explore;
use cow_sim::history::{HistoryConfig, run_history};
use cow_sim::sim::Tolerance;
use cow_sim::{PoolOptions, format, scripts, small_config};

#[derive(Clone, Copy)]
pub enum How {
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
    /// All that clients can see is compared after every command.
    Compared,
    /// Flushes fail.
    Failures,
}

impl How {
    /// The name of these histories in docs/invariants.md.
    pub fn name(self) -> &'static str {
        match self {
            Self::Crashes => "crashes, scripts",
            Self::Misreads => "misreads",
            Self::LostCheckpoints => "lost checkpoints",
            Self::Tight => "tight",
            Self::Watched => "tight, watched",
            Self::Short => "short lives",
            Self::Rot => "rot",
            Self::Policies => "policies",
            Self::Writeback => "write-back",
            Self::Moving => "moving",
            Self::Compared => "compared",
            Self::Failures => "failing flushes",
        }
    }
}

/// The history of a seed, with a fault planted.
pub fn run(name: &'static str, how: How, seed: u64) -> Result<(), String> {
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
    let failing = Tolerance { io: true, no_space: true, corrupt: false };
    let config = match how {
        How::Policies => usual.with_policies(),
        How::Moving => HistoryConfig {
            faults: Faults { data_error_ppm: 250_000, ..Faults::default() },
            tolerance: failing,
            ..usual
        },
        How::Failures => HistoryConfig {
            faults: Faults { flush_error_ppm: 20_000, ..Faults::default() },
            tolerance: failing,
            ..usual
        },
        How::Compared => HistoryConfig {
            compare: true,
            commands: 30,
            in_flight: [1, 1, 3][seed as usize % 3],
            crashes: seed % 2 == 1,
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
