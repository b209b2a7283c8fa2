//! Random histories: clients that ask for everything, and machines that die.

mod space;
mod workload;

pub use workload::Workload;

use crate::disk::{Crash, Faults, SimDisk};
use crate::in_use::watch;
use crate::lose::lose_newest_checkpoint;
use crate::oracle::Oracle;
use crate::rng::{Rng, mix};
use crate::run::{caught, tail};
use crate::sim::{Sim, Stop, Tolerance, examine, examine_rot, interrupted};
use crate::world::{Machine, WALL_START_NS};
use cow_engine::{Config, Op, Reply, ScrubCursor};

/// A machine whose clock is suspect lets nothing go by itself for 10 minutes.
const TRUSTED_NS: u64 = 8 * 60_000_000_000;

/// What a history is like.
#[derive(Clone, Debug)]
pub struct HistoryConfig {
    /// How the engine is set up.
    pub engine: Config,
    /// Times that the machine starts.
    pub lives: u64,
    /// Commands of a life, at most.
    pub commands: u64,
    /// Commands in progress at once.
    pub in_flight: usize,
    /// Whether the machine dies, or is closed in order.
    pub crashes: bool,
    /// Whether crashes take the newest checkpoint with them, where there is a fallback.
    pub lose_checkpoints: bool,
    /// From how many contents clients choose what they write; 0 for never the same twice. The
    /// same content in the same block, written in another life, makes a frame verify that an
    /// earlier recovery has cut.
    pub palette: u64,
    /// Lives that begin with recoveries cut short and never end in order, so that fences pile up.
    pub short_lives: bool,
    /// Whether, after each crash and a recovery from it, a block of data goes bad.
    pub rot: bool,
    /// Whether all that clients can see is compared with the oracle whenever a command was
    /// answered. Those in progress with it are waited for.
    pub compare: bool,
    /// Whether volumes get budgets and reserves, in a pool that is often full.
    pub shares: bool,
    /// Whether snapshots get limits, rules, holds and times, and prunes are asked for.
    pub policies: bool,
    /// Whether scrubs are asked for: whatever happens beside them, they find nothing.
    pub scrubs: bool,
    /// Whether a write to what the newest checkpoint uses is a fault at once, and not only when a
    /// crash shows it.
    pub watch: bool,
    /// Faults of the disk, in each life, between open and crash.
    pub faults: Faults,
    /// Which errors are no fault.
    pub tolerance: Tolerance,
}

impl HistoryConfig {
    /// With limits, rules, holds and times, and prunes. The clock is ahead of what the pool knows,
    /// so that nothing goes by itself.
    #[must_use]
    pub fn with_policies(mut self) -> Self {
        self.policies = true;
        self.engine.wall_ns = WALL_START_NS + 3 * 24 * 3_600_000_000_000;
        self
    }
}

impl Default for HistoryConfig {
    fn default() -> Self {
        Self {
            engine: crate::small_config(cow_engine::AckMode::Writethrough),
            lives: 4,
            commands: 60,
            in_flight: 4,
            crashes: true,
            lose_checkpoints: false,
            palette: 0,
            short_lives: false,
            rot: false,
            compare: false,
            shares: false,
            policies: false,
            scrubs: false,
            watch: false,
            faults: Faults::default(),
            tolerance: Tolerance { no_space: true, ..Tolerance::default() },
        }
    }
}

/// What a history came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Commands submitted.
    pub commands: u64,
    /// Crashed disks that were recovered.
    pub crashes: u64,
    /// Device operations completed.
    pub device_ops: u64,
    /// Blocks that were discarded.
    pub discarded: u64,
    /// Checkpoints that were lost.
    pub lost: u64,
    /// Commands that were refused for want of space.
    pub refused: u64,
    /// Snapshots that prunes have deleted.
    pub pruned: u64,
    /// Blocks that scrubs have read.
    pub scrubbed: u64,
    /// Transfers that fell short.
    pub short: u64,
    /// Operations that took long.
    pub slow: u64,
}

impl std::iter::Sum for Outcome {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            commands: sum.commands + one.commands,
            crashes: sum.crashes + one.crashes,
            device_ops: sum.device_ops + one.device_ops,
            discarded: sum.discarded + one.discarded,
            lost: sum.lost + one.lost,
            refused: sum.refused + one.refused,
            pruned: sum.pruned + one.pruned,
            scrubbed: sum.scrubbed + one.scrubbed,
            short: sum.short + one.short,
            slow: sum.slow + one.slow,
        })
    }
}

