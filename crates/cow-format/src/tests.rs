//! Round trips, and that every flipped bit is noticed.

mod flags;

use crate::checkpoint::{Checkpoint, Detached, JournalPos, PageDesc, ZoneDesc};
use crate::entry::{Count, ENTRY_LEN, MAX_NAME, NodeEntry, PAGE_ENTRIES, Root};
use crate::frame::{FLAG_PAD, Frame};
use crate::geometry::{Geometry, LayoutOptions, ZONE_BLOCKS};
use crate::mapnode::{MapNode, NodePlace, Slot};
use crate::record::*;
use crate::superblock::{Fence, Superblock};
use crate::wire::{Reader, Writer};
use crate::*;

fn layout(blocks: u64) -> Geometry {
    Geometry::plan(&LayoutOptions {
        blocks,
        journal_blocks: None,
        limit_blocks: None,
        max_chunks: None,
        preallocated: false,
    })
    .unwrap()
}

fn superblock() -> Superblock {
    Superblock {
        uuid: *b"0123456789abcdef",
        compat: 1,
        ro_compat: 0,
        incompat: 0,
        geometry: layout(65_536),
        sequence: 7,
        epoch: Epoch(3),
        fences: vec![Fence { end: FrameSeq(9), chain: 77, epoch: Epoch(3) }],
    }
}

#[test]
fn layouts_are_valid_and_reserve_what_they_place() {
    for blocks in [ZONE_BLOCKS, 65_536, 1 << 20, 1 << 28, 1 << 32] {
        let g = layout(blocks);
        assert!(g.validate().is_ok());
        let reserved: u64 = (0..Geometry::zone_count(blocks).min(200))
            .flat_map(|zone| g.reserved_runs(zone, blocks))
            .map(|(_, len)| u64::from(len))
            .sum();
        let groups = Geometry::zone_count(blocks).min(200).div_ceil(128);
        assert_eq!(reserved, 4 + 4 * g.cp_blocks + groups * 256 + g.journal_blocks);
        assert!(!g.is_data(Phys(0), blocks) && !g.is_data(Phys(blocks), blocks));
        assert!(g.is_data(Phys(g.journal_start + g.journal_blocks + 1), blocks));
    }
}

#[test]
fn superblock_round_trip_and_every_bit() {
    let sb = superblock();
    for copy in 0..4 {
        let buf = sb.encode(copy);
        assert_eq!(Superblock::decode(&buf, copy).unwrap(), sb);
        assert!(Superblock::decode(&buf, (copy + 1) % 4).is_err());
        for bit in 0..BLOCK_SIZE * 8 {
            let mut bad = buf.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Superblock::decode(&bad, copy).is_err(), "bit {bit}");
        }
    }
    let mut odd = sb;
    odd.incompat = 1 << 40;
    let error = Superblock::decode(&odd.encode(0), 0).unwrap_err();
    assert_eq!(error, FormatError::Features { mask: 1 << 40 });
}

#[test]
fn checkpoint_round_trip_and_damage() {
    let slot = Slot { phys: Phys(70), birth: Gen(3), crc: 8 };
    let line = Detached { node: NodeId(5), level: 3, index: 255, slot, cursor: 1 << 20 };
    let cp = Checkpoint {
        seq: 41,
        epoch: Epoch(2),
        pool_blocks: 3 * ZONE_BLOCKS - 5,
        tail: JournalPos { block: 4, seq: FrameSeq(99), chain: 5 },
        chunks: vec![Phys(20_000)],
        withheld: vec![Phys(1), Phys(2)],
        detached: vec![line],
        zones: vec![ZoneDesc { crc: 1, free: 2, longest: 3, home: 1, fresh: true }; 3],
        pages: vec![PageDesc { crc: 9, home: 1, fresh: false, used: 8 }; 256],
        ..Checkpoint::default()
    };
    let buf = cp.encode(7);
    assert_eq!(Checkpoint::decode_len(&buf, 7, Phys(1)).unwrap(), buf.block_count() as u64);
    assert_eq!(Checkpoint::decode(&buf, 7, Phys(1)).unwrap(), cp);
    assert!(Checkpoint::decode(&buf, 8, Phys(1)).is_err());
    for at in (0..(buf.block_count() - 1) * BLOCK_SIZE + 20).step_by(3) {
        let mut bad = buf.clone();
        bad[at] ^= 0x10;
        assert!(Checkpoint::decode(&bad, 7, Phys(1)).is_err(), "byte {at}");
    }
    // There is no such place in a map, whatever the checksum says.
    for line in [Detached { index: 256, ..line }, Detached { level: 5, ..line }] {
        let bad = Checkpoint { detached: vec![line], ..cp.clone() };
        assert!(Checkpoint::decode(&bad.encode(7), 7, Phys(1)).is_err(), "{line:?}");
    }
}

