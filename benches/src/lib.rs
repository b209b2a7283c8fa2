//! cow-benches: what the benches share. `cargo bench -p cow-benches` runs them; criterion reports
//! times, and nothing here asserts any.
//!
//! The steps of the hot path are in `src/steps`, so that what `benches/` times is what
//! `tests/counts.rs` counts in instructions. `benches/codec.rs` has checksums, hashes and frames,
//! `benches/state.rs` the structures in memory, `benches/engine.rs`, `benches/folds.rs` and
//! `benches/tree.rs` (many snapshots) the whole engine on a device in memory ([`ram`]), so that what is
//! timed is the engine's own work; `benches/pool.rs` and `benches/file.rs` have pools in real files.
#![forbid(unsafe_code)]

pub mod ram;
pub mod step;
pub mod steps;

use criterion::Criterion;
use std::time::Duration;

/// Short runs: the figures are for orders of magnitude and for comparing two builds.
pub fn criterion() -> Criterion {
    Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
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

/// The content that most blocks have: see [`ram::Ram::thin`].
pub const FILLER: u64 = 5;

/// A block that is not zero, and differs with `seed`.
pub fn block(seed: u64) -> [u8; cow_format::BLOCK_SIZE] {
    let mut rng = Rng(seed);
    std::array::from_fn(|_| rng.below(256) as u8)
}
