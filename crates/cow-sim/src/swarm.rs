//! Swarm runs: everything that chance may choose, it chooses: the pool, the engine, how clients
//! behave, and what goes wrong how often.
//!
//! [`history`] is for devices that fail, and say so: the oracle judges as ever. [`lying`] is for
//! devices that do not say so: writes that are lost, go elsewhere or rot, reads of something else.
//! What was acknowledged may be gone then, and much may be refused; but nothing may be read that was
//! never written there, and nothing may panic.

mod lenient;

pub use lenient::{Legal, read_leniently};

use crate::checked::survey;
use crate::cmd::Cmd;
use crate::disk::{Crash, Faults};
use crate::history::{HistoryConfig, Outcome, Workload, run_history};
use crate::leftovers;
use crate::model::Kept;
use crate::oracle::Oracle;
use crate::rng::{Rng, mix};
use crate::run::{caught, tail};
use crate::sim::{Sim, Stop, Tolerance};
use crate::world::{Machine, World};
use crate::{PoolOptions, format, small_config};
use cow_engine::{AckMode, Config, Engine, Error, Op, Reply};
use cow_format::geometry::MIN_POOL_BLOCKS;

/// One of `items`.
fn one<T: Copy>(rng: &mut Rng, items: &[T]) -> T {
    items[rng.index(items.len())]
}

/// A pool by chance.
pub fn pool(rng: &mut Rng) -> PoolOptions {
    let blocks = MIN_POOL_BLOCKS + if rng.one_in(2) { 0 } else { rng.below(3 * MIN_POOL_BLOCKS) };
    PoolOptions {
        blocks,
        journal_blocks: one(rng, &[64, 64, 80, 96, 128, 200, 256]),
        limit_blocks: blocks * rng.range(1, 5),
        max_chunks: rng.range(1, 4) as u32,
        preallocated: rng.one_in(8),
    }
}

/// An engine by chance.
pub fn engine(rng: &mut Rng) -> Config {
    let ack = if rng.one_in(4) { AckMode::Journaled } else { AckMode::Writethrough };
    Config {
        layer_bytes: one(rng, &[500, 2000, 8000, 64 << 10, 64 << 10]),
        cache_bytes: one(rng, &[16 << 10, 64 << 10, 256 << 10]),
        walk_leaves: one(rng, &[1, 1, 3, 50]),
        slice: one(rng, &[1, 2, 4, usize::MAX]),
        cell_blocks: one(rng, &[1, 2, 8, 64]),
        read_ahead: one(rng, &[1, 8, 64]),
        sparse: rng.one_in(2),
        buffers: leftovers::recycled(),
        ..small_config(ack)
    }
}

/// A rate of up to a tenth; often none.
fn rate(rng: &mut Rng) -> u32 {
    if rng.one_in(2) { 0 } else { rng.below(100_000) as u32 >> rng.below(6) }
}

/// A history of a device that fails now and then and says so, or not at all, and of a machine
/// that dies.
///
/// # Errors
/// What cannot be.
pub fn history(seed: u64) -> Result<Outcome, String> {
    let mut rng = Rng::new(seed ^ 0x5a9);
    let options = pool(&mut rng);
    let usual = HistoryConfig {
        engine: engine(&mut rng),
        lives: rng.range(2, 5),
        commands: rng.range(10, 60),
        in_flight: rng.range(1, 7) as usize,
        crashes: !rng.one_in(8),
        ..HistoryConfig::default()
    };
    let mut config = match rng.below(10) {
        0 => HistoryConfig { lose_checkpoints: true, ..usual },
        1 => HistoryConfig {
            lives: 12,
            commands: 3,
            palette: rng.range(1, 4),
            short_lives: true,
            ..usual
        },
        2 => HistoryConfig { rot: true, crashes: true, lose_checkpoints: rng.one_in(2), ..usual },
        3 => HistoryConfig { compare: true, commands: 15, ..usual },
        4 => usual.with_policies(),
        5 => {
            let misread_ppm = rate(&mut rng);
            HistoryConfig { faults: Faults { misread_ppm, ..Faults::default() }, ..usual }
        }
        6 | 7 => {
            let faults = Faults {
                read_error_ppm: rate(&mut rng),
                write_error_ppm: rate(&mut rng),
                flush_error_ppm: rate(&mut rng),
                ..Faults::default()
            };
            let tolerance = Tolerance { io: true, no_space: true, corrupt: false };
            HistoryConfig { faults, tolerance, ..usual }
        }
        8 => HistoryConfig { watch: true, ..usual },
        _ => usual,
    };
    // Of a device that is honest and slow. What comes of prunes depends on the time.
    let mut slow = Rng::new(seed ^ 0x510);
    if !config.policies && slow.one_in(2) {
        config.faults.short_ppm = rate(&mut slow);
        config.faults.slow_ppm = rate(&mut slow);
    }
    // Half of them as they are woken, as in a program.
    config.engine.task_order = if seed.is_multiple_of(2) { 0 } else { mix(seed) | 1 };
    let mut disk = format(&options);
    disk.misread_openings(config.faults.misread_ppm);
    run_history::<Engine>(seed, disk, &config)
}

