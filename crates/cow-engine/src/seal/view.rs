//! What is hashed: a snapshot, or a head as it is at one moment.
//!
//! A snapshot needs no hold. Whatever a fold frees was let go by heads or by deleted nodes, so that
//! the blocks of a snapshot stay as long as it lives; before each slice the sealer looks whether it
//! still does, and a delete ends the hashing instead of waiting for it. A pin covers the slice.
//!
//! Of a head it is the map that a fold publishes, all of which was acknowledged before; no fold
//! changes a map in place. What the head lets go of from then on must not be given out again while
//! the view stands: that is a pin for longer than one read, so it is given up as soon as anybody
//! waits for space, or when much of it has piled up.

use crate::error::Error;
use crate::fold::fold_now;
use crate::seal_state::{HeadMap, PagesOf, Wanted};
use crate::task::Cx;
use cow_format::entry::Root;
use cow_format::{BLOCK_SIZE, FamilyId, Gen, NodeId};

/// Folds that the view of a head waits for, if its node goes away under it.
const MAX_ROUNDS: usize = 4;

/// A state of a volume that does not change. Dropping it lets go of what it holds.
pub(super) struct View {
    cx: Cx,
    pub(super) name: String,
    pub(super) node: NodeId,
    pub(super) is_snapshot: bool,
    pub(super) family: FamilyId,
    pub(super) label: Gen,
    pub(super) size_bytes: u64,
    /// Its map; `None` when it must be read through layers that cannot be folded.
    pub(super) map: Option<Root>,
    hold: Option<u64>,
}

impl Drop for View {
    fn drop(&mut self) {
        if let Some(id) = self.hold {
            self.cx.core().release_view(id);
        }
    }
}

/// The state of `name` right now.
pub(super) async fn take(cx: &Cx, name: &str) -> Result<View, Error> {
    for _ in 0..MAX_ROUNDS {
        let (node, is_snapshot) = {
            let mut core = cx.core();
            let can_fold = core.writable().is_ok();
            let pool = core.pool()?;
            let node = pool.tree.resolve(name)?;
            let Some(found) = pool.tree.node(node) else { continue };
            let (is_snapshot, size_bytes) = (found.is_snapshot(), found.entry.size_bytes);
            let label = found.entry.label_gen;
            let (layers, root, family) = pool.layer_chain(node);
            if layers.is_empty() || !can_fold {
                let map = layers.is_empty().then_some(root);
                let hold = (!is_snapshot && can_fold).then(|| core.hold_view());
                let (cx, name) = (cx.clone(), name.to_owned());
                return Ok(View {
                    cx,
                    name,
                    node,
                    is_snapshot,
                    family,
                    label,
                    size_bytes,
                    map,
                    hold,
                });
            }
            (node, is_snapshot)
        };
        if is_snapshot {
            fold_now(cx).await?;
        } else if let Some((map, hold)) = published(cx, node).await? {
            return Ok(View {
                cx: cx.clone(),
                name: name.to_owned(),
                node,
                is_snapshot: false,
                family: map.family,
                label: map.label,
                size_bytes: map.size_bytes,
                map: Some(map.root),
                hold: Some(hold),
            });
        }
    }
    Err(Error::Busy(format!("{name} is replaced again and again: try again")))
}

/// The map of a head as the next fold publishes it, held; `None` when the head went away.
async fn published(cx: &Cx, node: NodeId) -> Result<Option<(HeadMap, u64)>, Error> {
    let id = {
        let mut core = cx.core();
        let id = core.seal.new_view();
        let since = core.fold.started;
        core.seal.wanted.insert(id, Wanted { node, since, found: None });
        id
    };
    let folded = fold_now(cx).await;
    let found = cx.core().seal.wanted.remove(&id).and_then(|wanted| wanted.found);
    if let (Err(error), None) = (folded, found) {
        return Err(error);
    }
    Ok(found.map(|map| (map, id)))
}

impl View {
    /// Blocks of the volume.
    pub(super) fn blocks(&self) -> u64 {
        self.size_bytes.div_ceil(BLOCK_SIZE as u64)
    }

    pub(super) fn pages_of(&self) -> PagesOf {
        PagesOf { node: self.node, map: self.map, size_bytes: self.size_bytes }
    }

    /// Whether it is still there to be read. Asked in the same step in which a slice is pinned.
    pub(super) fn check(&self) -> Result<(), Error> {
        let mut core = self.cx.core();
        if core.closing {
            return Err(Error::Invalid("the pool is being closed".into()));
        }
        let name = &self.name;
        if self.is_snapshot {
            let live = core.pool()?.tree.node(self.node).is_some_and(|node| node.is_snapshot());
            let gone = || Error::NotFound(format!("{name} (deleted meanwhile)"));
            return if live { Ok(()) } else { Err(gone()) };
        }
        let Some(id) = self.hold else { return Ok(()) };
        if core.pool.as_ref().is_some_and(|pool| {
            let alloc = &pool.alloc;
            alloc.pending_blocks() > alloc.free_blocks() / 4
        }) {
            core.release_view(id);
        }
        if core.seal.held.contains_key(&id) {
            return Ok(());
        }
        let hint = "take a snapshot and ask for its root";
        Err(Error::Busy(format!("{name}: space that it gave up meanwhile is needed; {hint}")))
    }
}