/// Runs the history of `seed` on `disk`, which holds an empty pool.
///
/// # Errors
/// What cannot be, and the commands that led there.
pub fn run_history<M: Machine>(
    seed: u64,
    disk: SimDisk,
    config: &HistoryConfig,
) -> Result<Outcome, String> {
    let mut rng = Rng::new(seed);
    let mut outcome = Outcome::default();
    let mut workload = Workload::new(rng.fork(), config.palette);
    workload.set_shares(config.shares);
    workload.set_policies(config.policies);
    let (mut disk, mut oracle, mut kill) = (disk, Oracle::new(config.engine.ack), false);
    let mut lost = 0;
    for life in 0..config.lives {
        if config.short_lives && rng.one_in(2) {
            let (half, half_kill) = interrupted::<M>(disk, &config.engine, rng.word());
            (disk, kill) = (half, kill && half_kill);
        }
        let mut sim = Sim::<M>::new(disk, oracle, &config.engine, rng.word());
        sim.tolerate(config.tolerance);
        if config.watch {
            sim.set_probe(Some(watch()));
        }
        let ended = caught(|| live(&mut sim, &mut workload, config, &mut rng, kill));
        outcome.commands += sim.trace().len() as u64;
        outcome.device_ops += sim.world.disk().done();
        outcome.refused += sim.refused();
        let (short, slow) = sim.world.disk().delayed();
        outcome.short += short;
        outcome.slow += slow;
        outcome.scrubbed += sim.scrubbed;
        outcome.discarded += sim.world.disk().counts().discard.blocks;
        let trace = tail(sim.trace());
        let failed = |text: String| format!("life {life}: {text}{trace}");
        match ended {
            Ok(()) | Err(Stop::Crashed) => {}
            Err(Stop::Bug(text)) => return Err(failed(text)),
        }
        let how = Crash::random(&mut rng);
        // After a failed flush the death of the process costs what that flush lost.
        kill = how.is_kill() && !sim.world.disk().lies();
        (disk, oracle) = sim.crash(how);
        if config.lose_checkpoints && lose_newest_checkpoint(&mut disk, &mut lost) {
            outcome.lost += 1;
        }
        if config.crashes {
            let engine = &config.engine;
            let after = |text| failed(format!("after {how:?}: {text}"));
            outcome.crashes +=
                caught(|| examine::<M>(&disk, kill, &oracle, engine, &mut rng)).map_err(after)?;
            if config.rot {
                let lost = config.lose_checkpoints.then_some(lost);
                outcome.crashes +=
                    caught(|| examine_rot::<M>(&disk, lost, engine, &mut rng)).map_err(after)?;
            }
        }
    }
    outcome.pruned = oracle.pruned();
    Ok(outcome)
}

/// One life: from open to the crash, or to an orderly end.
fn live<M: Machine>(
    sim: &mut Sim<M>,
    workload: &mut Workload,
    config: &HistoryConfig,
    rng: &mut Rng,
    kill: bool,
) -> Result<(), Stop> {
    sim.open(kill)?;
    sim.world.disk_mut().set_faults(config.faults.clone(), rng.word());
    if config.crashes {
        let most = if rng.one_in(3) { 40 } else { 6 * config.commands };
        sim.set_fuse(Some(rng.range(1, most)));
    }
    let mut compared = 0;
    for _ in 0..rng.range(1, config.commands + 1) {
        while sim.in_progress() >= config.in_flight {
            sim.step()?;
        }
        if sim.oracle.is_ambiguous() && rng.one_in(3) || sim.oracle.log_len() > 80 {
            // A pool that I/O errors may have stopped can only be looked at after a restart.
            if config.tolerance.io {
                return Err(Stop::Crashed);
            }
            sim.reconcile()?;
        }
        if rng.one_in(12) {
            sim.drain()?;
            sim.world.pass(rng.range(1, 3_000) * 1_000_000);
            sim.world.run_until_idle()?;
        }
        if config.policies && sim.world.now_ns() > TRUSTED_NS {
            break;
        }
        if let Some(cmd) = workload.next(&sim.oracle) {
            sim.submit(cmd)?;
        }
        ask_for_a_root(sim);
        if config.scrubs && rng.one_in(4) {
            sim.world.start_op(Op::Scrub { cursor: ScrubCursor::default(), blocks: 0 });
        }
        for _ in 0..rng.below(6) {
            sim.step()?;
        }
        if config.compare {
            compare(sim, workload, config.in_flight, rng, &mut compared)?;
        }
    }
    if config.tolerance.io || config.short_lives {
        return sim.drain();
    }
    sim.reconcile()?;
    if rng.one_in(2) {
        space::check_space(sim, rng, config.palette > 0)?;
        if config.policies {
            space::check_prune(sim)?;
        }
    }
    if !config.crashes || rng.one_in(4) {
        match sim.aux(Op::Close)? {
            Ok(Reply::Done) => {}
            other => return Err(Stop::Bug(format!("close answered {other:?}"))),
        }
        sim.world.run_until_idle()?;
    }
    Ok(())
}

/// Now and then somebody asks for a root and does not wait. Whatever comes of it, what is stored
/// then must be right: whoever looks at everything compares it.
fn ask_for_a_root<M: Machine>(sim: &mut Sim<M>) {
    let chance = mix(sim.world.now_ns());
    if !chance.is_multiple_of(8) {
        return;
    }
    let state = sim.oracle.live();
    let mut names = Vec::new();
    for (name, volume) in &state.volumes {
        names.push(name.clone());
        names.extend(volume.snaps.keys().map(|snap| format!("{name}@{snap}")));
    }
    if let Some(name) = names.into_iter().nth(mix(chance) as usize % 16) {
        sim.world.start_op(Op::Root { name });
    }
}

/// Compares when more commands were answered than the `compared` of last time.
fn compare<M: Machine>(
    sim: &mut Sim<M>,
    workload: &Workload,
    in_flight: usize,
    rng: &mut Rng,
    compared: &mut usize,
) -> Result<(), Stop> {
    while sim.in_progress() >= in_flight {
        sim.step()?;
    }
    if sim.trace().len() - sim.in_progress() == *compared {
        return Ok(());
    }
    sim.drain()?;
    // At rest, or with a fold under way.
    if rng.one_in(2) {
        sim.world.run_until_idle()?;
    }
    *compared = sim.trace().len();
    sim.compare(workload.written())
}
