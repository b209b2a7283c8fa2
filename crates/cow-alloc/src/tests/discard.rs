//! Blocks on their way from quarantine to free.

use super::*;
use crate::{CELL_BLOCKS, MAX_DISCARD};

const CELL: u64 = CELL_BLOCKS as u64;

/// A pool in which `blocks` contiguous blocks are in use; the first of them.
fn filled(blocks: u32) -> (Allocator, Phys) {
    let geometry = layout(3 * ZONE_BLOCKS, 3 * ZONE_BLOCKS);
    let mut alloc = fresh(&geometry, 3 * ZONE_BLOCKS);
    let first = Phys(ZONE_BLOCKS + CELL);
    alloc.mark_used(first, blocks.into()).unwrap();
    let all: Vec<Phys> = (0..u64::from(blocks)).map(|i| first.offset(i)).collect();
    alloc.stage(1, &all, &[]).unwrap();
    alloc.commit(2);
    (alloc, first)
}

/// Frees blocks in a checkpoint and lets them leave the quarantine.
fn leave(alloc: &mut Allocator, cp_seq: u64, blocks: impl Iterator<Item = Phys>) {
    let frees: Vec<Phys> = blocks.collect();
    alloc.stage(1, &[], &frees).unwrap();
    alloc.commit(cp_seq);
    alloc.leave(cp_seq);
    assert_eq!(alloc.leaving_blocks(), frees.len() as u64);
}

#[test]
fn a_cell_is_discarded_when_its_last_block_is_free() {
    let (mut alloc, first) = filled(CELL_BLOCKS);
    let free = alloc.free_blocks();
    leave(&mut alloc, 3, (0..CELL - 1).map(|i| first.offset(i)));
    assert_eq!(alloc.begin_discard(1, u64::MAX), Ok(vec![]), "one block is in use");
    assert_eq!((alloc.free_blocks(), alloc.leaving_blocks()), (free + CELL - 1, 0));
    leave(&mut alloc, 4, [first.offset(CELL - 1)].into_iter());
    assert_eq!(alloc.begin_discard(1, u64::MAX), Ok(vec![(first, CELL)]));
    // Those that were free are kept meanwhile.
    assert_eq!((alloc.free_blocks(), alloc.leaving_blocks()), (free, CELL));
    alloc.end_discard(first);
    assert_eq!((alloc.free_blocks(), alloc.leaving_blocks()), (free + CELL, 0));
}

/// Found by seed 13108235974552644245 of the random histories (one zone resident): the second
/// choice took the place of the first, whose blocks were never free again.
#[test]
fn a_zone_may_be_chosen_from_again_before_its_discards_are_over() {
    let (mut alloc, first) = filled(3 * CELL_BLOCKS);
    let (free, second) = (alloc.free_blocks(), first.offset(2 * CELL));
    leave(&mut alloc, 3, (0..CELL).map(|i| first.offset(i)));
    assert_eq!(alloc.begin_discard(1, u64::MAX), Ok(vec![(first, CELL)]));
    let frees: Vec<Phys> = (0..CELL).map(|i| second.offset(i)).collect();
    alloc.stage(1, &[], &frees).unwrap();
    alloc.commit(4);
    alloc.leave(4);
    assert_eq!(alloc.begin_discard(1, u64::MAX), Ok(vec![(second, CELL)]));
    assert_eq!((alloc.free_blocks(), alloc.leaving_blocks()), (free, 2 * CELL));
    alloc.end_discard(first);
    assert_eq!((alloc.free_blocks(), alloc.leaving_blocks()), (free + CELL, CELL));
    alloc.end_discard(second);
    assert_eq!((alloc.free_blocks(), alloc.leaving_blocks()), (free + 2 * CELL, 0));
}

#[test]
fn no_more_free_blocks_are_kept_than_may_be() {
    let (mut alloc, first) = filled(CELL_BLOCKS);
    let free = alloc.free_blocks();
    leave(&mut alloc, 3, (0..CELL - 1).map(|i| first.offset(i)));
    alloc.begin_discard(1, 0).unwrap();
    leave(&mut alloc, 4, [first.offset(CELL - 1)].into_iter());
    assert_eq!(alloc.begin_discard(1, CELL - 2), Ok(vec![]));
    assert_eq!((alloc.free_blocks(), alloc.leaving_blocks()), (free + CELL, 0));
}

#[test]
fn long_runs_are_discarded_in_pieces() {
    let most = u64::from(MAX_DISCARD);
    let (mut alloc, first) = filled(2 * MAX_DISCARD + CELL_BLOCKS);
    let free = alloc.free_blocks();
    leave(&mut alloc, 3, (0..2 * most + CELL).map(|i| first.offset(i)));
    let runs = alloc.begin_discard(1, 0).unwrap();
    assert_eq!(runs.iter().map(|run| run.1).collect::<Vec<_>>(), [most, most, CELL]);
    assert_eq!(alloc.free_blocks(), free);
    runs.iter().rev().for_each(|run| alloc.end_discard(run.0));
    assert_eq!(alloc.free_blocks(), free + 2 * most + CELL);
    // Once is enough.
    alloc.end_discard(first);
    assert_eq!(alloc.free_blocks(), free + 2 * most + CELL);
}

/// A zone that leaves memory meanwhile and comes back knows which blocks are not free yet.
#[test]
fn what_leaves_is_known_without_its_zone() {
    let (mut alloc, first) = filled(2 * CELL_BLOCKS);
    let staged: Vec<Phys> = (0..2 * CELL).map(|i| first.offset(i)).collect();
    let page = alloc.stage(1, &[], &staged).unwrap().page;
    alloc.commit(3);
    alloc.leave(3);
    for waiting in [true, false] {
        if !waiting {
            let found = alloc.begin_discard(1, u64::MAX).unwrap();
            assert_eq!(found, [(first, 2 * CELL)]);
        }
        // Out of memory and in again.
        alloc.zones[1] = None;
        alloc.loaded.retain(|zone| *zone != 1);
        alloc.frontiers.iter_mut().for_each(|frontier| *frontier = Default::default());
        let avail = alloc.states[1].avail;
        alloc.load_zone(1, &page).unwrap();
        let used = &alloc.zones[1].as_ref().unwrap().used;
        let bit = (first.0 % ZONE_BLOCKS) as u32;
        assert_eq!(used.count_range(bit, 2 * CELL_BLOCKS), 2 * CELL_BLOCKS, "{waiting}");
        assert_eq!(alloc.states[1].avail, avail);
    }
}
