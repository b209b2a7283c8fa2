//! Which blocks differ between two states of one family.
//!
//! A lockstep walk of two maps, which does not go below equal pointers: the map nodes that are read
//! are those of the change and of the paths to it. Above the maps lie the unfolded layers
//! (`diff_segment.rs`), so nothing has to be folded first, and a pool that is only read answers too.
//! No step of the walk relies on the state of the one before it: between two segments of leaves
//! the layers, the roots and the targets of the exports are looked at again.
//!
//! Equal pointers mean equal bytes. Unequal ones do not: equal bytes that were written again have
//! another place. An exact comparison reads both blocks, but only where their checksums are equal.
//! What cannot be read counts as changed: whoever then reads it gets the error, at its place.

use crate::ahead::{ASKED_FOR, load_near};
use crate::api::{DiffQuery, DiffSide, Reply};
use crate::core::OpResult;
use crate::diff_segment::{Probes, Segment, Side, segment};
use crate::error::Error;
use crate::lookup::{Found, leaf_of, load};
use crate::mapping::Mapping;
use crate::read::{Pin, read_mapped};
use crate::task::{Cx, Turns};
use cow_format::entry::Root;
use cow_format::mapnode::{FANOUT, FANOUT_BITS, MAX_LEVEL, MapNode, Slot, span_blocks};
use cow_format::{BLOCK_SIZE, Buf, FamilyId, Lba, NodeId, checksum, mutant};
use std::future::Future;
use std::pin::Pin as StdPin;
use std::sync::Arc;

const BLOCK: u64 = BLOCK_SIZE as u64;
/// Most extents of one answer.
const EXTENTS_MAX: usize = 1 << 16;
/// Map nodes that one answer looks at: some milliseconds of work.
const NODES_MAX: usize = 1024;
/// Map nodes that are read ahead at once, of both sides together.
const READ_AHEAD: usize = 32;
/// Blocks that one exact answer reads of each side, of which those of a leaf are in memory at once.
const READS_MAX: usize = 8192;
/// Leaves of the largest volume.
const LEAVES_MAX: u64 = 1 << (FANOUT_BITS * MAX_LEVEL as u32);

struct Diff {
    cx: Cx,
    family: FamilyId,
    nodes: (NodeId, NodeId),
    exact: bool,
    zero_crc: u32,
    /// Blocks that are looked at: first, and after the last.
    range: (u64, u64),
    limit: usize,
    /// What may still be spent on this answer.
    nodes_left: usize,
    reads_left: usize,
    turns: Turns,
    /// `(first block, blocks)`.
    out: Vec<(u64, u64)>,
    /// Where to go on, once a limit was reached.
    next: Option<u64>,
}

/// The same place in both maps; a slot may point to a node of a lower level (a root that has
/// grown since), which stands for child 0.
#[derive(Clone, Copy)]
struct Place {
    level: u8,
    index: u64,
    a: Side,
    b: Side,
}

pub(crate) async fn diff(cx: &Cx, query: DiffQuery) -> OpResult {
    let _pin = Pin::new(cx);
    let (from, from_size) = side(cx, &query.from)?;
    let (to, to_size) = side(cx, &query.to)?;
    check_family(cx, from, to)?;
    let size_bytes = from_size.max(to_size);
    let end_bytes = query.offset.saturating_add(query.len).min(size_bytes);
    let mut diff = Diff {
        cx: cx.clone(),
        family: FamilyId::default(),
        nodes: (from, to),
        exact: query.exact,
        zero_crc: checksum::data(Buf::zeroed(1).block(0)),
        range: (query.offset / BLOCK, end_bytes.div_ceil(BLOCK)),
        limit: query.limit.clamp(1, EXTENTS_MAX),
        nodes_left: NODES_MAX,
        reads_left: READS_MAX,
        turns: Turns::default(),
        out: Vec::new(),
        next: None,
    };
    let (mut leaf, end) = (diff.range.0 >> FANOUT_BITS, diff.range.1.div_ceil(FANOUT as u64));
    while leaf < end && diff.next.is_none() {
        // A name was looked up once; an export knows whether it is still what was opened.
        if let DiffSide::Export(_) = query.from {
            diff.nodes.0 = side(cx, &query.from)?.0;
        }
        if let DiffSide::Export(_) = query.to {
            diff.nodes.1 = side(cx, &query.to)?.0;
        }
        leaf = diff.segment(leaf, end).await?;
    }
    let clip = |(first, blocks): (u64, u64)| {
        let start = (first * BLOCK).max(query.offset);
        let end = ((first + blocks) * BLOCK).min(end_bytes);
        (start < end).then(|| (start, end - start))
    };
    Ok(Reply::Diff {
        extents: diff.out.into_iter().filter_map(clip).collect(),
        next: diff.next.map(|block| block * BLOCK).filter(|&at| at < end_bytes),
    })
}

