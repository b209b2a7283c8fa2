//! Fixed buffers: that they are used, and that it makes no difference where they are not.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod common;

use common::{ARENA_BYTES, BLOCK, Reactor, Setup, is_excused, new_image, pattern, write};
use cow_format::{BLOCK_SIZE, BufSlice};
use cow_io::{DriverChoice, DriverOptions, Image, IoOp, IoRequest, open_driver};
use std::sync::Arc;

const ARENA_BLOCKS: usize = ARENA_BYTES / BLOCK_SIZE;

/// A driver with fixed buffers, both chunks of its arena registered. Where the kernel permits rings
/// and knows of such buffers, and the limit of locked memory has room for them, their lack is a
/// fault.
fn fixed(image: Image) -> Option<Reactor> {
    let driver = match open_driver(image, DriverChoice::Uring, &Setup::Fixed.options()) {
        Ok(driver) => driver,
        Err(error) => {
            eprintln!("skipped: {error}");
            return None;
        }
    };
    if let Some(reason) = driver.fixed_refusal() {
        assert!(is_excused(reason), "{reason}");
        eprintln!("skipped: {reason}");
        return None;
    }
    let mut reactor = Reactor::of(driver);
    let _first = reactor.driver.buffers().scratch(ARENA_BLOCKS / 2);
    reactor.read(0, 1);
    if reactor.fixed() == 0 {
        eprintln!("skipped: no room for a second chunk");
        return None;
    }
    reactor.fixed_before = 1;
    Some(reactor)
}

#[test]
fn every_transfer_of_one_piece_is_fixed() {
    let (_dir, _, image) = new_image(1024);
    let Some(mut reactor) = fixed(image) else { return };
    let pool = reactor.driver.buffers();
    for (i, blocks) in [1, 2, 17, 255, 256, 512].into_iter().enumerate() {
        let data = pattern(i as u64, blocks);
        reactor.run(write(3 * BLOCK, &data)).unwrap();
        assert_eq!(reactor.read(3 * BLOCK, blocks)[..], data[..]);
        assert_eq!(reactor.fixed(), 2 * (i as u64 + 1));
    }
    // Slices of one buffer that are neighbours are one piece.
    let mut data = pool.scratch(6);
    data.copy_from_slice(&pattern(9, 6));
    let data = Arc::new(data);
    let before = reactor.fixed();
    let bufs = vec![BufSlice::new(data.clone(), 1, 2), BufSlice::new(data.clone(), 3, 3)];
    reactor.driver.submit(IoRequest { tag: 1, op: IoOp::Write { offset: 0, bufs } });
    assert!(reactor.finish()[&1].result.is_ok());
    assert_eq!(reactor.fixed(), before + 1);
    // Others are not.
    let bufs = vec![BufSlice::new(data.clone(), 5, 1), BufSlice::new(data.clone(), 0, 1)];
    reactor.driver.submit(IoRequest { tag: 2, op: IoOp::Write { offset: 5 * BLOCK, bufs } });
    assert!(reactor.finish()[&2].result.is_ok());
    assert_eq!(reactor.fixed(), before + 1);
    let back = reactor.read(0, 7);
    let order = [1, 2, 3, 4, 5, 5, 0];
    assert!((0..7).all(|block| back.block(block) == data.block(order[block])));
}

#[test]
fn an_exhausted_arena_makes_no_difference() {
    let (_dir, _, image) = new_image(1024);
    let Some(mut reactor) = fixed(image) else { return };
    let pool = reactor.driver.buffers();
    let mut held: Vec<_> = (0..ARENA_BLOCKS).map(|_| pool.zeroed(1)).collect();
    for seed in 0..20 {
        let data = pattern(seed, 1 + seed as usize);
        reactor.run(write(seed * BLOCK, &data)).unwrap();
        assert_eq!(reactor.read(seed * BLOCK, 1 + seed as usize)[..], data[..]);
    }
    assert_eq!(reactor.fixed(), 0, "all of it is held");
    held.truncate(ARENA_BLOCKS - 10);
    reactor.run(write(0, &pattern(1, 11))).unwrap();
    assert_eq!(reactor.fixed(), 0, "no run is long enough");
    reactor.run(write(0, &pattern(1, 10))).unwrap();
    assert_eq!(reactor.fixed(), 1);
    drop(held);
    assert_eq!(reactor.read(0, 11)[..], pattern(1, 11)[..]);
    assert_eq!(reactor.fixed(), 2);
}

/// Without a word about buffers in the options they are there.
#[test]
fn fixed_is_the_default() {
    let (_dir, _, image) = new_image(16);
    let Some(reactor) = fixed(image.clone()) else { return };
    drop(reactor);
    let driver = open_driver(image, DriverChoice::Auto, &DriverOptions::default()).unwrap();
    let mut reactor = Reactor::of(driver);
    reactor.run(write(0, &pattern(1, 16))).unwrap();
    assert_eq!(reactor.fixed(), 1);
}

#[test]
fn buffers_outlive_their_driver() {
    let (_dir, _, image) = new_image(16);
    let Some(mut reactor) = fixed(image) else { return };
    reactor.run(write(0, &pattern(1, 16))).unwrap();
    let read = reactor.read(0, 16);
    let pool = reactor.driver.buffers();
    drop(reactor);
    let more = pool.zeroed(16);
    assert_eq!(read[..], pattern(1, 16)[..]);
    assert!(more.iter().all(|&byte| byte == 0));
}

/// What was registered is given back when a driver is dropped, at once: the limit would soon be
/// reached otherwise.
#[test]
fn drivers_one_after_the_other() {
    let (_dir, _, image) = new_image(2048);
    for round in 0..50 {
        let Some(mut reactor) = fixed(image.clone()) else { return };
        let data = pattern(round, 512);
        for i in 0..4 {
            reactor.submit(write(i * 512 * BLOCK, &data));
        }
        assert!(reactor.finish().values().all(|done| done.result.is_ok()));
        assert_eq!(reactor.fixed(), 2, "the arena has two chunks");
    }
}
