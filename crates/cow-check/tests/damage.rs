//! One wrong byte in each kind of structure, and damage that checksums do not show.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::surgeon::Surgeon;
use common::{GIB, Image, assert_clean, assert_found, close, image_now, new_pool, report, run};
use cow_check::{OpenError, Options, Structure, check};
use cow_format::blob::{BlobKind, encode_chain};
use cow_format::checkpoint::PageDesc;
use cow_format::entry::{ENTRY_LEN, NodeEntry};
use cow_format::frame::Frame;
use cow_format::mapnode::Slot;
use cow_format::superblock::COPY_BLOCKS;
use cow_format::table::overflow_of;
use cow_format::{Gen, NodeId, Phys};
use cow_sim::cmd::Cmd;
use cow_sim::scripts::{clone, create, discard, flush, snapshot, write};
use cow_snaptree::Row;
use std::sync::OnceLock;

fn set_prop(name: &str, value: &str) -> Cmd {
    Cmd::SetProp { name: name.into(), key: "k".into(), value: Some(value.into()) }
}

/// Volumes of one and two levels, snapshots, a clone, properties; closed in order.
fn pool() -> Surgeon {
    static POOL: OnceLock<Image> = OnceLock::new();
    let image = POOL.get_or_init(|| {
        let mut sim = new_pool();
        run(&mut sim, [create("a", 2 * GIB), create("solo", GIB), write("solo", 0, 9, 10)]);
        run(&mut sim, [write("a", 0, 40, 1000), write("a", 80_000, 30, 2000), Cmd::Checkpoint]);
        run(&mut sim, [snapshot(&["a@s1"]), write("a", 3, 6, 3000), discard("a", 80_000, 4)]);
        run(&mut sim, [Cmd::Checkpoint, set_prop("a@s1", "v"), clone("a@s1", "c")]);
        run(&mut sim, [write("c", 90_000, 3, 4000), set_prop("c", "w"), Cmd::Checkpoint]);
        run(&mut sim, [Cmd::Checkpoint, write("solo", 99_000, 2, 50), Cmd::Checkpoint]);
        close(sim)
    });
    Surgeon::new(image.clone())
}

/// The same with frames behind the checkpoint, durable but for the last.
fn pool_with_journal() -> (Surgeon, Vec<(u64, Frame)>) {
    let mut sim = new_pool();
    run(&mut sim, [create("a", 2 * GIB), write("a", 0, 4, 1000), Cmd::Checkpoint]);
    run(&mut sim, [write("a", 8, 2, 2000), flush("a"), snapshot(&["a@s1"])]);
    run(&mut sim, [write("a", 8, 1, 3000), flush("a"), write("a", 9, 1, 3100), flush("a")]);
    let surgeon = Surgeon::new(image_now(&mut sim));
    let geometry = &surgeon.sb.geometry;
    let (mut at, mut frames) = (surgeon.cp.tail.block, Vec::new());
    loop {
        let block = geometry.journal_start + at % geometry.journal_blocks;
        let Ok((frame, _)) = Frame::decode(&surgeon.image.page(block), surgeon.tag, Phys(block))
        else {
            break;
        };
        at += u64::from(frame.blocks);
        frames.push((block, frame));
    }
    assert!(frames.len() >= 4, "{} frames", frames.len());
    (surgeon, frames)
}

#[test]
fn the_pools_are_clean() {
    assert_clean(&pool().image);
    assert_clean(&pool_with_journal().0.image);
}

#[test]
fn a_byte_of_each_superblock_copy() {
    for (copy, &block) in COPY_BLOCKS.iter().enumerate() {
        // Magic, version, checksum, uuid, copy number, sequence, a fence, the zeros at the end.
        for byte in [0, 9, 13, 20, 33, 64, 180, 4000] {
            let mut image = pool().image;
            image.flip(block, byte);
            assert_found(&image, Structure::Superblock, &format!("copy {copy}, block {block}"));
        }
    }
}

#[test]
fn a_byte_of_the_newest_checkpoint() {
    let surgeon = pool();
    let (start, blocks) = surgeon.cp_area();
    let footer = start + blocks - 1;
    let mut places: Vec<(u64, usize)> = [0, 9, 13, 16, 40, 100, 4090].map(|b| (start, b)).into();
    places.extend([(start + 1, 0), (start + 1, 30), (footer - 1, 3000)]);
    places.extend([(footer, 0), (footer, 9), (footer, 17)]);
    for (block, byte) in places {
        let mut image = surgeon.image.clone();
        image.flip(block, byte);
        assert_found(&image, Structure::Checkpoint, "area");
    }
}

