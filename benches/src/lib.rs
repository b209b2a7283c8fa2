//! cow-benches: what the benches share. `cargo bench -p cow-benches` runs them; criterion reports
//! times, and nothing here asserts any.
//!
//! `benches/codec.rs` has checksums, hashes and frames, `benches/state.rs` the structures in
//! memory, `benches/engine.rs` and `benches/tree.rs` (many snapshots) the whole engine on a device
//! in memory ([`ram`]), so that what is timed is the engine's own work; `benches/pool.rs` has pools in
//! real files.
#![forbid(unsafe_code)]

pub mod ram;

use criterion::{Bencher, Criterion};
use std::time::{Duration, Instant};

/// Short runs: the figures are for orders of magnitude and for comparing two builds.
pub fn criterion() -> Criterion {
    Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
}

/// Times `op` alone: `fresh` makes a new state for every `batch` calls, which are counted from 0.
pub fn batched<S, T>(
    bencher: &mut Bencher<'_>,
    batch: u64,
    mut fresh: impl FnMut() -> S,
    mut op: impl FnMut(&mut S, u64) -> T,
) {
    assert!(batch > 0, "an empty batch");
    bencher.iter_custom(|iterations| {
        let (mut total, mut done) = (Duration::ZERO, 0);
        while done < iterations {
            let mut state = fresh();
            let count = batch.min(iterations - done);
            let start = Instant::now();
            for call in 0..count {
                std::hint::black_box(op(&mut state, call));
            }
            total += start.elapsed();
            done += count;
        }
        total
    });
}

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): the same numbers in every run.
pub struct Rng(pub u64);

impl Rng {
    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// The value in the middle.
///
/// # Panics
/// When there are none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A block that is not zero, and differs with `seed`.
pub fn block(seed: u64) -> [u8; cow_format::BLOCK_SIZE] {
    let mut rng = Rng(seed);
    std::array::from_fn(|_| rng.below(256) as u8)
}
