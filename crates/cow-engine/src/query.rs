//! Answers about the pool: listings, sizes, differences.

use crate::api::Reply;
use crate::core::OpResult;
use crate::error::Error;
use crate::fold::fold_if_writable;
use crate::info::NodeInfo;
use crate::loading::{load_props, load_rows_for};
use crate::lookup::{load, root_slot};
use crate::read::Pin;
use crate::size_state::unique;
use crate::sizes::{self, set_size};
use crate::task::Cx;
use cow_format::entry::{NodeKind, Root};
use cow_format::mapnode::{FANOUT, FANOUT_BITS, Slot, span_blocks};
use cow_format::{BLOCK_SIZE, FamilyId, NodeId};
use std::future::Future;
use std::pin::Pin as StdPin;

const BLOCK: u64 = BLOCK_SIZE as u64;

pub(crate) async fn set_size_of(cx: &Cx, names: Vec<String>, wait: bool) -> OpResult {
    fold_if_writable(cx).await?;
    let ids = {
        let mut core = cx.core();
        let tree = &core.pool()?.tree;
        names.iter().map(|name| tree.resolve(name)).collect::<Result<Vec<_>, _>>()?
    };
    set_size(cx, &ids, wait).await.map(Reply::SetSize)
}

pub(crate) async fn info(cx: &Cx, exact: bool) -> OpResult {
    if exact {
        fold_if_writable(cx).await?;
    }
    let info = cx.core().info()?;
    Ok(Reply::Info(Box::new(info)))
}

pub(crate) async fn list(cx: &Cx, exact: bool) -> OpResult {
    if exact {
        fold_if_writable(cx).await?;
    }
    let ids: Vec<NodeId> = {
        let mut core = cx.core();
        let tree = &core.pool()?.tree;
        tree.iter()
            .filter(|node| node.entry.kind != NodeKind::Pool)
            .map(|node| node.entry.id)
            .collect()
    };
    node_infos(cx, ids).await.map(Reply::List)
}

pub(crate) async fn describe(cx: &Cx, names: Vec<String>, exact: bool) -> OpResult {
    if exact {
        fold_if_writable(cx).await?;
    }
    let ids = {
        let mut core = cx.core();
        let tree = &core.pool()?.tree;
        names.iter().filter_map(|name| tree.resolve(name).ok()).collect()
    };
    node_infos(cx, ids).await.map(Reply::List)
}

async fn node_infos(cx: &Cx, ids: Vec<NodeId>) -> Result<Vec<NodeInfo>, Error> {
    let mut out = Vec::with_capacity(ids.len());
    for id in ids {
        load_for_list(cx, id).await?;
        let info = node_info(cx, id)?;
        if info.as_ref().is_some_and(|info| info.unique_bytes.is_some() && !info.exact) {
            sizes::want(cx, id);
        }
        out.extend(info);
    }
    Ok(out)
}

/// Loads what the entry of a node in a list needs. What damage keeps from being read is not shown.
async fn load_for_list(cx: &Cx, id: NodeId) -> Result<(), Error> {
    // A fold that is published between two steps brings a tree with other rows and properties in
    // memory: what an entry needs is looked at in one go, without waiting in between.
    loop {
        let (known, props, checkpoint) = {
            let mut core = cx.core();
            let pool = core.pool()?;
            let tree = &pool.tree;
            let known = tree.node(id).is_none_or(|node| !node.rooted || !node.is_live())
                || tree.unique(id).is_some();
            (known, tree.is_props_loaded(id), pool.cp.seq)
        };
        if known && props {
            return Ok(());
        }
        if !known {
            load_rows_for(cx, &[id]).await?;
        }
        let unreadable = load_props(cx, id).await.is_err();
        let pool_stays = cx.core().pool()?.cp.seq == checkpoint;
        if pool_stays && (unreadable || props) {
            return Ok(());
        }
    }
}

fn node_info(cx: &Cx, id: NodeId) -> Result<Option<NodeInfo>, Error> {
    let mut core = cx.core();
    let (volume, is_head) = match core.pool()?.tree.node(id) {
        Some(node) => (node.entry.volume, node.is_head()),
        None => return Ok(None),
    };
    let (open_readers, open_writers) = core.users(volume, (!is_head).then_some(id));
    let (known, tree) = core.sizes_and_tree()?;
    let Some(node) = tree.node(id) else { return Ok(None) };
    let entry = &node.entry;
    let unique = unique(known, tree, id);
    let props = node.props().map(|p| p.map.iter().map(|(k, v)| (k.clone(), v.clone())).collect());
    Ok(Some(NodeInfo {
        name: tree.full_name(id).unwrap_or_else(|| format!("#{id}")),
        node: id,
        volume,
        kind: entry.kind,
        live: node.is_live(),
        reclaimed_percent: tree.reclaimed_percent(id),
        size_bytes: entry.size_bytes,
        referenced_bytes: tree.referenced(id).map(|count| count.data * BLOCK),
        unique_bytes: unique.map(|bounds| bounds.freed.data * BLOCK),
        unique_bytes_max: unique.map(|bounds| bounds.most * BLOCK),
        unique_metadata_bytes: unique.map(|bounds| bounds.freed.map * BLOCK),
        exact: unique.is_some_and(|bounds| bounds.exact),
        created_ns: entry.created_ns,
        expiry_ns: entry.expiry_ns,
        origin: tree.origin_name(id),
        parent: (entry.parent.0 != 0).then_some(entry.parent),
        consistency: entry.consistency,
        freeze_ms: entry.freeze_ms,
        group: entry.group,
        holds: entry.holds,
        props: props.unwrap_or_default(),
        rollback_gen: entry.rollback_gen,
        open_readers,
        open_writers,
    }))
}

