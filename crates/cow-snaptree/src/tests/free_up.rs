//! The rule by which snapshots are named that free enough.

use super::oracle::{act, snapshots};
use super::sim::Sim;
use crate::node::Node;
use cow_format::NodeId;
use cow_format::entry::NodeKind;
use std::collections::BTreeSet;

/// A tree at rest after a random history, with all its rows.
fn random_tree(seed: u64) -> (Sim, crate::Tree) {
    let mut sim = Sim::new(seed);
    for step in 2..60 + seed % 60 {
        act(&mut sim, step);
    }
    if sim.fold.is_some() {
        sim.fold_end();
    }
    sim.quiesce(true);
    let mut tree = sim.tree.clone();
    sim.load_all(&mut tree);
    (sim, tree)
}

#[test]
fn what_is_named_frees_enough_and_each_is_needed() {
    let (mut named, mut refused) = (0, 0);
    for seed in 0..150 {
        let (mut sim, tree) = random_tree(seed);
        let excluded: BTreeSet<NodeId> =
            snapshots(&tree).into_iter().filter(|_| sim.rng.chance(10)).collect();
        let candidates = tree.free_up_candidates(0, &excluded);
        let node = |id: &NodeId| -> &Node { tree.node(*id).unwrap() };
        assert!(candidates.iter().all(|id| node(id).entry.holds == 0 && !excluded.contains(id)));
        let all = tree.set_size(&candidates).freed.data;
        for blocks in [1, all / 2, all, all + 1] {
            let Some(set) = tree.free_up(blocks, &candidates) else {
                assert!(blocks > all);
                refused += 1;
                continue;
            };
            named += 1;
            assert!(tree.set_size(&set).freed.data >= blocks, "seed {seed}");
            for left_out in &set {
                let rest: Vec<_> = set.iter().copied().filter(|id| id != left_out).collect();
                let freed = tree.set_size(&rest).freed.data;
                assert!(freed < blocks, "seed {seed}: {left_out} is named in vain");
            }
            if set.iter().any(|id| node(id).entry.kind == NodeKind::User) {
                let undos: Vec<_> = candidates
                    .iter()
                    .copied()
                    .filter(|id| node(id).entry.kind == NodeKind::Undo)
                    .collect();
                let freed = tree.set_size(&undos).freed.data;
                assert!(freed < blocks, "seed {seed}: undo snapshots would have been enough");
            }
        }
    }
    assert!(named > 100 && refused > 50, "{named} {refused}");
}
