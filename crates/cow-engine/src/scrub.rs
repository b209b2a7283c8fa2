//! The scrub: every map node and every data block that a checkpoint has is read from the device and
//! compared with its checksum, each once, so that rot is found while there is a backup to
//! mend it from. What a read would answer is not asked: map nodes come past the cache.
//!
//! It goes in steps, and between two of them whoever asks has the cursor; the engine keeps nothing, so a
//! scrub may rest for days, or go on in another process. A step holds a pin from before it looks
//! at a root: what that leads to stays where it is until the step is over, whatever clients and folds do
//! meanwhile. So nothing that is only on its way can be taken for damage. What is not folded yet is
//! left out; it was written a moment ago.
//!
//! *Each once*: a node of the snapshot tree is asked for what is younger than its nearest ancestor that
//! lives. All else it has in common with that one, in the same places (births say so, as for
//! content roots). Nodes come by ascending id, ancestors before descendants. Only what a deleted branch
//! point still has, and several of its children use, is read with each of them.

use crate::api::Reply;
use crate::core::OpResult;
use crate::error::Error;
use crate::fold::fold_now;
use crate::lookup::{load, place_of, root_slot};
use crate::read::Pin;
use crate::scrub_state::{ScrubCursor, ScrubFault, ScrubKind, ScrubStep};
use crate::task::{Cx, join_all};
use cow_format::entry::Root;
use cow_format::mapnode::{FANOUT_BITS, MapNode, Slot};
use cow_format::{BLOCK_SIZE, Buf, FamilyId, Gen, NodeId, Phys, checksum, mutant};
use std::ops::Range;
use std::sync::Arc;

/// Blocks of a step: it ends behind a leaf, and a leaf must fit, with the nodes above it.
const STEP_MIN: u64 = 512;
const STEP_MAX: u64 = 16_384;
/// Most blocks of one read.
const RUN_MAX: usize = 64;
/// Reads in flight at once: what clients wait for is behind them in the device.
const READS: usize = 4;
/// How often a map node is read before it is called bad.
const ATTEMPTS: usize = 3;
/// Nodes of the snapshot tree that are looked up at once.
const NODES: usize = 64;

/// Reads on from `cursor`, some `blocks` blocks.
pub(crate) async fn step(cx: &Cx, cursor: ScrubCursor, blocks: u64) -> OpResult {
    let mut cursor = if cursor.end.0 == 0 { begin(cx).await? } else { cursor };
    let mut walk = Walk {
        cx,
        budget: blocks.clamp(STEP_MIN, STEP_MAX),
        step: ScrubStep::default(),
        _pin: (!mutant::is("scrubloose")).then(|| Pin::new(cx)),
    };
    loop {
        let nodes = nodes_from(cx, cursor)?;
        if nodes.is_empty() {
            return Ok(Reply::Scrubbed(walk.step));
        }
        for id in nodes {
            let from = if id == cursor.node { cursor.block } else { 0 };
            cursor = ScrubCursor { node: id, block: from, ..cursor };
            if let Some(block) = walk.node(id, from).await? {
                walk.step.next = Some(ScrubCursor { block, ..cursor });
                return Ok(Reply::Scrubbed(walk.step));
            }
        }
        cursor = ScrubCursor { node: NodeId(cursor.node.0 + 1), block: 0, ..cursor };
        cx.pause().await;
    }
}

/// What is to be read is in the maps.
async fn begin(cx: &Cx) -> Result<ScrubCursor, Error> {
    let can_fold = cx.core().writable().is_ok();
    if can_fold {
        match fold_now(cx).await {
            // What the last checkpoint has can be read all the same.
            Ok(()) | Err(Error::NoSpace(_)) => {}
            Err(error) => return Err(error),
        }
    }
    let mut core = cx.core();
    let live = core.pool()?.tree.iter().filter(|node| node.is_live()).map(|node| node.entry.id);
    let end = live.max().unwrap_or(NodeId(1));
    Ok(ScrubCursor { node: NodeId(1), block: 0, end })
}

