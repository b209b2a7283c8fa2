//! Checksums, hashes and journal frames.

use crate::block;
use crate::step::Step;
use cow_format::checkpoint::JournalPos;
use cow_format::checksum;
use cow_format::frame::Frame;
use cow_format::record::Record;
use cow_format::{Buf, Epoch, FrameSeq, Lba, Phys, VolumeId};
use cow_journal::{JournalWriter, Reserve, Ring, Sealed, records_of};
use cow_merkle::{Builder, Digest, Page, Pages, PagesMut, leaf_hash};
use std::collections::HashMap;
use std::convert::Infallible;
use std::hint::black_box;

const POOL_TAG: u64 = 0x00c0_ffee;
const RING: Ring = Ring { start: Phys(1024), blocks: 1 << 16 };
/// Blocks of the volume whose root [`merkle_update`] brings up to date (1 GiB), and how many of them
/// have changed.
const MERKLE_BLOCKS: u64 = 1 << 18;
const MERKLE_CHANGED: u64 = 1000;

/// The checksum of a block.
pub fn crc32_4k() -> impl Step {
    let data = block(1);
    move |_| {
        black_box(checksum::data(black_box(&data)));
    }
}

/// No fused function exists: copied, tested and summed one after the other, as the engine does.
pub fn copy_zero_crc_4k() -> impl Step {
    let data = block(1);
    let mut owned = Buf::zeroed(1);
    move |_| {
        owned.copy_from_slice(black_box(&data));
        let zero = owned.iter().all(|&byte| byte == 0);
        black_box((!zero).then(|| checksum::data(&owned)));
    }
}

/// The digest of a block.
pub fn blake3_4k() -> impl Step {
    let data = block(1);
    move |_| {
        black_box(leaf_hash(7, black_box(&data)));
    }
}

fn writer() -> JournalWriter {
    let start = JournalPos { block: 0, seq: FrameSeq(1), chain: POOL_TAG };
    JournalWriter::new(RING, POOL_TAG, Epoch(1), start, start)
}

fn groups() -> Vec<[Record; 1]> {
    let record = |i: u64| Record::MapSet {
        volume: VolumeId(1),
        lba: Lba(i * 977),
        phys: Phys(90_000 + i),
        crcs: vec![i as u32],
    };
    (0..32).map(|i| [record(i)]).collect()
}

fn seal(writer: &mut JournalWriter, groups: &[[Record; 1]]) -> Vec<Sealed> {
    for group in groups {
        let appended = writer.append(group, Reserve::Normal);
        assert!(appended.is_ok(), "the ring is full");
    }
    writer.seal();
    writer.set_retained(writer.next());
    writer.take_sealed()
}

/// 32 groups of one 4 KiB write each, and the seal.
pub fn frame_seal_32() -> impl Step {
    let (mut writer, groups) = (writer(), groups());
    move |_| {
        black_box(seal(&mut writer, &groups));
    }
}

/// A frame of 32 records, checked and taken apart.
pub fn frame_decode() -> impl Step {
    let sealed = seal(&mut writer(), &groups());
    move |_| {
        let sealed = black_box(&sealed[0]);
        let frame = Frame::decode(&sealed.buf, POOL_TAG, sealed.at);
        let records = frame.map(|(frame, chain)| (records_of(&frame), chain));
        assert!(matches!(records, Ok((Ok(_), _))), "a frame that is none");
        drop(black_box(records));
    }
}

#[derive(Default)]
struct Kept(HashMap<(u8, u64), Page>);

impl Pages for Kept {
    type Error = Infallible;

    fn load(&mut self, level: u8, index: u64) -> Result<Option<Page>, Infallible> {
        Ok(self.0.get(&(level, index)).cloned())
    }
}

impl PagesMut for Kept {
    fn save(&mut self, page: &Page) -> Result<(), Infallible> {
        self.0.insert((page.level(), page.index()), page.clone());
        Ok(())
    }
}

/// The root of a volume of 1 GiB after 1,000 scattered blocks have changed, whose digests are known.
pub fn merkle_update() -> impl Step {
    let mut pages = Kept::default();
    let digests = [block(1), block(2)].map(|block| leaf_hash(7, &block));
    update(&mut pages, (0..MERKLE_BLOCKS).map(|at| (at, digests[0])));
    let stride = MERKLE_BLOCKS / MERKLE_CHANGED;
    move |call| {
        let changed = (0..MERKLE_CHANGED).map(|at| at * stride);
        update(&mut pages, changed.map(|at| (at, digests[(call % 2) as usize])));
    }
}

fn update(pages: &mut Kept, digests: impl Iterator<Item = (u64, Digest)>) {
    let size_bytes = MERKLE_BLOCKS * cow_merkle::BLOCK_SIZE as u64;
    let root = Builder::update(size_bytes, pages).and_then(|mut builder| {
        for (block, digest) in digests {
            builder.push(block, digest)?;
        }
        builder.finish()
    });
    assert!(root.is_ok(), "no root: {root:?}");
}
