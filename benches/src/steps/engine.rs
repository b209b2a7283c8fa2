//! The whole engine on a device in memory.

use crate::ram::Ram;
use crate::step::Step;
use crate::{FILLER, Rng, block};
use cow_engine::{DiffQuery, ExportId, Op, Reply, SnapOptions, SnapTarget};
use cow_format::{BLOCK_SIZE, Buf};

/// Bytes of a block.
pub const BLOCK: u64 = BLOCK_SIZE as u64;
/// The volume of all of these.
pub const VOLUME: &str = "vol";
/// Verbs between two folds: below the 64 layers at which a snapshot would wait for one.
const VERBS: u64 = 32;

/// A pool with a volume that is open for writing.
pub struct Pool {
    /// The pool.
    pub ram: Ram,
    export: ExportId,
    data: Buf,
    rng: Rng,
}

impl Pool {
    /// A volume of `size_bytes` in a pool, whose first `filled_mib` are mapped and folded.
    pub fn new(mut ram: Ram, size_bytes: u64, filled_mib: u64) -> Self {
        ram.volume(VOLUME, size_bytes);
        let export = ram.open(VOLUME);
        ram.fill(export, filled_mib);
        Self { ram, export, data: Buf::from_bytes(&block(FILLER)), rng: Rng(9) }
    }

    fn write_op(&self, lba: u64) -> Op {
        let (data, offset) = (self.data.clone(), lba * BLOCK);
        Op::Write { export: self.export, offset, len: BLOCK, data, fua: false }
    }

    /// Writes a block.
    pub fn write(&mut self, lba: u64) {
        self.ram.run(self.write_op(lba));
    }

    /// Reads a block.
    pub fn read(&mut self, lba: u64) {
        self.ram.run(Op::Read { export: self.export, offset: lba * BLOCK, len: BLOCK });
    }

    /// Writes `count` blocks at random places below `area` blocks.
    pub fn scatter(&mut self, count: u64, area: u64) {
        for _ in 0..count {
            let lba = self.rng.below(area);
            self.write(lba);
        }
    }

    /// Takes a snapshot.
    pub fn snapshot(&mut self, name: impl ToString) {
        self.ram.run(take(name));
    }

    /// Folds.
    pub fn fold(&mut self) {
        self.ram.run(Op::Checkpoint);
    }

    /// Deletes the volume's snapshots of these names, without waiting for their space.
    pub fn delete(&mut self, names: impl Iterator<Item = String>) {
        self.ram.run(delete(names));
    }

    /// Waits until deleted snapshots are reclaimed.
    pub fn reclaim(&mut self) {
        self.ram.run(Op::WaitReclaim);
    }

    /// Makes durable what was acknowledged.
    pub fn flush(&mut self) {
        self.ram.run(Op::Flush { export: self.export });
    }

    /// Writes a block through an export of its own, which no rollback has fenced.
    fn touch(&mut self, lba: u64) {
        self.ram.run(Op::CloseExport { export: self.export });
        self.export = self.ram.open(VOLUME);
        self.write(lba);
    }
}

fn target(snapshot: impl ToString) -> Vec<SnapTarget> {
    vec![SnapTarget { volume: VOLUME.into(), snapshot: snapshot.to_string() }]
}

fn take(name: impl ToString) -> Op {
    Op::Snapshot { targets: target(name), options: SnapOptions::default() }
}

fn delete(names: impl Iterator<Item = String>) -> Op {
    let names = names.map(|name| format!("{VOLUME}@{name}")).collect();
    Op::Delete { names, recursive: false, dry_run: false }
}

/// A verb. Before each the volume changes; after every 32 of them `clean` undoes what they left,
/// everything is folded and the space comes back.
pub struct Verb {
    pool: Pool,
    verb: fn(u64) -> Op,
    clean: fn(u64) -> Option<Op>,
}

impl Step for Verb {
    fn prepare(&mut self, call: u64) {
        if call > 0 && call.is_multiple_of(VERBS) {
            if let Some(op) = (self.clean)(call - VERBS) {
                self.pool.ram.run(op);
            }
            self.pool.fold();
            self.pool.reclaim();
        }
        self.pool.touch(call % VERBS * 999);
    }

    fn run(&mut self, call: u64) {
        self.pool.ram.run((self.verb)(call));
    }
}

/// Takes `count` snapshots, with a write before every tenth.
pub fn populate(pool: &mut Pool, count: u64) {
    for index in 0..count {
        if index.is_multiple_of(10) {
            pool.write(index * 37 % (1 << 18));
        }
        pool.snapshot(format!("old{index}"));
    }
    pool.fold();
}

/// Snapshots of the volume.
pub fn snapshot(pool: Pool) -> Verb {
    let clean = |first: u64| Some(delete((first..first + VERBS).map(|name| name.to_string())));
    Verb { pool, verb: |call| take(call), clean }
}

/// Rollbacks of the volume to one snapshot.
pub fn rollback(mut pool: Pool) -> Verb {
    pool.snapshot("base");
    // The pool's own export is open.
    let back = |_| Op::Rollback {
        targets: target("base"),
        discard_current: false,
        force: true,
        edits: Vec::new(),
    };
    Verb { pool, verb: back, clean: |_| None }
}

