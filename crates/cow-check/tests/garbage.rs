//! Whatever stands on the device: no panic, no hang.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::surgeon::Surgeon;
use common::{GIB, Image, close, new_pool, run};
use cow_check::{Options, What, check, dump};
use cow_format::BLOCK_SIZE;
use cow_format::entry::Root;
use cow_format::{Gen, NodeId, Phys};
use cow_sim::cmd::Cmd;
use cow_sim::scripts::{clone, create, delete, flush, rollback, snapshot, write};
use proptest::prelude::*;
use std::sync::OnceLock;

/// A pool with branches, and frames behind its checkpoint.
fn pool() -> &'static Image {
    static POOL: OnceLock<Image> = OnceLock::new();
    POOL.get_or_init(|| {
        let mut sim = new_pool();
        run(&mut sim, [create("a", 2 * GIB), write("a", 0, 40, 1000), write("a", 80_000, 9, 2000)]);
        run(&mut sim, [snapshot(&["a@s1"]), write("a", 3, 6, 3000), Cmd::Checkpoint]);
        run(&mut sim, [clone("a@s1", "c"), write("c", 90_000, 3, 4000), snapshot(&["c@t"])]);
        run(&mut sim, [rollback(&["a@s1"]), write("a", 9, 3, 5000), Cmd::Checkpoint]);
        run(&mut sim, [delete(&["c@t"]), write("a", 10, 1, 6000), flush("a")]);
        run(&mut sim, [snapshot(&["a@s2"]), write("a", 11, 1, 7000), flush("a")]);
        let mut image = common::image_now(&mut sim);
        close(sim);
        image.pages.retain(|_, page| page.iter().any(|&byte| byte != 0));
        image
    })
}

fn look_at_everything(image: &Image) {
    let options = Options { max_findings: 50, ..Options::default() };
    if let Ok(report) = check(&mut image.clone(), &options) {
        assert!(report.findings.len() <= 50);
    }
    let whats = [What::Superblock, What::Checkpoint, What::Journal, What::Nodes];
    for what in whats.into_iter().chain(["a", "a@s1", "c"].map(|name| What::Map(name.into()))) {
        let _ = dump(&mut image.clone(), &what);
    }
}

fn nth_block(image: &Image, n: usize) -> u64 {
    let mut blocks: Vec<u64> = image.pages.keys().copied().collect();
    blocks.sort_unstable();
    blocks[n % blocks.len()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn garbage_in_blocks(
        hits in prop::collection::vec((any::<usize>(), 0..BLOCK_SIZE, 1usize..600, any::<u64>()), 1..8)
    ) {
        let mut image = pool().clone();
        for (n, at, len, seed) in hits {
            let block = nth_block(&image, n);
            let mut page = image.page(block);
            let mut word = seed | 1;
            for byte in page.iter_mut().skip(at).take(len) {
                word = word.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(11);
                *byte = word as u8;
            }
            image.pages.insert(block, page);
        }
        look_at_everything(&image);
    }

    #[test]
    fn blocks_in_wrong_places(swaps in prop::collection::vec((any::<usize>(), any::<usize>()), 1..6)) {
        let mut image = pool().clone();
        for (a, b) in swaps {
            let (a, b) = (nth_block(&image, a), nth_block(&image, b));
            let (x, y) = (image.page(a), image.page(b));
            image.pages.insert(a, y);
            image.pages.insert(b, x);
        }
        look_at_everything(&image);
    }

    /// Entries that hold anything, with valid checksums.
    #[test]
    fn strange_entries(
        id in 1u64..8, field in 0u8..16, value in prop_oneof![0u64..16, any::<u64>(), Just(u64::MAX)]
    ) {
        let mut surgeon = Surgeon::new(pool().clone());
        if surgeon.find_entry(id).is_none() {
            return Ok(());
        }
        let level = (value % 5) as u8;
        surgeon.edit_entry(id, |entry| match field {
            0 => entry.parent = NodeId(value),
            1 => entry.label_gen = Gen(value as u32),
            2 => entry.root.phys = Phys(value >> 16),
            3 => entry.root.level = level,
            4 => entry.root.birth = Gen(value as u32),
            5 => entry.root = Root::default(),
            6 => entry.size_bytes = value,
            7 => entry.cursor = value,
            8 => entry.row.phys = Phys(value >> 16),
            9 => entry.row.len = value as u32,
            10 => entry.props.len = value as u32,
            11 => entry.props.phys = Phys(value >> 16),
            12 => entry.state = cow_format::entry::NodeState::Walking,
            13 => entry.own.data = value,
            14 => entry.mapped.data = value,
            _ => entry.family.0 = value,
        });
        look_at_everything(&surgeon.image);
    }

    /// Checkpoints that hold anything, with valid checksums.
    #[test]
    fn strange_checkpoints(
        field in 0u8..12, value in prop_oneof![0u64..16, any::<u64>(), Just(u64::MAX)]
    ) {
        let mut surgeon = Surgeon::new(pool().clone());
        let cp = &mut surgeon.cp;
        match field {
            0 => cp.tail.block = value,
            1 => cp.tail.seq.0 = value,
            2 => cp.tail.chain = value,
            3 => cp.chunks[0] = Phys(value),
            4 => cp.withheld.push(Phys(value)),
            5 => cp.last_node = value,
            6 => cp.flags = value as u32,
            7 => cp.zones[0].free = value as u16,
            8 => cp.pages[0].used = value as u8,
            9 => cp.data_blocks = value,
            10 => cp.last_gen = value as u32,
            _ => cp.zones[0].fresh = true,
        }
        surgeon.write_cp();
        look_at_everything(&surgeon.image);
    }
}
