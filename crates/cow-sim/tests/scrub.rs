//! The scrub: everything that a checkpoint has is read, once; what is damaged is named exactly, as the
//! checker finds it by another way; and it goes on where it stopped.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_check::{Options, Report, Severity, Structure};
use cow_engine::{
    AckMode, Config, Engine, Error, NewVolume, Op, Reply, ScrubCursor, ScrubFault, ScrubKind,
    ScrubStep, SnapOptions, SnapTarget,
};
use cow_format::{BLOCK_SIZE, Buf};
use cow_sim::checked::View;
use cow_sim::disk::{Crash, SimDisk};
use cow_sim::rng::Rng;
use cow_sim::world::World;
use cow_sim::{PoolOptions, format, small_config};
use std::collections::BTreeSet;

const BLOCK: u64 = BLOCK_SIZE as u64;
const MIB: u64 = 1 << 20;

struct Pool(World<Engine>);

impl Pool {
    fn on(disk: SimDisk) -> Self {
        // All map nodes stay in memory.
        let config = Config { cache_bytes: 64 << 20, ..small_config(AckMode::Writethrough) };
        let mut pool = Self(World::new(disk, &config, 1));
        pool.must(Op::Open { read_only: false });
        pool
    }

    fn ask(&mut self, op: Op) -> Result<Reply, Error> {
        self.0.run_op(op).expect("the machine answers")
    }

    fn must(&mut self, op: Op) -> Reply {
        let what = format!("{op:?}");
        self.ask(op).unwrap_or_else(|error| panic!("{what:.80}: {error}"))
    }

    fn create(&mut self, name: &str, size: u64) {
        let new = NewVolume { name: name.into(), size_bytes: size, props: Vec::new() };
        self.must(Op::CreateVolumes { volumes: vec![new], edits: Vec::new() });
    }

    fn write(&mut self, name: &str, lba: u64, blocks: u64, rng: &mut Rng) {
        let Reply::Export { export, .. } =
            self.must(Op::OpenExport { name: name.into(), write: true })
        else {
            panic!("an export")
        };
        let bytes: Vec<u8> =
            (0..blocks * BLOCK / 8).flat_map(|_| rng.word().to_le_bytes()).collect();
        let (data, len) = (Buf::from_bytes(&bytes), blocks * BLOCK);
        match self.ask(Op::Write { export, offset: lba * BLOCK, len, data, fua: false }) {
            Ok(_) | Err(Error::NoSpace(_)) => {}
            Err(error) => panic!("{error}"),
        }
        self.must(Op::CloseExport { export });
    }

    fn snapshot(&mut self, volume: &str, name: &str) {
        let target = SnapTarget { volume: volume.into(), snapshot: name.into() };
        self.must(Op::Snapshot { targets: vec![target], options: SnapOptions::default() });
    }

    fn delete(&mut self, name: &str) {
        self.must(Op::Delete { names: vec![name.into()], recursive: false, dry_run: false });
    }

    fn step(&mut self, cursor: ScrubCursor) -> ScrubStep {
        match self.must(Op::Scrub { cursor, blocks: 0 }) {
            Reply::Scrubbed(step) => step,
            other => panic!("{other:?}"),
        }
    }

    /// All of it: data blocks, map nodes, faults, steps.
    fn scrub(&mut self) -> (u64, u64, Vec<ScrubFault>, u64) {
        let (mut data, mut nodes, mut faults, mut steps) = (0, 0, Vec::new(), 0);
        let mut cursor = Some(ScrubCursor::default());
        while let Some(at) = cursor {
            let step = self.step(at);
            data += step.data_blocks;
            nodes += step.map_nodes;
            faults.extend(step.faults);
            steps += 1;
            cursor = step.next;
        }
        (data, nodes, faults, steps)
    }

    fn close(mut self) -> SimDisk {
        self.must(Op::WaitReclaim);
        self.must(Op::Close);
        self.0.run_until_idle().unwrap();
        self.0.disk().crash(Crash::LoseAll)
    }
}

fn checked(disk: &SimDisk) -> Report {
    cow_check::check(&mut View(disk), &Options::default()).unwrap()
}