#[test]
fn a_torn_checkpoint_is_no_corruption() {
    let surgeon = pool();
    let (start, blocks) = surgeon.cp_area();
    let mut image = surgeon.image;
    for block in start + 1..start + blocks {
        let mut page = image.page(block);
        page[..512].fill(0);
        image.pages.insert(block, page);
    }
    let report = report(&image);
    assert!(report.is_clean(), "{}", common::lines(&report));
    assert_eq!(report.warnings, 1);
    assert_eq!(report.findings[0].kind, Structure::Checkpoint);
}

#[test]
fn a_byte_of_a_bitmap_or_table_page() {
    let mut surgeon = pool();
    let page = surgeon.bitmap_page(0).0;
    surgeon.image.flip(page, 2000);
    assert_found(&surgeon.image, Structure::BitmapPage, &format!("zone 0, block {page}"));

    let mut surgeon = pool();
    let (_, page) = surgeon.table_pages()[0];
    surgeon.image.flip(page.0, 700);
    assert_found(&surgeon.image, Structure::TablePage, &format!("page 0, block {page}"));
}

#[test]
fn overflow_entries_that_are_not_those_of_their_entries() {
    let name = "n".repeat(100);
    let mut sim = new_pool();
    run(&mut sim, [create(&name, GIB), create("b", GIB), write("b", 0, 4, 1000)]);
    let image = close(sim);
    assert_clean(&image);
    let pool = || Surgeon::new(image.clone());
    let (page, place, entry) = pool().locate(pool().id_of(&name)).unwrap();
    let overflow = entry.encode_overflow().unwrap();
    let above = overflow_of(page as u32) as usize;
    assert_eq!((&*entry.name, pool().cp.pages[above].used), (&*name, 1));

    let mut flipped = pool();
    let block = flipped.table_page(above);
    flipped.image.flip(block.0, 700);
    let at = format!("page {above}, block {block}");
    assert_found(&flipped.image, Structure::TablePage, &at);
    // Missing, another node's, and one of a node that has none.
    let at = format!("page {page}, block");
    let other = NodeEntry { id: NodeId(entry.id.0 + 1), ..entry }.encode_overflow().unwrap();
    for (place, bytes) in [(place, [0; ENTRY_LEN]), (place, other), (place + 1, other)] {
        let mut surgeon = pool();
        surgeon.put_entry(above, place, bytes);
        assert_found(&surgeon.image, Structure::NodeEntry, &at);
    }
    assert_ne!(overflow, other);
    for used in [0, 2] {
        let mut surgeon = pool();
        surgeon.cp.pages[above].used = used;
        surgeon.write_cp();
        assert_found(&surgeon.image, Structure::TablePage, &format!("page {above}"));
    }
    // Above a page of entries that nobody has written.
    let mut surgeon = pool();
    surgeon.cp.pages[above + 1] = PageDesc { used: 1, ..PageDesc::default() };
    surgeon.put_entry(above + 1, 0, [0; ENTRY_LEN]);
    assert_found(&surgeon.image, Structure::TablePage, &format!("page {}", above + 1));
}

#[test]
fn a_byte_of_a_map_node() {
    for name in ["a", "a@s1", "c"] {
        for (level, _, block) in pool().map_nodes(name) {
            let kind = if level == 0 { Structure::MapLeaf } else { Structure::MapNode };
            for byte in [0, 70, 1700, 4095] {
                let mut image = pool().image;
                image.flip(block, byte);
                assert_found(&image, kind, &format!("block {block}"));
            }
        }
    }
}

#[test]
fn a_byte_of_a_kill_row_or_properties() {
    let surgeon = pool();
    let row = surgeon.entry(surgeon.id_of("a")).row;
    assert!(row.len > 0, "a has killed something of a@s1");
    let mut image = surgeon.image.clone();
    image.flip(row.phys.0, 66);
    assert_found(&image, Structure::KillRow, &format!("a, block {}", row.phys));
    for name in ["a@s1", "c"] {
        let props = surgeon.entry(surgeon.id_of(name)).props;
        let mut image = surgeon.image.clone();
        image.flip(props.phys.0, 70);
        assert_found(&image, Structure::Properties, &format!("{name}, block {}", props.phys));
    }
}

