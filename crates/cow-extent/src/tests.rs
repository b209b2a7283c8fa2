//! Layers against a plain map; ranges against a plain set.

use crate::*;
use cow_format::mapnode::{MapNode, Slot};
use cow_format::{FamilyId, Gen, Lba, NodeId, Phys};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// SplitMix64, for seeded histories.
struct Rng(u64);

impl Rng {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }
}

#[test]
fn range_set_equals_a_plain_set() {
    for seed in 0..200 {
        let mut rng = Rng(seed);
        let (mut set, mut plain) = (RangeSet::default(), BTreeSet::new());
        for _ in 0..60 {
            let (a, len) = (rng.next(64), rng.next(12));
            if rng.next(3) == 0 {
                assert_eq!(set.remove(a), plain.remove(&a));
            } else {
                set.insert(a, a + len);
                plain.extend(a..a + len);
            }
            for i in 0..80 {
                assert_eq!(set.contains(i), plain.contains(&i), "seed {seed}");
            }
            let (from, to) = (rng.next(64), rng.next(80));
            let got: BTreeSet<u64> = set.overlapping(from, to).flat_map(|(s, e)| s..e).collect();
            let want: BTreeSet<u64> =
                plain.iter().copied().filter(|&i| from <= i && i < to).collect();
            assert_eq!(got, want, "seed {seed} {from}..{to}");
            if from < to {
                assert_eq!(set.covers(from, to), (from..to).all(|i| plain.contains(&i)));
            }
        }
    }
}

/// Every block that was put in is in exactly one place: mapped, or dead. Merging gives the map
/// that a plain model has, with a kill for each pointer that went and a birth for each new one.
#[test]
fn layers_equal_a_plain_map_and_merge_into_it() {
    let node = NodeId(7);
    for seed in 0..300 {
        let mut rng = Rng(seed);
        let mut layers = Layers::default();
        let mut plain: BTreeMap<u64, Option<(u64, u32)>> = BTreeMap::new();
        let mut next = 1000u64;
        let mut given = BTreeSet::new();
        for _ in 0..40 {
            let longest = if rng.next(4) == 0 { 700 } else { 9 };
            let (lba, len) = (rng.next(1200), 1 + rng.next(longest));
            if rng.next(3) == 0 {
                layers.clear_run(node, Lba(lba), len, 2);
                plain.extend((lba..lba + len).map(|b| (b, None)));
            } else {
                let crcs: Vec<u32> = (0..len).map(|i| (next + i) as u32).collect();
                layers.set_run(node, Lba(lba), Phys(next), &crcs, 2);
                plain.extend((0..len).map(|i| (lba + i, Some((next + i, (next + i) as u32)))));
                given.extend(next..next + len);
                next += len;
            }
        }
        for b in 0..2100 {
            let want = match plain.get(&b) {
                None => Probe::Miss,
                Some(None) => Probe::Hole,
                Some(Some((p, crc))) => Probe::Mapped(Phys(*p), *crc),
            };
            assert_eq!(layers.probe(node, Lba(b)), want, "seed {seed} block {b}");
        }
        let layer = layers.node(node).unwrap();
        let mapped: BTreeSet<u64> = plain.values().flatten().map(|(p, _)| *p).collect();
        let dead: BTreeSet<u64> = layer.dead.iter().map(|p| p.0).collect();
        assert_eq!(dead.len(), layer.dead.len(), "a block died twice");
        assert!(dead.is_disjoint(&mapped));
        assert_eq!(&dead | &mapped, given, "seed {seed}");
        assert_eq!(layers.reserve_blocks(), layer.reserve_blocks());
        merge_check(&mut rng, layer, &plain);
    }
}

fn merge_check(rng: &mut Rng, layer: &NodeLayer, plain: &BTreeMap<u64, Option<(u64, u32)>>) {
    for leaf in 0..9u64 {
        let mut map = MapNode::empty(FamilyId(1), 0, leaf, Gen(3));
        map.birth = Gen(4);
        for slot in map.slots_mut() {
            *slot = match rng.next(3) {
                0 => Slot { phys: Phys(1 + rng.next(900)), birth: Gen(4), crc: 1 },
                1 => Slot::lost(Gen(4)),
                _ => Slot::hole(Gen(3)),
            };
        }
        let old = map.clone();
        let (mut killed, mut born) = (Vec::new(), 0);
        let cleared = layer.clears.contains(leaf);
        let changed = merge_leaf(&mut map, layer.leaves.get(&leaf), cleared, Gen(9), |c| match c {
            LeafChange::Killed(slot, s) => killed.push((slot, s)),
            LeafChange::Born(_) => born += 1,
        });
        assert_eq!(changed, map.slots() != old.slots());
        for (i, (new, old)) in map.slots().iter().zip(old.slots()).enumerate() {
            let want = match plain.get(&(leaf * 256 + i as u64)) {
                None => *old,
                Some(None) if old.is_hole() => *old,
                Some(None) => Slot::hole(Gen(9)),
                Some(Some((p, crc))) => Slot { phys: Phys(*p), birth: Gen(9), crc: *crc },
            };
            assert_eq!(*new, want);
            assert_eq!(killed.contains(&(i as u8, *old)), old.is_mapped() && want != *old);
        }
        let want_born = map.slots().iter().filter(|s| s.is_mapped() && s.birth == Gen(9)).count();
        assert_eq!(born, want_born);
    }
}

