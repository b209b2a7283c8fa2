//! Nodes that are being reclaimed: every checkpoint in the middle of a walk is checked, with
//! writes to the child before and behind the cursor between them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::surgeon::Surgeon;
use common::{GIB, Image, MIB, OnDisk, lines, report};
use cow_check::{Options, Structure, Value, What, check, dump};
use cow_engine::{Config, Engine, ExportId, Op, Reply, SnapOptions, SnapTarget};
use cow_format::Buf;
use cow_format::superblock::Superblock;
use cow_sim::PoolOptions;
use cow_sim::disk::Crash;
use cow_sim::world::World;

/// More than two folds walk.
const LEAVES: u64 = 17_000;

struct Clients {
    world: World<Engine>,
    export: ExportId,
    token: u64,
}

impl Clients {
    fn ask(&mut self, op: Op) -> Reply {
        self.world.run_op(op).unwrap().unwrap()
    }

    /// One block in each of these leaves.
    fn write(&mut self, leaves: impl Iterator<Item = u64>) {
        for leaf in leaves {
            let mut data = Buf::zeroed(1);
            self.token += 1;
            data[..8].copy_from_slice(&self.token.to_le_bytes());
            let (export, offset) = (self.export, leaf * MIB);
            self.ask(Op::Write { export, offset, len: 4096, data, fua: false });
        }
    }

    fn snapshot(&mut self, name: &str) {
        let targets = vec![SnapTarget { volume: "a".into(), snapshot: name.into() }];
        self.ask(Op::Snapshot { targets, options: SnapOptions::default() });
    }

    fn delete(&mut self, name: &str) {
        self.ask(Op::Delete { names: vec![name.into()], recursive: false, dry_run: false });
    }

    /// Checks the disk as it is; whether a node is being walked.
    fn check(&self) -> bool {
        let mut disk = OnDisk(self.world.disk().crash(Crash::KeepAll));
        let report = check(&mut disk, &Options::default()).unwrap();
        assert!(report.findings.is_empty(), "findings:\n{}", lines(&report));
        let nodes = dump(&mut disk, &What::Nodes).unwrap();
        let walks = |node: &Value| node.get("state") == Some(&Value::from("walking"));
        nodes.get("nodes").unwrap().elements().iter().any(walks)
    }

    /// Sequence number of the newest checkpoint.
    fn checkpoint(&self) -> u64 {
        let disk = self.world.disk();
        let sb = Superblock::decode(&disk.peek(0), 0).unwrap();
        let seq = |start: &u64| u64::from_le_bytes(disk.peek(*start)[16..24].try_into().unwrap());
        sb.geometry.cp_start.iter().map(seq).max().unwrap()
    }
}

fn clients() -> Clients {
    let blocks = 131_072;
    let options = PoolOptions {
        blocks,
        journal_blocks: 8192,
        limit_blocks: blocks,
        ..PoolOptions::default()
    };
    let mut world = World::<Engine>::new(cow_sim::format(&options), &Config::default(), 7);
    world.run_op(Op::Open { read_only: false }).unwrap().unwrap();
    let size_bytes = 32 * GIB;
    let create = Op::create_volume("a", size_bytes, Vec::new());
    world.run_op(create).unwrap().unwrap();
    let open = Op::OpenExport { name: "a".into(), write: true };
    let Reply::Export { export, .. } = world.run_op(open).unwrap().unwrap() else {
        panic!("no export");
    };
    Clients { world, export, token: 0 }
}

#[test]
fn checkpoints_in_the_middle_of_a_walk() {
    let mut clients = clients();
    clients.write((0..LEAVES).step_by(500));
    clients.snapshot("s0");
    clients.write(0..LEAVES);
    clients.snapshot("s1");
    clients.write(0..LEAVES);
    clients.ask(Op::Checkpoint);
    assert!(!clients.check());
    clients.delete("a@s1");
    let (mut walked, mut last, mut inside) = (0, clients.checkpoint(), None);
    // Every round has a fold that walks on; the child changes on both sides of the cursor.
    for round in 0..8 {
        clients.write((round * 7..LEAVES).step_by(1999));
        for _ in 0..100_000 {
            if clients.checkpoint() != last || !clients.world.wants_tick() {
                break;
            }
            clients.world.pump().unwrap();
        }
        last = clients.checkpoint();
        if clients.check() {
            walked += 1;
            inside.get_or_insert_with(|| Image::of(clients.world.disk()));
        }
    }
    assert!(walked >= 2, "{walked} checkpoints inside of the walk");
    assert!(!clients.check(), "the walk comes to an end");
    a_wrong_cursor_is_found(inside.unwrap());
}

/// The cursor says that less was freed, or more.
fn a_wrong_cursor_is_found(image: Image) {
    let mut surgeon = Surgeon::new(image);
    // The node of s0 is the first of all, and s1 the second.
    let cursor = surgeon.entry(2).cursor;
    for by in [-2i64, 2] {
        surgeon.edit_entry(2, |entry| entry.cursor = cursor.saturating_add_signed(by * 256));
        let report = report(&surgeon.image);
        let found = |kind| report.findings.iter().any(|f| f.kind == kind);
        assert!(found(Structure::Counter), "{by}:\n{}", lines(&report));
        assert!(found(Structure::Allocation), "{by}:\n{}", lines(&report));
    }
}
