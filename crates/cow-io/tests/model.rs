//! Random requests against a model of the image: a vector of bytes.
//!
//! Requests of one batch may run in any order, so those of a batch do not overlap.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod common;

use common::{BLOCK, Reactor, Setup, new_image, pattern, read};
use cow_format::BufSlice;
use cow_io::{DriverOptions, IoOp};
use proptest::prelude::*;
use std::sync::Arc;

/// The image is cut into this many lanes; a batch has at most one request in each.
const LANES: u64 = 24;
const LANE_BLOCKS: u64 = 40;

#[derive(Clone, Debug)]
enum Step {
    Write { lane: u64, first: u64, blocks: Vec<u8> },
    Discard { lane: u64, first: u64, len: u64 },
    Read { lane: u64, first: u64, len: u64 },
    Flush,
    Kick,
}

fn step() -> impl Strategy<Value = Step> {
    let range = (0..LANE_BLOCKS).prop_flat_map(|first| (Just(first), 1..=LANE_BLOCKS - first));
    let write = (0..LANES, 0..LANE_BLOCKS / 2, prop::collection::vec(0u8..16, 1..20));
    prop_oneof![
        4 => write.prop_map(|(lane, first, blocks)| Step::Write { lane, first, blocks }),
        3 => (0..LANES, range.clone())
            .prop_map(|(lane, (first, len))| Step::Read { lane, first, len }),
        1 => (0..LANES, range).prop_map(|(lane, (first, len))| Step::Discard { lane, first, len }),
        1 => Just(Step::Flush),
        1 => Just(Step::Kick),
    ]
}

fn check(setup: Setup, batches: Vec<Vec<Step>>, ring_entries: u32) {
    let (_dir, path, image) = new_image(LANES * LANE_BLOCKS);
    let mut model = vec![0u8; (LANES * LANE_BLOCKS * BLOCK) as usize];
    let options = DriverOptions { ring_entries, threads: 3, ..Default::default() };
    let mut reactor = Reactor::with(image, setup, options);
    let source = Arc::new(pattern(42, 16));
    for batch in batches {
        let mut taken = [false; LANES as usize];
        let mut reads = Vec::new();
        for step in batch {
            let lane = match &step {
                Step::Kick => {
                    reactor.driver.kick();
                    continue;
                }
                Step::Flush => {
                    reactor.submit(IoOp::Flush);
                    continue;
                }
                Step::Write { lane, .. } | Step::Discard { lane, .. } | Step::Read { lane, .. } => {
                    *lane
                }
            };
            if std::mem::replace(&mut taken[lane as usize], true) {
                continue;
            }
            let at = |first: u64| (lane * LANE_BLOCKS + first) * BLOCK;
            match step {
                Step::Write { first, blocks, .. } => {
                    let bufs: Vec<_> = blocks
                        .iter()
                        .map(|&block| BufSlice::new(source.clone(), block.into(), 1))
                        .collect();
                    let bytes: Vec<u8> = bufs.iter().flat_map(|b| b.iter().copied()).collect();
                    let offset = at(first);
                    model[offset as usize..][..bytes.len()].copy_from_slice(&bytes);
                    reactor.submit(IoOp::Write { offset, bufs });
                }
                Step::Discard { first, len, .. } => {
                    let (offset, len) = (at(first), len * BLOCK);
                    model[offset as usize..][..len as usize].fill(0);
                    reactor.submit(IoOp::Discard { offset, len });
                }
                Step::Read { first, len, .. } => {
                    let tag = reactor.submit(read(at(first), len as usize));
                    reads.push((tag, at(first) as usize));
                }
                Step::Flush | Step::Kick => {}
            }
        }
        let done = reactor.finish();
        assert!(done.values().all(|done| done.result.is_ok()), "{done:?}");
        for (tag, offset) in reads {
            let buf = done[&tag].buf.as_ref().unwrap();
            assert!(buf[..] == model[offset..offset + buf.len()], "read at {offset}");
        }
    }
    assert!(reactor.fixed() == 0 || setup == Setup::Fixed);
    drop(reactor);
    assert!(std::fs::read(path).unwrap() == model, "the file at the end");
}

fn batches() -> impl Strategy<Value = Vec<Vec<Step>>> {
    prop::collection::vec(prop::collection::vec(step(), 1..40), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..Default::default() })]

    #[test]
    fn uring_does_what_the_model_does(batches in batches(), entries in 2u32..40) {
        check(Setup::Uring, batches, entries);
    }

    #[test]
    fn uring_with_fixed_buffers_does_too(batches in batches(), entries in 2u32..40) {
        check(Setup::Fixed, batches, entries);
    }

    #[test]
    fn threads_do_what_the_model_does(batches in batches()) {
        check(Setup::Threads, batches, 2);
    }
}
