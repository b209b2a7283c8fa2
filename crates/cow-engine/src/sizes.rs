//! What deletes would free, at once or after a walk, now or in the background.

use crate::api::Reply;
use crate::core::OpResult;
use crate::error::Error;
use crate::exact;
use crate::fold::fold_if_writable;
use crate::info::SetSize;
use crate::loading::load_rows_for;
use crate::task::Cx;
use cow_format::{BLOCK_SIZE, NodeId};
use std::collections::BTreeSet;

const BLOCK: u64 = BLOCK_SIZE as u64;
/// Questions that wait for a walk.
const MAX_QUEUED: usize = 1 << 12;
/// Attempts of one who waits; each may be overtaken by a fold.
const ATTEMPTS: usize = 8;

/// What deleting exactly these nodes together would free, as of the last fold. To `wait` is to walk
/// where the counts leave bounds.
pub(crate) async fn set_size(cx: &Cx, ids: &[NodeId], wait: bool) -> Result<SetSize, Error> {
    if wait {
        make_exact(cx, ids).await?;
    }
    load_rows_for(cx, ids).await?;
    let mut core = cx.core();
    let as_of = core.pool()?.cp.tail.seq;
    let (sizes, tree) = core.sizes_and_tree()?;
    let bounds = sizes.bounds(tree, ids);
    Ok(SetSize {
        names: ids.iter().filter_map(|&id| tree.full_name(id)).collect(),
        data_bytes: bounds.freed.data * BLOCK,
        metadata_bytes: bounds.freed.map * BLOCK,
        exact: bounds.exact,
        data_bytes_max: bounds.most * BLOCK,
        as_of,
    })
}

/// Names snapshots whose deletion frees so many bytes of data.
pub(crate) async fn free_up(cx: &Cx, bytes: u64) -> OpResult {
    fold_if_writable(cx).await?;
    let candidates = {
        let mut core = cx.core();
        let now_ns = core.wall_ns;
        let open: BTreeSet<NodeId> = core.exports.values().filter_map(|e| e.snapshot).collect();
        core.pool()?.tree.free_up_candidates(now_ns, &open)
    };
    load_rows_for(cx, &candidates).await?;
    let named = {
        let mut core = cx.core();
        let tree = &core.pool()?.tree;
        tree.free_up(bytes.div_ceil(BLOCK), &candidates).unwrap_or(candidates)
    };
    set_size(cx, &named, true).await.map(Reply::SetSize)
}

/// Walks until the size of the set is exact, or cannot be made so.
async fn make_exact(cx: &Cx, ids: &[NodeId]) -> Result<(), Error> {
    for _ in 0..ATTEMPTS {
        load_rows_for(cx, ids).await?;
        let parts = {
            let mut core = cx.core();
            let (sizes, tree) = core.sizes_and_tree()?;
            let parts = tree.components(ids).into_iter();
            parts.filter(|part| !sizes.part(tree, part).exact).collect::<Vec<_>>()
        };
        if parts.is_empty() {
            return Ok(());
        }
        for part in parts {
            match exact::count(cx, &part).await {
                Ok(Some(blocks)) => cx.core().sizes.remember(part, blocks),
                // Damage, or somebody needs the space that the walk keeps: the bounds must do.
                Ok(None) | Err(_) => return Ok(()),
            }
        }
    }
    Ok(())
}

/// Has the size of a node made exact in the background.
pub(crate) fn want(cx: &Cx, id: NodeId) {
    let mut core = cx.core();
    let sizes = &mut core.sizes;
    if sizes.queue.len() < MAX_QUEUED && sizes.queued.insert(id) {
        sizes.queue.push_back(id);
    }
    if !std::mem::replace(&mut sizes.running, true) {
        drop(core);
        let task_cx = cx.clone();
        cx.spawn(async move { run_queue(&task_cx).await });
    }
}

async fn run_queue(cx: &Cx) {
    loop {
        let next = {
            let mut core = cx.core();
            let open = !core.closing && core.poisoned.is_none();
            let sizes = &mut core.sizes;
            let next = if open { sizes.queue.pop_front() } else { None };
            match next {
                Some(id) => sizes.queued.remove(&id),
                None => {
                    sizes.running = false;
                    sizes.queue.clear();
                    sizes.queued.clear();
                    return;
                }
            };
            next
        };
        if let Some(id) = next {
            // Who asks again learns whether it came to anything.
            let _ = make_exact(cx, &[id]).await;
        }
    }
}