/// What deleting all of `count` snapshots would free, each of which has replaced a few blocks.
pub fn set_size(mut pool: Pool, count: u64) -> impl Step {
    for index in 0..count {
        pool.scatter(2, 1 << 16);
        pool.snapshot(index);
        // Before a snapshot would wait for a fold itself.
        if index.is_multiple_of(VERBS) {
            pool.fold();
        }
    }
    pool.fold();
    let names: Vec<String> = (0..count).map(|index| format!("{VOLUME}@{index}")).collect();
    move |_| {
        let reply = pool.ram.run(Op::SetSize { names: names.clone(), wait: false });
        assert!(matches!(reply, Reply::SetSize(_)), "no size: {reply:?}");
    }
}

/// A checkpoint after writes, which `writes` does.
pub struct Fold<W> {
    pool: Pool,
    writes: W,
}

impl<W: FnMut(&mut Pool)> Step for Fold<W> {
    fn prepare(&mut self, _: u64) {
        (self.writes)(&mut self.pool);
    }

    fn run(&mut self, _: u64) {
        self.pool.fold();
    }
}

/// Folds `count` blocks at random places below `area` blocks.
pub fn fold_rand(pool: Pool, count: u64, area: u64) -> impl Step {
    Fold { pool, writes: move |pool: &mut Pool| pool.scatter(count, area) }
}

/// Folds the first `count` blocks, written one after the other.
pub fn fold_seq(pool: Pool, count: u64) -> impl Step {
    Fold { pool, writes: move |pool: &mut Pool| (0..count).for_each(|lba| pool.write(lba)) }
}

/// The extents by which a snapshot and a later one differ.
pub fn diff(mut pool: Pool, changed: u64, area: u64) -> impl Step {
    pool.snapshot("a");
    pool.scatter(changed, area);
    pool.snapshot("b");
    pool.fold();
    move |_| {
        let (from, to) = (format!("{VOLUME}@a"), format!("{VOLUME}@b"));
        let mut query = DiffQuery::all(&from, &to, 4096);
        let mut found = 0;
        loop {
            let reply = pool.ram.run(Op::Diff(query.clone()));
            let Reply::Diff { extents, next } = reply else { panic!("no diff: {reply:?}") };
            found += extents.len() as u64;
            let Some(next) = next else { break };
            query.offset = next;
        }
        assert!(found > 0 && found <= changed, "{found} extents");
    }
}

/// A snapshot all of whose blocks are its own alone is deleted and reclaimed: `count` of them, a block
/// in every `stride`.
pub struct Walk {
    pool: Pool,
    count: u64,
    stride: u64,
}

/// See [`Walk`].
pub fn delete_walk(pool: Pool, count: u64, stride: u64) -> Walk {
    Walk { pool, count, stride }
}

impl Walk {
    fn write(&mut self) {
        (0..self.count).for_each(|at| self.pool.write(at * self.stride));
        self.pool.fold();
    }
}

impl Step for Walk {
    fn prepare(&mut self, call: u64) {
        self.write();
        self.pool.snapshot(call);
        self.write();
    }

    fn run(&mut self, call: u64) {
        self.pool.delete(std::iter::once(call.to_string()));
        self.pool.reclaim();
    }
}

/// An open of a pool whose process died with `count` writes in the journal that no fold had seen.
pub struct Replay {
    pool: Pool,
    count: u64,
}

/// See [`Replay`].
pub fn replay(pool: Pool, count: u64) -> Replay {
    Replay { pool, count }
}

impl Step for Replay {
    fn prepare(&mut self, call: u64) {
        if call == 0 {
            (0..self.count).for_each(|lba| self.pool.write(lba));
            self.pool.flush();
        }
        self.pool.ram.kill();
    }

    fn run(&mut self, _: u64) {
        self.pool.ram.open_pool();
    }
}

/// Reads of random blocks below `area`, one after the other.
pub fn read(mut pool: Pool, area: u64) -> impl Step {
    move |_| {
        let lba = pool.rng.below(area);
        pool.read(lba);
    }
}

/// Writes of random blocks below `area`, one after the other.
pub fn write(mut pool: Pool, area: u64) -> impl Step {
    move |_| {
        let lba = pool.rng.below(area);
        pool.write(lba);
    }
}

/// `depth` reads of random blocks below `area` together.
pub fn reads(mut pool: Pool, area: u64, depth: usize) -> impl Step {
    move |_| {
        for _ in 0..depth {
            let offset = pool.rng.below(area) * BLOCK;
            pool.ram.submit(Op::Read { export: pool.export, offset, len: BLOCK });
        }
        pool.ram.finish(depth);
    }
}

/// `depth` writes of random blocks below `area` together.
pub fn writes(mut pool: Pool, area: u64, depth: usize) -> impl Step {
    move |_| {
        for _ in 0..depth {
            let lba = pool.rng.below(area);
            pool.ram.submit(pool.write_op(lba));
        }
        pool.ram.finish(depth);
    }
}
