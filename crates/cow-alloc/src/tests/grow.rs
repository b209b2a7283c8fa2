//! Pools that grow: partial zones, new zones, new allocation groups.

use super::oracle::World;
use super::*;
use crate::Stream;
use cow_format::geometry::AG_BLOCKS;

#[test]
fn the_rest_of_a_partial_zone_becomes_free_without_its_page() {
    let mut world = World::new(ZONE_BLOCKS + 1000, 3 * ZONE_BLOCKS, 1);
    let mut rng = Rng(3);
    while world.allocate(Stream::Random, 3000) {}
    world.begin_fold(&mut rng);
    world.commit();
    // Evicted: another zone is looked at with a budget of one.
    for blocks in [1001, 1001, 5000, ZONE_BLOCKS, 2 * ZONE_BLOCKS] {
        world.alloc.load_fresh(0).ok();
        world.grow(ZONE_BLOCKS + blocks);
        world.check();
        world.reopen(&mut rng, 1);
        world.check();
    }
    while world.allocate(Stream::Sequential, 3000) {}
    assert_eq!(world.alloc.free_blocks(), 0);
    world.check();
}

#[test]
fn growth_while_a_checkpoint_is_written_is_not_in_it() {
    for grow_first in [false, true] {
        let mut world = World::new(ZONE_BLOCKS + 1000, 3 * ZONE_BLOCKS, 2);
        let mut rng = Rng(4);
        (0..40).for_each(|_| assert!(world.allocate(Stream::Random, 700)));
        world.begin_fold(&mut rng);
        if grow_first {
            world.grow(ZONE_BLOCKS + 9000);
        }
        while world.stage_next() {}
        world.grow(2 * ZONE_BLOCKS + 3);
        // `commit` checks all pages by the size of the pool before the growth.
        world.commit();
        world.check();
        world.reopen(&mut rng, 2);
        world.check();
        world.begin_fold(&mut rng);
        world.commit();
        world.check();
    }
}

#[test]
fn a_new_group_begins_with_its_homes() {
    let geometry = layout(AG_BLOCKS - 10, 2 * AG_BLOCKS);
    let mut alloc = fresh(&geometry, AG_BLOCKS - 10);
    let before = alloc.free_blocks();
    for (blocks, more) in [
        (AG_BLOCKS, 10),
        (AG_BLOCKS + 1, 10),
        (AG_BLOCKS + 200, 10),
        (AG_BLOCKS + 256, 10),
        (AG_BLOCKS + 257, 11),
        (AG_BLOCKS + 3 * ZONE_BLOCKS, 10 + 3 * ZONE_BLOCKS - 256),
    ] {
        alloc.grow(blocks).unwrap();
        assert_eq!(alloc.free_blocks(), before + more, "{blocks}");
        let again = fresh(&geometry, blocks);
        assert_eq!(again.free_blocks(), before + more);
        assert_eq!(again.descs(), alloc.descs());
    }
    for bad in [0, AG_BLOCKS, 2 * AG_BLOCKS + 1, u64::MAX] {
        assert_eq!(alloc.grow(bad), Err(AllocError::BadSize(bad)));
    }
}

#[test]
fn counts_follow_the_layout() {
    for blocks in [ZONE_BLOCKS, ZONE_BLOCKS + 1, 3 * ZONE_BLOCKS - 1] {
        let geometry = layout(blocks, 4 * ZONE_BLOCKS);
        let alloc = fresh(&geometry, blocks);
        assert_eq!(alloc.free_blocks(), data_blocks(&geometry, blocks));
    }
}
