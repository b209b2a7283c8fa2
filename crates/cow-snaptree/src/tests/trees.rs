//! The radix trees of the miniature pool: looking things up in them.

use super::sim::{FAN, Ptr, Sim, span};
use crate::Tree;
use cow_format::entry::Root;
use cow_format::{Gen, NodeId, Phys};
use std::collections::{BTreeMap, BTreeSet};

/// The pointers of a tree by level and first block.
pub(crate) type Pointers = BTreeMap<(u32, u64), Ptr>;

impl Sim {
    /// The pointer at a place of a tree; `None` above its root.
    pub(crate) fn at(&self, root: &Root, level: u32, start: u64) -> Option<Ptr> {
        let (mut ptr, mut at) = ((root.phys.0, root.birth.0), u32::from(root.level) + 1);
        if start >= span(at) {
            return Some((0, 0));
        }
        if level > at {
            return None;
        }
        while at > level && ptr.0 != 0 {
            at -= 1;
            ptr = self.maps[&ptr.0][((start / span(at)) % FAN) as usize];
        }
        Some(ptr)
    }

    /// All pointers of a tree by (level, start).
    pub(crate) fn pointers(&self, root: &Root) -> Pointers {
        let mut all = BTreeMap::new();
        let mut stack = vec![(u32::from(root.level) + 1, 0, (root.phys.0, root.birth.0))];
        while let Some((level, start, ptr)) = stack.pop() {
            if ptr.0 == 0 {
                continue;
            }
            all.insert((level, start), ptr);
            if level > 0 {
                assert_eq!(self.alloc.get(&ptr.0), Some(&true), "a freed map node is reachable");
                for (slot, &child) in self.maps[&ptr.0].iter().enumerate() {
                    stack.push((level - 1, start + slot as u64 * span(level - 1), child));
                }
            }
        }
        all
    }

    /// Blocks of layers that no fold has merged yet.
    pub(crate) fn unfolded(&self) -> BTreeSet<u64> {
        let layers = self.layers.values().flat_map(|layer| layer.values().flatten());
        layers.chain(self.dead.values().flatten()).copied().collect()
    }
}

pub(crate) fn set_root(tree: &mut Tree, id: NodeId, level: u32, ptr: Ptr) {
    let root = Root { phys: Phys(ptr.0), crc: 0, birth: Gen(ptr.1), level: (level - 1) as u8 };
    tree.set_root(id, root);
}
