//! Workloads: what clients do while machines die and devices fail at every operation.
//!
//! Each is about one thing, and small: what it costs is paid for each of thousands of crashes.
//! [`named`] has a name for each verb and each path of a fold, of reclaim and of the space below;
//! [`pairs`] are all sequences of two verbs.

mod branches;
mod data;
mod pairs;
mod space;
mod verbs;

pub use pairs::pairs;

use crate::cmd::Cmd;
use crate::disk::SimDisk;
use crate::leftovers;
use crate::oracle::Oracle;
use crate::scripts::{create, snapshot, write};
use crate::sim::{Sim, Stop, Tolerance};
use crate::world::Machine;
use crate::{PoolOptions, format, small_config};
use cow_engine::{AckMode, Config, DiffQuery, Error, Op};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const SECOND: u64 = 1_000_000_000;

/// What is asked in a workload.
#[derive(Clone, Debug)]
pub enum Step {
    /// A command that the oracle judges.
    Ask(Cmd),
    /// Something that changes nothing clients can see; its answer is waited for.
    Also(Also),
}

/// See [`Step::Also`].
#[derive(Clone, Debug)]
pub enum Also {
    /// A pool of so many blocks.
    GrowPool(u64),
    /// All free space goes below.
    TrimPool,
    /// A content root.
    Root(&'static str),
    /// What differs between two states.
    Diff(&'static str, &'static str),
    /// What deleting it frees.
    Size(&'static str),
    /// Time, in nanoseconds, and then rest.
    Pass(u64),
    /// The end, in order. The last step.
    Close,
}

impl From<Cmd> for Step {
    fn from(cmd: Cmd) -> Self {
        Self::Ask(cmd)
    }
}

impl From<Also> for Step {
    fn from(also: Also) -> Self {
        Self::Also(also)
    }
}

/// The pool of a workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Room {
    /// As small as a pool can be, which is more than any of these needs.
    #[default]
    Plenty,
    /// Nearly full of fixed areas: see [`PoolOptions::tight`].
    Little,
    /// Plenty, but the file system below has room for so many blocks only.
    Below(u64),
}

/// A named sequence of steps.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Its name.
    pub name: String,
    /// Its pool.
    pub room: Room,
    /// When its writes are acknowledged.
    pub ack: AckMode,
    /// Undo snapshots go by themselves for want of space, and snapshots when their time is over.
    pub lets_go: bool,
    /// What comes before, one after the other, and nobody dies.
    pub setup: Vec<Step>,
    /// Steps in groups; those of a group are in progress together.
    pub groups: Vec<Vec<Step>>,
}

/// A workload of one command after the other, or of several together.
fn workload(name: &str, setup: Vec<Cmd>, groups: Vec<Vec<Step>>) -> Workload {
    Workload {
        name: name.to_owned(),
        room: Room::Plenty,
        ack: AckMode::Writethrough,
        lets_go: false,
        setup: setup.into_iter().map(Step::Ask).collect(),
        groups,
    }
}

/// A group of one.
fn one(step: impl Into<Step>) -> Vec<Step> {
    vec![step.into()]
}

/// Commands that are in progress together.
fn all_at_once(cmds: Vec<Cmd>) -> Vec<Step> {
    cmds.into_iter().map(Step::Ask).collect()
}

/// Two volumes with blocks on two levels of their maps, and a snapshot; the second half of it is
/// not folded.
fn two_states() -> Vec<Cmd> {
    vec![
        create("a", 320 * MIB),
        create("b", 64 * MIB),
        write("a", 0, 3, 100),
        write("a", 80_000, 2, 110),
        write("b", 0, 2, 120),
        snapshot(&["a@one", "b@one"]),
        Cmd::Checkpoint,
        write("a", 0, 1, 130),
        write("a", 80_001, 2, 140),
    ]
}

/// All that have a name.
#[must_use]
pub fn named() -> Vec<Workload> {
    let old = crate::scripts::all().into_iter().map(|script| {
        let groups = script.groups.into_iter().map(all_at_once).collect();
        workload(script.name, script.setup, groups)
    });
    let mut all: Vec<Workload> = old.collect();
    all.extend(data::all());
    all.extend(verbs::all());
    all.extend(branches::all());
    all.extend(space::all());
    all
}

/// All of them.
#[must_use]
pub fn all() -> Vec<Workload> {
    let mut all = named();
    all.extend(pairs());
    all
}

