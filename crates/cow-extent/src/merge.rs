//! Merging a layer into a leaf of the map: the innermost step of a fold, without I/O.

use crate::leaf::LeafLayer;
use cow_format::Gen;
use cow_format::mapnode::{MapNode, Slot};

/// What a merge did to one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeafChange {
    /// This data block, born at that generation, is no longer in the tree: a kill.
    Killed(u8, Slot),
    /// A new data block is.
    Born(u8),
}

/// Merges `layer` (or, when `cleared` and there is none, a whole clear) into `leaf` on behalf of
/// generation `born`; every slot that changes is reported. Returns whether anything changed. A
/// tombstone over a hole changes nothing.
pub fn merge_leaf(
    leaf: &mut MapNode,
    layer: Option<&LeafLayer>,
    cleared: bool,
    born: Gen,
    mut report: impl FnMut(LeafChange),
) -> bool {
    let clear_base = cleared || layer.is_some_and(|l| l.cleared);
    let mut changed = false;
    let mut put = |slot: u8, old: &mut Slot, new: Slot| {
        if new.is_hole() && old.is_hole() {
            return;
        }
        if old.is_mapped() {
            report(LeafChange::Killed(slot, *old));
        }
        if new.is_mapped() {
            report(LeafChange::Born(slot));
        }
        *old = new;
        changed = true;
    };
    let slots = leaf.slots_mut();
    if clear_base {
        for (i, old) in slots.iter_mut().enumerate() {
            let slot = i as u8;
            if layer.is_none_or(|l| l.get(slot).is_none()) {
                put(slot, old, Slot::hole(born));
            }
        }
    }
    for entry in layer.map(LeafLayer::entries).unwrap_or_default() {
        let new = if entry.phys.is_none() {
            Slot::hole(born)
        } else {
            Slot { phys: entry.phys, birth: born, crc: entry.crc }
        };
        put(entry.slot, &mut slots[usize::from(entry.slot)], new);
    }
    if changed {
        leaf.birth = born;
    }
    changed
}
