//! Pools that the engine makes, and what can be read of them.

use cow_engine::{AckMode, Engine, Error, ExportId, Op, Reply, SnapTarget};
use cow_format::{BLOCK_SIZE, Buf};
use cow_sim::disk::{Crash, SimDisk};
use cow_sim::world::World;
use cow_sim::{PoolOptions, format, small_config};
use std::collections::BTreeMap;

pub const BLOCK: u64 = BLOCK_SIZE as u64;
/// Blocks of each volume: a map of three levels.
pub const VOLUME: u64 = 100_000;
/// Where the pools hold data, and what of it is read block by block.
const PLACES: [std::ops::Range<u64>; 4] = [0..24, 250..270, 70_000..70_020, 99_990..VOLUME];

pub struct Pool(pub World<Engine>);

/// What is read of a volume or snapshot: the first byte of a block, or nothing where that fails.
pub type Content = BTreeMap<(String, u64), Option<u8>>;

impl Pool {
    pub fn on(disk: SimDisk) -> Self {
        let mut pool = Self(World::new(disk, &small_config(AckMode::Writethrough), 1));
        pool.must(Op::Open { read_only: false });
        pool
    }

    /// Opens a copy.
    pub fn look(disk: &SimDisk) -> Result<Self, Error> {
        let disk = disk.crash(Crash::KeepAll);
        let mut pool = Self(World::new(disk, &small_config(AckMode::Writethrough), 1));
        pool.ask(Op::Open { read_only: true }).map(|_| pool)
    }

    pub fn ask(&mut self, op: Op) -> Result<Reply, Error> {
        self.0.run_op(op).expect("the machine answers")
    }

    pub fn must(&mut self, op: Op) -> Reply {
        let what = format!("{op:?}");
        self.ask(op).unwrap_or_else(|error| panic!("{what:.80}: {error}"))
    }

    pub fn open(&mut self, name: &str, write: bool) -> ExportId {
        match self.must(Op::OpenExport { name: name.into(), write }) {
            Reply::Export { export, .. } => export,
            other => panic!("{other:?}"),
        }
    }

    pub fn create(&mut self, name: &str) {
        let props = vec![("job".to_owned(), name.to_owned())];
        self.must(Op::create_volume(name, VOLUME * BLOCK, props));
    }

    pub fn write(&mut self, name: &str, lba: u64, blocks: u64, with: u8) {
        let export = self.open(name, true);
        let mut data = Buf::zeroed(blocks as usize);
        data.fill(with);
        let (offset, len) = (lba * BLOCK, blocks * BLOCK);
        self.must(Op::Write { export, offset, len, data, fua: true });
        self.must(Op::CloseExport { export });
    }

    pub fn discard(&mut self, name: &str, lba: u64, blocks: u64) {
        let export = self.open(name, true);
        self.must(Op::Discard { export, offset: lba * BLOCK, len: blocks * BLOCK, fua: true });
        self.must(Op::CloseExport { export });
    }

    pub fn snapshot(&mut self, volume: &str, name: &str) {
        let targets = vec![SnapTarget { volume: volume.into(), snapshot: name.into() }];
        self.must(Op::Snapshot { targets, options: Default::default() });
    }

    pub fn clone_of(&mut self, volume: &str, snapshot: &str, name: &str) {
        let source = SnapTarget { volume: volume.into(), snapshot: snapshot.into() };
        self.must(Op::Clone { source, name: name.into(), props: Vec::new() });
    }

    pub fn rollback(&mut self, volume: &str, snapshot: &str) {
        let targets = vec![SnapTarget { volume: volume.into(), snapshot: snapshot.into() }];
        let (discard_current, force, edits) = (false, false, Vec::new());
        self.must(Op::Rollback { targets, discard_current, force, edits });
    }

    pub fn hold(&mut self, name: &str) {
        self.must(Op::Hold { name: name.into(), tag: "backup".into(), set: true });
    }

    pub fn delete(&mut self, name: &str) {
        self.must(Op::Delete { names: vec![name.into()], recursive: false, dry_run: false });
    }