/// A lockstep walk of two maps.
struct Diff {
    cx: Cx,
    family: FamilyId,
    /// First block that is looked at.
    from: u64,
    limit: usize,
    /// `(first block, blocks)`.
    out: Vec<(u64, u64)>,
    /// Where to go on, once the limit was reached.
    next: Option<u64>,
}

/// The same place in both maps; a slot may point to a node of a lower level (a root that has
/// grown since), which stands for child 0.
#[derive(Clone, Copy)]
struct Sides {
    level: u8,
    index: u64,
    a: (Slot, u8),
    b: (Slot, u8),
}

pub(crate) async fn diff(cx: &Cx, from: String, to: String, offset: u64, limit: usize) -> OpResult {
    fold_if_writable(cx).await?;
    let _pin = Pin::new(cx);
    let (a, b, family, size_bytes) = {
        let mut core = cx.core();
        let pool = core.pool()?;
        let (a, b) = (pool.tree.resolve(&from)?, pool.tree.resolve(&to)?);
        let family = |id| pool.tree.node(id).map(|node| node.entry.family);
        if family(a) != family(b) {
            return Err(Error::Invalid(format!("{from} and {to} have no common origin")));
        }
        let size = |id| pool.tree.node(id).map_or(0, |node| node.entry.size_bytes);
        let root = |id| pool.layer_chain(id).1;
        let family = family(a).unwrap_or_default();
        (root(a), root(b), family, size(a).max(size(b)))
    };
    let mut diff = Diff {
        cx: cx.clone(),
        family,
        from: offset / BLOCK,
        limit: limit.clamp(1, 1 << 16),
        out: Vec::new(),
        next: None,
    };
    let level = a.level.max(b.level);
    let side = |root: &Root| (root_slot(root), root.level);
    diff.walk(Sides { level, index: 0, a: side(&a), b: side(&b) }).await?;
    let clip = |(first, blocks): (u64, u64)| {
        let start = first * BLOCK;
        let end = ((first + blocks) * BLOCK).min(size_bytes);
        (start < end).then(|| (start, end - start))
    };
    Ok(Reply::Diff {
        extents: diff.out.into_iter().filter_map(clip).collect(),
        next: diff.next.map(|block| block * BLOCK).filter(|&at| at < size_bytes),
    })
}

impl Diff {
    fn push(&mut self, block: u64) {
        let full = self.out.len() == self.limit;
        match self.out.last_mut() {
            Some((first, blocks)) if *first + *blocks == block => *blocks += 1,
            _ if full => self.next = Some(block),
            _ => self.out.push((block, 1)),
        }
    }

    fn walk<'a>(
        &'a mut self,
        at: Sides,
    ) -> StdPin<Box<dyn Future<Output = Result<(), Error>> + 'a>> {
        Box::pin(async move {
            let end = (at.index + 1) * span_blocks(at.level);
            let (a, b) = (at.a.0, at.b.0);
            let same = a.phys == b.phys && (a.is_mapped() || a.is_lost() == b.is_lost());
            if self.next.is_some() || end <= self.from || (same && at.a.1 == at.b.1) {
                return Ok(());
            }
            let a = self.open(at.level, at.index, at.a).await?;
            let b = self.open(at.level, at.index, at.b).await?;
            for slot in 0..FANOUT {
                let index = (at.index << FANOUT_BITS) + slot as u64;
                if at.level == 0 {
                    let (x, y) = (a[slot].0, b[slot].0);
                    let changed = x.phys != y.phys || x.is_lost() != y.is_lost();
                    if changed && index >= self.from && self.next.is_none() {
                        self.push(index);
                    }
                } else {
                    let below = Sides { level: at.level - 1, index, a: a[slot], b: b[slot] };
                    self.walk(below).await?;
                }
            }
            Ok(())
        })
    }

    /// The slots of one side, each with the level of what it points to.
    async fn open(
        &self,
        level: u8,
        index: u64,
        (slot, slot_level): (Slot, u8),
    ) -> Result<Vec<(Slot, u8)>, Error> {
        let below = level.saturating_sub(1);
        let hole = (Slot::hole(slot.birth), below);
        let mut slots = vec![hole; FANOUT];
        if !slot.is_mapped() {
            slots.fill((slot, below));
        } else if slot_level < level {
            slots[0] = (slot, slot_level);
        } else {
            let node = load(&self.cx, self.family, level, index, slot).await?;
            slots = node.slots().iter().map(|s| (*s, below)).collect();
        }
        Ok(slots)
    }
}
