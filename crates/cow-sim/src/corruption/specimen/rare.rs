//! What a pool seldom holds, and a reader has to understand all the same.

use super::{GIB, MIB, Making, Pool, Specimen, targets};
use crate::cmd::Cmd;
use crate::disk::Crash;
use crate::lose::edit_checkpoint;
use crate::scripts::{clone, create, delete, discard, flush, snapshot, write};
use crate::sim::Stop;
use crate::value::Value;
use cow_engine::{Op, SnapOptions};
use cow_format::checkpoint::MAX_DAMAGE;
use cow_format::entry::Consistency;
use cow_format::{BLOCK_SIZE, mapnode};

/// Leaves that go bad: more than a checkpoint has lines for.
const LEAVES: u64 = MAX_DAMAGE as u64 + 20;
/// What is in them is this token, and those after it.
const FIRST: u64 = 1000;

impl Specimen {
    /// A checkpoint that says that the one before it is none to go back to, with withheld blocks; a deleted branch point
    /// that has been trimmed; snapshots of every consistency, and of a guest that had been frozen.
    ///
    /// # Errors
    /// What went wrong while it was made.
    pub fn rare() -> Result<Self, Stop> {
        let mut make = Making::begin(96)?;
        make.run([
            create("a", GIB),
            write("a", 0, 3, 100),
            create("gold", MIB),
            write("gold", 0, 6, 110),
            snapshot(&["gold@v1"]),
            clone("gold@v1", "d"),
            flush("a"),
        ])?;
        make.write_that_moves(write("a", 3, 2, 120))?;
        make.run([
            Cmd::Checkpoint,
            write("d", 0, 2, 130),
            write("gold", 0, 1, 140),
            delete(&["gold@v1"]),
            Cmd::WaitReclaim,
            Cmd::Checkpoint,
        ])?;
        let ways = [
            ("stopped", Consistency::Stopped, 0),
            ("frozen", Consistency::Frozen, 1234),
            ("quiesced", Consistency::Quiesced, 56),
            ("failed", Consistency::FreezeFailed, 0),
        ];
        for (token, (name, consistency, freeze_ms)) in (150..).zip(ways) {
            make.run([write("a", 5, 1, token)])?;
            let options = SnapOptions { consistency, freeze_ms, ..SnapOptions::default() };
            make.ask(Op::Snapshot { targets: targets(&[("a", name)]), options })?;
        }
        make.run([write("a", 6, 1, 160), Cmd::Checkpoint, write("a", 7, 1, 170), flush("a")])?;
        make.rest()?;
        // No code of today sets the flag.
        let mut disk = make.pool.world.disk().crash(Crash::KeepAll);
        edit_checkpoint(&mut disk, |_| {});
        Self::found(disk)
    }

    /// A pool whose folds have met more damage than a checkpoint lists.
    ///
    /// # Errors
    /// What went wrong while it was made.
    pub fn overflown() -> Result<Self, Stop> {
        let mut make = Making::begin(256)?;
        make.run([create("a", GIB), write("a", 0, 2, 90), snapshot(&["a@one"])])?;
        make.run((1..=LEAVES).map(|leaf| write("a", 256 * leaf, 1, FIRST + leaf)))?;
        make.run([Cmd::Checkpoint])?;
        make.rest()?;
        let mut disk = make.pool.world.disk().crash(Crash::KeepAll);
        for block in disk.occupied() {
            let page = disk.peek(block);
            let is_leaf = page[..4] == mapnode::MAGIC.to_le_bytes() && page[6] == 0;
            // Of what nothing points to any more an image need hold no bytes.
            let is_lost = matches!(Value::of(&page), Value::Token(token) if token >= FIRST);
            if is_leaf && page[24..32] != [0; 8] || is_lost {
                disk.poke(block, [0; BLOCK_SIZE]);
            }
        }
        let oracle = std::mem::take(&mut make.pool.oracle);
        make.pool = Pool::new(disk, oracle, &make.config, 3);
        make.pool.world.stand_still();
        make.ask(Op::Open { read_only: false })?;
        make.run((1..=LEAVES).map(|leaf| discard("a", 256 * leaf + 1, 1)))?;
        make.run((1..=LEAVES).map(|leaf| discard("a", 256 * leaf, 1)))?;
        make.run([Cmd::Checkpoint, write("a", 2, 1, 95), flush("a")])?;
        make.rest()?;
        Self::found(make.pool.world.disk().crash(Crash::KeepAll))
    }
}
