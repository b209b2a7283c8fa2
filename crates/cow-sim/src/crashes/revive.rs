//! A recovery, and what comes of it.

use crate::disk::SimDisk;
use crate::model::State;
use crate::sim::observe_roots;
use crate::world::{Machine, World};
use cow_engine::{Config, Op, Reply};

/// Of so many volumes and snapshots the content root of one is compared.
const ROOTS: u64 = 24;

/// Opens the pool on `disk` and reads everything; with `check` the offline checker does too.
///
/// # Errors
/// When it does not open, cannot be read, or is not in order.
pub fn revive<M: Machine>(
    disk: SimDisk,
    config: &Config,
    seed: u64,
    check: bool,
) -> Result<(World<M>, State), String> {
    let mut world = World::<M>::new(disk, config, seed);
    match world.run_op(Op::Open { read_only: false })? {
        Ok(Reply::Done) => {}
        Ok(other) => return Err(format!("open answered {other:?}")),
        Err(error) => return Err(format!("the pool does not open: {error}")),
    }
    let state = observe_roots(&mut world, ROOTS)?;
    if check {
        M::check(world.disk())?;
    }
    match world.disk_mut().take_bugs().pop() {
        Some(bug) => Err(bug),
        None => Ok((world, state)),
    }
}

/// `found`, with what may have gone by itself put back as it was in `live`: undo snapshots for want
/// of space, the oldest first, and snapshots whose time is over. What is there is still judged.
#[must_use]
pub fn excused(found: &State, live: &State) -> State {
    let mut state = found.clone();
    for (name, volume) in &mut state.volumes {
        let Some(was) = live.volumes.get(name) else { continue };
        let kept: Vec<_> = volume.undos.iter().map(|(undo, _)| undo.clone()).collect();
        let gone = was.undos.iter().take_while(|(undo, _)| !kept.contains(undo));
        volume.undos = gone.cloned().chain(volume.undos.drain(..)).collect();
        for (index, snap) in was.taken.iter().enumerate() {
            let expires = was.snaps[snap].how.expiry_ns != 0;
            if expires && !volume.snaps.contains_key(snap) {
                volume.snaps.insert(snap.clone(), was.snaps[snap].clone());
                volume.taken.insert(index.min(volume.taken.len()), snap.clone());
            }
        }
    }
    state
}
