//! The last step of a fold: its result becomes what readers and writers see.

use super::Fold;
use crate::error::Error;
use cow_format::checkpoint::Checkpoint;
use cow_format::mutant;

impl Fold {
    /// The checkpoint is durable. The fold's tree, with the records that came after the freeze
    /// applied again, becomes the tree; frozen layers go; what the fold freed is in quarantine.
    pub(super) fn publish(self, checkpoint: Checkpoint) -> Result<(), Error> {
        let cx = self.cx.clone();
        let mut core = cx.core();
        let publication = core.publications + 1;
        let pool = core.pool()?;
        let mut tree = self.tree;
        let folded = tree.clone();
        for (record, frame) in std::mem::take(&mut pool.since_freeze) {
            let again = tree.apply(&record, frame);
            if mutant::is("walkafter") || mutant::is("tablenow") {
                continue;
            }
            if let Err(error) = again {
                // It was applied to the tree before; that it no longer fits is a fault of ours.
                let what = format!("a record could not be applied again: {error}");
                core.poison(what.clone());
                return Err(Error::Poisoned(what));
            }
        }
        pool.tree = tree;
        pool.folding = None;
        if !mutant::is("reusenow") {
            pool.alloc.commit(checkpoint.seq);
        }
        pool.fallback_tail = pool.cp.tail;
        let ring_early = mutant::is("ringearly");
        let retained = if ring_early { checkpoint.tail } else { pool.fallback_tail };
        pool.journal.set_retained(retained);
        let cp_seq = checkpoint.seq;
        pool.cp = checkpoint;
        pool.rebase_layers();
        pool.shares.thaw();
        pool.refresh_guarantees();
        core.publications = publication;
        core.publish_views(&folded);
        core.roots_saved();
        let oldest = core.pins.keys().next().copied().unwrap_or(publication);
        let pool = core.pool()?;
        pool.inflight.forget_moved(oldest);
        // A `Move` after the freeze may name a block that this fold has freed: the checkpoint after
        // the next one is the first that does not need that record.
        let late = u64::from(pool.moved_late && !mutant::is("movelate"));
        if self.freed > 0 {
            core.fold.batches.push_back((cp_seq + late, publication + late));
        }
        let data = self.layers.data_blocks();
        if data > 0 {
            core.fold.frees_much = self.freed >= data / 2;
        }
        core.stats.folds += 1;
        core.stats.blocks_freed += self.freed;
        if mutant::is("noquarantine") {
            core.fold.batches.clear();
            let pool = core.pool()?;
            pool.alloc.release(cp_seq);
            let tail = pool.cp.tail;
            pool.journal.set_retained(tail);
        }
        if mutant::is("punchearly") {
            core.punch.early = core.pool()?.alloc.releasable(cp_seq);
        }
        (core.fold.left, core.fold.taken) = (0, 0);
        core.release_quarantine();
        core.trim_set_aside();
        let trims = core.fold.trim_again;
        let pool = core.pool()?;
        if trims || !pool.cp.detached.is_empty() || !pool.tree.walkable().is_empty() {
            core.fold.soon = true;
        }
        Ok(())
    }
}
