//! The snapshot tree with many snapshots in it: what a snapshot, an open, sizes and a reclaim cost,
//! on a device in memory, so that what is timed is the engine's own work. Prints medians.

use cow_benches::ram::Ram;
use cow_benches::{Rng, block};
use cow_engine::{ExportId, Op, Reply, SnapOptions, SnapTarget};
use cow_format::{BLOCK_SIZE, Buf};
use std::time::{Duration, Instant};

const BLOCK: u64 = BLOCK_SIZE as u64;
const VOLUME: &str = "vol";
/// Snapshots that are timed one by one at each number: below what asks for a fold.
const TIMED: u64 = 64;
/// Every so many snapshots something was written in between.
const WRITTEN: u64 = 10;
/// Scattered blocks that a delete gives back.
const SCATTERED: u64 = 50_000;

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all.get(all.len() / 2).copied().unwrap_or_default()
}

fn write(ram: &mut Ram, export: ExportId, lba: u64, data: &Buf) {
    let (data, offset) = (data.clone(), lba * BLOCK);
    ram.run(Op::Write { export, offset, len: BLOCK, data, fua: false });
}

fn snapshot(ram: &mut Ram, index: u64) {
    let target = SnapTarget { volume: VOLUME.into(), snapshot: index.to_string() };
    ram.run(Op::Snapshot { targets: vec![target], options: SnapOptions::default() });
}

fn timed(mut job: impl FnMut()) -> Duration {
    let start = Instant::now();
    job();
    start.elapsed()
}

/// A pool with a volume of 4 GiB that has `count` snapshots.
fn pool(count: u64) -> Ram {
    let mut ram = Ram::new(2);
    ram.volume(VOLUME, 4 << 30);
    let export = ram.open(VOLUME);
    let data = Buf::from_bytes(&block(5));
    for index in 0..count {
        if index % WRITTEN == 0 {
            write(&mut ram, export, index * 37 % (1 << 20), &data);
        }
        snapshot(&mut ram, index);
    }
    ram.run(Op::CloseExport { export });
    ram.run(Op::Checkpoint);
    ram
}

fn creates(ram: &mut Ram, count: u64) -> Duration {
    let mut rounds = Vec::new();
    for round in 0..8 {
        ram.run(Op::Checkpoint);
        for index in 0..TIMED {
            let name = count + round * TIMED + index;
            rounds.push(timed(|| snapshot(ram, name)));
        }
        // As many as before.
        let names = (0..TIMED).map(|i| format!("{VOLUME}@{}", count + round * TIMED + i)).collect();
        ram.run(Op::Delete { names, recursive: false, dry_run: false });
        ram.run(Op::WaitReclaim);
    }
    median(rounds)
}

fn opens(ram: &mut Ram) -> Duration {
    let mut rounds = Vec::new();
    for _ in 0..20 {
        ram.close_pool();
        rounds.push(timed(|| ram.open_pool()));
    }
    median(rounds)
}

fn sizes(ram: &mut Ram, count: u64) {
    let name = |index: u64| format!("{VOLUME}@{index}");
    let mut describe = Vec::new();
    for index in 0..200 {
        let names = vec![name(index * 7 % count)];
        describe.push(timed(|| drop(ram.run(Op::Describe { names: names.clone(), exact: false }))));
    }
    let all: Vec<String> = (0..count.min(1000)).map(name).collect();
    let mut set = Vec::new();
    for _ in 0..20 {
        set.push(timed(|| {
            let reply = ram.run(Op::SetSize { names: all.clone(), wait: false });
            assert!(matches!(reply, Reply::SetSize(_)));
        }));
    }
    println!(
        "{count} snapshots: one size {:?}, space over {} {:?}",
        median(describe),
        all.len(),
        median(set)
    );
}

fn reclaim() {
    let mut ram = Ram::new(2);
    ram.volume(VOLUME, 64 << 30);
    let export = ram.open(VOLUME);
    let data = Buf::from_bytes(&block(5));
    let mut rates = Vec::new();
    for round in 0..5 {
        for overwritten in [false, true] {
            let mut rng = Rng(7);
            for _ in 0..SCATTERED {
                write(&mut ram, export, rng.below(1 << 24), &data);
            }
            if !overwritten {
                snapshot(&mut ram, round);
            }
        }
        ram.run(Op::Checkpoint);
        let names = vec![format!("{VOLUME}@{round}")];
        let time = timed(|| {
            ram.run(Op::Delete { names: names.clone(), recursive: false, dry_run: false });
            ram.run(Op::WaitReclaim);
        });
        rates.push(time);
    }
    let time = median(rates);
    let rate = SCATTERED as f64 / time.as_secs_f64();
    println!("reclaim of {SCATTERED} scattered blocks: {time:?}, {rate:.0} blocks a second");
}

fn main() {
    for count in [1, 1000, 10_000] {
        let mut ram = pool(count);
        println!(
            "{count} snapshots: create {:?}, open {:?}",
            creates(&mut ram, count),
            opens(&mut ram)
        );
        sizes(&mut ram, count);
    }
    reclaim();
}
