//! The walker: gives back what only a deleted node had. Design section 4, Delete.
//!
//! S is deleted, P its parent, N its only child (or none). A pointer of tree(S) is free if its
//! birth is above gen(P) and N has another one at the same level and index. Pointers that are
//! null, not younger than P, or equal to N's are skipped with all that hangs below: every node
//! read is unique to S. Map nodes are freed post-order, when the cursor has left their range; the
//! cursor and what was freed commit in the same checkpoint, so a resumed walk is exact.

use super::Fold;
use crate::ahead::{FOR_FOLDS, load_near};
use crate::error::Error;
use crate::lookup::{load, root_slot};
use crate::space::Tier;
use cow_format::mapnode::{FANOUT, FANOUT_BITS, MapNode, Slot};
use cow_format::record::Record;
use cow_format::{FamilyId, Gen, NodeId, mutant};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// Pairs that are read ahead at once: what is in flight beside them waits little for them.
const PREFETCH: usize = 16;

#[derive(Clone, Copy)]
struct Walk {
    s: NodeId,
    family: FamilyId,
    /// Gen of the parent.
    above: Gen,
}

/// The same place in tree(S) and tree(N).
#[derive(Clone, Copy)]
struct Pair {
    level: u8,
    index: u64,
    s: Slot,
    n: Slot,
}

impl Pair {
    fn end(&self) -> u64 {
        (self.index + 1) << (FANOUT_BITS * (u32::from(self.level) + 1))
    }

    /// Whether nothing below can be free.
    fn is_shared(&self, above: Gen) -> bool {
        !self.s.is_mapped() || self.s.birth <= above || self.s.phys == self.n.phys
    }
}

impl Fold {
    /// Walks what was deleted at or before the freeze, within the budget.
    pub(super) async fn walk_all(&mut self) -> Result<(), Error> {
        let mut budget = self.cx.core().config.walk_leaves.max(1);
        if mutant::is("walkafter") {
            let later = self.cx.core().pool()?.since_freeze.clone();
            for (record, frame) in &later {
                if matches!(record, Record::NodeDelete { .. }) {
                    let _ = self.tree.apply(record, *frame);
                }
            }
        }
        loop {
            let Some(&s) = self.tree.walkable().first() else { return Ok(()) };
            if budget == 0 || !self.walk_node(s, &mut budget).await? {
                return Ok(());
            }
        }
    }

    /// Walks one node; whether it is done.
    async fn walk_node(&mut self, s: NodeId, budget: &mut usize) -> Result<bool, Error> {
        self.tree.begin_walk(s);
        let above = self.tree.parent_gen(s);
        let child = self.tree.children(s).first().copied();
        let Some(node) = self.tree.node(s) else { return Ok(true) };
        let (family, root) = (node.entry.family, node.entry.root);
        let n = match child {
            Some(child) => self.pointer_at(child, family, root.level).await,
            None => Some(Slot::hole(Gen(0))),
        };
        let walk = Walk { s, family, above };
        let top = Pair {
            level: root.level,
            index: 0,
            s: root_slot(&root),
            n: n.unwrap_or(root_slot(&root)),
        };
        if n.is_none() {
            self.note_damage(s, root.level, 0);
        }
        if !self.walk(walk, top, budget).await? {
            return Ok(false);
        }
        for id in self.tree.rows_needed_for_splice(s) {
            self.load_row(id).await;
        }
        if !self.take_splice(s) {
            return Ok(false);
        }
        let splice = self.tree.finish_walk(s);
        for old in splice.freed {
            self.free_chain(&old).await?;
        }
        Ok(true)
    }

    /// Keeps blocks for the row that a splice has written anew; whether there are any. What nobody
    /// waits for must not take those of what has been acknowledged: the splice can wait for another
    /// fold, as its node has been walked and what that freed comes back.
    fn take_splice(&mut self, s: NodeId) -> bool {
        let blocks = self.tree.splice_blocks(s);
        let mut core = self.cx.core();
        // Twice: a layer that came after the freeze counts the row as well, once it is there. The
        // part of the slop that nothing else may use for good has room for that, as long as a row
        // has less than some 40,000 cells in the smallest pool.
        let enough = core.available(Tier::Reclaim, None) >= 2 * blocks;
        if enough {
            core.fold.splice_blocks += blocks;
            core.fold.left += blocks;
            self.reserved += blocks;
        }
        enough
    }

