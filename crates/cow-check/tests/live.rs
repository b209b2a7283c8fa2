//! A pool that is written while it is checked.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{GIB, Image, image_now, lines, new_pool, run};
use cow_check::{Blocks, Options, ReadError, check};
use cow_format::Buf;
use cow_format::Phys;
use cow_format::superblock::{COPY_BLOCKS, Superblock};
use cow_sim::cmd::Cmd;
use cow_sim::scripts::{create, flush, write};
use std::ops::Range;

/// Of the journal each read sees what stood there some reads ago, at first: somebody is writing it.
struct Written {
    ring: Range<u64>,
    before: Image,
    after: Image,
    /// Reads of the journal that still see the past.
    late: usize,
}

impl Blocks for Written {
    fn read(&mut self, at: Phys, blocks: usize) -> Result<Buf, ReadError> {
        if self.ring.contains(&at.0) && self.late > 0 {
            self.late -= 1;
            return self.before.read(at, blocks);
        }
        self.after.read(at, blocks)
    }

    fn block_count(&self) -> u64 {
        self.after.blocks
    }
}

#[test]
fn frames_that_come_meanwhile_are_no_damage() {
    let mut sim = new_pool();
    run(&mut sim, [create("a", GIB), Cmd::Checkpoint, write("a", 0, 4, 1000), flush("a")]);
    let before = image_now(&mut sim);
    for n in 0..5 {
        run(&mut sim, [write("a", 10 * n, 4, 2000 + 10 * n), flush("a")]);
    }
    let after = image_now(&mut sim);
    let superblock = Superblock::decode(&after.page(COPY_BLOCKS[0]), 0);
    let geometry = superblock.expect("a superblock").geometry;
    let ring = geometry.journal_start..geometry.journal_start + geometry.journal_blocks;
    let mut frames = Vec::new();
    for late in 0..4 {
        let (ring, before, after) = (ring.clone(), before.clone(), after.clone());
        let mut image = Written { ring, before, after, late };
        let report = check(&mut image, &Options::default()).expect("the pool opens");
        assert!(report.is_clean(), "{late} late reads:\n{}", lines(&report));
        frames.push(report.stats.frames);
    }
    assert!(frames[0] > frames[1], "the past was not seen: {frames:?}");
    // A frame that stays away is damage, whoever writes.
    let mut image = Written { ring, before: before.clone(), after, late: 1 };
    let position = image.before.pages.keys().filter(|block| image.ring.contains(block)).max();
    let lost = position.expect("a frame") + 1;
    image.after.flip(lost, 20);
    let report = check(&mut image, &Options::default()).expect("the pool opens");
    assert!(!report.is_clean(), "damage at block {lost} was not seen");
}
