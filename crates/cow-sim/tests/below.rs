//! The pool is a sparse file, and the file system below runs full: writers learn it, folds do not
//! (decision 17).
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_engine::{AckMode, Config, Engine, Error, ExportId, Op, PoolInfo, Reply};
use cow_engine::{SnapOptions, SnapTarget, SpaceKind};
use cow_format::Buf;
use cow_sim::checked::check_disk;
use cow_sim::disk::{Class, Crash, Faults, NthFault};
use cow_sim::rng::Rng;
use cow_sim::world::World;
use cow_sim::{PoolOptions, format, small_config};
use std::collections::BTreeMap;

const BLOCK: u64 = 4096;

struct Pool {
    world: World<Engine>,
    export: ExportId,
    /// What the volume holds, block by block.
    written: BTreeMap<u64, u64>,
}

fn config() -> Config {
    Config { sparse: true, layer_bytes: 8 << 20, ..small_config(AckMode::Writethrough) }
}

impl Pool {
    fn new(options: &PoolOptions, config: &Config, faults: Faults, seed: u64) -> Self {
        let mut world = World::new(format(options), config, seed);
        world.disk_mut().set_faults(faults, 1);
        world.disk_mut().limit_room(1 << 40);
        let mut pool = Self { world, export: ExportId(0), written: BTreeMap::new() };
        pool.ask(Op::Open { read_only: false }).unwrap();
        pool.ask(Op::create_volume("v", 1 << 40, vec![])).unwrap();
        pool.export();
        pool.world.run_until_idle().unwrap();
        pool
    }

    /// The same after a crash that lost nothing, opened; with an error, if that is what comes of it.
    fn again(&self, config: &Config, room: u64, read_only: bool) -> Result<Self, Error> {
        let mut world = World::new(self.world.disk().crash(Crash::KeepAll), config, 7);
        world.disk_mut().limit_room(room);
        let mut pool = Self { world, export: ExportId(0), written: self.written.clone() };
        pool.ask(Op::Open { read_only })?;
        match pool.ask(Op::OpenExport { name: "v".into(), write: !read_only })? {
            Reply::Export { export, .. } => pool.export = export,
            other => panic!("{other:?}"),
        }
        Ok(pool)
    }

    fn export(&mut self) {
        match self.ask(Op::OpenExport { name: "v".into(), write: true }) {
            Ok(Reply::Export { export, .. }) => self.export = export,
            other => panic!("{other:?}"),
        }
    }

    fn ask(&mut self, op: Op) -> Result<Reply, Error> {
        self.world.run_op(op).expect("the machine answers")
    }

    fn info(&mut self) -> PoolInfo {
        match self.ask(Op::Info { exact: false }) {
            Ok(Reply::Info(info)) => *info,
            other => panic!("{other:?}"),
        }
    }

    fn write(&mut self, first: u64, blocks: u64, value: u64) -> Result<Reply, Error> {
        let mut data = Buf::zeroed(blocks as usize);
        for (i, block) in data.chunks_exact_mut(BLOCK as usize).enumerate() {
            block[..8].copy_from_slice(&(value + i as u64).to_le_bytes());
        }
        let (offset, len) = (first * BLOCK, blocks * BLOCK);
        let export = self.export;
        let done = self.ask(Op::Write { export, offset, len, data, fua: false })?;
        self.written.extend((0..blocks).map(|i| (first + i, value + i)));
        Ok(done)
    }