    /// The pointer of `node` at index 0 of `level`, which its root may be above of. `None` when
    /// what lies between cannot be read.
    pub(super) async fn pointer_at(
        &mut self,
        node: NodeId,
        family: FamilyId,
        level: u8,
    ) -> Option<Slot> {
        let root = self.tree.node(node)?.entry.root;
        let mut slot = root_slot(&root);
        for at in (level + 1..=root.level).rev() {
            if !slot.is_mapped() {
                return Some(Slot::hole(Gen(0)));
            }
            slot = load(&self.cx, family, at, 0, slot).await.ok()?.slots()[0];
        }
        Some(slot)
    }

    /// Whether the subtree is done; not when the budget ran out inside.
    fn walk<'a>(
        &'a mut self,
        w: Walk,
        pair: Pair,
        budget: &'a mut usize,
    ) -> Pin<Box<dyn Future<Output = Result<bool, Error>> + 'a>> {
        Box::pin(async move {
            let cursor = self.tree.node(w.s).map_or(0, |node| node.entry.cursor);
            if cursor >= pair.end() {
                return Ok(true);
            }
            if pair.is_shared(w.above) {
                self.tree.set_cursor(w.s, pair.end());
                return Ok(true);
            }
            let Some((s, n)) = self.load_pair(w, pair).await else {
                // What cannot be compared is not freed.
                self.note_damage(w.s, pair.level, pair.index);
                self.tree.set_cursor(w.s, pair.end());
                return Ok(true);
            };
            if pair.level == 0 {
                *budget = budget.saturating_sub(1);
                self.walk_leaf(w, &s, n.as_deref());
                if *budget > 0 || !mutant::is("cursorlate") {
                    self.tree.set_cursor(w.s, pair.end());
                }
                self.went_on().await;
            } else if !self.walk_children(w, pair, &s, n.as_deref(), budget).await? {
                return Ok(false);
            }
            self.walk_free(w, true, &[pair.s]);
            Ok(true)
        })
    }

    async fn walk_children(
        &mut self,
        w: Walk,
        pair: Pair,
        s: &MapNode,
        n: Option<&MapNode>,
        budget: &mut usize,
    ) -> Result<bool, Error> {
        let level = pair.level - 1;
        let children: Vec<Pair> = (0..FANOUT)
            .map(|at| Pair {
                level,
                index: (pair.index << FANOUT_BITS) + at as u64,
                s: s.slots()[at],
                n: n.map_or(Slot::hole(Gen(0)), |n| n.slots()[at]),
            })
            .collect();
        for window in children.chunks(PREFETCH) {
            let cursor = self.tree.node(w.s).map_or(0, |node| node.entry.cursor);
            let ahead =
                window.iter().filter(|pair| pair.end() > cursor && !pair.is_shared(w.above));
            let wanted = ahead.flat_map(|pair| [pair.s, pair.n].map(|slot| (pair.index, slot)));
            let wanted: Vec<_> = wanted.filter(|(_, slot)| slot.is_mapped()).collect();
            // Held until the window is through, so that the cache cannot lose them.
            let _held = load_near(&self.cx, w.family, level, &wanted, FOR_FOLDS).await;
            for child in window {
                if *budget == 0 {
                    return Ok(false);
                }
                if !self.walk(w, *child, budget).await? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    async fn load_pair(&self, w: Walk, pair: Pair) -> Option<(Arc<MapNode>, Option<Arc<MapNode>>)> {
        load_both(&self.cx, w.family, pair).await
    }

    fn walk_leaf(&mut self, w: Walk, s: &MapNode, n: Option<&MapNode>) {
        let kept = |at: usize, slot: &Slot| n.is_some_and(|n| n.slots()[at].phys == slot.phys);
        let slots = s.slots().iter().enumerate();
        let gone =
            slots.filter(|(at, slot)| slot.is_mapped() && slot.birth > w.above && !kept(*at, slot));
        let gone: Vec<Slot> = gone.map(|(_, slot)| *slot).collect();
        self.walk_free(w, false, &gone);
    }

    fn walk_free(&mut self, w: Walk, is_map: bool, gone: &[Slot]) {
        self.tree.note_walk_freed(w.s, is_map, gone.iter().map(|slot| slot.birth));
        self.count(is_map, -(gone.len() as i64));
        gone.iter().for_each(|slot| self.free(slot.phys));
    }
}

async fn load_both(
    cx: &crate::task::Cx,
    family: FamilyId,
    pair: Pair,
) -> Option<(Arc<MapNode>, Option<Arc<MapNode>>)> {
    let s = load(cx, family, pair.level, pair.index, pair.s).await.ok()?;
    let n = if pair.n.is_mapped() {
        let n = load(cx, family, pair.level, pair.index, pair.n).await.ok();
        if n.is_none() && !mutant::is("walkblind") {
            return None;
        }
        n
    } else if pair.n.is_lost() {
        return None;
    } else {
        None
    };
    Some((s, n))
}
