//! Random histories, and everything that the tree counts recounted by brute force.

use super::setsize::{Met, check_sizes};
use super::sim::{MAX_LEVEL, Sim, span};
use super::trees::Pointers;
use crate::node::UNKNOWN;
use crate::row::{add, unit};
use crate::{POOL_NODE, Tree};
use cow_format::BLOCK_SIZE;
use cow_format::entry::{Count, NodeState};
use cow_format::{Gen, NodeId};
use std::collections::{BTreeMap, BTreeSet};

/// The trees of a fold against what the tree counts.
pub(crate) fn check(sim: &Sim, tree: &Tree) {
    let walks = |id: NodeId| tree.node(id).unwrap().entry.state == NodeState::Walking;
    let ids: Vec<NodeId> =
        tree.iter().map(|node| node.entry.id).filter(|id| id.0 != u64::MAX).collect();
    let all: BTreeMap<NodeId, _> = ids
        .iter()
        .filter(|&&id| !walks(id))
        .map(|&id| (id, sim.pointers(&tree.node(id).unwrap().entry.root)))
        .collect();
    let reach: BTreeSet<u64> = all.values().flat_map(|t| t.values().map(|ptr| ptr.0)).collect();
    assert!(reach.iter().all(|block| sim.alloc.contains_key(block)), "a live block was freed");
    for (id, pointers) in &all {
        let node = tree.node(*id).unwrap();
        let mapped = pointers.keys().fold(Count::default(), |sum, at| add(sum, unit(at.0 > 0, 1)));
        assert_eq!(node.entry.mapped, mapped, "mapped of {id}");
        let Some(above) = all.get(&node.entry.parent) else { continue };
        for (at, ptr) in pointers.iter().filter(|(_, ptr)| Gen(ptr.1) <= tree.parent_gen(*id)) {
            assert_eq!(above.get(at), Some(ptr), "the ownership lemma at {id}");
        }
    }
    if ids.iter().any(|&id| walks(id)) {
        return;
    }
    let allocated: BTreeSet<u64> = sim.alloc.keys().copied().collect();
    let unfolded = sim.unfolded();
    assert!(unfolded.is_disjoint(&reach));
    assert_eq!(reach.union(&unfolded).copied().collect::<BTreeSet<_>>(), allocated, "a leak");
    let mut tree = tree.clone();
    sim.load_all(&mut tree);
    for id in ids {
        recount(&tree, id, &all);
    }
}

/// own, born and the kill row of a node; and what follows from them.
fn recount(tree: &Tree, id: NodeId, all: &BTreeMap<NodeId, Pointers>) {
    let node = tree.node(id).unwrap();
    let above = tree.parent_gen(id);
    let mine = all[&id].iter().filter(|(_, ptr)| Gen(ptr.1) > above);
    let own = mine.clone().fold(Count::default(), |sum, (at, _)| add(sum, unit(at.0 > 0, 1)));
    assert_eq!((node.entry.own, node.entry.born), (own, own), "own and born of {id}");
    let mut row = BTreeMap::new();
    for (at, ptr) in all.get(&node.entry.parent).into_iter().flatten() {
        if all[&id].get(at).map(|p| p.0) != Some(ptr.0) {
            let cell: &mut Count = row.entry(Gen(ptr.1)).or_default();
            *cell = add(*cell, unit(at.0 > 0, 1));
        }
    }
    assert!(node.row().is_loaded());
    assert_eq!(node.row().cells().collect::<BTreeMap<_, _>>(), row, "kill row of {id}");
    if node.entry.unique != UNKNOWN {
        let child = tree.node(node.children[0]).unwrap();
        assert_eq!(node.children.len(), 1);
        assert_eq!(
            node.entry.unique,
            child.row().sum(above, node.entry.label_gen),
            "unique of {id}"
        );
    }
    if node.is_branch_point() {
        let dead = |child: &NodeId| {
            let gone = mine.clone().filter(|&(at, ptr)| all[child].get(at) != Some(ptr));
            gone.fold(Count::default(), |sum, (at, _)| add(sum, unit(at.0 > 0, 1)))
        };
        let gains: Vec<Count> = node.children.iter().map(dead).collect();
        let least = Count {
            data: gains.iter().map(|gain| gain.data).min().unwrap(),
            map: gains.iter().map(|gain| gain.map).min().unwrap(),
        };
        assert_eq!(tree.trim_gain(id), least, "trim gain of {id}");
        if node.entry.trimmed {
            // Nothing is left that a trim would take.
            let in_child = |(at, ptr): (&(u32, u64), &(u64, u32)), child: &NodeId| {
                all[child].get(at).map(|p| p.0) == Some(ptr.0)
            };
            let left = all[&id].iter().filter(|(at, ptr)| {
                at.0 == 0
                    && Gen(ptr.1) > tree.trim_floor(id)
                    && !node.children.iter().any(|child| in_child((at, ptr), child))
            });
            assert_eq!(left.count(), 0, "branch point {id} is said to be trimmed");
        }
    }
    if node.is_live() {
        let size = tree.set_size(&[id]);
        assert_eq!(tree.unique(id), Some((size.freed, size.exact)), "unique against set size");
    }
    let mut births: Vec<u32> = all[&id].values().map(|ptr| ptr.1).collect();
    births.dedup();
    for birth in births {
        let mut path = vec![id];
        while let Some(up) =
            tree.node(path[path.len() - 1]).map(|n| n.entry.parent).filter(|p| p.0 > 0)
        {
            path.push(up);
        }
        let first = path.iter().rev().find(|&&y| tree.node(y).unwrap().entry.label_gen.0 >= birth);
        assert_eq!(Some(&tree.owner(id, Gen(birth))), first, "owner");
    }
}

