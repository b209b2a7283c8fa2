//! The suite that both drivers must pass.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod common;

use common::{BLOCK, Reactor, Setup, is_excused, new_image, pattern, read, write};
use cow_format::{Buf, BufSlice};
use cow_io::{DirectMode, DriverOptions, Image, IoOp, IoRequest, OpKind, OpenOptions};
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

for_all_setups! {
    round_trip,
    round_trip_buffered,
    more_slices_than_the_kernel_takes,
    more_requests_than_the_ring_holds,
    a_flush_among_writes,
    a_hole_reads_zeros_and_frees_blocks,
    allocate_takes_space_and_keeps_the_length,
    grow_and_never_shrink,
    reading_beyond_the_end_fails,
    a_length_that_is_no_multiple_of_a_block,
    a_read_only_image_refuses_changes,
    unaligned_requests_are_refused,
    empty_requests_complete,
    opened_here_used_there,
}

fn names(setup: Setup) -> &'static str {
    if setup == Setup::Threads { "threads" } else { "io_uring" }
}

fn check_round_trip(image: Image, setup: Setup) {
    let mut reactor = Reactor::new(image, setup);
    assert_eq!(reactor.driver.name(), names(setup));
    assert_eq!(reactor.driver.fallback_reason(), None);
    assert!(reactor.driver.fixed_refusal().is_none_or(is_excused));
    let data = pattern(1, 300);
    reactor.run(write(10 * BLOCK, &data)).unwrap();
    assert_eq!(reactor.read(10 * BLOCK, 300)[..], data[..]);
    assert_eq!(reactor.read(11 * BLOCK, 1)[..], data.block(1)[..]);
    assert!(reactor.read(0, 10).iter().all(|&byte| byte == 0));
    let slices = Arc::new(data);
    let bufs = [(5, 2), (0, 1), (1, 1), (299, 1)];
    let bufs = bufs.map(|(first, blocks)| BufSlice::new(slices.clone(), first, blocks));
    reactor.run(IoOp::Write { offset: 0, bufs: bufs.to_vec() }).unwrap();
    let back = reactor.read(0, 5);
    for (at, from) in [5, 6, 0, 1, 299].into_iter().enumerate() {
        assert_eq!(back.block(at), slices.block(from), "block {at}");
    }
    let has_fixed = setup == Setup::Fixed && reactor.driver.fixed_refusal().is_none();
    assert_eq!(reactor.fixed() > 0, has_fixed);
}

fn round_trip(setup: Setup) {
    let (_dir, _, image) = new_image(1024);
    check_round_trip(image, setup);
}

fn round_trip_buffered(setup: Setup) {
    let (_dir, path, image) = new_image(1024);
    drop(image);
    let options = OpenOptions { direct: DirectMode::Off, ..Default::default() };
    let image = Image::open(&path, &options).unwrap();
    assert!(!image.is_direct());
    check_round_trip(image, setup);
}

fn more_slices_than_the_kernel_takes(setup: Setup) {
    let (_dir, _, image) = new_image(4096);
    let mut reactor = Reactor::new(image, setup);
    let data = Arc::new(pattern(7, 2600));
    // Backwards, so that no two slices are neighbours and each needs its own vector.
    let bufs: Vec<_> = (0..2600).rev().map(|i| BufSlice::new(data.clone(), i, 1)).collect();
    reactor.run(IoOp::Write { offset: 3 * BLOCK, bufs }).unwrap();
    let back = reactor.read(3 * BLOCK, 2600);
    for block in 0..2600 {
        assert_eq!(back.block(block), data.block(2599 - block), "block {block}");
    }
}

fn more_requests_than_the_ring_holds(setup: Setup) {
    const COUNT: u64 = 3000;
    let (_dir, _, image) = new_image(COUNT * 2);
    let options = DriverOptions { ring_entries: 32, threads: 3, ..Default::default() };
    let mut reactor = Reactor::with(image, setup, options);
    let old: Vec<_> = (0..COUNT).map(|i| pattern(i, 1)).collect();
    for (i, buf) in old.iter().enumerate() {
        reactor.submit(write(i as u64 * 2 * BLOCK, buf));
    }
    assert_eq!(reactor.driver.in_flight(), COUNT as usize);
    let done = reactor.finish();
    assert_eq!(done.len(), COUNT as usize);
    assert!(done.values().all(|done| done.result.is_ok()));
    // Writes to the gaps between reads of the rest, kicked in batches of odd sizes.
    let mut reads = HashMap::new();
    for i in 0..COUNT {
        reads.insert(reactor.submit(read(i * 2 * BLOCK, 1)), i);
        reactor.submit(write((i * 2 + 1) * BLOCK, &pattern(i + COUNT, 1)));
        if i % 37 == 0 {
            reactor.driver.kick();
        }
    }
    let done = reactor.finish();
    assert_eq!(done.len(), 2 * COUNT as usize);
    for (tag, i) in reads {
        let done = &done[&tag];
        assert_eq!(done.result, Ok(()));
        assert_eq!(done.buf.as_ref().unwrap()[..], old[i as usize][..], "block {i}");
    }
    for i in (0..COUNT).step_by(97) {
        assert_eq!(reactor.read((i * 2 + 1) * BLOCK, 1)[..], pattern(i + COUNT, 1)[..]);
    }
}

