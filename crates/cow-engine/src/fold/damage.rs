//! What a fold could not read, and whether that is to be believed.

use super::{Fold, blobs};
use crate::error::Error;
use cow_format::checkpoint::{Damage, MAX_DAMAGE};
use cow_format::superblock::COPY_BLOCKS;
use cow_format::{NodeId, Phys};

const EIO: i32 = 5;
/// How often a block is tried.
const TRIES: usize = 3;

impl Fold {
    /// A map node could not be read, and what hangs below it stays allocated; or, without a level,
    /// a kill row or properties.
    pub(super) fn note_damage(&mut self, node: NodeId, level: u8, index: u64) {
        self.leaks = true;
        if level != blobs::NO_LEVEL {
            self.tree.note_inexact(node);
        }
        let damage = Damage { node, level, index };
        if self.damage.contains(&damage) {
            return;
        }
        self.has_new_damage = true;
        if self.damage.len() < MAX_DAMAGE {
            self.damage.push(damage);
        } else {
            self.damage_overflow += 1;
        }
    }

    /// To be called before anything of this fold counts. A checkpoint makes what was not read lost
    /// for ever, whereas a cable that is put in again, or a path that comes back, gives it all back. So damage is
    /// believed of single blocks only: the device gives others, and those still not.
    ///
    /// # Errors
    /// When the device gives nothing at all, or gives now what it did not give before. Nothing is lost then: it is in
    /// the journal.
    pub(super) async fn believe_damage(&self) -> Result<(), Error> {
        if !self.has_new_damage {
            return Ok(());
        }
        let unread = std::mem::take(&mut self.cx.core().fold.unread);
        for phys in &unread {
            if self.gives(*phys).await {
                let (op, offset) = ("read, for a while, of a block", phys.byte_offset());
                return Err(Error::Io { errno: EIO, op, offset });
            }
        }
        if unread.is_empty() {
            return Ok(());
        }
        for block in COPY_BLOCKS {
            if self.gives(Phys(block)).await {
                return Ok(());
            }
        }
        Err(Error::Io { errno: EIO, op: "read of every block", offset: 0 })
    }

    async fn gives(&self, phys: Phys) -> bool {
        for _ in 0..TRIES {
            if self.cx.read(phys, 1, true).await.is_ok() {
                return true;
            }
        }
        false
    }
}
