//! Small pools that hold every structure, with all that their blocks have held before.

mod cut;
mod rare;

use crate::checked::View;
use crate::cmd::{Cmd, SnapHow};
use crate::disk::{Crash, Faults, SimDisk};
use crate::leftovers;
use crate::lose::{newest_superblock, read};
use crate::model::{FAR_AHEAD_NS, Snap, State};
use crate::oracle::Oracle;
use crate::scripts::{clone, create, delete, discard, flush, rollback, snapshot, write};
use crate::sim::{Sim, Stop, observe};
use crate::value::Page;
use crate::{PoolOptions, format, small_config};
use cow_check::{Options, Structure};
use cow_engine::{AckMode, Config, Engine, Op, PropEdit, SnapOptions, SnapTarget};
use cow_format::BLOCK_SIZE;
use cow_format::checkpoint::Checkpoint;
use cow_format::geometry::{Geometry, MIN_POOL_BLOCKS};
use cow_format::mapnode;
use std::collections::{BTreeMap, BTreeSet};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// Blocks below a map node of level 1.
const SPAN: u64 = 256 * 256;
/// Versions of a block that are remembered.
const VERSIONS: usize = 3;

/// A pool, as a machine left it that died in good order, and what is known of it.
pub struct Specimen {
    /// The disk.
    pub disk: SimDisk,
    /// What blocks held before, oldest first.
    pub older: BTreeMap<u64, Vec<Page>>,
    /// How it is to be opened.
    pub config: Config,
    /// What clients may see: all, or all but the last group, which nothing on the disk calls durable.
    pub legal: Vec<State>,
    /// Damage that its folds have noted.
    pub noted: u64,
    /// How much that is corrupt the checker finds, beside nothing but that.
    pub findings: u64,
    /// Where things are.
    pub layout: Geometry,
    /// What is read of each volume and snapshot: all that its volume ever held, and holes.
    pub reads: BTreeMap<String, BTreeSet<u64>>,
}

type Pool = Sim<Engine>;

/// A pool while it is made.
struct Making {
    pool: Pool,
    older: BTreeMap<u64, Vec<Page>>,
    config: Config,
}

fn config() -> Config {
    let read_ahead = 8;
    let buffers = leftovers::recycled();
    Config { read_ahead, buffers, layer_bytes: 1 << 20, ..small_config(AckMode::Writeback) }
}

impl Making {
    fn begin(journal_blocks: u64) -> Result<Self, Stop> {
        Self::begin_with(PoolOptions { journal_blocks, max_chunks: 1, ..PoolOptions::default() })
    }

    fn begin_with(options: PoolOptions) -> Result<Self, Stop> {
        let config = config();
        let oracle = Oracle::new(AckMode::Writeback);
        let mut pool = Pool::new(format(&options), oracle, &config, 1);
        pool.world.stand_still();
        pool.open(false)?;
        Ok(Self { pool, older: BTreeMap::new(), config })
    }

    fn run(&mut self, cmds: impl IntoIterator<Item = Cmd>) -> Result<(), Stop> {
        for cmd in cmds {
            self.pool.run(cmd)?;
            self.remember();
        }
        Ok(())
    }

    fn ask(&mut self, op: Op) -> Result<(), Stop> {
        let what = format!("{op:?}");
        match self.pool.aux(op)? {
            Ok(_) => Ok(()),
            Err(error) => Err(Stop::Bug(format!("{what:.60}: {error}"))),
        }
    }

    /// Notes what blocks hold now.
    fn remember(&mut self) {
        let disk = self.pool.world.disk();
        for block in disk.occupied() {
            let (page, versions) = (disk.peek(block), self.older.entry(block).or_default());
            if versions.last() != Some(&page) {
                versions.push(page);
                // The last is what it holds now.
                if versions.len() > VERSIONS + 1 {
                    versions.remove(0);
                }
            }
        }
    }

    /// Nothing is under way any more.
    fn rest(&mut self) -> Result<(), Stop> {
        while !self.pool.world.is_idle() || self.pool.world.is_paused() {
            self.pool.step()?;
        }
        Ok(())
    }