/// Positions that whoever computes with them may believe.
#[test]
fn a_checkpoint_that_does_not_fit_its_pool_is_refused() {
    let options = LayoutOptions {
        blocks: 40_000,
        journal_blocks: Some(100),
        limit_blocks: Some(50_000),
        max_chunks: Some(1),
        preallocated: false,
    };
    let layout = Geometry::plan(&options).unwrap();
    let chunks = vec![Phys(40_000 - 512)];
    let tail = JournalPos { block: 99, seq: FrameSeq(1), chain: 1 };
    let slot = Slot { phys: Phys(39_999), birth: Gen(1), crc: 1 };
    let line = Detached { node: NodeId(1), level: 0, index: 0, slot, cursor: 0 };
    let withheld = vec![Phys(39_999)];
    let (pool_blocks, detached) = (40_000, vec![line]);
    let good =
        Checkpoint { pool_blocks, tail, chunks, withheld, detached, ..Checkpoint::default() };
    assert_eq!(good.validate(&layout), Ok(()));
    let refused = |change: &dyn Fn(&mut Checkpoint), field: &'static str| {
        let mut bad = good.clone();
        change(&mut bad);
        assert_eq!(bad.validate(&layout), Err(field));
    };
    refused(&|cp| cp.pool_blocks = 39_999, "size of the pool");
    refused(&|cp| cp.pool_blocks = 50_001, "size of the pool");
    refused(&|cp| cp.tail.block = 100, "journal tail");
    refused(&|cp| cp.chunks[0].0 += 1, "table chunks");
    refused(&|cp| cp.chunks[0] = Phys(u64::MAX), "table chunks");
    refused(&|cp| cp.chunks.push(Phys(30_000)), "table chunks");
    refused(&|cp| cp.withheld[0].0 += 1, "withheld blocks");
    refused(&|cp| cp.detached[0].slot.phys = Phys(1 << 63), "detached subtrees");
}

#[test]
fn map_node_round_trip_and_every_bit() {
    let mut node = MapNode::empty(FamilyId(3), 0, 12, Gen(5));
    node.birth = Gen(9);
    node.slots_mut()[0] = Slot { phys: Phys(0x1234_5678_9abc), birth: Gen(9), crc: 77 };
    node.slots_mut()[255] = Slot::lost(Gen(8));
    let (buf, crc) = node.encode(99, Phys(500));
    let place = NodePlace {
        pool_tag: 99,
        family: FamilyId(3),
        level: 0,
        index: 12,
        phys: Phys(500),
        birth: Gen(9),
        crc,
    };
    assert_eq!(MapNode::decode(&buf, &place).unwrap(), node);
    assert!(MapNode::decode(&buf, &NodePlace { index: 13, ..place }).is_err());
    assert!(MapNode::decode(&buf, &NodePlace { phys: Phys(501), ..place }).is_err());
    for bit in 0..BLOCK_SIZE * 8 {
        let mut bad = buf.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(MapNode::decode(&bad, &place).is_err(), "bit {bit}");
    }
}

#[test]
fn frame_round_trip_chain_and_every_bit() {
    let frame = Frame {
        flags: 0,
        seq: FrameSeq(8),
        chain: 5,
        durable: FrameSeq(6),
        epoch: Epoch(1),
        record_count: 2,
        blocks: Frame::blocks_for(5000),
        payload: vec![7; 5000],
    };
    let (buf, chain) = frame.encode(42);
    assert_eq!(Frame::decode(&buf, 42, Phys(1)).unwrap(), (frame.clone(), chain));
    let (_, other) = Frame { chain: 6, ..frame.clone() }.encode(42);
    assert_ne!(chain, other);
    for bit in 0..(64 + 5000) * 8 {
        let mut bad = buf.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(Frame::decode(&bad, 42, Phys(1)).is_err(), "bit {bit}");
    }
    let pad = Frame { flags: FLAG_PAD, blocks: 9, payload: vec![], record_count: 0, ..frame };
    let (buf, _) = pad.encode(42);
    assert_eq!((buf.block_count(), Frame::decode(&buf, 42, Phys(1)).unwrap().0.blocks), (1, 9));
}

