//! Reads of one run and of several: how many device reads they take, and what is verified in them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod pool;

use cow_engine::{AckMode, Config, Error, ExportId, Op, Reply};
use cow_format::Buf;
use cow_sim::small_config;
use pool::{BLOCK, Pool};

/// Every block says where it belongs, and in which state of the volume.
fn sign(block: u64, state: u8) -> [u8; 9] {
    let mut sign = [state; 9];
    sign[..8].copy_from_slice(&(block + 1).to_le_bytes());
    sign
}

fn write(export: ExportId, block: u64, blocks: u64, state: u8) -> Op {
    let mut data = Buf::zeroed(blocks as usize);
    for i in 0..blocks {
        data.block_mut(i as usize)[..9].copy_from_slice(&sign(block + i, state));
    }
    Op::Write { export, offset: block * BLOCK, len: blocks * BLOCK, data, fua: false }
}

fn read(export: ExportId, block: u64, blocks: u64) -> Op {
    Op::Read { export, offset: block * BLOCK, len: blocks * BLOCK }
}

/// Blocks 0 to 3 and 6 to 9 are written, the two between are not. What buffers hold at first is left
/// over from anything, never zeros.
fn begun(mode: AckMode) -> (Pool, ExportId) {
    let mut pool = Pool::with(Config { layer_bytes: 8 << 20, ..small_config(mode) });
    let export = pool.volume("v", 1 << 30, &[]);
    pool.must(write(export, 0, 4, 1));
    pool.must(write(export, 6, 4, 1));
    pool.must(Op::Checkpoint);
    pool.world.run_until_idle().unwrap();
    // The map is in memory from here on.
    pool.must(read(export, 0, 10));
    (pool, export)
}

fn blocks_of(reply: Reply) -> Buf {
    match reply {
        Reply::Data { buf, skip: 0 } => buf,
        other => panic!("{other:?}"),
    }
}

fn is_block(buf: &Buf, index: usize, block: u64, state: u8) -> bool {
    let (front, rest) = buf.block(index).split_at(9);
    front == sign(block, state) && rest.iter().all(|&byte| byte == 0)
}

/// Where the content of a block is on the disk.
fn place(pool: &Pool, block: u64, state: u8) -> u64 {
    let disk = pool.world.disk();
    let is_there = |at: &u64| disk.peek(*at)[..9] == sign(block, state);
    disk.occupied().into_iter().find(is_there).expect("the block is on the disk")
}

#[test]
fn a_run_is_one_device_read_and_holes_between_runs_are_zeros() {
    let (mut pool, export) = begun(AckMode::Writethrough);
    for (first, blocks, reads) in
        [(0, 1, 1), (0, 4, 1), (7, 3, 1), (0, 10, 2), (4, 2, 0), (3, 2, 1)]
    {
        let before = pool.world.disk().counts().read;
        let buf = blocks_of(pool.must(read(export, first, blocks)));
        let after = pool.world.disk().counts().read;
        assert_eq!(after.ops - before.ops, reads, "reads for {blocks} blocks from {first}");
        assert_eq!(buf.block_count() as u64, blocks);
        for i in 0..blocks {
            let (index, block) = (i as usize, first + i);
            if block == 4 || block == 5 {
                assert!(buf.block(index).iter().all(|&byte| byte == 0), "hole {block}");
            } else {
                assert!(is_block(&buf, index, block, 1), "{block}");
            }
        }
    }
}

#[test]
fn blocks_in_flight_among_others_are_read_as_written() {
    let (mut pool, export) = begun(AckMode::Writeback);
    let id = pool.world.start_op(write(export, 2, 1, 2));
    assert!(matches!(pool.world.take_reply(), Some((of, Ok(_))) if of == id));
    pool.world.start_op(write(export, 7, 2, 2));
    assert!(pool.world.take_reply().is_some_and(|(_, result)| result.is_ok()));
    // Begun while the writes are under way; the device may complete them meanwhile.
    let under_way = pool.world.disk().counts().read;
    let (whole, one) =
        (pool.world.start_op(read(export, 0, 10)), pool.world.start_op(read(export, 2, 1)));
    let (of, at_once) = pool.world.take_reply().expect("from memory");
    assert_eq!(of, one);
    assert!(is_block(&blocks_of(at_once.unwrap()), 0, 2, 2));
    pool.world.run_until_idle().unwrap();
    let (of, result) = pool.world.take_reply().expect("read");
    assert_eq!(of, whole);
    let buf = blocks_of(result.unwrap());
    for block in [0, 1, 2, 3, 6, 7, 8, 9] {
        let state = if matches!(block, 2 | 7 | 8) { 2 } else { 1 };
        assert!(is_block(&buf, block as usize, block, state), "{block}");
    }
    assert_eq!(pool.world.disk().counts().read.ops - under_way.ops, 4, "0 and 1, 3, 6, 9");
}

#[test]
fn a_damaged_block_in_the_middle_is_an_error_and_its_neighbours_are_read() {
    let (mut pool, export) = begun(AckMode::Writethrough);
    let at = place(&pool, 2, 1);
    let good = pool.world.disk().peek(at);
    let mut bad = good;
    bad[4095] ^= 1;
    pool.world.disk_mut().poke(at, bad);
    for (first, blocks) in [(2, 1), (0, 4), (1, 2), (0, 10)] {
        let before = pool.world.disk().counts().read.ops;
        let result = pool.ask(read(export, first, blocks));
        assert!(matches!(result, Err(Error::Corrupt(_))), "{blocks} from {first}: {result:?}");
        let runs = if blocks == 10 { 2 } else { 1 };
        let reads = pool.world.disk().counts().read.ops - before;
        assert_eq!(reads, runs + 1, "the damaged block is read once more, past caches");
    }
    assert!(is_block(&blocks_of(pool.must(read(export, 0, 2))), 1, 1, 1));
    assert!(is_block(&blocks_of(pool.must(read(export, 3, 1))), 0, 3, 1));
    pool.world.disk_mut().poke(at, good);
    assert!(is_block(&blocks_of(pool.must(read(export, 0, 4))), 2, 2, 1));
}