    /// The machine dies and comes back: its recovery leaves a fence.
    fn reopen(&mut self) -> Result<(), Stop> {
        self.rest()?;
        let oracle = std::mem::take(&mut self.pool.oracle);
        let disk = self.pool.world.disk().crash(Crash::KeepAll);
        self.pool = Pool::new(disk, oracle, &self.config, 2);
        self.pool.world.stand_still();
        self.pool.open(true)?;
        self.rest()?;
        self.remember();
        Ok(())
    }

    /// A write whose data the device does not take where it is to go, so that it moves.
    fn write_that_moves(&mut self, cmd: Cmd) -> Result<(), Stop> {
        self.rest()?;
        self.run([cmd])?;
        let Some((at, blocks)) = self.pool.world.disk().writes_in_flight().next() else {
            return Err(Stop::Bug("a write has landed before it was acknowledged".to_owned()));
        };
        let faults = Faults { bad: at..at + blocks, ..Faults::default() };
        self.pool.world.disk_mut().set_faults(faults, 1);
        self.rest()?;
        self.pool.world.disk_mut().set_faults(Faults::default(), 1);
        Ok(())
    }

    /// All that was said is on the disk but nothing says so of `last`.
    fn end(mut self, last: Op) -> Result<Specimen, Stop> {
        self.run([flush("a")])?;
        let before = self.pool.oracle.live().clone();
        self.remember();
        self.ask(last)?;
        self.rest()?;
        self.remember();
        let disk = self.pool.world.disk().crash(Crash::KeepAll);
        let after = observe(&mut self.pool.world)?;
        let Self { mut older, config, .. } = self;
        for (block, versions) in &mut older {
            versions.retain(|page| *page != disk.peek(*block));
        }
        let legal = vec![before, after];
        let reads = reads(&legal);
        let known = |text: &str| Stop::Bug(text.to_owned());
        let sb = newest_superblock(&disk).ok_or_else(|| known("no superblock"))?;
        let layout = sb.geometry;
        let report = cow_check::check(&mut View(&disk), &Options::default())
            .map_err(|error| known(&error.to_string()))?;
        if let Some(finding) = report.findings.iter().find(|f| f.kind != Structure::KnownDamage) {
            return Err(known(&finding.to_string()));
        }
        let findings = report.corruptions;
        let mut specimen =
            Specimen { disk, older, config, legal, reads, noted: 0, findings, layout };
        specimen.noted = specimen.checkpoints().first().map_or(0, |cp| cp.damage.len() as u64);
        Ok(specimen)
    }
}

/// What is to be read of volumes and snapshots that are in one of these states.
fn reads(legal: &[State]) -> BTreeMap<String, BTreeSet<u64>> {
    let mut all = BTreeMap::new();
    for (name, volume) in legal.iter().flat_map(|state| &state.volumes) {
        let snaps = volume.snap_names().map(|snap| (format!("{name}@{snap}"), volume.snap(snap)));
        let nodes: Vec<(String, Option<&Snap>)> =
            snaps.chain([(name.clone(), Some(&volume.head))]).collect();
        let contents = nodes.iter().filter_map(|(_, snap)| Some(&snap.as_ref()?.content));
        let mut lbas = BTreeSet::from([11, 5000, SPAN - 1]);
        lbas.extend(contents.flat_map(|content| content.iter().map(|(lba, _)| lba)));
        for (name, _) in nodes {
            all.entry(name).or_insert_with(BTreeSet::new).extend(&lbas);
        }
    }
    all
}

fn prop(name: &str, key: &str, value: &str) -> Cmd {
    Cmd::SetProp { name: name.into(), key: key.into(), value: Some(value.into()) }
}

fn hold(name: &str, tag: &str) -> Cmd {
    Cmd::Hold { name: name.into(), tag: tag.into(), set: true }
}

fn targets(names: &[(&str, &str)]) -> Vec<SnapTarget> {
    let target = |&(volume, snap): &(&str, &str)| SnapTarget {
        volume: volume.into(),
        snapshot: snap.into(),
    };
    names.iter().map(target).collect()
}