/// Two trees are the same in all that matters: what is loaded does not.
pub(crate) fn assert_same(sim: &Sim, a: &Tree, b: &Tree) {
    let (mut a, mut b) = (a.clone(), b.clone());
    sim.load_all(&mut a);
    sim.load_all(&mut b);
    let nodes = |tree: &Tree| {
        let mut nodes: Vec<_> = tree.iter().cloned().collect();
        // Known or not depends on which rows were loaded when.
        for node in &mut nodes {
            // What was not read yet may have one.
            let has = node.props().is_some_and(crate::props::has_policy);
            assert!(node.entry.policy || !has, "a policy of {} is not looked for", node.entry.id);
            node.entry.policy = has;
            node.entry.unique = UNKNOWN;
            node.trim_left = 0;
            node.row_changes = 0;
            node.map_changes = 0;
        }
        nodes
    };
    for (a, b) in nodes(&a).iter().zip(&nodes(&b)) {
        assert_eq!(a, b);
    }
    assert_eq!(a.counters(), b.counters());
    assert_eq!(a.counts(), b.counts());
    assert_eq!(a.volumes().collect::<Vec<_>>(), b.volumes().collect::<Vec<_>>());
    assert_eq!(a.dirty_rows(), b.dirty_rows());
    assert_eq!(a.dirty_props(), b.dirty_props());
    assert_eq!((a.unrooted(), a.walkable()), (b.unrooted(), b.walkable()));
    for (volume, _) in a.volumes() {
        for id in a.snapshots_of(volume).into_iter().chain(a.head(volume)) {
            let name = a.full_name(id).unwrap();
            assert_eq!((a.resolve(&name), b.resolve(&name)), (Ok(id), Ok(id)));
        }
    }
}

/// Every live node reads as it should.
fn check_content(sim: &Sim) {
    for node in sim.tree.iter().filter(|node| node.is_live()) {
        for at in 0..span(MAX_LEVEL) {
            let mut from = node;
            let block = loop {
                if let Some(block) = sim.layers.get(&from.entry.id).and_then(|l| l.get(&at)) {
                    break block.unwrap_or(0);
                }
                if from.rooted {
                    break sim.at(&from.entry.root, 0, at).unwrap().0;
                }
                match sim.tree.node(from.entry.parent) {
                    Some(parent) => from = parent,
                    None => break 0,
                }
            };
            let found = if block == 0 { 0 } else { sim.stamps[&block] };
            assert_eq!(
                found, sim.shadow[&node.entry.id][at as usize],
                "content of {}",
                node.entry.id
            );
        }
    }
}

pub(crate) fn snapshots(tree: &Tree) -> Vec<NodeId> {
    tree.iter().filter(|node| node.is_snapshot()).map(|node| node.entry.id).collect()
}

fn split(name: &str) -> (String, String) {
    let (volume, snapshot) = name.split_once('@').unwrap();
    (volume.to_owned(), snapshot.to_owned())
}

/// One random verb or write.
pub(crate) fn act(sim: &mut Sim, step: u64) {
    let volumes: Vec<String> = sim.tree.volumes().map(|(_, v)| v.name.clone()).collect();
    let Some(volume) = sim.rng.pick(&(0..volumes.len()).collect::<Vec<_>>()) else { return };
    let volume = volumes[volume].clone();
    let head = sim.tree.resolve(&volume).unwrap();
    let snap = {
        let all = snapshots(&sim.tree);
        sim.rng.pick(&all).map(|id| sim.tree.full_name(id).unwrap())
    };
    let blocks = sim.tree.node(head).unwrap().entry.size_bytes / BLOCK_SIZE as u64;
    let discard = sim.rng.chance(25);
    match (sim.rng.below(100), snap) {
        (0..45, _) => {
            let at = sim.rng.below(blocks as usize) as u64;
            sim.write(head, at, discard);
        }
        (45..48, _) if blocks < span(MAX_LEVEL) => {
            let size = 2 * blocks * BLOCK_SIZE as u64;
            sim.run(|tree| tree.plan_resize(&volume, size, false)).unwrap();
        }
        (48..60, _) => super::policies::snapshot(sim, &volume, step),
        (60..66, Some(snap)) if volumes.len() < 4 => {
            let (v, s) = split(&snap);
            let name = format!("c{step}");
            sim.run(|tree| tree.plan_clone((&v, &s), &name, &[], step)).unwrap();
        }
        (66..72, Some(snap)) => {
            let (v, s) = split(&snap);
            let unchanged = sim.rng.chance(20);
            sim.run(|tree| tree.plan_rollback(&[(&v, &s)], discard, step, |_| unchanged)).unwrap();
        }
        (72..74, _) => drop(sim.run(|tree| tree.plan_undo(&volume, step))),
        (74..82, Some(snap)) => drop(sim.run(|tree| tree.plan_delete(&[&snap], false))),
        (82..84, _) if volumes.len() > 1 => {
            drop(sim.run(|tree| tree.plan_delete(&[&volume], true)));
        }
        (84..88, Some(snap)) => {
            let name = if discard { volume } else { snap };
            let set = sim.rng.chance(40);
            drop(sim.run(|tree| tree.plan_hold(&name, "t", set)));
        }
        (88..91, snap) => {
            let value = (!discard).then(|| format!("{step}"));
            let name = snap.filter(|_| step.is_multiple_of(2)).unwrap_or(volume);
            sim.run(|tree| tree.plan_set_props(&name, &[("k".into(), value.clone())])).unwrap();
        }
        (91, Some(snap)) => {
            // An undo snapshot that gets a name of its own counts.
            // Every other name is too long for an entry alone.
            let to = format!("r{step}{}", "_".repeat(step as usize % 2 * 60));
            let renamed = sim.run(|tree| tree.plan_rename(&snap, &to));
            assert!(matches!(renamed, Ok(_) | Err(crate::TreeError::Limit(_))), "{renamed:?}");
        }
        (92..94, _) => super::policies::set(sim, &volume),
        (94..96, _) => super::policies::prune(sim, step),
        _ => fold_step(sim),
    }
}