/// The node of a side and its size in bytes, right now.
fn side(cx: &Cx, side: &DiffSide) -> Result<(NodeId, u64), Error> {
    let mut core = cx.core();
    match side {
        DiffSide::Export(export) => {
            core.target(*export, false).map(|target| (target.node, target.size_bytes))
        }
        DiffSide::Name(name) => {
            let tree = &core.pool()?.tree;
            let id = tree.resolve(name)?;
            Ok((id, tree.node(id).map_or(0, |node| node.entry.size_bytes)))
        }
    }
}

fn check_family(cx: &Cx, a: NodeId, b: NodeId) -> Result<(), Error> {
    let mut core = cx.core();
    let tree = &core.pool()?.tree;
    let family = |id| tree.node(id).map(|node| node.entry.family);
    if family(a) == family(b) {
        return Ok(());
    }
    let name = |id| tree.full_name(id).unwrap_or_else(|| format!("#{id}"));
    Err(Error::Invalid(format!("{} and {} have no common origin", name(a), name(b))))
}

impl Diff {
    /// Compares from `leaf` on, but not beyond `end`; the leaf to go on with.
    async fn segment(&mut self, leaf: u64, end: u64) -> Result<u64, Error> {
        let Segment { end, family, a, b, probes } = {
            let mut core = self.cx.core();
            segment(core.pool()?, self.nodes, leaf, end.min(LEAVES_MAX))?
        };
        self.family = family;
        if let Some(probes) = probes {
            self.layered_leaf(leaf, (a, b), probes).await?;
            return Ok(end);
        }
        let range = self.range;
        self.range = (range.0.max(leaf << FANOUT_BITS), range.1.min(end << FANOUT_BITS));
        let level = a.1.max(b.1);
        let done = self.walk(Place { level, index: 0, a, b }).await;
        self.range = range;
        done.map(|()| end)
    }

    /// A leaf of which layers know something.
    async fn layered_leaf(
        &mut self,
        leaf: u64,
        (a, b): (Side, Side),
        (over_a, over_b): (Probes, Probes),
    ) -> Result<(), Error> {
        if !self.spend_node(leaf << FANOUT_BITS) {
            return Ok(());
        }
        let a = self.mapped_leaf(leaf, a, over_a).await?;
        let b = self.mapped_leaf(leaf, b, over_b).await?;
        self.leaf(leaf, &a, &b).await
    }

    /// What one side has in a leaf, layers above the map.
    async fn mapped_leaf(
        &mut self,
        leaf: u64,
        (slot, level): Side,
        over: Probes,
    ) -> Result<Vec<Mapping>, Error> {
        if over.iter().all(Option::is_some) {
            return Ok(over.into_iter().flatten().collect());
        }
        let root = Root { phys: slot.phys, birth: slot.birth, crc: slot.crc, level };
        let found = match leaf_of(&self.cx, &root, self.family, leaf).await {
            Ok(found) => found,
            Err(error) => unreadable(error, Found::Lost)?,
        };
        let below = |slot: usize| match &found {
            Found::Node(node) => node.slots()[slot].into(),
            Found::Hole(_) => Mapping::Hole,
            Found::Lost => Mapping::Lost,
        };
        let blocks = over.into_iter().enumerate();
        Ok(blocks.map(|(slot, over)| over.unwrap_or_else(|| below(slot))).collect())
    }