impl Specimen {
    /// A pool that was made before, of which nothing is known but what it holds.
    ///
    /// # Errors
    /// When it has no superblock.
    pub fn found(disk: SimDisk) -> Result<Self, Stop> {
        let sb = newest_superblock(&disk).ok_or_else(|| Stop::Bug("no superblock".to_owned()))?;
        Ok(Self {
            disk,
            older: BTreeMap::new(),
            config: config(),
            legal: Vec::new(),
            noted: 0,
            findings: 0,
            layout: sb.geometry,
            reads: BTreeMap::new(),
        })
    }

    /// Volumes, snapshots, clones and what a rollback kept; a deleted snapshot half walked, a deleted
    /// branch point, a discarded subtree half given back; kill rows, properties, holds, long names, a
    /// content root; behind the checkpoint frames of two epochs with every kind of record, a Move among
    /// them, the last one a group.
    ///
    /// # Errors
    /// What went wrong while it was made.
    pub fn whole() -> Result<Self, Stop> {
        Self::everyday(Making::begin(96)?)
    }

    /// The same in a pool that has grown, with maps of every height, for [golden
    /// images](../../../../tests/golden/README.md).
    ///
    /// # Errors
    /// What went wrong while it was made.
    pub fn grown() -> Result<Self, Stop> {
        let blocks = 8 * MIN_POOL_BLOCKS;
        let options = PoolOptions {
            journal_blocks: 96,
            max_chunks: 1,
            limit_blocks: blocks,
            ..PoolOptions::default()
        };
        let mut make = Making::begin_with(options)?;
        make.ask(Op::GrowPool { blocks: MIN_POOL_BLOCKS + 5000 })?;
        // Maps of every height.
        make.run([
            create("high", 1 << 50),
            write("high", 1 << 35, 1, 80),
            write("high", 1 << 27, 1, 81),
            prop("high", "budget", "67108864"),
        ])?;
        Self::everyday(make)
    }

    fn everyday(mut make: Making) -> Result<Self, Stop> {
        let long = format!("v{}", "-long".repeat(12));
        make.run([
            create("a", GIB),
            create("b", 64 * MIB + 512),
            create(&long, 16 << 40),
            write("a", 0, 3, 100),
            write("a", 80_000, 2, 110),
            write("b", 0, 2, 120),
            write("b", 16_384, 1, 125),
        ])?;
        make.run((0..9).map(|i| write(&long, i % 3 * SPAN + i / 3 * 256, 1, 130 + i)))?;
        make.run([
            snapshot(&["a@one", "b@one", &format!("{long}@one")]),
            hold("a@one", "backup"),
            prop("a@one", "text", &"long".repeat(900)),
            prop("", "pool", "of all"),
            prop("b", "job", "nightly"),
            write("a", 0, 1, 200),
            write("b", 1, 1, 210),
            Cmd::Checkpoint,
        ])?;
        make.ask(Op::Root { name: "b@one".into() })?;
        make.run([
            clone("a@one", "c"),
            write("c", 1, 1, 220),
            Cmd::Snapshot {
                targets: vec![("a".into(), "n".repeat(100))],
                tag: 4,
                how: SnapHow { auto: true, expiry_ns: FAR_AHEAD_NS },
            },
            write("a", 2, 1, 230),
            // A branch point: two children, and then none that is held.
            create("gold", MIB),
            write("gold", 0, 6, 240),
            snapshot(&["gold@v1"]),
            clone("gold@v1", "d"),
            write("d", 0, 1, 250),
            rollback(&["b@one"]),
            write("b", 0, 1, 260),
        ])?;
        make.run((0..9).map(|i| write(&long, i % 3 * SPAN + i / 3 * 256 + 1, 1, 270 + i)))?;
        make.run([create("w", 16 << 40)])?;
        make.run((0..8).map(|i| write("w", i % 4 * SPAN + i / 4 * 256, 1, 300 + i)))?;
        make.run([
            Cmd::Checkpoint,
            write("gold", 1, 2, 310),
            Cmd::Checkpoint,
            delete(&[&format!("{long}@one"), "gold@v1"]),
            Cmd::Checkpoint,
            discard("w", 0, 4 * SPAN),
            Cmd::Checkpoint,
        ])?;
        // From here on the journal.
        make.run([
            write("a", 0, 1, 400),
            discard("a", 80_000, 1),
            prop("a", "k", "v"),
            flush("a"),
        ])?;
        make.reopen()?;
        make.run([
            Cmd::Rename { name: "c".into(), to: "cc".into() },
            clone("a@one", "e"),
            write("e", 0, 2, 410),
            Cmd::Resize { volume: "b".into(), size: 32 * MIB, shrink: true },
            create("x", MIB),
            hold("b@one", "tag"),
            delete(&["d"]),
            rollback(&["a@one"]),
            write("a", 1, 1, 420),
        ])?;
        make.write_that_moves(write("a", 3, 2, 430))?;
        make.run([flush("a"), write("cc", 7, 1, 440), flush("cc")])?;
        let targets = targets(&[("a", "last"), ("b", "last"), (&long, "last")]);
        make.end(Op::Snapshot { targets, options: SnapOptions::default() })
    }

