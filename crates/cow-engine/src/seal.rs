//! The sealer: content roots of snapshots and, at one moment, of heads (cow-merkle).
//!
//! ```text
//! view    what is hashed, and what keeps it from going away
//! scan    where its map has something, or something new since an ancestor
//! store   pages, in bounded memory        build  slice by slice to the root
//! pace    how fast                        idle   snapshots that nobody asked about
//! ```
//!
//! The root of a snapshot is a function of content that does not change. So it may be stored at any
//! later fold, losing it costs time only, and no crash can make it wrong. A head has none: what is
//! computed of it is the answer to a question. Nothing here is in the journal.

mod build;
mod idle;
mod pace;
mod scan;
mod store;
mod view;

pub(crate) use idle::start_if_due;

use crate::api::Reply;
use crate::core::{Core, OpResult, Pool};
use crate::error::Error;
use crate::seal_state::PageSet;
use crate::task::Cx;
use cow_format::NodeId;
use cow_merkle::{Digest, Page, top_level};
use pace::Pace;
use std::rc::Rc;
use view::View;

/// The content root of `VOL@SNAP`, or of `VOL` at a moment after this call.
pub(crate) async fn root(cx: &Cx, name: String) -> OpResult {
    if let Some(reply) = known_reply(cx, &name)? {
        return Ok(reply);
    }
    let _turn = Turn::take(cx).await;
    if let Some(reply) = known_reply(cx, &name)? {
        return Ok(reply);
    }
    let view = view::take(cx, &name).await?;
    let set = pages(cx, &view, &Pace::Asked).await?;
    Ok(Reply::Root { root: set.root, size_bytes: view.size_bytes })
}

/// A page of the tree of hashes: its 128 digests.
pub(crate) async fn page(cx: &Cx, name: String, level: u8, index: u64) -> OpResult {
    let _turn = Turn::take(cx).await;
    let view = view::take(cx, &name).await?;
    let top = top_level(view.size_bytes).unwrap_or(cow_merkle::MAX_LEVEL);
    let pages_in_level = view.blocks().div_ceil(128u64.saturating_pow(u32::from(level)));
    if !(1..=top).contains(&level) || index >= pages_in_level.max(1) {
        return Err(Error::Invalid(format!("{name} has no page {index} of level {level}")));
    }
    let set = pages(cx, &view, &Pace::Asked).await?;
    let page = if level < set.floor {
        build::page_of(cx, &view, &Pace::Asked, level, index).await?
    } else {
        let kept = set.pages.get(&(level, index));
        kept.map_or_else(|| Page::zero(level, index), |page| Page::clone(page))
    };
    Ok(Reply::MerklePage(page.bytes().to_vec()))
}

fn known_reply(cx: &Cx, name: &str) -> Result<Option<Reply>, Error> {
    let mut core = cx.core();
    let node = core.pool()?.tree.resolve(name)?;
    let Some(root) = core.known_root(node) else { return Ok(None) };
    let size_bytes = core.pool()?.tree.node(node).map_or(0, |node| node.entry.size_bytes);
    Ok(Some(Reply::Root { root, size_bytes }))
}

/// The pages of a view: those in memory, else made now. The root of a snapshot is noted, and must
/// be the one that was noted before.
async fn pages(cx: &Cx, view: &View, pace: &Pace) -> Result<Rc<PageSet>, Error> {
    let kept = cx.core().seal.find(view.pages_of());
    let limit = cx.core().config.page_bytes;
    let set = match kept {
        // Perhaps made while it was a head, which has no root to be noted.
        Some(set) => set,
        // Half, so that two that are compared have room.
        None => Rc::new(build::build(cx, view, pace, limit / 2).await?),
    };
    view.check()?;
    let mut core = cx.core();
    if view.is_snapshot {
        let known = core.known_root(view.node);
        if let Some(known) = known.filter(|known| *known != set.root) {
            let (known, root) = (Digest(known), Digest(set.root));
            let name = &view.name;
            return Err(Error::Corrupt(format!("{name}: content root {root}, stored {known}")));
        }
        let is_new = known.is_none() && core.writable().is_ok();
        if is_new {
            core.seal.unsaved.insert(view.node, set.root);
        }
    }
    core.seal.keep(Rc::clone(&set), limit);
    Ok(set)
}

impl Core {
    /// The root of a snapshot, if it was computed before.
    fn known_root(&self, id: NodeId) -> Option<[u8; 32]> {
        let node = self.pool.as_ref()?.tree.node(id).filter(|node| node.is_snapshot())?;
        let unsaved = self.seal.unsaved.get(&id).copied();
        unsaved.or_else(|| node.entry.merkle.as_deref().copied())
    }

    /// A fold freezes: its table is to have the roots that there are.
    pub(crate) fn save_roots(&mut self) {
        let Some(Pool { tree, .. }) = &mut self.pool else { return };
        self.seal.unsaved.retain(|&id, root| {
            let live = tree.node(id).is_some_and(|node| node.is_snapshot());
            if live {
                tree.set_merkle(id, *root);
            }
            live
        });
    }

    /// A fold is published: what its table has is saved.
    pub(crate) fn roots_saved(&mut self) {
        let Some(Pool { tree, .. }) = &self.pool else { return };
        let saved = |id| tree.node(id).is_none_or(|node| node.entry.merkle.is_some());
        self.seal.unsaved.retain(|&id, _| !saved(id));
        self.seal.look = true;
    }
}

/// The right to hash for somebody who asked.
struct Turn(Cx);

impl Turn {
    async fn take(cx: &Cx) -> Self {
        loop {
            {
                let mut core = cx.core();
                if !core.seal.busy {
                    core.seal.busy = true;
                    return Self(cx.clone());
                }
            }
            cx.wait(|core| &mut core.seal.wait).await;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut core = self.0.core();
        core.seal.busy = false;
        core.notify(|core| &mut core.seal.wait);
    }
}