/// Snapshots in a row, a clone, a deleted snapshot in the middle, and several volumes.
fn story() -> Pool {
    let mut pool = Pool::on(format(&PoolOptions { blocks: 1 << 15, ..PoolOptions::default() }));
    let mut rng = Rng::new(5);
    pool.create("v", 256 * MIB);
    pool.create("w", 3 * MIB + 512);
    for round in 0..8 {
        for _ in 0..50 {
            let lba = rng.below(65_000);
            let blocks = 1 + rng.below(8);
            pool.write("v", lba, blocks, &mut rng);
        }
        pool.write("w", rng.below(700), 9, &mut rng);
        pool.snapshot("v", &format!("s{round}"));
    }
    let source = SnapTarget { volume: "v".into(), snapshot: "s4".into() };
    pool.must(Op::Clone { source, name: "c".into(), props: Vec::new() });
    for _ in 0..50 {
        let lba = rng.below(65_000);
        pool.write("c", lba, 3, &mut rng);
    }
    pool.delete("v@s2");
    pool.delete("v@s5");
    pool.must(Op::WaitReclaim);
    pool
}

#[test]
fn everything_is_read_once() {
    let mut pool = story();
    pool.must(Op::Checkpoint);
    let before = pool.0.disk().counts().read.blocks;
    let (data, nodes, faults, steps) = pool.scrub();
    let read = pool.0.disk().counts().read.blocks - before;
    let report = checked(pool.0.disk());
    assert!(report.is_clean() && faults.is_empty(), "{faults:?}");
    assert!(data > 1500 && steps > 3, "{data} blocks in {steps} steps");
    assert_eq!(data, report.stats.data_blocks);
    // A step may begin with the nodes above what it begins with.
    assert!((report.stats.map_nodes..report.stats.map_nodes + 3 * steps).contains(&nodes));
    assert!((data + nodes..=data + nodes + 3 * steps).contains(&read), "{read} blocks");
}

/// What the checker and the scrub say of a disk: data blocks by address, map nodes by address.
type Damage = BTreeSet<(bool, u64)>;

fn by_scrub(faults: &[ScrubFault]) -> Damage {
    let each = |fault: &ScrubFault| {
        let is_data = fault.kind == ScrubKind::Data;
        let count = if is_data { fault.blocks } else { 1 };
        (0..count).map(|i| (is_data, fault.phys.0 + i)).collect::<Vec<_>>()
    };
    faults.iter().flat_map(each).collect()
}

/// Names and places are checked on the way: the checker's finding says `v@s1, lba 12 (byte 49152), block 777`.
fn by_check(report: &Report, faults: &[ScrubFault]) -> Option<Damage> {
    let corrupt = report.findings.iter().filter(|f| f.severity == Severity::Corruption);
    let mut damage = Damage::new();
    for finding in corrupt {
        let is_data = match finding.kind {
            Structure::Data => true,
            Structure::MapLeaf | Structure::MapNode => false,
            // What follows from a map node that cannot be read.
            Structure::Allocation | Structure::Counter => continue,
            // Of something that a scrub does not look at.
            _ => return None,
        };
        let number = |word: &str| -> u64 {
            let (_, rest) = finding.place.split_once(word).unwrap();
            rest.split([' ', ',']).next().unwrap().parse().unwrap()
        };
        let (phys, lba) = (number("block "), number("lba "));
        let here = |fault: &&ScrubFault| {
            let behind = if fault.kind == ScrubKind::Data { fault.blocks } else { 1 };
            (fault.phys.0..fault.phys.0 + behind).contains(&phys)
        };
        if let Some(fault) = faults.iter().find(here) {
            assert_eq!(fault.first + (phys - fault.phys.0), lba, "{finding} {fault:?}");
            assert!(finding.place.starts_with(&fault.name), "{finding} {fault:?}");
        }
        damage.insert((is_data, phys));
    }
    Some(damage)
}