fn a_flush_among_writes(setup: Setup) {
    let (_dir, path, image) = new_image(64);
    let mut reactor = Reactor::new(image, setup);
    for i in 0..32 {
        reactor.submit(write(i * BLOCK, &pattern(i, 1)));
    }
    reactor.finish();
    assert_eq!(reactor.run(IoOp::Flush).unwrap().map(|_| ()), None);
    let (flush, other) = (reactor.submit(IoOp::Flush), reactor.submit(read(0, 1)));
    let done = reactor.finish();
    assert!(done[&flush].result.is_ok() && done[&other].result.is_ok());
    drop(reactor);
    let back = std::fs::read(path).unwrap();
    assert_eq!(back[..BLOCK as usize], pattern(0, 1)[..]);
}

fn a_hole_reads_zeros_and_frees_blocks(setup: Setup) {
    let (_dir, path, image) = new_image(2048);
    let mut reactor = Reactor::new(image, setup);
    let data = pattern(3, 1024);
    reactor.run(write(0, &data)).unwrap();
    reactor.run(IoOp::Flush).unwrap();
    let before = std::fs::metadata(&path).unwrap();
    let (offset, len) = (256 * BLOCK, 512 * BLOCK);
    reactor.run(IoOp::Discard { offset, len }).unwrap();
    let after = std::fs::metadata(&path).unwrap();
    assert_eq!(after.len(), before.len());
    // In units of 512 bytes; a little less is freed if the file system's blocks are larger.
    assert!(before.blocks() - after.blocks() > len / 512 * 9 / 10);
    assert!(reactor.read(offset, 512).iter().all(|&byte| byte == 0));
    assert_eq!(reactor.read(0, 256)[..], data[..256 * BLOCK as usize]);
    assert_eq!(reactor.read(768 * BLOCK, 256)[..], data[768 * BLOCK as usize..]);
}

fn allocate_takes_space_and_keeps_the_length(setup: Setup) {
    let (_dir, path, image) = new_image(1024);
    let mut reactor = Reactor::new(image, setup);
    let before = std::fs::metadata(&path).unwrap();
    assert!(before.blocks() < 64, "a fresh image is sparse");
    reactor.run(IoOp::Allocate { offset: 0, len: 512 * BLOCK }).unwrap();
    // Beyond the end, too: the length must stay all the same.
    reactor.run(IoOp::Allocate { offset: 1020 * BLOCK, len: 8 * BLOCK }).unwrap();
    let after = std::fs::metadata(&path).unwrap();
    assert!(after.blocks() >= 512 * BLOCK / 512);
    assert_eq!(after.len(), before.len());
    assert!(reactor.read(0, 512).iter().all(|&byte| byte == 0));
}

fn grow_and_never_shrink(setup: Setup) {
    let (_dir, path, image) = new_image(16);
    let mut reactor = Reactor::new(image.clone(), setup);
    assert!(reactor.run(read(16 * BLOCK, 1)).is_err());
    reactor.run(IoOp::Grow { len: 64 * BLOCK + 512 }).unwrap();
    assert_eq!(image.size_bytes(), 64 * BLOCK + 512);
    assert!(reactor.read(16 * BLOCK, 48).iter().all(|&byte| byte == 0));
    reactor.run(IoOp::Grow { len: BLOCK }).unwrap();
    assert_eq!(image.size_bytes(), 64 * BLOCK + 512);
    assert_eq!(std::fs::metadata(path).unwrap().len(), 64 * BLOCK + 512);
    let error = reactor.run(IoOp::Grow { len: u64::MAX }).unwrap_err();
    assert_eq!((error.op, error.errno), (OpKind::Grow, libc::EFBIG));
}

