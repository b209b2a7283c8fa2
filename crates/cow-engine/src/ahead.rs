//! Map nodes that are read ahead. A fold writes the nodes of a tree one after the other, so those that
//! a walk wants next lie near each other: they come with one read, which a device gives in hardly more
//! time than a block, and takes less of it from others. Where such a read fails, or something in it is
//! not what was written, that node is read once more by itself.

use crate::lookup::{cached, keep, load};
use crate::task::Cx;
use cow_format::FamilyId;
use cow_format::mapnode::{MapNode, Slot};
use std::sync::Arc;

/// Most blocks of one read for what somebody waits for: 64 KiB. One is in flight at a time: what others
/// wait for is behind it in the device, and behind its submission and its nodes on the thread.
pub(crate) const ASKED_FOR: u64 = 16;
/// For a fold: 32 KiB. Nobody waits for it, and clients are served beside it.
pub(crate) const FOR_FOLDS: u64 = 8;
/// So many blocks that nobody wants are read along with others, rather than begin another read.
const MAX_GAP: u64 = 4;

/// Reads nodes of one level: index, and what points to it; up to `most` blocks with one read. `None` for
/// each that cannot be read.
pub(crate) async fn load_near(
    cx: &Cx,
    family: FamilyId,
    level: u8,
    wanted: &[(u64, Slot)],
    most: u64,
) -> Vec<Option<Arc<MapNode>>> {
    let mut nodes: Vec<_> = wanted.iter().map(|(_, slot)| cached(cx, *slot)).collect();
    let mut missing: Vec<usize> = (0..nodes.len()).filter(|&at| nodes[at].is_none()).collect();
    missing.sort_unstable_by_key(|&at| wanted[at].1.phys);
    for run in runs(wanted, &missing, most) {
        let read = read_run(cx, family, level, wanted, run).await;
        for (&at, node) in run.iter().zip(read) {
            nodes[at] = node;
        }
    }
    nodes
}

/// What comes with one read each; `order` is by place.
fn runs<'a>(wanted: &[(u64, Slot)], order: &'a [usize], most: u64) -> Vec<&'a [usize]> {
    let phys = |at: usize| wanted[at].1.phys.0;
    let mut runs = Vec::new();
    let mut first = 0;
    for next in 1..=order.len() {
        let goes_on = order.get(next).is_some_and(|&at| {
            phys(at) - phys(order[next - 1]) <= MAX_GAP + 1 && phys(at) - phys(order[first]) < most
        });
        if !goes_on {
            runs.push(&order[first..next]);
            first = next;
        }
    }
    runs
}

/// Reads one run; its nodes in order.
async fn read_run(
    cx: &Cx,
    family: FamilyId,
    level: u8,
    wanted: &[(u64, Slot)],
    run: &[usize],
) -> Vec<Option<Arc<MapNode>>> {
    let (Some(&first), Some(&last)) = (run.first(), run.last()) else { return Vec::new() };
    let start = wanted[first].1.phys;
    let block_of = |at: usize| (wanted[at].1.phys.0 - start.0) as usize;
    let buf = match run.len() {
        // By itself it comes in any case below.
        1 => None,
        _ => cx.read(start, block_of(last) + 1, false).await.ok(),
    };
    let mut nodes = Vec::with_capacity(run.len());
    for &at in run {
        let (index, slot) = wanted[at];
        let found = buf
            .as_ref()
            .and_then(|buf| keep(cx, family, level, index, slot, buf.block(block_of(at))));
        nodes.push(match found {
            Some(node) => Some(node),
            None => load(cx, family, level, index, slot).await.ok(),
        });
    }
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;
    use cow_format::{Gen, Phys};

    #[test]
    fn what_lies_near_comes_together() {
        let of = |places: &[u64]| {
            let slot = |&phys: &u64| (0, Slot { phys: Phys(phys), birth: Gen(1), crc: 0 });
            let wanted: Vec<_> = places.iter().map(slot).collect();
            let mut order: Vec<usize> = (0..wanted.len()).collect();
            order.sort_unstable_by_key(|&at| wanted[at].1.phys);
            runs(&wanted, &order, 16).iter().map(|run| run.len()).collect::<Vec<_>>()
        };
        assert_eq!(of(&[]), []);
        assert_eq!(of(&[7]), [1]);
        assert_eq!(of(&[9, 7, 8]), [3]);
        assert_eq!(of(&[10, 15, 21, 22]), [2, 2], "a gap of 4, then one of 5");
        assert_eq!(of(&[5, 5, 6]), [3]);
        let long: Vec<u64> = (100..170).collect();
        assert_eq!(of(&long), [16, 16, 16, 16, 6]);
    }
}