    fn verify(&mut self) {
        for (first, value) in self.written.clone() {
            let export = self.export;
            match self.ask(Op::Read { export, offset: first * BLOCK, len: BLOCK }) {
                Ok(Reply::Data { buf, .. }) => {
                    assert_eq!(buf.block(0)[..8], value.to_le_bytes(), "block {first}");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn snapshot(&mut self, name: &str) -> Result<Reply, Error> {
        let target = SnapTarget { volume: "v".into(), snapshot: name.into() };
        self.ask(Op::Snapshot { targets: vec![target], options: SnapOptions::default() })
    }

    fn delete(&mut self, name: &str) {
        let names = vec![name.to_owned()];
        self.ask(Op::Delete { names, recursive: true, dry_run: false }).unwrap();
    }

    /// A fold goes through: nothing that it writes lacks room.
    fn fold(&mut self) {
        self.ask(Op::Checkpoint).expect("a checkpoint has its room");
        assert_eq!(self.info().stalled, None);
    }

    fn end(mut self) {
        self.verify();
        self.ask(Op::Close).unwrap();
        self.world.run_until_idle().unwrap();
        assert_eq!(self.world.disk_mut().take_bugs(), Vec::<String>::new());
        check_disk(self.world.disk()).unwrap();
    }
}

fn is_below<T>(result: &Result<T, Error>) -> bool {
    matches!(result, Err(Error::NoSpace(SpaceKind::Below)))
}

#[test]
fn a_full_file_system_is_the_writers_matter_alone() {
    let mut pool = Pool::new(&PoolOptions::default(), &config(), Faults::default(), 1);
    pool.write(0, 64, 1000).unwrap();
    pool.snapshot("a").unwrap();
    pool.fold();
    pool.world.disk_mut().limit_room(300);
    // Far apart: each takes several map nodes as well.
    let mut at = 1 << 20;
    let refused = loop {
        match pool.write(at, 1, at) {
            Ok(_) => at += 1 << 17,
            refused => break refused,
        }
        assert!(at < 2000 << 17, "there is no end to it");
    };
    assert!(is_below(&refused), "{refused:?}");
    let room = pool.world.disk().room().unwrap();
    assert!(room < 300, "{room}");
    pool.fold();
    for round in 0..20 {
        let name = format!("s{round}");
        pool.snapshot(&name).unwrap();
        pool.fold();
        pool.delete(&format!("v@{name}"));
        pool.fold();
    }
    pool.verify();
    // What a delete frees is room below again.
    pool.world.disk_mut().limit_room(0);
    assert!(is_below(&pool.write(70, 16, 5)));
    pool.delete("v@a");
    pool.write(0, 1, 2000).ok();
    let export = pool.export;
    let clear = Op::Discard { export, offset: 0, len: 64 * BLOCK, fua: false };
    pool.ask(clear).unwrap();
    pool.written.retain(|block, _| *block >= 64);
    pool.ask(Op::WaitReclaim).unwrap();
    let room = pool.world.disk().room().unwrap();
    assert!(room >= 30, "{room}");
    pool.write(70, 16, 5).unwrap();
    pool.end();
}

/// Of what a step asks for a file system may give a part, and say then that there is no room (ext4 does). Nobody uses that
/// part, so it goes back: writers find it, and others on that file system.
#[test]
fn what_a_step_was_given_in_vain_goes_back() {
    let mut pool = Pool::new(&PoolOptions::default(), &config(), Faults::default(), 1);
    pool.write(0, 64, 1000).unwrap();
    pool.world.disk_mut().limit_room(400);
    // More map nodes than are set aside: another step is due.
    let before = pool.world.disk().counts().allocate.ops;
    let mut far = 0;
    let refused = loop {
        far += 1;
        if let refused @ Err(_) = pool.write(far << 20, 1, far) {
            break refused;
        }
    };
    assert!(is_below(&refused), "{refused:?}");
    assert!(pool.world.disk().counts().allocate.ops > before);
    pool.world.run_until_idle().unwrap();
    // Each write took one block.
    assert_eq!(pool.world.disk().room(), Some(401 - far));
    // There is room for data where no map node is new.
    pool.write(64, 40, 5000).unwrap();
    pool.end();
}

/// In every second run most writes are several transfers, of which the last ones may find no room.
fn short(seed: u64) -> Faults {
    Faults { short_ppm: [0, 600_000][seed as usize % 2], ..Faults::default() }
}

/// Whatever writers do while others fill and empty the file system: no fold ever meets it.
#[test]
fn no_fold_meets_a_full_file_system() {
    let mut refusals = 0;
    for seed in 0..40 {
        let mut rng = Rng::new(seed);
        let options = if seed % 4 == 3 { PoolOptions::tight() } else { PoolOptions::default() };
        let mut pool = Pool::new(&options, &config(), short(seed), seed);
        let mut snapshots = Vec::new();
        for step in 0..120 {
            if rng.one_in(6) {
                let room = if rng.one_in(2) { 0 } else { rng.below(900) };
                pool.world.disk_mut().limit_room(room);
            }
            match rng.below(12) {
                0 => {
                    let name = format!("s{step}");
                    if pool.snapshot(&name).is_ok() {
                        snapshots.push(name);
                    }
                }
                1 if !snapshots.is_empty() => {
                    let name = snapshots.swap_remove(rng.index(snapshots.len()));
                    pool.delete(&format!("v@{name}"));
                }
                2 => pool.fold(),
                3 => drop(pool.ask(Op::WaitReclaim).expect("reclaim has its room")),
                _ => {
                    let far = rng.below(300) << 14;
                    let (first, blocks) = (far + rng.below(40), rng.range(1, 40));
                    match pool.write(first, blocks, step << 32) {
                        Ok(_) => {}
                        Err(Error::NoSpace(_)) => refusals += 1,
                        Err(error) => panic!("seed {seed}: {error}"),
                    }
                }
            }
            assert_eq!(pool.info().stalled, None, "seed {seed}, step {step}");
        }
        pool.end();
    }
    assert!(refusals > 100, "{refusals}");
}

/// Many requests at once: each is promised room before any of them is written.
#[test]
fn requests_in_progress_have_their_room() {
    for seed in 0..20 {
        let mut pool = Pool::new(&PoolOptions::default(), &config(), short(seed), seed);
        pool.world.disk_mut().limit_room(seed * 60);
        let export = pool.export;
        let count = 120;
        let ops: Vec<_> = (0..count)
            .map(|i: u64| {
                let data = Buf::from_bytes(&(i + 1).to_le_bytes());
                let (offset, len) = (i << 30, BLOCK);
                pool.world.start_op(Op::Write { export, offset, len, data, fua: false })
            })
            .collect();
        let mut answers = 0;
        while answers < count {
            match pool.world.take_reply() {
                Some((id, Ok(_))) => {
                    let at = ops.iter().position(|op| *op == id).unwrap() as u64;
                    pool.written.insert(at << 18, at + 1);
                    answers += 1;
                }
                Some((_, Err(Error::NoSpace(SpaceKind::Below)))) => answers += 1,
                Some((_, Err(error))) => panic!("{error}"),
                None => pool.world.pump().unwrap(),
            }
        }
        pool.world.disk_mut().limit_room(0);
        pool.fold();
        pool.end();
    }
}

/// What an opening writes to replay a long journal has no room set aside: what was is forgotten.
#[test]
fn an_opening_without_room_for_its_fold_ends_and_loses_nothing() {
    let mut pool = Pool::new(&PoolOptions::default(), &config(), Faults::default(), 1);
    for at in 0..300 {
        pool.write(at << 17, 1, at + 1).unwrap();
    }
    let export = pool.export;
    pool.ask(Op::Flush { export }).unwrap();
    let small = Config { layer_bytes: 4000, ..config() };
    for room in [0, 1, 40, 0] {
        let refused = pool.again(&small, room, false);
        assert!(is_below(&refused), "{room}: {:?}", refused.err());
    }
    // Readers need none, and neither does who can wait with the fold.
    pool.again(&config(), 0, true).unwrap().verify();
    pool.again(&config(), 0, false).unwrap().verify();
    // One that was refused is no worse than a crash.
    let mut world = World::new(pool.world.disk().crash(Crash::KeepAll), &small, 3);
    world.disk_mut().limit_room(40);
    let refused = world.run_op(Op::Open { read_only: false }).unwrap();
    assert!(is_below(&refused), "{refused:?}");
    pool.world = world;
    let mut opened = pool.again(&small, 10_000, false).unwrap();
    assert!(opened.info().stats.folds > 1, "the replay folds");
    opened.end();
}

#[test]
fn a_file_system_that_cannot_allocate_ahead_is_told() {
    let fault = NthFault { class: Class::Allocate, nth: 0, sticky: true, errno: 95 };
    let faults = Faults { nth: vec![fault], ..Faults::default() };
    let mut pool = Pool::new(&PoolOptions::default(), &config(), faults, 1);
    pool.write(0, 16, 1).unwrap();
    let note = pool.info().room_note.expect("a note");
    assert!(note.contains("allocate ahead"), "{note}");
    let asked = pool.world.disk().counts().allocate.ops;
    pool.write(1 << 20, 16, 1).unwrap();
    pool.fold();
    assert_eq!(pool.world.disk().counts().allocate.ops, asked, "asked again");
    pool.end();
}

#[test]
fn nothing_is_set_aside_where_no_file_system_is_below() {
    let device = Config { sparse: false, ..config() };
    let preallocated = PoolOptions { preallocated: true, ..PoolOptions::default() };
    for (options, config) in [(PoolOptions::default(), device), (preallocated, config())] {
        let mut pool = Pool::new(&options, &config, Faults::default(), 1);
        pool.write(0, 16, 1).unwrap();
        pool.fold();
        assert_eq!(pool.world.disk().counts().allocate.ops, 0);
        assert_eq!(pool.info().room_note, None);
        pool.end();
    }
}
