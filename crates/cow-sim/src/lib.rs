//! cow-sim: a simulated world for the engine. Tests only.
//!
//! A seed chooses a disk that loses what was not flushed, the order in which it completes
//! things, what the clients ask and when the machine dies; an oracle says which states may then
//! be seen. The same code drives [`cow_engine::Engine`] and small machines with planted faults,
//! which prove that the oracle catches them.
//!
//! * [`disk`]: the disk; [`world`]: a machine on it, with simulated time.
//! * [`cmd`], [`model`], [`oracle`]: what clients ask, what they may see, and the judge.
//! * [`sim`]: clients, machine and judge together; [`history`]: random runs of it;
//!   [`explore`]: crashes at every device operation of a script; [`scripts`]: those.
//! * [`sector`]: bytes that say which write they come from.
//! * [`linear`]: whether a recorded history of concurrent clients is linearizable.
//! * [`corruption`]: one thing wrong with a pool, in every way.
//! * [`checked`]: what the offline checker says of a disk.
//! * [`leftovers`]: memory that is not clean.
//! * [`lose`]: the newest checkpoint goes bad.
//! * [`repairs`]: repairs that die or fail at every device operation.
//! * [`fake`]: a small honest machine and its broken brothers.
//! * [`run`]: seeds, threads, and what is printed when a run fails.
#![forbid(unsafe_code)]

pub mod campaign;
pub mod checked;
pub mod cmd;
pub mod corruption;
pub mod crashes;
pub mod disk;
pub mod explore;
pub mod failures;
pub mod fake;
pub mod history;
pub mod in_use;
pub mod leftovers;
pub mod linear;
pub mod lose;
pub mod model;
pub mod oracle;
pub mod repairs;
pub mod rng;
pub mod run;
pub mod scripts;
pub mod sector;
pub mod sim;
pub mod swarm;
pub mod value;
pub mod workloads;
pub mod world;

use cow_engine::mkfs::mkfs;
use cow_engine::{AckMode, Config};
use cow_format::geometry::{LayoutOptions, MIN_POOL_BLOCKS};

/// What a simulated pool is like.
#[derive(Clone, Debug)]
pub struct PoolOptions {
    /// Size in blocks.
    pub blocks: u64,
    /// Journal ring in blocks.
    pub journal_blocks: u64,
    /// What it may grow to, in blocks.
    pub limit_blocks: u64,
    /// Chunks of its node table, 2,048 nodes each, at most.
    pub max_chunks: u32,
    /// Every block is allocated below, and stays so.
    pub preallocated: bool,
}

impl Default for PoolOptions {
    fn default() -> Self {
        let blocks = MIN_POOL_BLOCKS;
        Self {
            blocks,
            journal_blocks: 256,
            limit_blocks: blocks,
            max_chunks: 2,
            preallocated: false,
        }
    }
}

impl PoolOptions {
    /// A pool that is nearly full of fixed areas: a long ring, and checkpoint areas with room to
    /// grow. Some 3,500 blocks are left, of which the reserve keeps 2,048.
    #[must_use]
    pub fn tight() -> Self {
        Self { journal_blocks: 16_300, limit_blocks: 25_000_000_000, ..Self::default() }
    }
}

/// A disk with an empty pool on it.
///
/// # Panics
/// When the options do not make a pool: a fault of the test.
#[must_use]
pub fn format(options: &PoolOptions) -> disk::SimDisk {
    let layout = LayoutOptions {
        blocks: options.blocks,
        journal_blocks: Some(options.journal_blocks),
        limit_blocks: Some(options.limit_blocks),
        max_chunks: Some(options.max_chunks),
        preallocated: options.preallocated,
    };
    match mkfs(*b"simulated pool!!", &layout, world::WALL_START_NS) {
        Ok(plan) => disk::SimDisk::formatted(&plan, options.blocks),
        Err(option) => panic!("these options make no pool: {option}"),
    }
}

/// An engine with little memory, so that folds come early.
#[must_use]
pub fn small_config(ack: AckMode) -> Config {
    Config {
        ack,
        layer_bytes: 64 << 10,
        cache_bytes: 256 << 10,
        walk_leaves: 1,
        slice: 1,
        cell_blocks: 2,
        // Tests that are about it set it: the fewer operations, the more of them meet.
        sparse: false,
        buffers: leftovers::pool(),
        ..Config::default()
    }
}