    pub fn checkpoint(&mut self) {
        self.must(Op::Checkpoint);
    }

    /// What has a name; not what is deleted and not gone.
    pub fn names(&mut self) -> Vec<String> {
        let Reply::List(list) = self.must(Op::List { exact: false }) else { panic!("no list") };
        let names = list.into_iter().map(|node| node.name);
        names.filter(|name| !name.starts_with('#')).collect()
    }

    /// What stands where data was written, and here and there between.
    pub fn content(&mut self) -> Content {
        let between = (0..VOLUME).step_by(997);
        let lbas: Vec<u64> = PLACES.into_iter().flatten().chain(between).collect();
        let mut content = Content::new();
        for name in self.names() {
            let export = self.open(&name, false);
            for &lba in &lbas {
                let read = self.ask(Op::Read { export, offset: lba * BLOCK, len: BLOCK });
                let byte = match read {
                    Ok(Reply::Data { buf, .. }) => Some(buf.block(0)[0]),
                    Err(Error::Corrupt(_)) => None,
                    other => panic!("{name}, lba {lba}: {other:?}"),
                };
                content.insert((name.clone(), lba), byte);
            }
            self.must(Op::CloseExport { export });
        }
        content
    }

    /// Ends, and gives back the disk.
    pub fn close(mut self) -> SimDisk {
        self.must(Op::Close);
        self.0.run_until_idle().unwrap();
        self.0.disk().crash(Crash::KeepAll)
    }

    /// Dies with nothing in flight.
    pub fn kill(mut self) -> SimDisk {
        self.0.run_until_idle().unwrap();
        self.0.disk().crash(Crash::KeepAll)
    }
}

/// Two volumes, snapshots that share and do not share, a clone, what a rollback kept, a deleted branch point,
/// holds, properties, names that need overflow entries.
pub fn busy() -> Pool {
    let mut pool = Pool::on(format(&PoolOptions::default()));
    for name in ["a", "b"] {
        pool.create(name);
    }
    pool.write("a", 0, 24, 1);
    pool.write("a", 250, 20, 2);
    pool.write("a", 70_000, 20, 3);
    pool.write("b", 0, 10, 4);
    pool.write("b", 99_990, 10, 5);
    pool.checkpoint();
    pool.snapshot("a", "one");
    pool.write("a", 4, 4, 6);
    pool.discard("a", 255, 3);
    pool.checkpoint();
    pool.snapshot("a", &format!("two-{}", "n".repeat(60)));
    pool.write("a", 70_004, 4, 7);
    pool.write("a", 8, 2, 8);
    pool.checkpoint();
    pool.clone_of("a", "one", "c");
    pool.write("c", 0, 2, 9);
    pool.write("c", 99_995, 2, 10);
    pool.snapshot("c", "t");
    pool.write("c", 1, 2, 11);
    pool.hold("a@one");
    pool.checkpoint();
    pool.rollback("a", "one");
    pool.write("a", 20, 2, 12);
    pool.snapshot("b", "x");
    pool.write("b", 3, 2, 13);
    pool.checkpoint();
    // A branch point that is deleted and stays until one of its branches is left.
    pool.create("e");
    pool.write("e", 0, 6, 14);
    pool.snapshot("e", "s");
    pool.clone_of("e", "s", "f");
    pool.write("f", 2, 1, 15);
    pool.write("e", 3, 1, 16);
    pool.checkpoint();
    pool.delete("e@s");
    pool.must(Op::WaitReclaim);
    pool
}

/// The same, closed.
pub fn closed() -> SimDisk {
    busy().close()
}

/// The same, with verbs and writes behind the last checkpoint.
pub fn with_journal() -> SimDisk {
    let mut pool = busy();
    pool.checkpoint();
    pool.write("a", 5, 2, 20);
    pool.write("a", 256, 4, 21);
    pool.snapshot("a", "late");
    pool.write("a", 6, 2, 22);
    pool.write("b", 0, 1, 23);
    pool.discard("b", 99_991, 2);
    pool.clone_of("c", "t", "d");
    pool.write("d", 2, 1, 24);
    pool.kill()
}