fn fold_step(sim: &mut Sim) {
    if sim.fold.is_none() {
        check_content(sim);
        sim.fold_start();
    }
    for _ in 0..sim.rng.below(7) {
        sim.walk_step();
    }
    if sim.rng.chance(30) {
        sim.trim();
    }
    if sim.rng.chance(80) {
        sim.fold_end();
        check_content(sim);
        super::setsize::note_exact_sizes(sim);
    }
}

/// At the end: everything goes, and nothing is left.
fn check_empty(sim: &mut Sim) {
    sim.quiesce(false);
    let holders: Vec<String> = sim
        .tree
        .iter()
        .filter(|node| node.is_live() && node.entry.holds > 0)
        .filter_map(|node| sim.tree.full_name(node.entry.id))
        .collect();
    for name in holders {
        sim.run(|tree| tree.plan_hold(&name, "t", false)).unwrap();
    }
    let volumes: Vec<String> = sim.tree.volumes().map(|(_, v)| v.name.clone()).collect();
    let names: Vec<&str> = volumes.iter().map(String::as_str).collect();
    sim.run(|tree| tree.plan_delete(&names, true)).unwrap();
    // What the pool itself has been told goes, and its node stays.
    let has_pool = sim.tree.node(POOL_NODE).is_some();
    if has_pool {
        sim.run(|tree| tree.plan_set_props("", &[("limit:g".into(), None)])).unwrap();
    }
    sim.quiesce(false);
    assert!(sim.alloc.is_empty(), "blocks left at the end");
    assert_eq!(sim.tree.iter().count(), usize::from(has_pool));
    assert_eq!(sim.tree.counts(), crate::TreeCounts::default());
    sim.fold_start();
    sim.fold_end();
    assert!(sim.blobs.is_empty(), "blobs left at the end: {:?}", sim.blobs);
    let left = sim.pages.values().filter(|page| page.iter().any(|&byte| byte != 0)).count();
    assert!(left <= usize::from(has_pool), "entries left");
}

fn history(seed: u64, met: &mut Met) {
    let mut sim = Sim::new(seed);
    let steps = 20 + sim.rng.below(90) as u64;
    for step in 2..steps {
        act(&mut sim, step);
        if sim.rng.chance(4) {
            let at_rest = sim.rng.chance(50);
            check_sizes(&sim, at_rest, met);
        }
    }
    met.pruned += sim.pruned;
    check_empty(&mut sim);
}

fn histories(seeds: std::ops::Range<u64>) {
    let mut met = Met::default();
    for seed in seeds {
        let failed = std::panic::catch_unwind(|| {
            let mut met = Met::default();
            history(seed, &mut met);
            met
        });
        match failed {
            Ok(one) => {
                met.sizes += one.sizes;
                met.inexact += one.inexact;
                met.below_truth += one.below_truth;
                met.pruned += one.pruned;
            }
            Err(_) => panic!("seed {seed}"),
        }
    }
    println!("sizes {} inexact {} below truth {}", met.sizes, met.inexact, met.below_truth);
    println!("pruned {}", met.pruned);
    // The bounds are worth nothing if they never differ, or never matter.
    assert!(met.sizes > 0 && met.inexact * 2 < met.sizes);
    assert!(met.pruned > 200, "only {} snapshots were pruned", met.pruned);
    assert!(met.below_truth > 0, "no history hid blocks behind a branch point");
}

#[test]
fn accounts_match_a_recount() {
    histories(0..1500);
}

#[test]
#[ignore = "minutes: many more seeds"]
fn accounts_match_a_recount_long() {
    histories(1500..40_000);
}
