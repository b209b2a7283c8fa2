//! Sizes against what clients can see: what deleting a set of snapshots would free, and what it
//! frees.

use crate::cmd::Cmd;
use crate::model::State;
use crate::rng::Rng;
use crate::sim::{Sim, Stop};
use crate::world::Machine;
use cow_engine::{Op, PoolInfo, Reply, SetSize};
use std::collections::BTreeSet;

/// With everything reclaimed, the pool holds what can be seen and no more, unless blocks are
/// `shared`, as the same content was written to several places. And then it is known beforehand what
/// the deletion of any snapshots frees.
pub(super) fn check_space<M: Machine>(
    sim: &mut Sim<M>,
    rng: &mut Rng,
    shared: bool,
) -> Result<(), Stop> {
    rest(sim)?;
    let before = info(sim)?.data_bytes;
    let state: &State = sim.oracle.live();
    let Some(expected) = state.distinct_bytes() else { return Ok(()) };
    if before < expected || !shared && before > expected {
        let text = format!("the pool says {before} bytes of data, clients can see {expected}");
        return Err(Stop::Bug(text));
    }
    if shared {
        return Ok(());
    }
    let (set, branched) = (random_set(state, rng), has_branches(state));
    if set.is_empty() {
        return Ok(());
    }
    let Some(freed) = state.without(&set).distinct_bytes().map(|left| expected - left) else {
        return Ok(());
    };
    let bounds = size(sim, &set, false)?;
    let what = |text: &str| Err(Stop::Bug(format!("{text}: {set:?} frees {freed}, {bounds:?}")));
    if bounds.data_bytes > freed || freed > bounds.data_bytes_max {
        return what("outside of the bounds");
    }
    if bounds.exact && bounds.data_bytes != freed {
        return what("said to be exact");
    }
    if !bounds.exact && !branched && !parts(sim)? {
        return what("not exact, though nothing branches");
    }
    let exact = size(sim, &set, true)?;
    if !exact.exact || exact.data_bytes != freed || exact.data_bytes_max != freed {
        return Err(Stop::Bug(format!("after a walk: {set:?} frees {freed}, {exact:?}")));
    }
    sim.run(Cmd::Delete { names: set.clone(), recursive: false })?;
    rest(sim)?;
    let after = info(sim)?.data_bytes;
    if before - after != freed {
        return Err(Stop::Bug(format!("{set:?} freed {}, not {freed}", before - after)));
    }
    Ok(())
}

/// A preview of a prune names what the model says and how much that frees; and then it is freed.
pub(super) fn check_prune<M: Machine>(sim: &mut Sim<M>) -> Result<(), Stop> {
    rest(sim)?;
    let state = sim.oracle.live();
    let set = state.pruned(&[]);
    let Some(expected) = state.distinct_bytes() else { return Ok(()) };
    let left = state.without(&set).distinct_bytes();
    let freed = left.map_or(0, |left| expected - left);
    let preview = match sim.aux(Op::Prune { volumes: Vec::new(), dry_run: true })? {
        Ok(Reply::Deleted(size)) => size,
        other => return Err(Stop::Bug(format!("the preview of a prune: {other:?}"))),
    };
    let mut names = preview.names.clone();
    names.sort();
    // What clients have open, who were told nothing, stays.
    if names.iter().any(|name| !set.contains(name)) {
        return Err(Stop::Bug(format!("a prune would delete {names:?}, not {set:?}")));
    }
    if names == set && (!preview.exact || preview.data_bytes != freed) {
        return Err(Stop::Bug(format!("a prune of {set:?} frees {freed}, not {preview:?}")));
    }
    let before = info(sim)?.data_bytes;
    sim.run(Cmd::Prune { volumes: Vec::new() })?;
    rest(sim)?;
    let after = info(sim)?.data_bytes;
    if before - after != freed {
        return Err(Stop::Bug(format!("pruning {set:?} freed {}, not {freed}", before - after)));
    }
    Ok(())
}

/// Waits until reclaim and trim have come to rest.
fn rest<M: Machine>(sim: &mut Sim<M>) -> Result<(), Stop> {
    for cmd in [Cmd::Checkpoint, Cmd::WaitReclaim, Cmd::Checkpoint] {
        sim.run(cmd)?;
    }
    Ok(())
}

fn info<M: Machine>(sim: &mut Sim<M>) -> Result<PoolInfo, Stop> {
    match sim.aux(Op::Info { exact: true })? {
        Ok(Reply::Info(info)) => Ok(*info),
        other => Err(Stop::Bug(format!("info answered {other:?}"))),
    }
}

fn size<M: Machine>(sim: &mut Sim<M>, set: &[String], wait: bool) -> Result<SetSize, Stop> {
    match sim.aux(Op::SetSize { names: set.to_vec(), wait })? {
        Ok(Reply::SetSize(size)) => Ok(size),
        other => Err(Stop::Bug(format!("the size of {set:?}: {other:?}"))),
    }
}

/// Some of the snapshots that clients know the names of.
fn random_set(state: &State, rng: &mut Rng) -> Vec<String> {
    let one_in = [1, 2, 4][rng.below(3) as usize];
    let mut set = Vec::new();
    for (name, volume) in &state.volumes {
        for snap in volume.snaps.keys() {
            if rng.one_in(one_in) && volume.snaps[snap].holds.is_empty() {
                set.push(format!("{name}@{snap}"));
            }
        }
    }
    set
}

/// Whether the tree parts anywhere: a clone may have overwritten all that it had in common with others,
/// so that no block of it is another's any more.
fn parts<M: Machine>(sim: &mut Sim<M>) -> Result<bool, Stop> {
    let Ok(Reply::List(nodes)) = sim.aux(Op::List { exact: false })? else {
        return Err(Stop::Bug("list is not answered with a list".to_owned()));
    };
    let mut seen = BTreeSet::new();
    Ok(nodes.iter().filter_map(|node| node.parent).any(|parent| !seen.insert(parent)))
}

/// Whether a volume was rolled back. (Whether it is a clone, clients cannot see; then some block of
/// it is another's, too.)
fn has_branches(state: &State) -> bool {
    let whole = state.distinct_bytes();
    let apart: Option<u64> = state
        .volumes
        .iter()
        .map(|(name, volume)| {
            let volumes = [(name.clone(), volume.clone())].into();
            let alone = State { volumes, ..State::default() };
            alone.distinct_bytes()
        })
        .sum();
    whole != apart || state.volumes.values().any(|volume| volume.rollbacks > 0)
}