fn reading_beyond_the_end_fails(setup: Setup) {
    let (_dir, _, image) = new_image(16);
    let mut reactor = Reactor::new(image, setup);
    for (offset, blocks) in [(16, 1), (15, 2), (0, 17), (1000, 4)] {
        let error = reactor.run(read(offset * BLOCK, blocks)).unwrap_err();
        assert!(error.is_end_of_image(), "{error}");
        assert_eq!((error.op, error.offset), (OpKind::Read, offset * BLOCK));
        assert!(error.to_string().contains("beyond the end"), "{error}");
    }
    // The buffer comes back from a failure, too.
    let tag = reactor.submit(read(16 * BLOCK, 3));
    assert_eq!(reactor.finish()[&tag].buf.as_ref().map(Buf::block_count), Some(3));
}

fn a_length_that_is_no_multiple_of_a_block(setup: Setup) {
    for direct in [DirectMode::Auto, DirectMode::Off] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        let mut bytes = pattern(5, 8).to_vec();
        bytes.truncate(7 * BLOCK as usize + 700);
        std::fs::write(&path, &bytes).unwrap();
        let image = Image::open(&path, &OpenOptions { read_only: false, direct }).unwrap();
        assert_eq!(image.size_bytes(), bytes.len() as u64);
        let mut reactor = Reactor::new(image, setup);
        assert_eq!(reactor.read(0, 7)[..], bytes[..7 * BLOCK as usize]);
        assert!(reactor.run(read(0, 8)).unwrap_err().is_end_of_image());
        assert!(reactor.run(read(7 * BLOCK, 1)).unwrap_err().is_end_of_image());
        reactor.run(write(6 * BLOCK, &pattern(6, 2))).unwrap();
        assert_eq!(reactor.read(6 * BLOCK, 2)[..], pattern(6, 2)[..]);
    }
}

fn a_read_only_image_refuses_changes(setup: Setup) {
    let (_dir, path, image) = new_image(16);
    drop(image);
    let image = Image::open(&path, &OpenOptions { read_only: true, ..Default::default() }).unwrap();
    let mut reactor = Reactor::new(image, setup);
    assert_eq!(reactor.read(0, 16).len(), 16 * BLOCK as usize);
    reactor.run(IoOp::Flush).unwrap();
    let changes = [
        write(0, &pattern(1, 1)),
        IoOp::Discard { offset: 0, len: BLOCK },
        IoOp::Allocate { offset: 0, len: BLOCK },
        IoOp::Grow { len: 32 * BLOCK },
    ];
    for change in changes {
        assert_eq!(reactor.run(change).unwrap_err().errno, libc::EBADF);
    }
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 16 * BLOCK);
    assert!(std::fs::read(&path).unwrap().iter().all(|&byte| byte == 0));
}

fn unaligned_requests_are_refused(setup: Setup) {
    let (_dir, _, image) = new_image(16);
    let mut reactor = Reactor::new(image, setup);
    let bad = [
        (read(512, 1), libc::EINVAL),
        (write(1, &pattern(1, 1)), libc::EINVAL),
        (IoOp::Discard { offset: 0, len: 100 }, libc::EINVAL),
        (IoOp::Allocate { offset: 100, len: BLOCK }, libc::EINVAL),
        (read(u64::MAX / BLOCK * BLOCK, 1), libc::EFBIG),
        (write(1 << 63, &pattern(1, 1)), libc::EFBIG),
    ];
    for (op, errno) in bad {
        assert_eq!(reactor.run(op).unwrap_err().errno, errno);
    }
}

fn empty_requests_complete(setup: Setup) {
    let (_dir, _, image) = new_image(1);
    let mut reactor = Reactor::new(image, setup);
    assert_eq!(reactor.run(read(0, 0)).unwrap().unwrap().len(), 0);
    reactor.run(IoOp::Write { offset: 0, bufs: vec![] }).unwrap();
    reactor.run(IoOp::Discard { offset: 0, len: 0 }).unwrap();
    reactor.run(IoOp::Allocate { offset: 0, len: 0 }).unwrap();
}

/// A ring has one thread, but need not be opened by it.
fn opened_here_used_there(setup: Setup) {
    let (_dir, _, image) = new_image(16);
    let mut reactor = Reactor::new(image, setup);
    reactor.driver.submit(IoRequest { tag: 1, op: write(0, &pattern(1, 16)) });
    let used = std::thread::spawn(move || {
        assert!(reactor.finish()[&1].result.is_ok());
        assert_eq!(reactor.read(0, 16)[..], pattern(1, 16)[..]);
    });
    used.join().unwrap();
}
