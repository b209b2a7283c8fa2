//! Checksums, hashes and journal frames.

use cow_benches::{batched, block, criterion as configured};
use cow_format::checksum;
use cow_format::frame::Frame;
use cow_format::record::Record;
use cow_format::{Buf, Epoch, FrameSeq, Lba, Phys, VolumeId};
use cow_journal::{JournalWriter, Reserve, Ring, Sealed, records_of};
use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;

const POOL_TAG: u64 = 0x00c0_ffee;
const RING: Ring = Ring { start: Phys(1024), blocks: 1 << 16 };

fn blocks(c: &mut Criterion) {
    let data = block(1);
    c.bench_function("crc32_4k", |b| b.iter(|| checksum::data(black_box(&data))));
    // No fused function exists: copied, tested and summed one after the other, as the engine does.
    let mut owned = Buf::zeroed(1);
    c.bench_function("copy_zero_crc_4k", |b| {
        b.iter(|| {
            owned.copy_from_slice(black_box(&data));
            let zero = owned.iter().all(|&byte| byte == 0);
            (!zero).then(|| checksum::data(&owned))
        });
    });
    c.bench_function("blake3_4k", |b| b.iter(|| cow_merkle::leaf_hash(7, black_box(&data))));
}

fn writer() -> JournalWriter {
    let start = cow_format::checkpoint::JournalPos { block: 0, seq: FrameSeq(1), chain: POOL_TAG };
    JournalWriter::new(RING, POOL_TAG, Epoch(1), start, start)
}

/// 32 groups of one 4 KiB write each, and the seal.
fn seal(writer: &mut JournalWriter, groups: &[[Record; 1]]) -> Vec<Sealed> {
    for group in groups {
        let appended = writer.append(group, Reserve::Normal);
        assert!(appended.is_ok(), "the ring is full");
    }
    writer.seal();
    writer.set_retained(writer.next());
    writer.take_sealed()
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

fn frames(c: &mut Criterion) {
    let groups = groups();
    c.bench_function("frame_seal_32", |b| {
        batched(b, 10_000, writer, |writer, _| seal(writer, &groups));
    });
    let sealed = seal(&mut writer(), &groups);
    c.bench_function("frame_decode", |b| {
        b.iter(|| {
            let sealed = black_box(&sealed[0]);
            let (frame, chain) = Frame::decode(&sealed.buf, POOL_TAG, sealed.at).ok()?;
            Some((records_of(&frame).ok()?, chain))
        });
    });
}

criterion_group! {
    name = codec;
    config = configured();
    targets = blocks, frames
}
criterion_main!(codec);