/// Some live nodes from the cursor on.
fn nodes_from(cx: &Cx, cursor: ScrubCursor) -> Result<Vec<NodeId>, Error> {
    let mut core = cx.core();
    let live = core.pool()?.tree.iter().filter(|node| node.is_live()).map(|node| node.entry.id);
    Ok(live.filter(|id| (cursor.node..=cursor.end).contains(id)).take(NODES).collect())
}

/// A node of the snapshot tree.
struct View {
    id: NodeId,
    name: String,
    family: FamilyId,
    root: Root,
    blocks: u64,
    /// What is not younger was read with an ancestor.
    floor: Gen,
}

/// `None` when it is gone, or has nothing of its own yet.
fn view(cx: &Cx, id: NodeId) -> Result<Option<View>, Error> {
    let mut core = cx.core();
    let tree = &core.pool()?.tree;
    let Some(node) = tree.node(id).filter(|node| node.is_live() && node.rooted) else {
        return Ok(None);
    };
    let mut parent = node.entry.parent;
    let floor = loop {
        match tree.node(parent) {
            Some(above) if above.is_live() && above.rooted => break above.entry.label_gen,
            Some(above) if above.entry.parent != parent => parent = above.entry.parent,
            _ => break Gen(0),
        }
    };
    Ok(Some(View {
        id,
        name: tree.full_name(id).unwrap_or_default(),
        family: node.entry.family,
        root: node.entry.root,
        blocks: node.entry.size_bytes.div_ceil(BLOCK_SIZE as u64),
        floor,
    }))
}

struct Walk<'a> {
    cx: &'a Cx,
    budget: u64,
    step: ScrubStep,
    _pin: Option<Pin>,
}