/// Every block of the pool that is in use goes bad, one after the other, and some together.
#[test]
fn what_is_damaged_is_named_exactly() {
    let disk = story().close();
    let occupied = disk.occupied();
    let mut rng = Rng::new(9);
    let (mut data, mut nodes, mut sound) = (0, 0, 0);
    for turn in 0..250 {
        let mut disk = disk.crash(Crash::LoseAll);
        let mut count = if turn % 8 == 0 { 5 } else { 1 };
        let mut at = rng.below(occupied.len() as u64) as usize;
        while count > 0 {
            // Some lie one behind the other.
            let block = occupied[at % occupied.len()];
            let mut page = disk.peek(block);
            page[rng.below(BLOCK) as usize] ^= 1 << rng.below(8);
            disk.poke(block, page);
            at = if rng.one_in(2) { at + 1 } else { rng.below(occupied.len() as u64) as usize };
            count -= 1;
        }
        let Ok(report) = cow_check::check(&mut View(&disk), &Options::default()) else { continue };
        let mut pool = Pool(World::new(disk, &small_config(AckMode::Writethrough), 1));
        if pool.ask(Op::Open { read_only: true }).is_err() {
            continue;
        }
        let faults = pool.scrub().2;
        let Some(want) = by_check(&report, &faults) else { continue };
        assert_eq!(by_scrub(&faults), want, "turn {turn}: {faults:?}\n{:?}", report.findings);
        data += want.iter().filter(|(is_data, _)| *is_data).count();
        nodes += want.iter().filter(|(is_data, _)| !*is_data).count();
        sound += usize::from(want.is_empty());
    }
    assert!(data > 30 && nodes > 30, "{data} data blocks, {nodes} map nodes, {sound} sound");
}

#[test]
fn damage_is_a_range_of_its_oldest_owner() {
    let mut pool = Pool::on(format(&PoolOptions::default()));
    let mut rng = Rng::new(3);
    pool.create("v", 16 * MIB);
    pool.write("v", 100, 8, &mut rng);
    pool.snapshot("v", "a");
    pool.snapshot("v", "b");
    let mut disk = pool.close();
    let report = checked(&disk);
    assert_eq!(report.stats.data_blocks, 8);
    // The data lies in one piece: three blocks of it go bad.
    let mut pool = Pool::on(disk.crash(Crash::LoseAll));
    let first = (0..disk.blocks()).find(|at| {
        let mut broken = disk.crash(Crash::LoseAll);
        broken.poke(*at, [7; BLOCK_SIZE]);
        let found = cow_check::check(&mut View(&broken), &Options::default());
        found.is_ok_and(|report| report.findings.iter().any(|f| f.kind == Structure::Data))
    });
    let first = first.expect("the first data block");
    assert!(pool.scrub().2.is_empty());
    for at in 2..5 {
        disk.poke(first + at, [7; BLOCK_SIZE]);
    }
    let mut pool = Pool::on(disk);
    let faults = pool.scrub().2;
    assert_eq!(faults.len(), 1, "{faults:?}");
    let fault = &faults[0];
    assert_eq!((fault.name.as_str(), fault.kind), ("v@a", ScrubKind::Data), "{fault:?}");
    assert_eq!((fault.first, fault.blocks, fault.phys.0), (102, 3, first + 2), "{fault:?}");
    assert_eq!(fault.what, "checksum mismatch");
    // Whoever deletes the owner leaves the damage to the next.
    pool.delete("v@a");
    pool.must(Op::WaitReclaim);
    assert_eq!(pool.scrub().2[0].name, "v@b");
}

/// A map node that is good in memory and bad on the disk is bad.
#[test]
fn what_is_in_memory_is_read_too() {
    let mut pool = story();
    pool.must(Op::Checkpoint);
    let (data, nodes, faults, _) = pool.scrub();
    assert!(faults.is_empty());
    let blocks = pool.0.disk().occupied();
    let mut seen = BTreeSet::new();
    for block in blocks.into_iter().step_by(23) {
        let good = pool.0.disk().peek(block);
        let mut page = good;
        page[17] ^= 4;
        pool.0.disk_mut().poke(block, page);
        for fault in pool.scrub().2 {
            assert_eq!(fault.phys.0, block, "{fault:?}");
            seen.insert((fault.kind == ScrubKind::Data, block));
        }
        pool.0.disk_mut().poke(block, good);
    }
    let map_nodes = seen.iter().filter(|(is_data, _)| !is_data).count();
    assert!(
        map_nodes > 5 && seen.len() > 20,
        "{map_nodes} of {nodes} map nodes, {data} data blocks"
    );
}

