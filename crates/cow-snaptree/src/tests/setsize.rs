//! What a delete is said to free, against what it frees.

use super::oracle::snapshots;
use super::sim::Sim;
use super::trees::Pointers;
use crate::Tree;
use crate::row::{add, sub, unit};
use cow_format::entry::Count;
use cow_format::{Gen, NodeId};
use std::collections::BTreeSet;

fn allocated(sim: &Sim) -> Count {
    sim.alloc.values().fold(Count::default(), |sum, &is_map| add(sum, unit(is_map, 1)))
}

/// Data blocks that live nodes reach.
fn live_data(sim: &Sim) -> u64 {
    let live = sim.tree.iter().filter(|node| node.is_live());
    let trees = live.map(|node| sim.pointers(&node.entry.root));
    let data = |t: Pointers| {
        t.into_iter().filter(|(at, _)| at.0 == 0).map(|(_, ptr)| ptr.0).collect::<Vec<_>>()
    };
    trees.flat_map(data).collect::<BTreeSet<_>>().len() as u64
}

/// What the sizes tests met.
#[derive(Default)]
pub(crate) struct Met {
    pub sizes: u64,
    pub inexact: u64,
    pub below_truth: u64,
    pub pruned: u64,
}

/// Surviving nodes first met below `id`.
fn leaves(tree: &Tree, id: NodeId, set: &[NodeId]) -> Vec<NodeId> {
    let removed = |id: NodeId| !tree.node(id).unwrap().is_live() || set.contains(&id);
    let below = |&child: &NodeId| match removed(child) {
        true => leaves(tree, child, set),
        false => vec![child],
    };
    tree.children(id).iter().flat_map(below).collect()
}

/// The upper bound from the trees themselves, at rest.
fn brute_upper(sim: &Sim, set: &[NodeId]) -> Count {
    let tree = &sim.tree;
    let owned = |of: NodeId, by: NodeId| {
        let pointers = sim.pointers(&tree.node(of).unwrap().entry.root);
        let mine = pointers.into_iter().filter(|(_, ptr)| {
            let label = tree.node(by).unwrap().entry.label_gen;
            Gen(ptr.1) > tree.parent_gen(by) && Gen(ptr.1) <= label
        });
        mine.fold(Count::default(), |sum, (at, _)| add(sum, unit(at.0 > 0, 1)))
    };
    let mut upper = Count::default();
    for node in tree.iter().filter(|node| node.entry.id.0 != u64::MAX) {
        let id = node.entry.id;
        let was = if node.is_live() { vec![id] } else { leaves(tree, id, &[]) };
        let is = match !node.is_live() || set.contains(&id) {
            true => leaves(tree, id, set),
            false => vec![id],
        };
        if was == is {
            continue;
        }
        let kept = is.iter().map(|&leaf| owned(leaf, id)).fold(Count::default(), |most, kept| {
            Count { data: most.data.max(kept.data), map: most.map.max(kept.map) }
        });
        upper = add(upper, sub(owned(id, id), kept));
    }
    upper
}

/// A random set that can be deleted: snapshots, and now and then a whole volume.
fn random_set(sim: &mut Sim) -> Vec<NodeId> {
    let mut set: BTreeSet<NodeId> = BTreeSet::new();
    let percent = [20, 50, 90][sim.rng.below(3)];
    for id in snapshots(&sim.tree) {
        if sim.rng.chance(percent) {
            set.insert(id);
        }
    }
    let volumes: Vec<_> = sim.tree.volumes().map(|(id, v)| (id, v.head)).collect();
    for (volume, head) in volumes {
        if sim.rng.chance(15) {
            set.insert(head);
            set.extend(sim.tree.snapshots_of(volume));
        }
    }
    let held = |id: &NodeId| sim.tree.node(*id).unwrap().entry.holds > 0;
    let held_volumes: BTreeSet<_> = set
        .iter()
        .filter(|id| held(id))
        .map(|&id| sim.tree.node(id).unwrap().entry.volume)
        .collect();
    set.retain(|id| !held_volumes.contains(&sim.tree.node(*id).unwrap().entry.volume));
    set.into_iter().collect()
}

/// Data blocks that the deletion of a set frees, by walks over its components. The same stamp means
/// the same size.
pub(crate) fn exact_size(sim: &mut Sim, set: &[NodeId]) -> u64 {
    let mut sum = 0;
    for part in sim.tree.components(set) {
        let data = |ids: &[NodeId]| -> BTreeSet<u64> {
            let trees = ids.iter().map(|&id| sim.pointers(&sim.tree.node(id).unwrap().entry.root));
            let young = trees.flatten().filter(|(at, ptr)| at.0 == 0 && Gen(ptr.1) > part.floor);
            young.map(|(_, ptr)| ptr.0).collect()
        };
        let size = data(&part.wanted).difference(&data(&part.leaves)).count() as u64;
        let known = *sim.exact.entry((part.wanted.clone(), part.stamp)).or_insert(size);
        assert_eq!(known, size, "the size of {:?} has changed unseen", part.wanted);
        sum += size;
    }
    sum
}

/// As part of a history: sizes of sets that come again later.
pub(crate) fn note_exact_sizes(sim: &mut Sim) {
    for id in snapshots(&sim.tree) {
        exact_size(sim, &[id]);
    }
    let set = random_set(sim);
    exact_size(sim, &set);
}

/// Asks what a set frees, deletes it, and looks.
pub(crate) fn check_sizes(sim: &Sim, at_rest: bool, met: &mut Met) {
    let mut sim = sim.clone();
    if sim.fold.is_some() {
        sim.fold_end();
    }
    sim.fold_start();
    for _ in 0..sim.rng.below(4) {
        sim.walk_step();
    }
    sim.fold_end();
    if at_rest {
        let trim = sim.rng.chance(50);
        sim.quiesce(trim);
    }
    let set = random_set(&mut sim);
    let mut tree = sim.tree.clone();
    for id in tree.rows_needed_for_set(&set) {
        sim.load_row(&mut tree, id);
    }
    let size = tree.set_size(&set);
    let exact = exact_size(&mut sim, &set);
    assert!(!size.exact || size.freed.data == exact, "exact without a walk");
    // Nothing is about to be freed anyway.
    let trimmed = tree.untrimmed().next().is_none();
    if at_rest && trimmed {
        assert_eq!(size.upper, brute_upper(&sim, &set), "the upper bound is as tight as it can be");
    }
    // Without the delete.
    let mut rest = sim.clone();
    rest.quiesce(false);
    let (before, live_before) = (allocated(&rest), live_data(&rest));
    sim.run(|tree| tree.plan_delete_nodes(&set)).unwrap();
    sim.quiesce(false);
    let after = allocated(&sim);
    let walked = Count { data: before.data - after.data, map: before.map - after.map };
    if trimmed {
        assert_eq!(size.freed, walked, "what the walk freed");
    }
    let live = live_data(&sim);
    let truth = before.data - live;
    assert_eq!(exact, live_before - live, "the walk over the components");
    let garbage = before.data - live_before;
    assert!(size.freed.data <= truth - garbage, "the lower bound");
    assert!(truth - garbage <= size.upper.data, "the upper bound");
    met.sizes += 1;
    met.inexact += u64::from(!size.exact);
    met.below_truth += u64::from(size.freed.data < truth - garbage);
    sim.quiesce(true);
    assert_eq!(allocated(&sim).data, live, "trim is exact");
}
