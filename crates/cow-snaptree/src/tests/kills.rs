//! Many kills at once are as many one after the other.

use super::Rng;
use super::damage::{apply, tree};
use crate::Tree;
use cow_format::{Gen, NodeId};

#[test]
fn kills_of_a_leaf_together_are_those_one_by_one() {
    let (mut plain, ids) = tree();
    let births: Vec<Gen> = ids.iter().map(|&id| plain.node(id).unwrap().entry.label_gen).collect();
    for &id in &ids {
        plain.note_born(id, false, 100_000);
        plain.note_born(id, true, 100_000);
    }
    let head = ids[3];
    for walks in [false, true] {
        if walks {
            let plan = plain.plan_delete(&["v@c"], false);
            apply(&mut plain, plan);
            plain.begin_walk(ids[2]);
            plain.set_cursor(ids[2], 100);
        }
        plain.learn_unique(ids[2]);
        for seed in 1..50 {
            let mut rng = Rng(seed);
            let is_map = rng.below(2) == 0;
            let pointers: Vec<(Gen, u64)> =
                (0..rng.below(256)).map(|_| (births[rng.below(4)], 90 + rng.next() % 20)).collect();
            let before = plain.clone();
            let mut together = plain.clone();
            let mut told = Vec::new();
            together.kill_all(head, is_map, pointers.iter().copied(), |free| told.push(free));
            let alone: Vec<bool> =
                pointers.iter().map(|&(birth, end)| plain.kill(head, is_map, birth, end)).collect();
            assert_eq!(told, alone, "seed {seed}");
            for &id in &ids {
                let (a, b) = (together.node(id).unwrap(), plain.node(id).unwrap());
                assert_eq!(a.entry, b.entry, "seed {seed}");
                assert_eq!(a.row(), b.row(), "seed {seed}");
                let volume = a.entry.volume;
                assert_eq!(together.charge(volume), plain.charge(volume), "seed {seed}");
            }
            assert_eq!(together.dirty_rows(), plain.dirty_rows());
            // What a reckoning by hand says.
            let count = |wanted: &dyn Fn(Gen, u64) -> bool| {
                pointers.iter().filter(|(birth, end)| wanted(*birth, *end)).count() as u64
            };
            let heads = count(&|birth, _| birth == births[3]);
            let walked = count(&|birth, end| walks && birth == births[2] && end <= 100);
            let counted = count(&|birth, _| birth == births[2]) - walked;
            let freed = told.iter().filter(|free| **free).count() as u64;
            assert_eq!(freed, heads + walked, "seed {seed}");
            let told = [
                of(&before, ids[3]).own - of(&together, ids[3]).own,
                of(&before, ids[3]).born - of(&together, ids[3]).born,
                of(&before, ids[2]).own - of(&together, ids[2]).own,
                of(&before, ids[2]).born - of(&together, ids[2]).born,
                of(&together, ids[2]).unique - of(&before, ids[2]).unique,
            ];
            assert_eq!(told, [heads, heads, walked, walked, counted], "seed {seed}");
        }
    }
}

/// Sums of data blocks and map nodes.
struct Figures {
    own: u64,
    born: u64,
    unique: u64,
}

fn of(tree: &Tree, id: NodeId) -> Figures {
    let entry = &tree.node(id).unwrap().entry;
    let [own, born, unique] =
        [entry.own, entry.born, entry.unique].map(|count| count.data.wrapping_add(count.map));
    Figures { own, born, unique }
}