/// What runs on devices that lie came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lies {
    /// Lives of pools.
    pub lives: u64,
    /// Openings that were refused.
    pub refused: u64,
    /// Blocks that could be read, and held what was written there.
    pub right: u64,
    /// Blocks that could not be read.
    pub unreadable: u64,
}

impl std::ops::AddAssign for Lies {
    fn add_assign(&mut self, more: Self) {
        self.lives += more.lives;
        self.refused += more.refused;
        self.right += more.right;
        self.unreadable += more.unreadable;
    }
}

/// A few lives on a device that lies.
///
/// # Errors
/// What cannot be, and the commands that led there.
pub fn lying(seed: u64) -> Result<Lies, String> {
    let mut rng = Rng::new(seed ^ 0x11e5);
    let options = pool(&mut rng);
    let config = engine(&mut rng);
    let mut workload = Workload::new(rng.fork(), 0);
    let mut found = Lies::default();
    let mut legal = Legal::default();
    let (mut disk, mut oracle) = (format(&options), Oracle::new(config.ack));
    for life in 0..rng.range(1, 4) {
        let faults = Faults {
            lost_write_ppm: rate(&mut rng),
            misdirected_write_ppm: rate(&mut rng),
            rotten_write_ppm: rate(&mut rng),
            wrong_read_ppm: rate(&mut rng),
            misread_ppm: rate(&mut rng),
            ..Faults::default()
        };
        let mut world = World::<Engine>::new(disk, &config, rng.word());
        let open = caught(|| world.run_op(Op::Open { read_only: false }));
        match open.map_err(|text| format!("life {life}, open: {text}"))? {
            Ok(Reply::Done) => {}
            Ok(other) => return Err(format!("open answered {other:?}")),
            Err(Error::Corrupt(_) | Error::Unsupported(_) | Error::Limit(_)) => {
                found.refused += 1;
                return Ok(found);
            }
            Err(error) => return Err(format!("life {life}: the pool does not open: {error:?}")),
        }
        found.lives += 1;
        let look = caught(|| read_leniently(&mut world, &legal));
        let look = look.map_err(|text| format!("life {life}, after opening: {text}"))?;
        found.right += look.right;
        found.unreadable += look.unreadable;
        let Some(state) = look.state else { return Ok(found) };
        oracle.settle(state);
        let mut sim = Sim::resume(world, oracle);
        sim.tolerate(Tolerance { io: true, no_space: true, corrupt: true });
        sim.world.disk_mut().set_faults(faults.clone(), rng.word());
        let ended = caught(|| live(&mut sim, &mut workload, &mut legal, &mut rng));
        if let Err(Stop::Bug(text)) = ended {
            return Err(format!("life {life}, {faults:?}: {text}{}", tail(sim.trace())));
        }
        (disk, oracle) = sim.crash(Crash::random(&mut rng));
        caught(|| survey(&disk)).map_err(|text: String| format!("the checker: {text}"))?;
    }
    Ok(found)
}

/// Commands one after the other, so that it is known what each can make of a block.
fn live<M: Machine>(
    sim: &mut Sim<M>,
    workload: &mut Workload,
    legal: &mut Legal,
    rng: &mut Rng,
) -> Result<(), Stop> {
    for _ in 0..rng.range(5, 60) {
        let Some(cmd) = workload.next(&sim.oracle) else { continue };
        note(legal, sim, &cmd);
        if let Err(stop) = sim.run(cmd) {
            return match stop {
                // A fold that finds damage may wait for a repair.
                Stop::Bug(text) if text.starts_with("stuck") => Err(Stop::Crashed),
                stop => Err(stop),
            };
        }
        if rng.one_in(10) {
            sim.world.pass(rng.range(1, 40_000) * 1_000_000);
        }
    }
    Ok(())
}

/// Notes what `cmd` may make of the blocks that it changes.
fn note<M: Machine>(legal: &mut Legal, sim: &Sim<M>, cmd: &Cmd) {
    let mut after = sim.oracle.live().clone();
    if after.apply(cmd, &Kept::Guess(0)).is_err() {
        return;
    }
    let (volume, blocks) = match (cmd, cmd.changed_blocks()) {
        (_, Some((volume, blocks))) => (volume, blocks),
        (Cmd::Resize { volume, size, .. }, _) => (volume.as_str(), size / 4096..size / 4096 + 1),
        _ => return,
    };
    let Some(node) = after.node(volume) else { return };
    if matches!(cmd, Cmd::Write { .. } | Cmd::Resize { .. }) {
        blocks.for_each(|lba| legal.note(lba, &node.content.get(lba)));
    } else {
        // Zeros change the ends of the range only.
        for lba in [blocks.start, blocks.end.saturating_sub(1)] {
            legal.note(lba, &node.content.get(lba));
        }
    }
}
