//! Requests, with answers of a kernel that is made up.

use super::*;
use crate::create::CreateOptions;
use cow_format::BufSlice;
use proptest::prelude::*;

const BLOCK: i64 = BLOCK_SIZE as i64;

fn op(op: IoOp) -> Op {
    let dir = tempfile::tempdir().unwrap();
    let image = Image::create(dir.path().join("image"), 0, &CreateOptions::default()).unwrap();
    Op::new(&image, IoRequest { tag: 7, op }).unwrap()
}

fn read(blocks: usize) -> Op {
    op(IoOp::Read { offset: 8192, buf: Buf::zeroed(blocks) })
}

fn write(blocks: usize) -> Op {
    op(IoOp::Write { offset: 8192, bufs: vec![BufSlice::whole(Buf::zeroed(blocks))] })
}

fn errno(step: Step) -> i32 {
    match step {
        Step::Done(Err(error)) => error.errno,
        other => panic!("expected an error: {other:?}"),
    }
}

#[test]
fn short_transfers_go_on_at_a_block() {
    for mut op in [read(4), write(4)] {
        assert_eq!(op.digest(BLOCK), Step::Again);
        assert_eq!(op.position(), 8192 + 4096);
        assert_eq!(op.digest(BLOCK + 700), Step::Again);
        assert_eq!(op.position(), 8192 + 2 * 4096);
        assert_eq!(op.digest(2 * BLOCK), Step::Done(Ok(())));
    }
}

/// What a device does with a request: it moves at most `most` bytes, where the request is now.
fn transfer(device: &mut [u8], op: &mut Op, most: usize) -> Step {
    let at = op.position() as usize;
    let mut moved = 0;
    match &mut op.body {
        Body::Read { buf, done } => {
            moved = (buf.len() - *done).min(most);
            buf[*done..*done + moved].copy_from_slice(&device[at..at + moved]);
        }
        Body::Write { vector, .. } => {
            for part in vector.chunk() {
                let len = part.iov_len.min(most - moved);
                // SAFETY: the vectors describe memory inside of the slices, which the vector owns.
                let from = unsafe { std::slice::from_raw_parts(part.iov_base.cast(), len) };
                device[at + moved..at + moved + len].copy_from_slice(from);
                moved += len;
            }
        }
        _ => {}
    }
    op.digest(moved as i64)
}

fn tagged(tag: u8, blocks: usize) -> Vec<u8> {
    (0..blocks * BLOCK_SIZE).map(|at| (at / 512) as u8 ^ tag.wrapping_mul(37)).collect()
}

fn write_of(tag: u8, offset: usize, blocks: usize) -> Op {
    // A slice for each block: a transfer ends inside of one, between two, and behind several.
    let bytes = tagged(tag, blocks);
    let slices = bytes.chunks(BLOCK_SIZE).map(|b| BufSlice::whole(Buf::from_bytes(b)));
    op(IoOp::Write { offset: offset as u64, bufs: slices.collect() })
}

proptest! {
    /// However short the transfers are, every byte comes to where it belongs, of writes that
    /// were joined too, and what is read is what is there.
    #[test]
    fn short_transfers_move_every_byte(
        counts in prop::collection::vec(1..5 * BLOCK_SIZE, 1..40),
        first in 1..4usize, second in 1..4usize,
    ) {
        let mut counts = counts.into_iter().chain(std::iter::repeat(6 * BLOCK_SIZE));
        let mut device = vec![0xee; 16 * BLOCK_SIZE];
        let mut op = write_of(1, 2 * BLOCK_SIZE, first);
        op.join(write_of(2, (2 + first) * BLOCK_SIZE, second)).unwrap();
        while transfer(&mut device, &mut op, counts.next().unwrap()) == Step::Again {}
        let all = first + second;
        prop_assert!(op.is_complete());
        let written = [tagged(1, first), tagged(2, second)].concat();
        prop_assert_eq!(&device[2 * BLOCK_SIZE..][..all * BLOCK_SIZE], &written[..]);
        let rest = device[..2 * BLOCK_SIZE].iter().chain(&device[(2 + all) * BLOCK_SIZE..]);
        prop_assert!(rest.into_iter().all(|byte| *byte == 0xee));

        let mut op = read(all);
        let mut big = counts.map(|count| count.max(BLOCK_SIZE));
        while transfer(&mut device, &mut op, big.next().unwrap()) == Step::Again {}
        let Some(buf) = op.finish(Ok(())).buf else { panic!("no buffer") };
        prop_assert_eq!(&buf[..], &written[..]);
    }
}

#[test]
fn a_transfer_without_progress_ends() {
    assert_eq!(errno(read(2).digest(0)), END_OF_IMAGE);
    assert_eq!(errno(read(2).digest(700)), END_OF_IMAGE);
    // After one that came somewhere, too.
    let mut begun = read(3);
    assert_eq!(begun.digest(BLOCK + 700), Step::Again);
    assert_eq!((errno(begun.digest(700)), begun.position()), (END_OF_IMAGE, 8192 + 4096));
    assert_eq!(errno(write(2).digest(0)), libc::EIO);
    let mut stuck = write(2);
    let steps = (0..1000).take_while(|_| stuck.digest(700) == Step::Again).count();
    assert_eq!(steps, MAX_RETRIES as usize);
}

#[test]
fn passing_refusals_are_retried_and_others_are_not() {
    for mut op in [read(1), write(1), op(IoOp::Discard { offset: 0, len: 4096 })] {
        for refusal in [libc::EINTR, libc::EAGAIN, libc::EBUSY] {
            assert_eq!(op.digest(-i64::from(refusal)), Step::Again);
            assert!(op.was_refused());
        }
        assert_eq!(errno(op.digest(-i64::from(libc::ENOSPC))), libc::ENOSPC);
    }
    let mut read = read(1);
    let again = (0..1000).take_while(|_| read.digest(-4) == Step::Again).count();
    assert_eq!(again, MAX_RETRIES as usize);
}

/// A second flush could succeed because the first has consumed the error.
#[test]
fn a_flush_is_never_retried() {
    for failure in [libc::EINTR, libc::EAGAIN, libc::EBUSY, libc::EIO, libc::ENOSPC] {
        assert_eq!(errno(op(IoOp::Flush).digest(-i64::from(failure))), failure);
    }
    assert_eq!(op(IoOp::Flush).digest(0), Step::Done(Ok(())));
}

#[test]
fn the_end_gives_the_buffer_back() {
    let done = read(3).finish(Ok(()));
    assert_eq!((done.tag, done.buf.map(|buf| buf.block_count())), (7, Some(3)));
    let done = write(3).lost(libc::EIO);
    assert!(done.result.is_err() && done.buf.is_none());
}