impl Workload {
    /// An empty pool for it. `pick` chooses what does not matter: the length of the ring.
    #[must_use]
    pub fn pool(&self, pick: u64) -> SimDisk {
        let tiny = PoolOptions { max_chunks: 1, ..PoolOptions::default() };
        let ring = [64, 64, 64, 96][pick as usize % 4];
        match self.room {
            Room::Little => format(&PoolOptions { max_chunks: 1, ..PoolOptions::tight() }),
            Room::Plenty | Room::Below(_) => {
                let limit_blocks = 4 * tiny.blocks;
                format(&PoolOptions { journal_blocks: ring, limit_blocks, ..tiny })
            }
        }
    }

    /// An engine for it. `pick` chooses what does not matter: what lies below, and how much memory
    /// there is for layers, so that some fold in recovery.
    #[must_use]
    pub fn config(&self, pick: u64) -> Config {
        Config {
            sparse: pick.is_multiple_of(2) || matches!(self.room, Room::Below(_)),
            layer_bytes: [64 << 10, 64 << 10, 1000, 64 << 10, 4000][(pick / 2) as usize % 5],
            read_ahead: 8,
            buffers: leftovers::recycled(),
            ..small_config(self.ack)
        }
    }

    /// Whether it ends with a pool that is closed.
    #[must_use]
    pub fn closes(&self) -> bool {
        matches!(self.groups.last().and_then(|group| group.last()), Some(Step::Also(Also::Close)))
    }

    /// Clients and a machine on a new pool, open, after the setup.
    ///
    /// # Errors
    /// What cannot be.
    pub fn begin<M: Machine>(&self, config: &Config, seed: u64) -> Result<Sim<M>, Stop> {
        let mut disk = self.pool(seed);
        if let Room::Below(blocks) = self.room {
            disk.limit_room(blocks);
        }
        let mut sim = Sim::<M>::new(disk, Oracle::new(self.ack), config, seed);
        let no_space = self.room != Room::Plenty;
        sim.tolerate(Tolerance { no_space, ..Tolerance::default() });
        sim.open(false)?;
        for step in &self.setup {
            take(&mut sim, step)?;
            sim.drain()?;
        }
        sim.reconcile()?;
        Ok(sim)
    }

    /// All that comes after.
    ///
    /// # Errors
    /// Crashed, or what cannot be.
    pub fn run<M: Machine>(&self, sim: &mut Sim<M>) -> Result<(), Stop> {
        for group in &self.groups {
            for step in group {
                take(sim, step)?;
            }
            sim.drain()?;
        }
        Ok(())
    }
}

/// Asks for one step. What is no command is waited for, with whatever is in progress.
fn take<M: Machine>(sim: &mut Sim<M>, step: &Step) -> Result<(), Stop> {
    let op = match step {
        Step::Ask(Cmd::Flush { volume }) if !sim.oracle.live().volumes.contains_key(volume) => {
            return Ok(());
        }
        Step::Ask(cmd) => return sim.submit(cmd.clone()),
        Step::Also(Also::Pass(ns)) => return pass(sim, *ns),
        Step::Also(Also::GrowPool(blocks)) => Op::GrowPool { blocks: *blocks },
        Step::Also(Also::TrimPool) => Op::TrimPool,
        Step::Also(Also::Root(name)) => Op::Root { name: (*name).to_owned() },
        Step::Also(Also::Diff(from, to)) => Op::Diff(DiffQuery::all(from, to, 100)),
        Step::Also(Also::Size(name)) => Op::SetSize { names: vec![(*name).to_owned()], wait: true },
        Step::Also(Also::Close) => Op::Close,
    };
    match sim.aux(op)? {
        Ok(_) | Err(Error::NoSpace(_) | Error::Unsupported(_) | Error::Busy(_)) => Ok(()),
        // A verb before it has taken the name away.
        Err(Error::NotFound(_) | Error::Invalid(_)) => Ok(()),
        Err(Error::Io { .. } | Error::Poisoned(_)) if sim.tolerates_io() => Ok(()),
        Err(error) => Err(Stop::Bug(format!("{step:?} failed: {error}"))),
    }
}

/// Time goes on, in small steps; then whatever that has begun comes to its end.
fn pass<M: Machine>(sim: &mut Sim<M>, ns: u64) -> Result<(), Stop> {
    for _ in 0..4 {
        sim.world.pass(ns / 4);
        for _ in 0..8 {
            while !sim.world.is_idle() || sim.world.is_paused() {
                sim.step()?;
            }
            sim.world.pass(SECOND / 100);
        }
    }
    Ok(())
}