fn records() -> Vec<Record> {
    let props = vec![("k".to_owned(), Some("v".to_owned())), ("gone".to_owned(), None)];
    vec![
        Record::MapSet { volume: VolumeId(1), lba: Lba(2), phys: Phys(3), crcs: vec![4] },
        Record::MapSet { volume: VolumeId(1), lba: Lba(2), phys: Phys(3), crcs: vec![4; 256] },
        Record::MapClear { volume: VolumeId(1), lba: Lba(9), blocks: 1 << 40 },
        Record::Move { node: NodeId(4), lba: Lba(5), old: Phys(6), new: Phys(7), crcs: vec![8, 9] },
        Record::VolCreate {
            label_gen: Gen(1),
            volume: VolumeId(2),
            node: NodeId(3),
            size_bytes: 4,
            time_ns: 5,
            name: "vm1".into(),
            props: props.clone(),
        },
        Record::SnapCreate {
            label_gen: Gen(2),
            time_ns: 3,
            group: 4,
            kind: crate::entry::NodeKind::User,
            consistency: crate::entry::Consistency::Frozen,
            freeze_ms: 6,
            expiry_ns: 5,
            members: vec![SnapMember {
                volume: VolumeId(1),
                new_head: NodeId(2),
                name: "s".into(),
            }],
            props: props.clone(),
        },
        Record::Rollback {
            label_gen: Gen(3),
            time_ns: 4,
            members: vec![
                RollbackMember {
                    volume: VolumeId(1),
                    new_head: NodeId(2),
                    target: NodeId(3),
                    replaced: Replaced::Kept { name: "undo.1".into(), expiry_ns: 9 },
                    rollback_gen: 1,
                },
                RollbackMember {
                    volume: VolumeId(4),
                    new_head: NodeId(5),
                    target: NodeId(6),
                    replaced: Replaced::Discarded,
                    rollback_gen: 2,
                },
            ],
        },
        Record::Clone {
            label_gen: Gen(1),
            volume: VolumeId(2),
            node: NodeId(3),
            parent: NodeId(4),
            time_ns: 5,
            name: "c".into(),
            props,
        },
        Record::VolResize { volume: VolumeId(1), size_bytes: 2 },
        Record::NodeDelete { nodes: vec![NodeId(1), NodeId(2)] },
        Record::Rename { node: NodeId(1), name: "x".into() },
        Record::SetProps { node: NodeId(0), props: vec![] },
        Record::Hold { node: NodeId(1), set: true, tag: "t".into() },
        Record::PoolGrow { blocks: 7 },
        Record::Marker,
    ]
}

#[test]
fn record_round_trip_and_truncation() {
    let mut w = Writer::default();
    records().iter().for_each(|record| record.encode(&mut w));
    let mut r = Reader::new(&w.bytes);
    for record in records() {
        assert_eq!(Record::decode(&mut r).unwrap(), record);
    }
    assert!(r.is_done());
    for record in records() {
        let mut w = Writer::default();
        record.encode(&mut w);
        for len in 0..w.bytes.len() {
            assert!(Record::decode(&mut Reader::new(&w.bytes[..len])).is_err());
        }
    }
    let mut w = Writer::default();
    records()[0].encode(&mut w);
    assert_eq!(w.bytes.len(), 24, "design section 2: 24 B for one block");
}

#[test]
fn entry_round_trip() {
    let entry = NodeEntry {
        id: NodeId(1),
        volume: VolumeId(2),
        family: FamilyId(3),
        parent: NodeId(4),
        label_gen: Gen(5),
        root: Root { phys: Phys(6), crc: 7, birth: Gen(8), level: 4 },
        inexact: true,
        policy: true,
        size_bytes: 9,
        cursor: 10,
        born: Count { data: 11, map: 12 },
        mapped: Count { data: 13, map: 14 },
        row: blob::BlobRef { phys: Phys(15), crc: 16, len: 17 },
        merkle: Some(Box::new([18; 32])),
        expiry_ns: u64::MAX,
        stands_on: 19,
        origin: NodeId(20),
        freeze_ms: 21,
        name: "x".repeat(128).into(),
        ..NodeEntry::default()
    };
    let again = |entry: &NodeEntry| {
        let overflow = entry.encode_overflow();
        let overflow = overflow.as_ref().map_or(&[][..], |bytes| bytes);
        NodeEntry::decode(&entry.encode(), overflow, Phys(1)).unwrap().unwrap()
    };
    assert_eq!(again(&entry), entry);
    assert_eq!(NodeEntry::decode(&[0; ENTRY_LEN], &[], Phys(1)).unwrap(), None);
    // Names of every length, one with a character that lies on both sides.
    let mut entry = NodeEntry { merkle: None, ..entry };
    for len in 0..=MAX_NAME {
        entry.name = "y".repeat(len).into();
        assert_eq!((again(&entry), entry.encode_overflow().is_some()), (entry.clone(), len > 48));
        entry.name = format!("{}ä", "y".repeat(len.saturating_sub(2))).into();
        assert_eq!(again(&entry), entry);
    }
    entry.name = "short".into();
    assert_eq!(entry.encode_overflow(), None);
    entry.merkle = Some(Box::new([18; 32]));
    assert_eq!(again(&entry), entry);
    // A count that six bytes do not hold is one that nobody knows, or the largest known.
    entry.unique = Count { data: u64::MAX, map: 1 << 60 };
    entry.cursor = u64::MAX;
    let read = again(&entry);
    assert_eq!(read.unique, Count { data: u64::MAX, map: (1 << 48) - 2 });
    assert_eq!(read.cursor, (1 << 48) - 1);
}

