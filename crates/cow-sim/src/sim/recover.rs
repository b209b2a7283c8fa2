//! What must hold of every disk that a crash left behind.

use super::{Sim, Stop, Tolerance, observe};
use crate::cmd::Cmd;
use crate::disk::{Crash, Faults, SimDisk};
use crate::model::{State, Volume};
use crate::oracle::Oracle;
use crate::rng::Rng;
use crate::world::{Machine, World};
use cow_engine::{Config, Op, Reply};

/// A pool that was recovered and read back.
pub struct Recovered<M> {
    /// The machine, open.
    pub world: World<M>,
    /// What clients see.
    pub state: State,
}

/// Opens the pool on `disk` and reads everything.
///
/// # Errors
/// When it does not open, or cannot be read.
pub fn recover<M: Machine>(
    disk: SimDisk,
    config: &Config,
    seed: u64,
) -> Result<Recovered<M>, String> {
    let mut world = World::<M>::new(disk, config, seed);
    let faults = world.disk().opening_faults();
    world.disk_mut().set_faults(faults, seed);
    let opened = world.run_op(Op::Open { read_only: false })?;
    world.disk_mut().set_faults(Faults::default(), seed);
    match opened {
        Ok(Reply::Done) => {}
        Ok(other) => return Err(format!("open answered {other:?}")),
        Err(error) => return Err(format!("the pool does not open: {error}")),
    }
    let state = observe(&mut world)?;
    M::check(world.disk())?;
    match world.disk_mut().take_bugs().pop() {
        Some(bug) => Err(bug),
        None => Ok(Recovered { world, state }),
    }
}

/// Examines what a crash left on `disk`. Four things must hold: what a recovery brings back is
/// legal; a second crash inside that recovery does no harm; recovering once more, with nothing
/// done in between, changes nothing; and writes after the recovery, cut short by another crash,
/// bring back nothing that was cut before. Returns how many crashed disks were recovered.
///
/// # Errors
/// What does not hold.
pub fn examine<M: Machine>(
    disk: &SimDisk,
    kill: bool,
    oracle: &Oracle,
    config: &Config,
    rng: &mut Rng,
) -> Result<u64, String> {
    // A copy of a disk with nothing in flight.
    let copy = || disk.crash(Crash::Kill(0));
    let inside = |text| format!("after a second crash inside of recovery: {text}");
    let (half, half_kill) = interrupted::<M>(copy(), config, rng.word());
    let found = recover::<M>(half, config, rng.word()).map_err(inside)?;
    oracle.judge(&found.state, kill && half_kill).map_err(inside)?;

    let Recovered { state, world } = recover::<M>(copy(), config, rng.word())?;
    oracle.judge(&state, kill)?;

    let again = |text| format!("recovered a second time: {text}");
    let next = world.disk().crash(Crash::random(rng));
    let repeated = recover::<M>(next, config, rng.word()).map_err(again)?;
    if let Some(text) = repeated.state.difference(&state) {
        return Err(format!("recovering a second time changed something: {text}"));
    }
    if rng.one_in(3) {
        let after = |text| format!("after writes that followed the recovery: {text}");
        go_on(Recovered { state, world }, config, rng).map_err(after)?;
        return Ok(4);
    }
    Ok(3)
}

/// Writes a little, flushes perhaps, crashes again, and judges that.
fn go_on<M: Machine>(found: Recovered<M>, config: &Config, rng: &mut Rng) -> Result<(), String> {
    let Recovered { world, state } = found;
    let writable = |(name, volume): (&String, &Volume)| {
        (volume.head.size >= 64 << 10).then(|| (name.clone(), volume.head.size))
    };
    let Some((volume, size)) = state.volumes.iter().find_map(writable) else { return Ok(()) };
    let mut oracle = Oracle::new(config.ack);
    oracle.settle(state);
    let mut sim = Sim::resume(world, oracle);
    sim.tolerate(Tolerance { no_space: true, ..Tolerance::default() });
    if rng.one_in(2) {
        sim.set_fuse(Some(rng.range(1, 12)));
    }
    let mut commands = || -> Result<(), Stop> {
        for _ in 0..rng.range(1, 5) {
            let offset = rng.below(size.min(64 << 10) / 4096) * 4096;
            let (volume, token) = (volume.clone(), (1 << 50) + rng.below(1 << 40));
            let cmd = Cmd::Write { volume, offset, len: 4096, token, fua: rng.one_in(4) };
            if !sim.oracle.in_flight_conflict(&cmd) {
                sim.submit(cmd)?;
            }
        }
        if rng.one_in(2) {
            sim.run(Cmd::Flush { volume: volume.clone() })?;
        }
        Ok(())
    };
    if let Err(Stop::Bug(text)) = commands() {
        return Err(text);
    }
    let how = Crash::random(rng);
    let (disk, oracle) = sim.crash(how);
    let found = recover::<M>(disk, config, rng.word())?;
    oracle.judge(&found.state, how.is_kill())
}

/// Crashes again in the middle of recovery. What that leaves, and whether only the process died.
#[must_use]
pub fn interrupted<M: Machine>(disk: SimDisk, config: &Config, seed: u64) -> (SimDisk, bool) {
    let mut rng = Rng::new(seed);
    let mut world = World::<M>::new(disk, config, rng.word());
    world.start_op(Op::Open { read_only: false });
    // Every change that recovery makes to the disk is a place to crash; one of them is taken.
    let mut steps = 0;
    let mut images = Vec::new();
    let mut seen = u64::MAX;
    while world.take_reply().is_none() && steps < 10_000 {
        if world.disk().changes() != seen {
            seen = world.disk().changes();
            let how = Crash::random(&mut rng);
            images.push((world.disk().crash(how), how.is_kill()));
        }
        if world.pump().is_err() {
            break;
        }
        steps += 1;
    }
    if images.is_empty() {
        return (world.disk().crash(Crash::Kill(0)), true);
    }
    let index = rng.index(images.len());
    images.swap_remove(index)
}
