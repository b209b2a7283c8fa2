//! The arena against a list of what is out.

use super::*;
use proptest::prelude::*;
use std::thread;

const CHUNKS: usize = 3;

fn arena() -> Arena {
    Arena::new(CHUNKS * CHUNK_BYTES + 5).unwrap().unwrap()
}

fn is_inside(arena: &Arena, buf: &Buf) -> bool {
    arena.chunk_of(buf.as_ptr(), buf.len()).is_some()
}

fn holds(buf: &Buf, byte: u8) -> bool {
    buf.iter().all(|&b| b == byte)
}

#[test]
fn less_than_a_chunk_is_none() {
    assert!(Arena::new(0).unwrap().is_none());
    assert!(Arena::new(CHUNK_BYTES - 1).unwrap().is_none());
    assert_eq!(Arena::new(CHUNK_BYTES).unwrap().unwrap().chunk_count(), 1);
}

#[test]
fn chunks_are_aligned_and_runs_stay_inside_one() {
    let arena = arena();
    assert_eq!(arena.chunk(0).iov_base.addr() % CHUNK_BYTES, 0);
    let bufs: Vec<_> = (0..7).map(|_| arena.scratch(200)).collect();
    let places: Vec<_> = bufs.iter().map(|b| arena.chunk_of(b.as_ptr(), b.len())).collect();
    let want = [Some(0), Some(0), Some(1), Some(1), Some(2), Some(2), None];
    assert_eq!(places, want, "two in each, and no room for the last");
    assert_eq!(arena.chunk_of(bufs[0].as_ptr(), CHUNK_BYTES + 1), None);
    let whole = self::arena().scratch(CHUNK_BLOCKS);
    assert_eq!(whole.block_count(), CHUNK_BLOCKS);
}

#[test]
fn what_does_not_fit_is_ordinary_memory() {
    let arena = arena();
    let long = arena.scratch(CHUNK_BLOCKS + 1);
    assert!(!is_inside(&arena, &long) && holds(&long, 0));
    let none = arena.scratch(0);
    assert!(none.is_empty() && !is_inside(&arena, &none));
    assert_eq!(arena.free_blocks(), CHUNKS * CHUNK_BLOCKS);
}

#[test]
fn a_shorter_buffer_gives_all_of_it_back() {
    let arena = arena();
    let mut buf = arena.scratch(10);
    buf.truncate(3);
    assert_eq!((buf.block_count(), buf.len()), (3, 3 * BLOCK_SIZE));
    assert_eq!(arena.free_blocks(), CHUNKS * CHUNK_BLOCKS - 10);
    let copy = buf.clone();
    assert!(!is_inside(&arena, &copy) && copy[..] == buf[..]);
    drop(buf);
    assert_eq!(arena.free_blocks(), CHUNKS * CHUNK_BLOCKS);
}

#[test]
fn the_tail_behind_bytes_is_zero() {
    let arena = arena();
    arena.scratch(CHUNK_BLOCKS).fill(7);
    let buf = arena.pool().from_bytes(&[1; BLOCK_SIZE + 5]);
    assert!(buf[..BLOCK_SIZE + 5].iter().all(|&b| b == 1));
    assert_eq!(buf[BLOCK_SIZE + 5..], [0; BLOCK_SIZE - 5]);
    assert!(is_inside(&arena, &buf));
}

/// Many threads at once, each with marks of its own in what it holds.
#[test]
fn threads_do_not_meet() {
    let arena = arena();
    thread::scope(|scope| {
        for mark in 1..=4u8 {
            let arena = &arena;
            scope.spawn(move || {
                let mut held = Vec::new();
                for i in 0..3000usize {
                    let mut buf = arena.zeroed(1 + (i * 7 + usize::from(mark)) % 90);
                    assert!(holds(&buf, 0));
                    buf.fill(mark);
                    held.push(buf);
                    if held.len() > 8 {
                        assert!(holds(&held.swap_remove(i % 8), mark));
                    }
                }
            });
        }
    });
    assert_eq!(arena.free_blocks(), CHUNKS * CHUNK_BLOCKS);
}

#[derive(Clone, Debug)]
enum Step {
    Take { blocks: usize, zeroed: bool },
    GiveBack { which: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let blocks = prop_oneof![4 => 1usize..4, 2 => 4usize..200, 1 => 200usize..600];
    prop_oneof![
        3 => (blocks, any::<bool>()).prop_map(|(blocks, zeroed)| Step::Take { blocks, zeroed }),
        2 => (0usize..1000).prop_map(|which| Step::GiveBack { which }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..Default::default() })]

    /// No two buffers share a byte, each keeps what was written to it, zeroed ones are zero, each
    /// goes back once, and in the end all is free. A run is refused only if there is none.
    #[test]
    fn runs_are_taken_by_one(steps in prop::collection::vec(step(), 1..150)) {
        let arena = arena();
        let mut out: Vec<(Buf, u8)> = Vec::new();
        let mut taken = [false; CHUNKS * CHUNK_BLOCKS];
        let base = arena.chunk(0).iov_base.addr();
        let range = |buf: &Buf| {
            let first = (buf.as_ptr().addr() - base) / BLOCK_SIZE;
            first..first + buf.block_count()
        };
        for (i, step) in steps.into_iter().enumerate() {
            match step {
                Step::Take { blocks, zeroed } => {
                    let room = taken.chunks(CHUNK_BLOCKS).any(|chunk| {
                        chunk.split(|is| *is).any(|run| run.len() >= blocks)
                    });
                    let mut buf = if zeroed { arena.zeroed(blocks) } else { arena.scratch(blocks) };
                    prop_assert_eq!(buf.block_count(), blocks);
                    prop_assert!(!zeroed || holds(&buf, 0));
                    prop_assert_eq!(is_inside(&arena, &buf), room);
                    if room {
                        for is in &mut taken[range(&buf)] {
                            prop_assert!(!std::mem::replace(is, true), "taken twice");
                        }
                    }
                    let mark = i as u8 | 1;
                    buf.fill(mark);
                    out.push((buf, mark));
                }
                Step::GiveBack { which } if !out.is_empty() => {
                    let (buf, mark) = out.swap_remove(which % out.len());
                    prop_assert!(holds(&buf, mark));
                    if is_inside(&arena, &buf) {
                        taken[range(&buf)].fill(false);
                    }
                }
                Step::GiveBack { .. } => {}
            }
            let count = taken.iter().filter(|is| !**is).count();
            prop_assert_eq!(arena.free_blocks(), count);
        }
        prop_assert!(out.iter().all(|(buf, mark)| holds(buf, *mark)));
        out.clear();
        prop_assert_eq!(arena.free_blocks(), CHUNKS * CHUNK_BLOCKS);
    }
}