#[test]
fn an_overflow_entry_is_that_of_its_node() {
    let long = NodeEntry { id: NodeId(7), name: "x".repeat(49).into(), ..NodeEntry::default() };
    let short = NodeEntry { name: "x".into(), ..long.clone() };
    let overflow = long.encode_overflow().unwrap();
    let wrong = |entry: &[u8], overflow: &[u8]| {
        let error = NodeEntry::decode(entry, overflow, Phys(1)).unwrap_err();
        assert!(error.to_string().contains("overflow entry"), "{error}");
    };
    wrong(&long.encode(), &[]);
    wrong(&long.encode(), &[0; ENTRY_LEN]);
    wrong(&long.encode(), &NodeEntry { id: NodeId(8), ..long.clone() }.encode_overflow().unwrap());
    wrong(&short.encode(), &overflow);
    wrong(&[0; ENTRY_LEN], &overflow);
    for len in 8..ENTRY_LEN {
        let read = NodeEntry::decode(&long.encode(), &overflow[..len], Phys(1));
        assert_eq!(read.is_ok(), len >= 41, "{len}");
    }
}

#[test]
fn every_slot_has_an_entry_and_an_overflow_entry_of_its_own() {
    use crate::table::{CHUNK_ENTRIES, entries, first_slot, is_overflow, overflow_of, page_of};
    assert_eq!(CHUNK_ENTRIES * geometry::MAX_CHUNKS, 1 << 20);
    let mut slots = 0;
    for page in (0..3 * geometry::CHUNK_PAGES as u32).filter(|page| !is_overflow(*page)) {
        let above = overflow_of(page);
        assert!(is_overflow(above) && first_slot(above) == slots, "page {page}");
        let (mut main, mut more) = ([0; BLOCK_SIZE], [0; BLOCK_SIZE]);
        for place in 0..PAGE_ENTRIES {
            assert_eq!(page_of(slots), page);
            let name = "z".repeat(if place % 3 == 0 { 60 } else { 6 });
            let id = NodeId(1 + u64::from(slots));
            let entry = NodeEntry { id, name: name.into(), ..NodeEntry::default() };
            let range = place * ENTRY_LEN..(place + 1) * ENTRY_LEN;
            main[range.clone()].copy_from_slice(&entry.encode());
            entry.encode_overflow().iter().for_each(|bytes| {
                more[range.clone()].copy_from_slice(bytes);
            });
            slots += 1;
        }
        let read: Vec<_> = entries(page, &main, Some(&more), Phys(1)).collect();
        assert!(read.iter().all(|(slot, e)| e.as_ref().unwrap().id.0 == 1 + u64::from(*slot)));
        assert_eq!(read.len(), PAGE_ENTRIES);
        let alone = entries(page, &main, None, Phys(1)).filter(|(_, entry)| entry.is_ok());
        assert_eq!(alone.count(), 10);
    }
    assert_eq!(slots, 3 * CHUNK_ENTRIES);
}

#[test]
fn blob_chain_round_trip_and_every_bit() {
    let payload: Vec<u8> = (0..10_000u32).map(|i| i as u8).collect();
    let blocks = [Phys(5), Phys(9), Phys(7)];
    let (parts, reference) =
        blob::encode_chain(blob::BlobKind::Row, NodeId(3), 1, &payload, &blocks);
    assert_eq!((reference.phys, reference.blocks()), (Phys(5), 3));
    let (mut at, mut out) = ((reference.phys, reference.crc), Vec::new());
    while !at.0.is_none() {
        let (_, buf) = parts.iter().find(|(phys, _)| *phys == at.0).unwrap();
        let block = blob::decode_block(buf, blob::BlobKind::Row, NodeId(3), 1, at).unwrap();
        assert!(blob::decode_block(buf, blob::BlobKind::Props, NodeId(3), 1, at).is_err());
        for bit in 0..BLOCK_SIZE * 8 {
            let mut bad = buf.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let read = blob::decode_block(&bad, blob::BlobKind::Row, NodeId(3), 1, at);
            assert!(read.is_err(), "bit {bit}");
        }
        out.extend(block.payload);
        at = block.next;
    }
    assert_eq!(out, payload);
}
