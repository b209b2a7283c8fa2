//! Answers about the pool: listings and sizes.

use crate::api::Reply;
use crate::core::OpResult;
use crate::error::Error;
use crate::fold::fold_if_writable;
use crate::info::NodeInfo;
use crate::loading::{load_props, load_rows_for};
use crate::size_state::unique;
use crate::sizes::{self, set_size};
use crate::task::Cx;
use cow_format::entry::NodeKind;
use cow_format::{BLOCK_SIZE, NodeId};

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

/// An opening asks this: it must not cost more for every snapshot with properties of its own.
pub(crate) async fn list_marked(cx: &Cx, prop: &str, prefix: &str) -> OpResult {
    let ids: Vec<NodeId> = {
        let mut core = cx.core();
        let tree = &core.pool()?.tree;
        let asked = tree.iter().filter(|node| {
            let entry = &node.entry;
            node.is_live()
                && (node.is_head() || node.is_snapshot() && entry.name.starts_with(prefix))
        });
        asked.map(|node| node.entry.id).filter(|id| tree.has_props(*id)).collect()
    };
    let mut infos = node_infos(cx, ids).await?;
    infos.retain(|info| info.props.iter().any(|(key, _)| key == prop));
    Ok(Reply::List(infos))
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
    let pool = core.pool()?;
    let charged_bytes = if is_head { pool.charge(volume) * BLOCK } else { 0 };
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
        charged_bytes,
        rollback_gen: entry.rollback_gen,
        open_readers,
        open_writers,
    }))
}