    /// A pool whose folds have met damage and noted it, and whose last group fills several frames.
    ///
    /// # Errors
    /// What went wrong while it was made.
    pub fn scarred() -> Result<Self, Stop> {
        let mut make = Making::begin(128)?;
        make.run([
            create("a", GIB),
            write("a", 0, 3, 100),
            write("a", 300, 2, 110),
            snapshot(&["a@one"]),
            write("a", 0, 1, 120),
            write("a", 256, 3, 130),
            Cmd::Checkpoint,
        ])?;
        // The second leaf of the head goes bad.
        make.rest()?;
        let mut disk = make.pool.world.disk().crash(Crash::KeepAll);
        let is_hit = |page: &Page| {
            page[..4] == mapnode::MAGIC.to_le_bytes() && page[6] == 0 && page[24] == 1
        };
        let newest = disk.occupied().into_iter().filter(|block| is_hit(&disk.peek(*block))).max();
        disk.poke(newest.unwrap_or(0), [0x77; BLOCK_SIZE]);
        let oracle = std::mem::take(&mut make.pool.oracle);
        make.pool = Pool::new(disk, oracle, &make.config, 3);
        make.pool.world.stand_still();
        make.ask(Op::Open { read_only: false })?;
        make.run([write("a", 256, 2, 140), Cmd::Checkpoint])?;
        // What is lost is cleared, and written again.
        make.run([discard("a", 256, 256), write("a", 258, 1, 150), Cmd::Checkpoint])?;
        let volumes: Vec<String> = (0..20).map(|i| format!("p{i}")).collect();
        make.run(volumes.iter().map(|name| create(name, 4096)))?;
        make.run([write("a", 1, 1, 170), flush("a")])?;
        let edit = |name: &String| PropEdit {
            name: name.clone(),
            changes: vec![("text".into(), Some("text".repeat(980)))],
        };
        let options =
            SnapOptions { edits: volumes.iter().map(edit).collect(), ..SnapOptions::default() };
        make.end(Op::Snapshot { targets: targets(&[("a", "last")]), options })
    }

    /// Blocks that were ever written, ascending.
    #[must_use]
    pub fn used(&self) -> Vec<u64> {
        let mut all = self.disk.occupied();
        all.sort_unstable();
        all
    }

    /// The checkpoints that are intact, newest first.
    #[must_use]
    pub fn checkpoints(&self) -> Vec<Checkpoint> {
        let Some(sb) = newest_superblock(&self.disk) else { return Vec::new() };
        let mut all: Vec<Checkpoint> =
            (0..4).filter_map(|area| read(&self.disk, &sb, area)).collect();
        all.sort_by_key(|cp| std::cmp::Reverse(cp.seq));
        all
    }
}
