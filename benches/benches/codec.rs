//! Checksums, hashes and journal frames.

use cow_benches::criterion as configured;
use cow_benches::step::batched;
use cow_benches::steps::codec;
use criterion::{Criterion, criterion_group, criterion_main};

/// Calls of one writer of the journal.
const BATCH: u64 = 10_000;

fn blocks(c: &mut Criterion) {
    c.bench_function("crc32_4k", |b| batched(b, u64::MAX, codec::crc32_4k));
    c.bench_function("copy_zero_crc_4k", |b| batched(b, u64::MAX, codec::copy_zero_crc_4k));
    c.bench_function("blake3_4k", |b| batched(b, u64::MAX, codec::blake3_4k));
    c.bench_function("merkle_update", |b| batched(b, u64::MAX, codec::merkle_update));
}

fn frames(c: &mut Criterion) {
    c.bench_function("frame_seal_32", |b| batched(b, BATCH, codec::frame_seal_32));
    c.bench_function("frame_decode", |b| batched(b, u64::MAX, codec::frame_decode));
}

criterion_group! {
    name = codec;
    config = configured();
    targets = blocks, frames
}
criterion_main!(codec);
