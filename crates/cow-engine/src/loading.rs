//! Kill rows and properties on demand: what a listing or a verb needs is read into the tree.

use crate::error::Error;
use crate::fold::read_chain;
use crate::task::{Cx, join_all};
use cow_format::NodeId;
use cow_format::blob::BlobKind;
use std::collections::BTreeSet;

/// Properties that are read at once.
const WINDOW: usize = 64;

/// Brings the properties of a node into memory.
pub(crate) async fn load_props(cx: &Cx, id: NodeId) -> Result<(), Error> {
    loop {
        let (owner, blob) = {
            let mut core = cx.core();
            let tree = &mut core.pool()?.tree;
            if tree.is_props_loaded(id) {
                return Ok(());
            }
            tree.props_blob(id)
        };
        let payload = read_chain(cx, BlobKind::Props, owner, blob).await;
        let mut core = cx.core();
        let tree = &mut core.pool()?.tree;
        // A fold may have written them anew meanwhile; then this answer is of no use.
        if !tree.is_props_loaded(id) && tree.props_blob(id) == (owner, blob) {
            tree.load_props(id, &payload?.0)?;
        }
    }
}

/// Brings the properties of volumes with policies into memory, for what they say about space. Damage keeps no
/// pool from being opened: nothing is kept for a volume whose properties cannot be read.
pub(crate) async fn load_policies(cx: &Cx) -> Result<(), Error> {
    let heads: Vec<NodeId> = {
        let mut core = cx.core();
        let tree = &core.pool()?.tree;
        let heads = tree.volumes().map(|(_, volume)| volume.head);
        let may_have = |head| tree.node(head).is_some_and(|node| node.entry.policy);
        heads.filter(|&head| may_have(head) && !tree.is_props_loaded(head)).collect()
    };
    for window in heads.chunks(WINDOW) {
        join_all(window.iter().map(|&head| load_props(cx, head))).await;
    }
    cx.core().pool()?.find_guarantees();
    Ok(())
}

/// Brings the kill rows that the size of a set needs into memory, but for those that cannot be
/// read: without them the size is not exact, and damage must not keep anybody from deleting.
pub(crate) async fn load_rows_for(cx: &Cx, ids: &[NodeId]) -> Result<(), Error> {
    let mut unreadable = BTreeSet::new();
    // Each round may be overtaken by the publication of a fold, whose tree has its own rows.
    loop {
        let mut missing = cx.core().pool()?.tree.rows_needed_for_set(ids);
        missing.retain(|id| !unreadable.contains(id));
        if missing.is_empty() {
            return Ok(());
        }
        for id in missing {
            if load_row(cx, id).await.is_err() {
                unreadable.insert(id);
            }
        }
    }
}

/// Brings the kill row of a node into memory.
async fn load_row(cx: &Cx, id: NodeId) -> Result<(), Error> {
    loop {
        let blob = {
            let mut core = cx.core();
            let tree = &core.pool()?.tree;
            if tree.is_row_loaded(id) {
                return Ok(());
            }
            tree.row_blob(id)
        };
        let payload = read_chain(cx, BlobKind::Row, id, blob).await;
        let mut core = cx.core();
        let tree = &mut core.pool()?.tree;
        // A fold may have written it anew meanwhile; then this answer is of no use.
        if !tree.is_row_loaded(id) && tree.row_blob(id) == blob {
            tree.load_row(id, &payload?.0)?;
        }
    }
}
