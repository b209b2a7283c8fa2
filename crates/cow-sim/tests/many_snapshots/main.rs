//! What a snapshot and an open cost where there are many snapshots already, in device operations and
//! in instructions of the processor.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod instructions;
mod pool;

use cow_engine::{Engine, Op};
use cow_sim::disk::{Counts, Crash, SimDisk};
use pool::{COUNTS, ask, export, large_pool, open, snapshot, take};

/// Most blocks that 10,000 snapshots may add to what an open reads: their nodes fill 626 pages, and a
/// larger pool of nodes has a larger checkpoint.
const OPEN_BLOCKS: u64 = 660;
/// Most reads of an open at 10,000 snapshots.
const OPEN_READS: u64 = 100;

fn added(after: &Counts, before: &Counts) -> [u64; 5] {
    let [now, then] = [after, before]
        .map(|c| [c.read.ops, c.read.blocks, c.write.ops, c.write.blocks, c.flush.ops]);
    std::array::from_fn(|at| now[at] - then[at])
}

/// Blocks and operations of an open after a clean end.
fn cost_of_open(disk: &SimDisk) -> [u64; 5] {
    let mut pool = open::<Engine>(disk.crash(Crash::KeepAll));
    ask(&mut pool, Op::Close);
    let disk = pool.disk().crash(Crash::KeepAll);
    let before = disk.counts();
    added(&open::<Engine>(disk).disk().counts(), &before)
}

#[test]
fn snapshots_and_opens_cost_the_same_among_ten_thousand() {
    let mut pool = large_pool::<Engine>();
    let export = export(&mut pool);
    let (mut creates, mut opens) = (Vec::new(), Vec::new());
    let mut taken = 0;
    for count in COUNTS {
        take(&mut pool, export, taken, count);
        opens.push(cost_of_open(pool.disk()));
        for index in count..count + 4 {
            let before = pool.disk().counts();
            snapshot(&mut pool, index);
            creates.push(added(&pool.disk().counts(), &before));
            pool.run_until_idle().unwrap();
        }
        taken = count + 4;
        println!("{count} snapshots: create {:?}, open {:?}", creates.last(), opens.last());
    }
    // Reads, their blocks, writes, their blocks, flushes.
    assert!(creates.iter().all(|cost| *cost == [0, 0, 1, 1, 1]), "{creates:?}");
    let [few, .., many] = opens.as_slice() else { panic!("{opens:?}") };
    assert!(many[0] <= OPEN_READS, "reads at open: {} and {}", few[0], many[0]);
    assert!(many[1] <= few[1] + OPEN_BLOCKS, "blocks read at open: {} and {}", few[1], many[1]);
}