    fn walk<'a>(
        &'a mut self,
        at: Place,
    ) -> StdPin<Box<dyn Future<Output = Result<(), Error>> + 'a>> {
        Box::pin(async move {
            if self.next.is_some() || !self.differs(&at) {
                return Ok(());
            }
            let (first, blocks) = (at.index * span_blocks(at.level), span_blocks(at.level));
            if at.a.0.is_lost() || at.b.0.is_lost() {
                self.push(first, blocks);
                return Ok(());
            }
            if !self.spend_node(first) {
                return Ok(());
            }
            let sides = match self.open(&at, at.a).await {
                Ok(a) => self.open(&at, at.b).await.map(|b| (a, b)),
                Err(error) => Err(error),
            };
            let (a, b) = match sides {
                Ok(sides) => sides,
                Err(error) => {
                    unreadable(error, ())?;
                    self.push(first, blocks);
                    return Ok(());
                }
            };
            if at.level == 0 {
                let mappings = |side: Vec<Side>| -> Vec<Mapping> {
                    side.into_iter().map(|(slot, _)| slot.into()).collect()
                };
                return self.leaf(at.index, &mappings(a), &mappings(b)).await;
            }
            let below = (at.index << FANOUT_BITS..).zip(a.into_iter().zip(b));
            let below = below.map(|(index, (a, b))| Place { level: at.level - 1, index, a, b });
            let mut places: Vec<Place> = below.filter(|place| self.differs(place)).collect();
            while self.next.is_none() && !places.is_empty() {
                let rest = places.split_off(self.window().min(places.len()));
                // Held until the window is through, so that the cache cannot lose them.
                let _held = self.ahead(&places).await;
                for place in std::mem::replace(&mut places, rest) {
                    self.walk(place).await?;
                }
            }
            Ok(())
        })
    }

    /// Whether anything at or below this place may be in the answer.
    fn differs(&self, at: &Place) -> bool {
        let (first, blocks) = (at.index * span_blocks(at.level), span_blocks(at.level));
        let outside = first + blocks <= self.range.0 || first >= self.range.1;
        !outside && !is_same(at.a, at.b)
    }

    /// So many places are surely looked at before the answer is full, or nearly: what is read ahead
    /// in vain would be read again for the next one.
    fn window(&self) -> usize {
        let extents = self.limit.saturating_sub(self.out.len()) + 1;
        (READ_AHEAD / 2).min(extents).min(self.nodes_left).max(1)
    }

    /// Reads the nodes of places of one level. Whoever wants one that cannot be read learns of it.
    async fn ahead(&self, places: &[Place]) -> Vec<Option<Arc<MapNode>>> {
        let level = places.first().map_or(0, |place| place.level);
        let both = places.iter().filter(|at| !at.a.0.is_lost() && !at.b.0.is_lost());
        let sides = both.flat_map(|at| [at.a, at.b].map(|side| (at.index, side)));
        let nodes = sides.filter(|(_, (slot, own))| slot.is_mapped() && *own >= level);
        let nodes: Vec<(u64, Slot)> = nodes.map(|(index, (slot, _))| (index, slot)).collect();
        load_near(&self.cx, self.family, level, &nodes, ASKED_FOR).await
    }

    /// The slots of one side, each with the level of what it points to.
    async fn open(&self, at: &Place, (slot, slot_level): Side) -> Result<Vec<Side>, Error> {
        let below = at.level.saturating_sub(1);
        let mut slots = vec![(Slot::hole(slot.birth), below); FANOUT];
        if slot.is_mapped() && slot_level < at.level {
            slots[0] = (slot, slot_level);
        } else if slot.is_mapped() {
            let node = load(&self.cx, self.family, at.level, at.index, slot).await?;
            slots = node.slots().iter().map(|slot| (*slot, below)).collect();
        }
        Ok(slots)
    }

    /// Compares one leaf.
    async fn leaf(&mut self, leaf: u64, a: &[Mapping], b: &[Mapping]) -> Result<(), Error> {
        let first = leaf << FANOUT_BITS;
        let looked_at = |slot: usize| {
            let block = first + slot as u64;
            (self.range.0..self.range.1).contains(&block)
        };
        let sees = |b: &Mapping| *b != Mapping::Hole || !mutant::is("holeless");
        let mut changed: Vec<bool> = a
            .iter()
            .zip(b)
            .enumerate()
            .map(|(slot, (a, b))| a != b && sees(b) && looked_at(slot))
            .collect();
        if self.exact && changed.contains(&true) {
            self.compare_bytes(first, a, b, &mut changed).await?;
        }
        for (slot, _) in changed.iter().enumerate().filter(|(_, changed)| **changed) {
            self.push(first + slot as u64, 1);
        }
        self.turns.went_on(&self.cx).await;
        Ok(())
    }

    /// Takes those out of `changed` whose bytes are equal.
    async fn compare_bytes(
        &mut self,
        first: u64,
        a: &[Mapping],
        b: &[Mapping],
        changed: &mut [bool],
    ) -> Result<(), Error> {
        let crc = |mapping: &Mapping| match mapping {
            Mapping::At(_, crc) => Some(*crc),
            Mapping::Hole => Some(self.zero_crc),
            Mapping::Lost => None,
        };
        let alike = |slot: usize| crc(&a[slot]).is_some() && crc(&a[slot]) == crc(&b[slot]);
        let doubtful: Vec<bool> =
            changed.iter().enumerate().map(|(slot, changed)| *changed && alike(slot)).collect();
        let count = doubtful.iter().filter(|doubtful| **doubtful).count();
        if count == 0 {
            return Ok(());
        }
        // What is over the budget is still read: no more than one leaf of each side.
        self.reads_left = self.reads_left.saturating_sub(count);
        if self.reads_left == 0 {
            self.nodes_left = 0;
        }
        let only = |side: &[Mapping]| -> Vec<Mapping> {
            let pick = |(mapping, doubtful): (&Mapping, &bool)| {
                if *doubtful { *mapping } else { Mapping::Hole }
            };
            side.iter().zip(&doubtful).map(pick).collect()
        };
        let (node_a, node_b) = self.nodes;
        let a = read_mapped(&self.cx, node_a, Lba(first), &only(a)).await;
        let b = read_mapped(&self.cx, node_b, Lba(first), &only(b)).await;
        let (a, b) = match (a, b) {
            (Ok(a), Ok(b)) => (a, b),
            (Err(error), _) | (_, Err(error)) => return unreadable(error, ()),
        };
        for slot in (0..changed.len()).filter(|&slot| doubtful[slot]) {
            changed[slot] = a.block(slot) != b.block(slot);
        }
        Ok(())
    }

    /// Whether there is still something to spend; else the answer ends before `block`.
    fn spend_node(&mut self, block: u64) -> bool {
        if self.nodes_left == 0 {
            self.stop(block);
            return false;
        }
        self.nodes_left -= 1;
        true
    }

    fn stop(&mut self, block: u64) {
        let after = u64::from(mutant::is("diffnext"));
        self.next.get_or_insert(block.max(self.range.0) + after);
    }

    /// Notes that these blocks differ, as far as they are looked at.
    fn push(&mut self, first: u64, blocks: u64) {
        let (from, end) = (first.max(self.range.0), (first + blocks).min(self.range.1));
        if self.next.is_some() || from >= end {
            return;
        }
        let full = self.out.len() == self.limit;
        match self.out.last_mut() {
            Some((last, count)) if *last + *count == from => *count += end - from,
            _ if full => self.stop(from),
            _ => self.out.push((from, end - from)),
        }
    }
}

/// Whether nothing below can differ. Two lost places are alike: neither can be read.
fn is_same((a, a_level): Side, (b, b_level): Side) -> bool {
    let mapped = a.is_mapped() && a_level == b_level;
    a.phys == b.phys && (mapped || !a.is_mapped() && a.is_lost() == b.is_lost())
}

/// What stands for a place that cannot be read; other errors end the comparison.
fn unreadable<T>(error: Error, instead: T) -> Result<T, Error> {
    match error {
        Error::Corrupt(_) | Error::Io { .. } => Ok(instead),
        error => Err(error),
    }
}
