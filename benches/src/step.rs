//! A step of the hot path, and how one is timed. The same steps are counted in instructions by
//! `tests/counts.rs`.

use criterion::Bencher;
use std::time::{Duration, Instant};

/// Something that is done again and again. A closure that takes the number of the call is one.
pub trait Step {
    /// What call `call` needs and is no part of it.
    fn prepare(&mut self, _call: u64) {}

    /// What is measured.
    fn run(&mut self, call: u64);
}

impl<F: FnMut(u64)> Step for F {
    #[inline(always)]
    fn run(&mut self, call: u64) {
        self(call);
    }
}

/// Times a step that needs no preparation: `fresh` makes a new one for every `batch` calls, which
/// are counted from 0.
pub fn batched<S: Step>(bencher: &mut Bencher<'_>, batch: u64, mut fresh: impl FnMut() -> S) {
    assert!(batch > 0, "an empty batch");
    bencher.iter_custom(|iterations| {
        let (mut total, mut done) = (Duration::ZERO, 0);
        while done < iterations {
            let mut step = fresh();
            let count = batch.min(iterations - done);
            let start = Instant::now();
            for call in 0..count {
                step.run(call);
            }
            total += start.elapsed();
            done += count;
        }
        total
    });
}

/// Times the calls of a step one by one, without what prepares them. Calls are counted on from
/// one sample to the next.
pub fn each(bencher: &mut Bencher<'_>, step: &mut dyn Step, call: &mut u64) {
    bencher.iter_custom(|iterations| {
        let mut total = Duration::ZERO;
        for _ in 0..iterations {
            step.prepare(*call);
            let start = Instant::now();
            step.run(*call);
            total += start.elapsed();
            *call += 1;
        }
        total
    });
}