#[test]
fn a_byte_of_data() {
    let surgeon = pool();
    let (heads, snap) = (surgeon.data("a"), surgeon.data("a@s1"));
    let (lba, block) = heads[3];
    let mut image = surgeon.image.clone();
    image.flip(block, 100);
    assert_found(
        &image,
        Structure::Data,
        &format!("lba {lba} (byte {}), block {block}", lba * 4096),
    );
    let only = snap.into_iter().find(|old| !heads.contains(old)).expect("only in the snapshot");
    let mut image = surgeon.image.clone();
    image.flip(only.1, 4095);
    assert_found(&image, Structure::Data, &format!("a@s1, lba {}", only.0));
    let quick = Options { data: false, ..Options::default() };
    assert!(check(&mut image, &quick).unwrap().is_clean(), "data was not to be read");
}

#[test]
fn a_byte_of_a_journal_frame() {
    let (surgeon, frames) = pool_with_journal();
    for (block, frame) in &frames {
        // Magic, sequence number, chain, header checksum, payload.
        for byte in [0, 17, 25, 57, 64, 63 + frame.payload.len()] {
            let mut image = surgeon.image.clone();
            image.flip(*block, byte);
            let place = format!("frame {}, block {block}", frame.seq);
            assert_found(&image, Structure::JournalFrame, &place);
        }
    }
}

#[test]
fn a_byte_of_data_that_only_the_journal_names() {
    let (surgeon, _) = pool_with_journal();
    let folded: Vec<u64> = surgeon.data("a").iter().map(|&(_, block)| block).collect();
    let blocks = surgeon.sb.geometry.journal_start + surgeon.sb.geometry.journal_blocks;
    let unfolded: Vec<u64> = surgeon
        .image
        .pages
        .keys()
        .copied()
        .filter(|&block| block > blocks && !surgeon.is_allocated(block))
        .filter(|block| !folded.contains(block))
        .filter(|&block| block < surgeon.cp.pool_blocks)
        .collect();
    let mut found = 0;
    for block in unfolded {
        let mut image = surgeon.image.clone();
        image.flip(block, 8);
        let report = report(&image);
        found += usize::from(report.findings.iter().any(|f| f.kind == Structure::Data));
    }
    assert!(found >= 4, "{found} blocks");
}

#[test]
fn stale_and_misdirected_map_nodes() {
    let surgeon = pool();
    let (entry, nodes) = (surgeon.entry(surgeon.id_of("a")), surgeon.map_nodes("a"));
    for &(level, index, block) in &nodes {
        let kind = if level == 0 { Structure::MapLeaf } else { Structure::MapNode };
        // An older version of it: valid, but one slot is another.
        let slot = surgeon.pointer("a", block);
        let mut old = surgeon.map_node(&entry, level as u8, index, slot);
        old.slots_mut()[3].crc ^= 1;
        old.slots_mut()[3].phys = Phys(block);
        let mut image = surgeon.image.clone();
        image.put(Phys(block), &old.encode(surgeon.tag, Phys(block)).0);
        assert_found(&image, kind, &format!("block {block}"));
        // Another node in its place.
        for &(.., other) in nodes.iter().filter(|other| other.2 != block) {
            let mut image = surgeon.image.clone();
            image.pages.insert(block, surgeon.image.page(other));
            assert_found(&image, kind, &format!("block {block}"));
        }
    }
}

#[test]
fn bits_of_the_bitmap() {
    let surgeon = pool();
    let (_, block) = surgeon.data("a")[0];
    let mut cleared = pool();
    cleared.set_bit(block, false);
    assert_found(&cleared.image, Structure::Allocation, &format!("block {block}"));
    let free = (20_000..).find(|&block| !surgeon.is_allocated(block)).unwrap();
    let mut set = pool();
    set.set_bit(free, true);
    assert_found(&set.image, Structure::Allocation, &format!("block {free}"));
    let mut count = pool();
    count.cp.zones[0].free -= 1;
    count.write_cp();
    assert_found(&count.image, Structure::ZoneDescriptor, "zone 0");
}