#[test]
fn a_move_changes_only_the_entry_that_still_names_the_old_block() {
    let mut layers = Layers::default();
    layers.set_run(NodeId(1), Lba(300), Phys(10), &[5], 1);
    assert!(!layers.move_block(NodeId(1), Lba(300), Phys(11), Phys(20)));
    assert!(!layers.move_block(NodeId(2), Lba(300), Phys(10), Phys(20)));
    assert!(layers.move_block(NodeId(1), Lba(300), Phys(10), Phys(20)));
    assert_eq!(layers.probe(NodeId(1), Lba(300)), Probe::Mapped(Phys(20), 5));
}

#[test]
fn a_huge_discard_costs_nothing() {
    let mut layers = Layers::default();
    layers.clear_run(NodeId(1), Lba(3), (1 << 32) - 7, 3);
    assert!(layers.bytes() < 20_000 && layers.reserve_blocks() < 12);
    assert_eq!(layers.probe(NodeId(1), Lba(1 << 30)), Probe::Hole);
    assert_eq!(layers.probe(NodeId(1), Lba(2)), Probe::Miss);
}

#[test]
fn the_cache_holds_what_is_used() {
    let mut cache = NodeCache::new(0);
    let node = Arc::new(MapNode::empty(FamilyId(1), 0, 0, Gen(0)));
    for i in 1..100 {
        cache.insert(Phys(i), 7, Arc::clone(&node));
        assert!(cache.get(Phys(1), 7).is_some(), "used at every step, never evicted");
    }
    assert!(cache.get(Phys(50), 7).is_none() && cache.get(Phys(99), 7).is_some());
    assert!(cache.get(Phys(99), 8).is_none(), "another node at that address");
    cache.remove(Phys(99));
    assert!(cache.get(Phys(99), 7).is_none() && cache.get(Phys(1), 7).is_some());
}

#[test]
fn the_reserve_counts_the_growth_of_the_root_and_the_kill_row() {
    let node = NodeId(1);
    let mut layers = Layers::default();
    // A root of level 0 that comes to be of level 3: levels 1 and 2 above it, at index 0.
    layers.set_base(node, Base::default());
    layers.set_run(node, Lba(5 << 24), Phys(10), &[5], 3);
    assert_eq!(layers.reserve_blocks(), 1 + 3 + 2);
    // The volume grew meanwhile: the root of level 3 is a child then, and counted already.
    layers.set_run(node, Lba(7 << 32), Phys(11), &[5], 4);
    assert_eq!(layers.reserve_blocks(), 6 + 1 + 4);
    // It has become small, and its root has not.
    let mut layers = Layers::default();
    layers.set_base(node, Base { root_level: 3, top_level: 3, ..Base::default() });
    layers.set_run(node, Lba(0), Phys(12), &[5], 0);
    assert_eq!(layers.reserve_blocks(), 1 + 3);

    // One snapshot: no more cells than gens, whatever is killed.
    let mut layers = Layers::default();
    let base = Base { root_level: 3, top_level: 3, births: 7, row_blocks: 2 };
    layers.set_base(node, base);
    assert_eq!(layers.reserve_blocks(), 2, "the row that is there");
    layers.set_run(node, Lba(0), Phys(10), &[5; 256], 3);
    assert_eq!(layers.reserve_blocks(), 4 + 2 + 1);
    // Many: no more cells than kills, and a discard kills any number.
    layers.set_base(node, Base { births: 1 << 30, ..base });
    assert_eq!(layers.reserve_blocks(), 4 + 2 + 1);
    layers.set_run(node, Lba(256), Phys(1000), &[5; 512], 3);
    assert_eq!(layers.reserve_blocks(), 6 + 2 + 3);
    layers.set_base(node, Base { births: 3360, ..base });
    layers.clear_run(node, Lba(0), 256, 3);
    assert_eq!(layers.reserve_blocks(), 5 + 2 + 10);
    assert_eq!(layers.reserve_blocks(), layers.node(node).unwrap().reserve_blocks());
}