#[test]
fn it_goes_on_in_another_life() {
    let mut pool = story();
    pool.must(Op::Checkpoint);
    let (all, ..) = pool.scrub();
    let (mut data, mut lives) = (0, 0);
    let mut cursor = Some(ScrubCursor::default());
    while let Some(at) = cursor {
        let step = pool.step(at);
        data += step.data_blocks;
        cursor = step.next;
        lives += 1;
        pool = Pool::on(pool.0.disk().crash(Crash::LoseAll));
    }
    assert!(lives > 3, "{lives}");
    assert_eq!(data, all);
}

/// Every block of a volume is mapped, so that a step that begins one too late misses it.
#[test]
fn a_step_begins_where_the_last_one_ended() {
    const BLOCKS: u64 = 3000;
    let mut pool = Pool::on(format(&PoolOptions { blocks: 1 << 15, ..PoolOptions::default() }));
    let mut rng = Rng::new(6);
    pool.create("v", BLOCKS * BLOCK);
    for lba in (0..BLOCKS).step_by(250) {
        pool.write("v", lba, 250, &mut rng);
    }
    pool.must(Op::Checkpoint);
    let (data, _, faults, steps) = pool.scrub();
    assert!(faults.is_empty() && steps > 3, "{faults:?} in {steps} steps");
    assert_eq!(data, BLOCKS);
}

#[test]
fn a_cursor_of_nowhere_does_no_harm() {
    let mut pool = story();
    for (node, block, end) in
        [(1, u64::MAX, 1), (999, 7, 1000), (u64::MAX, u64::MAX, u64::MAX), (2, 5, 1)]
    {
        let cursor =
            ScrubCursor { node: cow_format::NodeId(node), block, end: cow_format::NodeId(end) };
        let step = pool.step(cursor);
        assert!(step.faults.is_empty() && step.next.is_none(), "{step:?}");
    }
}

/// While a step reads, everything that it has yet to read is overwritten, and checkpoints let what was there
/// be used again, in a pool that has little else: the pin keeps it, and nothing is called damaged.
#[test]
fn what_is_overwritten_meanwhile_is_no_damage() {
    const BLOCKS: u64 = 512;
    let (mut checkpoints, mut written) = (0, 0);
    for seed in 0..8 {
        let mut pool = Pool::on(format(&PoolOptions::tight()));
        let mut rng = Rng::new(seed);
        pool.create("v", BLOCKS * BLOCK);
        // In no order, so that each is read by itself.
        let mut lbas: Vec<u64> = (0..BLOCKS).collect();
        for at in (1..lbas.len()).rev() {
            lbas.swap(at, rng.index(at + 1));
        }
        for lba in lbas {
            pool.write("v", lba, 1, &mut rng);
        }
        pool.must(Op::Checkpoint);
        let cursor = ScrubCursor::default();
        let scrub = pool.0.start_op(Op::Scrub { cursor, blocks: 4 * BLOCKS });
        let step = loop {
            match pool.0.take_reply() {
                Some((id, Ok(Reply::Scrubbed(step)))) if id == scrub => break step,
                Some(other) => panic!("{other:?}"),
                None => {}
            }
            // There may be no room for it until a later checkpoint.
            for _ in 0..4 {
                pool.write("v", 32 * rng.below(BLOCKS / 32), 32, &mut rng);
                written += 32;
            }
            pool.must(Op::Checkpoint);
            checkpoints += 1;
        };
        assert!(step.faults.is_empty(), "seed {seed}: {:?}", step.faults);
    }
    assert!(checkpoints > 40 && written > 5000, "{checkpoints} checkpoints, {written} blocks");
}