impl Walk<'_> {
    /// Goes through a node from block `from` on. Where it stopped, if that is not the end.
    async fn node(&mut self, id: NodeId, from: u64) -> Result<Option<u64>, Error> {
        let Some(view) = view(self.cx, id)? else { return Ok(None) };
        // Map nodes still to be looked at, the next one last.
        let mut todo = vec![(view.root.level, 0u64, root_slot(&view.root))];
        while let Some((level, index, slot)) = todo.pop() {
            let bits = FANOUT_BITS * (u32::from(level) + 1);
            let (first, end) = (index << bits, (index + 1) << bits);
            if end <= from || slot.is_hole() || slot.birth <= view.floor {
                continue;
            }
            if self.is_over() {
                return Ok(Some(first.max(from)));
            }
            let blocks = first.max(from)..end;
            if slot.is_lost() {
                self.fault(&view, ScrubKind::Lost, blocks, Phys(0), LOST.into());
                continue;
            }
            // One that the cursor is inside of was read by an earlier step.
            let node = if first >= from {
                self.map_node(&view, level, index, slot).await?
            } else {
                load(self.cx, view.family, level, index, slot).await.map_err(|e| e.to_string())
            };
            let node = match node {
                Ok(node) => node,
                Err(what) => {
                    self.fault(&view, ScrubKind::MapNode(level), blocks, slot.phys, what);
                    continue;
                }
            };
            let below = node.slots().iter().enumerate();
            if level > 0 {
                let child = |(at, slot): (usize, &Slot)| {
                    (level - 1, (index << FANOUT_BITS) + at as u64, *slot)
                };
                todo.extend(below.rev().map(child));
                continue;
            }
            let slots = below.map(|(at, slot)| (first + at as u64, *slot));
            let skipped = u64::from(from > 0 && mutant::is("scrubskip"));
            let from = from + skipped;
            let slots = slots.filter(|(at, slot)| *at >= from && slot.birth > view.floor);
            self.leaf(&view, slots.collect()).await;
            self.cx.pause().await;
        }
        Ok(None)
    }

    /// Whether enough was read, or somebody waits for what the pin keeps, or for the end.
    fn is_over(&self) -> bool {
        let read = self.step.data_blocks + self.step.map_nodes;
        let core = self.cx.core();
        read >= self.budget || (core.punch.waiters > 0 && self.step.data_blocks > 0) || core.closing
    }

    /// A map node, from the device.
    async fn map_node(
        &mut self,
        view: &View,
        level: u8,
        index: u64,
        slot: Slot,
    ) -> Result<Result<Arc<MapNode>, String>, Error> {
        let place = place_of(self.cx, view.family, level, index, slot)?;
        self.step.map_nodes += 1;
        let mut what = String::new();
        for attempt in 0..ATTEMPTS {
            match self.cx.read(place.phys, 1, attempt > 0).await {
                Ok(buf) => match MapNode::decode(&buf, &place) {
                    Ok(node) => return Ok(Ok(node.into())),
                    Err(error) => what = error.to_string(),
                },
                Err(failure) => what = unreadable(failure.errno),
            }
        }
        Ok(Err(what))
    }

    /// Reads what a leaf points to.
    async fn leaf(&mut self, view: &View, slots: Vec<(u64, Slot)>) {
        let mut bad: Vec<(u64, ScrubKind, Phys, String)> = Vec::new();
        let lost = slots.iter().filter(|(_, slot)| slot.is_lost());
        bad.extend(lost.map(|(lba, _)| (*lba, ScrubKind::Lost, Phys(0), LOST.to_owned())));
        let mut mapped: Vec<(u64, Slot)> =
            slots.into_iter().filter(|(_, slot)| slot.is_mapped()).collect();
        mapped.sort_unstable_by_key(|(_, slot)| slot.phys);
        self.step.data_blocks += mapped.len() as u64;
        let follows = |a: &(u64, Slot), b: &(u64, Slot)| a.1.phys.0 + 1 == b.1.phys.0;
        let runs: Vec<&[(u64, Slot)]> =
            mapped.chunk_by(follows).flat_map(|run| run.chunks(RUN_MAX)).collect();
        for runs in runs.chunks(READS) {
            let reads = runs.iter().filter_map(|run| {
                let start = run.first()?.1.phys;
                Some(self.cx.read(start, run.len(), false))
            });
            let read = join_all(reads).await;
            for (run, buf) in runs.iter().zip(read) {
                for (at, (lba, slot)) in run.iter().enumerate() {
                    let is_good = |buf: &Buf, at| checksum::data(buf.block(at)) == slot.crc;
                    if buf.as_ref().is_ok_and(|buf| is_good(buf, at)) {
                        continue;
                    }
                    // Once more, alone and past every cache, as a read of a client would.
                    let what = match self.cx.read(slot.phys, 1, true).await {
                        Ok(buf) if is_good(&buf, 0) => continue,
                        Ok(_) => "checksum mismatch".to_owned(),
                        Err(failure) => unreadable(failure.errno),
                    };
                    bad.push((*lba, ScrubKind::Data, slot.phys, what));
                }
            }
        }
        bad.sort_unstable_by_key(|(lba, ..)| *lba);
        for (lba, kind, phys, what) in bad {
            self.fault(view, kind, lba..lba + 1, phys, what);
        }
    }

    /// Adds damage, to what it continues if it does.
    fn fault(&mut self, view: &View, kind: ScrubKind, lbas: Range<u64>, phys: Phys, what: String) {
        let first = lbas.start;
        let blocks = lbas.end.min(view.blocks).saturating_sub(first).max(1);
        if let Some(last) = self.step.faults.last_mut() {
            let next_phys = if kind == ScrubKind::Data { last.phys.0 + last.blocks } else { 0 };
            if (last.node, last.kind, &last.what) == (view.id, kind, &what)
                && !matches!(kind, ScrubKind::MapNode(_))
                && last.first + last.blocks == first
                && phys.0 == next_phys
            {
                last.blocks += blocks;
                return;
            }
        }
        let (node, name) = (view.id, view.name.clone());
        self.step.faults.push(ScrubFault { node, name, kind, first, blocks, phys, what });
    }
}

const LOST: &str = "lost earlier";

fn unreadable(errno: i32) -> String {
    format!("cannot be read: error {errno}")
}