#[test]
fn wrong_counters_and_rows() {
    for change in 0..4 {
        let mut surgeon = pool();
        let id = surgeon.id_of("a@s1");
        surgeon.edit_entry(id, |entry| match change {
            0 => entry.own.data += 1,
            1 => entry.born.map -= 1,
            2 => entry.mapped.data += 7,
            _ => entry.own.map += 1,
        });
        assert_found(&surgeon.image, Structure::Counter, "a@s1");
    }
    let mut surgeon = pool();
    surgeon.cp.data_blocks += 1;
    surgeon.write_cp();
    assert_found(&surgeon.image, Structure::Counter, "checkpoint");

    let mut surgeon = pool();
    let id = surgeon.id_of("a");
    let row = surgeon.entry(id).row;
    let payload = &surgeon.image.page(row.phys.0)[64..64 + row.len as usize];
    let mut cells: Vec<u8> = payload.to_vec();
    assert!(Row::decode(&cells).is_ok());
    cells[4] += 1;
    let (parts, row) = encode_chain(BlobKind::Row, NodeId(id), surgeon.tag, &cells, &[row.phys]);
    surgeon.image.put(parts[0].0, &parts[0].1);
    surgeon.edit_entry(id, |entry| entry.row = row);
    assert_found(&surgeon.image, Structure::KillRow, "a");
}

#[test]
fn maps_that_contradict_each_other() {
    // Two logical blocks on one physical one.
    let mut surgeon = pool();
    let id = surgeon.id_of("solo");
    surgeon.edit_leaf(id, 0, |leaf| leaf.slots_mut()[5] = leaf.slots()[4]);
    assert_found(&surgeon.image, Structure::SharedBlock, "solo, lba 5");
    // A block that is not the parent's, with a birth that says it is.
    let mut surgeon = pool();
    let (id, above) = (surgeon.id_of("a"), surgeon.id_of("a@s1"));
    let birth = surgeon.gen_of(above);
    surgeon.edit_leaf(id, 0, |leaf| leaf.slots_mut()[3].birth = birth);
    assert_found(&surgeon.image, Structure::Ownership, "a, lba 3");
    // A hole that is older than the parent, where that has data.
    let mut surgeon = pool();
    surgeon.edit_leaf(id, 0, |leaf| leaf.slots_mut()[20] = Slot::hole(Gen(0)));
    assert_found(&surgeon.image, Structure::Ownership, "a, lba 20");
    // The superblock is no data, and neither is what lies past the end.
    for phys in [8192, 1 << 30] {
        let mut surgeon = pool();
        let id = surgeon.id_of("solo");
        surgeon.edit_leaf(id, 0, |leaf| leaf.slots_mut()[1].phys = Phys(phys));
        assert_found(&surgeon.image, Structure::Data, "solo, lba 1");
    }
    let mut surgeon = pool();
    surgeon.edit_entry(id, |entry| entry.parent = NodeId(99));
    assert_found(&surgeon.image, Structure::SnapshotTree, "node table");
}

#[test]
fn what_is_no_whole_pool_does_not_open() {
    let open = |image: &Image| check(&mut image.clone(), &Options::default()).unwrap_err();
    let empty = Image { pages: Default::default(), blocks: 32_768 };
    assert_eq!(open(&empty), OpenError::NotAPool);
    assert_eq!(open(&Image { blocks: 0, ..empty }), OpenError::NotAPool);
    let mut cut = pool().image;
    cut.blocks -= 1;
    assert!(matches!(open(&cut), OpenError::Truncated { pool_blocks: 32_768, .. }));
    cut.blocks = 1;
    assert!(matches!(open(&cut), OpenError::Truncated { .. }));
    let mut surgeon = pool();
    surgeon.sb.incompat = 4;
    for (copy, &block) in COPY_BLOCKS.iter().enumerate() {
        surgeon.image.put(Phys(block), &surgeon.sb.encode(copy));
    }
    assert!(matches!(open(&surgeon.image), OpenError::Unsupported(_)));
    let mut image = pool().image;
    COPY_BLOCKS.iter().for_each(|&block| image.flip(block, 100));
    let damaged = open(&image);
    assert!(matches!(damaged, OpenError::Damaged { structure: Structure::Superblock, .. }));
}
