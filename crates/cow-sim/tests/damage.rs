//! Damage is contained (I22): kill rows and properties that cannot be read stop no fold, cost no
//! data, and what can no longer be known exactly is said not to be.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_check::{Options, Severity, Structure};
use cow_engine::{
    AckMode, Engine, Error, ExportId, NodeInfo, Op, PoolInfo, Reply, SetSize, SnapTarget,
};
use cow_format::blob::BlobKind;
use cow_format::{BLOCK_SIZE, Buf};
use cow_sim::checked::View;
use cow_sim::disk::{Crash, SimDisk};
use cow_sim::value::Page;
use cow_sim::world::World;
use cow_sim::{PoolOptions, format, small_config};

const BLOCK: u64 = BLOCK_SIZE as u64;

struct Pool(World<Engine>);

impl Pool {
    fn on(disk: SimDisk) -> Self {
        let mut pool = Self(World::new(disk, &small_config(AckMode::Writethrough), 1));
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

    fn open(&mut self, name: &str) -> ExportId {
        match self.must(Op::OpenExport { name: name.into(), write: !name.contains('@') }) {
            Reply::Export { export, .. } => export,
            other => panic!("{other:?}"),
        }
    }

    /// Fills blocks of `v`.
    fn write(&mut self, lba: u64, blocks: u64, with: u8) {
        let export = self.open("v");
        let mut data = Buf::zeroed(blocks as usize);
        data.fill(with);
        let (offset, len) = (lba * BLOCK, blocks * BLOCK);
        self.must(Op::Write { export, offset, len, data, fua: false });
        self.must(Op::CloseExport { export });
    }

    /// The first byte of each of 20 blocks.
    fn read(&mut self, name: &str) -> Vec<u8> {
        let export = self.open(name);
        let reply = self.must(Op::Read { export, offset: 0, len: 20 * BLOCK });
        self.must(Op::CloseExport { export });
        let Reply::Data { buf, .. } = reply else { panic!("{reply:?}") };
        (0..20).map(|i| buf.block(i)[0]).collect()
    }

    fn snapshot(&mut self, name: &str) {
        let targets = vec![SnapTarget { volume: "v".into(), snapshot: name.into() }];
        self.must(Op::Snapshot { targets, options: Default::default() });
    }

    fn info(&mut self) -> PoolInfo {
        match self.must(Op::Info { exact: false }) {
            Reply::Info(info) => *info,
            other => panic!("{other:?}"),
        }
    }

    fn node(&mut self, name: &str) -> NodeInfo {
        match self.must(Op::List { exact: false }) {
            Reply::List(list) => list.into_iter().find(|node| node.name == name).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// The size of one node: as counts tell it, or after a walk of the maps.
    fn size(&mut self, name: &str, wait: bool) -> SetSize {
        match self.must(Op::SetSize { names: vec![name.into()], wait }) {
            Reply::SetSize(size) => size,
            other => panic!("{other:?}"),
        }
    }

    /// Whether counts alone tell it.
    fn is_counted(&mut self, name: &str) -> bool {
        self.size(name, false).exact
    }

    /// Ends, and begins again on a disk all of whose blobs of this kind are damaged.
    fn damage(self, kind: BlobKind) -> Self {
        self.damage_all(|page| page[..4] == *b"CBLB" && page[4] == kind as u8)
    }

    fn damage_all(mut self, is_hit: impl Fn(&Page) -> bool) -> Self {
        self.must(Op::Close);
        self.0.run_until_idle().unwrap();
        let mut disk = self.0.disk().crash(Crash::KeepAll);
        let mut found = 0;
        for block in disk.occupied() {
            if is_hit(&disk.peek(block)) {
                disk.poke(block, [0x77; BLOCK_SIZE]);
                found += 1;
            }
        }
        assert!(found > 0, "no such block");
        Self::on(disk)
    }

    fn reopened(self) -> Self {
        Self::on(self.0.disk().crash(Crash::KeepAll))
    }

    /// What the checker finds beside the damage that folds have noted.
    fn check(&mut self) {
        assert_eq!(self.unknown_damage(), []);
    }

    /// The same: each structure, and what is wrong with it.
    fn unknown_damage(&mut self) -> Vec<(Structure, String)> {
        self.must(Op::Checkpoint);
        self.0.run_until_idle().unwrap();
        let report = cow_check::check(&mut View(self.0.disk()), &Options::default()).unwrap();
        let corrupt = report.findings.iter().filter(|f| f.severity == Severity::Corruption);
        let unknown = corrupt.filter(|f| f.kind != Structure::KnownDamage);
        unknown.map(|f| (f.kind, format!("{}: {}", f.place, f.what))).collect()
    }
}

/// A volume with two snapshots and kills in both intervals.
fn pool() -> Pool {
    let mut pool = Pool::on(format(&PoolOptions::default()));
    let props = vec![("job".to_owned(), "nightly".to_owned())];
    pool.must(Op::create_volume("v", 1 << 30, props));
    pool.write(0, 20, 1);
    pool.snapshot("s1");
    pool.write(0, 8, 2);
    pool.snapshot("s2");
    pool.write(0, 4, 3);
    pool.must(Op::Checkpoint);
    pool
}

fn expected(blocks: &[(usize, u8)]) -> Vec<u8> {
    blocks.iter().flat_map(|&(count, with)| vec![with; count]).collect()
}

#[test]
fn kill_rows_that_cannot_be_read() {
    let mut pool = pool();
    assert!(pool.node("v@s2").exact && pool.node("v@s1").exact);
    pool = pool.damage(BlobKind::Row);
    // What is asked of them does not fail.
    let size = pool.size("v@s2", false);
    assert!(!size.exact, "{size:?}");
    // The row of the head is written anew.
    pool.write(10, 1, 4);
    pool.must(Op::Checkpoint);
    let info = pool.info();
    assert_eq!((info.poisoned, info.damage), (None, 1));
    assert!(!pool.is_counted("v") && !pool.is_counted("v@s2"));
    pool = pool.reopened();
    assert!(!pool.is_counted("v") && !pool.is_counted("v@s2"), "the mark was not kept");
    // The maps know what the rows have lost.
    let size = pool.size("v@s2", true);
    assert!(size.exact && size.data_bytes == 4 * BLOCK, "{size:?}");
    // A delete works, and frees nothing that is still wanted; the mark passes on.
    pool.must(Op::Delete { names: vec!["v@s2".into()], recursive: false, dry_run: false });
    pool.must(Op::WaitReclaim);
    assert!(!pool.is_counted("v@s1") && !pool.is_counted("v"));
    assert_eq!(pool.read("v@s1"), expected(&[(20, 1)]));
    assert_eq!(pool.read("v"), expected(&[(4, 3), (4, 2), (2, 1), (1, 4), (9, 1)]));
    pool.check();
    let mut pool = pool.reopened();
    assert_eq!(pool.info().poisoned, None);
    assert_eq!(pool.read("v@s1"), expected(&[(20, 1)]));
}

#[test]
fn properties_that_cannot_be_read() {
    let mut pool = pool();
    for name in ["v", "v@s1"] {
        pool.must(Op::Hold { name: name.into(), tag: "backup".into(), set: true });
    }
    pool = pool.damage(BlobKind::Props);
    // A list shows the rest; what was held stays held.
    assert!(pool.node("v").props.is_empty());
    assert_eq!(pool.node("v@s1").holds, 1);
    let delete = || Op::Delete { names: vec!["v@s1".into()], recursive: false, dry_run: false };
    assert!(pool.ask(delete()).is_err(), "deleted what is held");
    // A snapshot passes the volume's on to the new head, and the fold must write them.
    pool.snapshot("s3");
    pool.must(Op::Checkpoint);
    let info = pool.info();
    assert_eq!((info.poisoned, info.damage), (None, 1));
    assert_eq!(pool.node("v").holds, 1);
    pool.must(Op::Hold { name: "v".into(), tag: "damaged".into(), set: false });
    pool.must(Op::SetProps { name: "v".into(), changes: vec![("job".into(), Some("new".into()))] });
    pool.must(Op::Checkpoint);
    let mut pool = pool.reopened();
    let node = pool.node("v");
    assert_eq!((node.props, node.holds), (vec![("job".into(), "new".into())], 0));
    assert!(pool.node("v@s2").exact, "properties are no sizes");
    // What is not held can go.
    pool.must(Op::Delete { names: vec!["v@s2".into()], recursive: false, dry_run: false });
    pool.must(Op::WaitReclaim);
    assert_eq!(pool.read("v"), expected(&[(4, 3), (4, 2), (12, 1)]));
    assert_eq!(pool.info().poisoned, None);
}

/// What a walk cannot compare it does not free: the map node of the child is damaged, and the child of
/// that has one of its own, which still points to most of what the deleted node has.
#[test]
fn a_node_of_the_child_that_a_walk_cannot_read() {
    let mut pool = Pool::on(format(&PoolOptions::default()));
    pool.must(Op::create_volume("v", 1 << 30, vec![]));
    for (snapshot, blocks) in [("s1", 20), ("s2", 8)] {
        pool.write(0, blocks, blocks as u8);
        pool.snapshot(snapshot);
        pool.must(Op::Checkpoint);
    }
    pool.write(0, 2, 2);
    pool.must(Op::Checkpoint);
    // The leaf that the second snapshot was folded into has its gen as birth: the second of three.
    let births = |page: &Page| (page[..4] == *b"CMAP" && page[6] == 0).then_some(page[48]);
    let mut all: Vec<u8> = Vec::new();
    let disk = pool.0.disk();
    all.extend(disk.occupied().into_iter().filter_map(|block| births(&disk.peek(block))));
    all.sort_unstable();
    all.dedup();
    let [_, second, _] = all[..] else { panic!("leaves of {all:?}") };
    pool = pool.damage_all(|page| births(page) == Some(second));
    pool.must(Op::Delete { names: vec!["v@s1".into()], recursive: false, dry_run: false });
    pool.must(Op::WaitReclaim);
    let info = pool.info();
    assert_eq!((info.poisoned, info.damage), (None, 1));
    assert_eq!(pool.read("v"), expected(&[(2, 2), (6, 8), (12, 20)]));
    // Nothing else is wrong: what the volume still uses is allocated.
    let found = pool.unknown_damage();
    assert!(
        matches!(&found[..], [(Structure::MapLeaf, what)] if what.starts_with("v@s2,")),
        "{found:?}"
    );
}

#[test]
fn a_leaf_that_cannot_be_read() {
    let mut pool = pool();
    pool.write(256, 2, 5);
    pool.must(Op::Checkpoint);
    // Level 0, index 1.
    pool = pool.damage_all(|page| page[..4] == *b"CMAP" && page[6] == 0 && page[24] == 1);
    pool.write(257, 1, 6);
    pool.must(Op::Checkpoint);
    let mut pool = pool.reopened();
    let info = pool.info();
    assert_eq!((info.poisoned, info.damage), (None, 1));
    assert!(!pool.is_counted("v") && pool.is_counted("v@s1"));
    let export = pool.open("v");
    let mut read = |lba: u64| pool.ask(Op::Read { export, offset: lba * BLOCK, len: BLOCK });
    assert!(matches!(read(256), Err(Error::Corrupt(_))), "the block is lost");
    assert!(matches!(read(257), Ok(Reply::Data { buf, .. }) if buf.block(0)[0] == 6));
    pool.must(Op::CloseExport { export });
    // Writing heals.
    pool.write(256, 1, 7);
    pool.must(Op::Checkpoint);
    assert_eq!(pool.read("v"), expected(&[(4, 3), (4, 2), (12, 1)]));
    pool.check();
}
