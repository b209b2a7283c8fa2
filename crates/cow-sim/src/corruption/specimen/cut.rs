//! A pool that was never folded again: what a journal holds while nothing is reclaimed.

use super::{GIB, Making, Specimen, prop};
use crate::PoolOptions;
use crate::disk::Crash;
use crate::lose::newest_superblock;
use crate::scripts::{create, flush, snapshot, write};
use crate::sim::Stop;
use cow_engine::Op;
use cow_format::Phys;
use cow_format::frame::Frame;
use cow_format::geometry::MIN_POOL_BLOCKS;
use cow_format::record::Record;

/// The shortest ring.
const RING: u64 = 64;
/// So long that a marker is written.
const PAUSE_NS: u64 = 200_000_000;

impl Specimen {
    /// Behind the checkpoint a pad, frames on both sides of the end of the ring, a marker, and a growth
    /// that no checkpoint has seen.
    ///
    /// # Errors
    /// What went wrong while it was made.
    pub fn cut() -> Result<Self, Stop> {
        let options = PoolOptions {
            journal_blocks: RING,
            max_chunks: 1,
            limit_blocks: 8 * MIN_POOL_BLOCKS,
            ..PoolOptions::default()
        };
        let mut make = Making::begin_with(options)?;
        make.run([create("a", GIB), create("b", GIB), write("a", 0, 3, 100), flush("a")])?;
        make.fill(RING - 12)?;
        make.run([write("a", 9, 1, 110), snapshot(&["a@one"]), super::Cmd::Checkpoint])?;
        make.fill(RING - 1)?;
        // A frame of two blocks.
        make.run([prop("b", "text", &"wide".repeat(1010)), write("a", 1, 1, 120), flush("a")])?;
        for _ in 0..4 {
            make.pool.world.pass(PAUSE_NS);
            make.rest()?;
        }
        make.pool.world.start_op(Op::GrowPool { blocks: MIN_POOL_BLOCKS + 4000 });
        while !make.newest()?.1 {
            make.pool.step()?;
        }
        Self::found(make.pool.world.disk().crash(Crash::KeepAll))
    }
}

impl Making {
    /// Frames of one block each, until the next one comes to lie at this block of the ring.
    fn fill(&mut self, block: u64) -> Result<(), Stop> {
        for token in 500..500 + 2 * RING {
            if self.newest()?.0 >= block {
                return Ok(());
            }
            self.run([write("b", token % 8, 1, token), flush("b")])?;
            self.rest()?;
        }
        Err(Stop::Bug(format!("the journal does not come to block {block}")))
    }

    /// The block of the ring behind the newest frame, and whether that frame lets the pool grow.
    fn newest(&self) -> Result<(u64, bool), Stop> {
        let disk = self.pool.world.disk();
        let sb = newest_superblock(disk).ok_or_else(|| Stop::Bug("no superblock".to_owned()))?;
        let frames = (0..RING).filter_map(|block| {
            let at = sb.geometry.journal_start + block;
            let bytes: Vec<u8> =
                (at..at + (RING - block).min(16)).flat_map(|at| disk.peek(at)).collect();
            Some((block, Frame::decode(&bytes, sb.pool_tag(), Phys(at)).ok()?.0))
        });
        let newest = frames.max_by_key(|(_, frame)| frame.seq);
        Ok(newest.map_or((0, false), |(block, frame)| {
            let mut reader = cow_format::wire::Reader::new(&frame.payload);
            let record = Record::decode(&mut reader);
            let grows = matches!(record, Ok(Record::PoolGrow { .. }));
            (block + u64::from(frame.blocks), grows)
        }))
    }
}
