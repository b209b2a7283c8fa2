//! Verbs on the snapshot tree: plan, sequence, flush, answer. Each costs one frame and one device
//! flush, whatever the size of the volume.

use crate::admit::{Promise, admit};
use crate::api::{NewVolume, PropEdit, Reply, SnapOptions, SnapTarget};
use crate::core::{Core, OpResult, Pool, SequenceError};
use crate::error::{Error, SpaceKind};
use crate::flush::flush_to;
use crate::fold::fold_now;
use crate::loading::load_props;
use crate::locks::lock_range;
use crate::punch::wait_punched;
use crate::space::Tier;
use crate::space_wait::{Lack, Wait};
use crate::task::Cx;
use cow_format::entry::NodeKind;
use cow_format::record::{PropChange, Record, Replaced, RollbackMember};
use cow_format::{BLOCK_SIZE, Lba, NodeId, VolumeId, mutant};
use cow_journal::Reserve;
use cow_snaptree::{Tree, TreeError, check_targets};
use std::cell::RefCell;
use std::collections::BTreeSet;

/// Layers on a path that an early fold is asked for at, and that the next snapshot waits at.
const EARLY_FOLD_LAYERS: usize = 8;
const MAX_LAYERS: usize = 64;
/// The same for nodes that no fold has seen, most of which have no layer.
const EARLY_FOLD_NODES: usize = 512;
const MAX_NODES: usize = 4096;

/// What a plan may use.
pub(crate) type Plan<'a> = dyn Fn(&mut Core) -> Result<Vec<Record>, TreeError> + 'a;

fn tree(core: &mut Core) -> Result<&mut Tree, TreeError> {
    match &mut core.pool {
        Some(pool) => Ok(&mut pool.tree),
        None => Err(TreeError::Invalid("the pool is not open".into())),
    }
}

/// What a plan cannot be carried out without.
enum Missing {
    Props(NodeId),
    Blocks(u64),
    /// Blocks to keep what the records promise to volumes.
    Guarantee(u64),
    Fold,
}

/// Plans, sequences and flushes. What the fold will need for it is admitted first, for the records
/// as they are planned; `blocks` are admitted in any case, and none asks for the tier of what must
/// always work.
pub(crate) async fn commit(
    cx: &Cx,
    blocks: Option<u64>,
    reserve: Reserve,
    plan: &Plan<'_>,
) -> Result<Vec<Record>, Error> {
    let tier = if blocks.is_some() { Tier::Meta } else { Tier::Reclaim };
    let mut promise = match blocks {
        Some(blocks) => Some(admit(cx, 0, blocks, tier).await?),
        None => None,
    };
    let mut rounds = 0;
    let mut wait = Wait::new(cx);
    let (records, seq) = loop {
        let missing = {
            let mut core = cx.core();
            core.writable()?;
            match plan(&mut core) {
                Ok(records) => {
                    let need = core.pool()?.blocks_for_records(&records);
                    // What must always work is not refused for the sake of a reserve.
                    let missing = if blocks.is_some() { core.missing_for(&records) } else { 0 };
                    if need > promise.as_ref().map_or(0, Promise::blocks) {
                        Missing::Blocks(need)
                    } else if missing > 0 {
                        Missing::Guarantee(missing)
                    } else {
                        if mutant::is("twoframes") {
                            drop(core.sequence(&[Record::Marker], reserve));
                            core.pool()?.journal.seal();
                        }
                        match core.sequence(&records, reserve) {
                            Ok(seq) => break (records, seq),
                            Err(SequenceError::Refused(error)) => return Err(error),
                            Err(SequenceError::RingFull) => Missing::Fold,
                        }
                    }
                }
                Err(TreeError::NotLoaded(id)) => Missing::Props(id),
                // The next fold adds a chunk to the table, if there is room for one.
                Err(TreeError::NoSlots) if rounds < 2 => Missing::Fold,
                Err(error) => return Err(error.into()),
            }
        };
        match missing {
            Missing::Props(id) => load_props(cx, id).await?,
            Missing::Blocks(need) => {
                drop(promise.take());
                promise = Some(admit(cx, 0, need, tier).await?);
            }
            Missing::Guarantee(missing) => {
                wait.once(Lack::Pool, None).await.map_err(|error| match error {
                    Error::NoSpace(SpaceKind::Pool) => {
                        let missing_bytes = missing * BLOCK_SIZE as u64;
                        Error::NoSpace(SpaceKind::Reserve { missing_bytes })
                    }
                    error => error,
                })?;
            }
            Missing::Fold => {
                rounds += 1;
                fold_now(cx).await?;
            }
        }
    };
    drop(promise);
    flush_to(cx, seq).await?;
    if mutant::is("twoflushes") {
        let _ = cx.device_flush().await;
    }
    Ok(records)
}

/// Waits while too many unfolded layers lie on the path of `node`.
async fn wait_for_depth(cx: &Cx, name: &str) -> Result<(), Error> {
    loop {
        {
            let mut core = cx.core();
            let pool = core.pool()?;
            let Ok(node) = pool.tree.resolve(name) else { return Ok(()) };
            let (layers, nodes) = pool.depth(node);
            if layers >= EARLY_FOLD_LAYERS || nodes >= EARLY_FOLD_NODES {
                core.fold.soon = true;
            }
            if layers < MAX_LAYERS && nodes < MAX_NODES {
                return Ok(());
            }
        }
        fold_now(cx).await?;
    }
}

impl Pool {
    /// Nodes on the path of `node` that no fold has seen, and how many of them have a layer.
    fn depth(&self, node: NodeId) -> (usize, usize) {
        let (chain, _, _) = self.layer_chain(node);
        let (mut nodes, mut at) = (0, node);
        while let Some(current) = self.tree.node(at).filter(|n| !n.rooted && nodes < MAX_NODES) {
            nodes += 1;
            at = current.entry.parent;
        }
        (chain.len(), nodes)
    }

    /// Whether a head still is what its parent is, and that is there to stay: of a deleted parent
    /// the head is all that is left.
    fn is_unchanged(&self, head: NodeId) -> bool {
        let Some(node) = self.tree.node(head) else { return false };
        let Some(parent) = self.tree.node(node.entry.parent) else { return false };
        if !parent.is_live() {
            return false;
        }
        if self.has_layer(head) || node.entry.size_bytes != parent.entry.size_bytes {
            return false;
        }
        !node.rooted || (parent.rooted && node.entry.root == parent.entry.root)
    }
}

pub(crate) async fn create_volumes(
    cx: &Cx,
    volumes: Vec<NewVolume>,
    edits: Vec<PropEdit>,
) -> OpResult {
    let blocks = 6 + 2 * volumes.len() + 2 * edits.len();
    let records = commit(cx, Some(blocks as u64), Reserve::Normal, &|core| {
        let wall_ns = core.wall_ns;
        let tree = tree(core)?;
        let mut records = tree.plan_edits(&edits)?;
        records.extend(tree.plan_create_volumes(&volumes, wall_ns)?);
        Ok(records)
    })
    .await?;
    let nodes = records.iter().filter_map(new_head).collect();
    Ok(Reply::Nodes(nodes))
}

/// The head of the volume that a record makes. Names are no way to find it: by the time the record is
/// durable somebody may have deleted what it made, and made another of that name.
fn new_head(record: &Record) -> Option<NodeId> {
    match record {
        Record::VolCreate { node, .. } | Record::Clone { node, .. } => Some(*node),
        _ => None,
    }
}

pub(crate) async fn snapshot(cx: &Cx, targets: Vec<SnapTarget>, options: SnapOptions) -> OpResult {
    check_targets(targets.len())?;
    for target in &targets {
        wait_for_depth(cx, &target.volume).await?;
    }
    let names: Vec<(&str, &str)> = pairs(&targets);
    let edits = options.edits;
    let limits = unreadable(cx, &targets).await?;
    let options = cow_snaptree::SnapOptions {
        kind: options.kind,
        consistency: options.consistency,
        freeze_ms: options.freeze_ms,
        expiry_ns: options.expiry_ns,
        props: options.props,
        unlimited: limits.volumes,
        ungrouped: limits.pool,
    };
    let blocks = 8 + 2 * targets.len() + 2 * edits.len();
    let nodes = RefCell::new(Vec::new());
    commit(cx, Some(blocks as u64), Reserve::Normal, &|core| {
        let wall_ns = core.wall_ns;
        let tree = tree(core)?;
        let mut records = tree.plan_edits(&edits)?;
        records.extend(tree.plan_snapshot(&names, &options, wall_ns)?);
        // As for `new_head`. The heads of this moment become the snapshots.
        nodes.replace(names.iter().filter_map(|(volume, _)| head_of(tree, volume)).collect());
        Ok(records)
    })
    .await?;
    Ok(Reply::Nodes(nodes.into_inner()))
}

fn head_of(tree: &Tree, volume: &str) -> Option<NodeId> {
    tree.head(tree.volume_by_name(volume)?)
}

/// Whose limits cannot be read.
#[derive(Default)]
struct Unreadable {
    volumes: BTreeSet<VolumeId>,
    /// Those of groups, which are the pool's.
    pool: bool,
}

/// Brings the limits of volumes and of their groups into memory. Those that cannot be read are
/// returned: damage must not keep anybody from taking a snapshot.
async fn unreadable(cx: &Cx, targets: &[SnapTarget]) -> Result<Unreadable, Error> {
    let (mut found, mut ids) = (Unreadable::default(), Vec::new());
    for target in targets {
        let head = {
            let mut core = cx.core();
            let tree = &core.pool()?.tree;
            let volume = tree.volume_by_name(&target.volume);
            volume.and_then(|id| Some((id, tree.head(id)?)))
        };
        if let Some((volume, head)) = head {
            ids.push(volume);
            if load_props(cx, head).await.is_err() {
                found.volumes.insert(volume);
            }
        }
    }
    found.pool = load_props(cx, cow_snaptree::POOL_NODE).await.is_err();
    if found.pool {
        return Ok(found);
    }
    // What a fold publishes meanwhile is asked for once more where the limits are checked.
    let members = cx.core().pool()?.tree.unknown_members(&ids).unwrap_or_default();
    for head in members {
        if load_props(cx, head).await.is_err() {
            let mut core = cx.core();
            let volume = core.pool()?.tree.node(head).map(|node| node.entry.volume);
            found.volumes.extend(volume);
        }
    }
    Ok(found)
}

fn pairs(targets: &[SnapTarget]) -> Vec<(&str, &str)> {
    targets.iter().map(|t| (t.volume.as_str(), t.snapshot.as_str())).collect()
}

fn resolve(cx: &Cx, name: &str) -> Result<NodeId, Error> {
    Ok(cx.core().pool()?.tree.resolve(name)?)
}

pub(crate) async fn rollback(
    cx: &Cx,
    targets: Vec<SnapTarget>,
    discard_current: bool,
    force: bool,
    edits: Vec<PropEdit>,
) -> OpResult {
    check_targets(targets.len())?;
    let names: Vec<(&str, &str)> = pairs(&targets);
    for (volume, _) in &names {
        wait_for_depth(cx, volume).await?;
    }
    let kept = RefCell::new(Vec::new());
    commit(cx, None, Reserve::Privileged, &|core| {
        let wall_ns = core.wall_ns;
        for (volume, _) in &names {
            refuse_writers(core, volume, force)?;
        }
        let pool = core.pool.as_ref().ok_or(TreeError::Invalid("not open".into()))?;
        let unchanged = |head| pool.is_unchanged(head);
        let mut records = pool.tree.plan_edits(&edits)?;
        records.extend(pool.tree.plan_rollback(&names, discard_current, wall_ns, unchanged)?);
        kept.replace(kept_by(&pool.tree, &records));
        Ok(spare_open_nodes(core, records))
    })
    .await?;
    Ok(rolled_back(cx, kept.into_inner()))
}

pub(crate) async fn undo(cx: &Cx, volume: String, force: bool) -> OpResult {
    wait_for_depth(cx, &volume).await?;
    let kept = RefCell::new(Vec::new());
    commit(cx, None, Reserve::Privileged, &|core| {
        let wall_ns = core.wall_ns;
        refuse_writers(core, &volume, force)?;
        let tree = tree(core)?;
        let records = tree.plan_undo(&volume, wall_ns)?;
        kept.replace(kept_by(tree, &records));
        Ok(spare_open_nodes(core, records))
    })
    .await?;
    Ok(rolled_back(cx, kept.into_inner()))
}

/// Old undo snapshots that a client reads are not deleted on the way.
fn spare_open_nodes(core: &Core, mut records: Vec<Record>) -> Vec<Record> {
    for record in &mut records {
        if let Record::NodeDelete { nodes } = record {
            nodes.retain(|node| !core.exports.values().any(|e| e.snapshot == Some(*node)));
        }
    }
    records.retain(|record| !matches!(record, Record::NodeDelete { nodes } if nodes.is_empty()));
    records
}

/// Asked in the same step in which the rollback is sequenced: nobody can open in between.
fn refuse_writers(core: &mut Core, volume: &str, force: bool) -> Result<(), TreeError> {
    let found = tree(core)?.volume_by_name(volume);
    let id = found.ok_or_else(|| TreeError::NotFound(volume.into()))?;
    let (_, writers) = core.users(id, None);
    if writers > 0 && !force {
        return Err(TreeError::Busy(format!(
            "volume {volume} is open for writing by {writers} client(s)"
        )));
    }
    Ok(())
}

fn rolled_back(cx: &Cx, kept: Vec<Option<(String, NodeId)>>) -> Reply {
    // From here on older exports are stale; who waits for a lock or for space learns it.
    cx.core().notify(|core| &mut core.lock_wait);
    Reply::RolledBack(kept)
}

/// The snapshots that keep what these records replace in `tree`. As for `new_head`, before anybody can delete
/// them: the heads of this moment become those.
fn kept_by(tree: &Tree, records: &[Record]) -> Vec<Option<(String, NodeId)>> {
    let members = records.iter().filter_map(|record| match record {
        Record::Rollback { members, .. } => Some(members),
        _ => None,
    });
    let kept = |member: &RollbackMember| {
        let Replaced::Kept { name, .. } = &member.replaced else { return None };
        let head = tree.head(member.volume)?;
        Some((format!("{}@{name}", tree.full_name(head)?), head))
    };
    members.flatten().map(kept).collect()
}

pub(crate) async fn clone(
    cx: &Cx,
    source: SnapTarget,
    name: String,
    props: Vec<(String, String)>,
) -> OpResult {
    wait_for_depth(cx, &format!("{}@{}", source.volume, source.snapshot)).await?;
    let records = commit(cx, Some(8), Reserve::Normal, &|core| {
        let wall_ns = core.wall_ns;
        let from = (source.volume.as_str(), source.snapshot.as_str());
        tree(core)?.plan_clone(from, &name, &props, wall_ns)
    })
    .await?;
    let node = records.iter().find_map(new_head);
    node.map(Reply::Node).ok_or(Error::NotFound(name))
}

pub(crate) async fn delete(
    cx: &Cx,
    names: Vec<String>,
    recursive: bool,
    dry_run: bool,
) -> OpResult {
    let list: Vec<&str> = names.iter().map(String::as_str).collect();
    if dry_run {
        fold_now(cx).await?;
    }
    let ids = cx.core().pool()?.tree.delete_set(&list, recursive)?;
    for &id in &ids {
        // The tags of holds are wanted for the message; what is not held needs nothing.
        let held = cx.core().pool()?.tree.node(id).is_some_and(|node| node.entry.holds > 0);
        if held {
            load_props(cx, id).await?;
        }
    }
    // What a preview says is waited for; a delete is not kept waiting.
    let size = crate::sizes::set_size(cx, &ids, dry_run).await?;
    // What would be refused is refused in a dry run too.
    let plan = |core: &mut Core| -> Result<Vec<Record>, TreeError> {
        refuse_users(core, &ids)?;
        tree(core)?.plan_delete_nodes(&ids)
    };
    if dry_run {
        plan(&mut cx.core())?;
    } else {
        let blocks = mutant::is("deletemeta").then_some(8);
        commit(cx, blocks, Reserve::Privileged, &plan).await?;
        cx.core().fold.soon = true;
    }
    Ok(Reply::Deleted(size))
}

fn refuse_users(core: &mut Core, ids: &[NodeId]) -> Result<(), TreeError> {
    for &id in ids {
        let Some((volume, is_head)) = core
            .pool
            .as_ref()
            .and_then(|pool| pool.tree.node(id))
            .map(|node| (node.entry.volume, node.entry.kind == NodeKind::Head))
        else {
            continue;
        };
        let (readers, writers) = core.users(volume, (!is_head).then_some(id));
        if readers + writers > 0 && !mutant::is("deleteopen") {
            let name = tree(core)?.full_name(id).unwrap_or_default();
            let users = readers + writers;
            return Err(TreeError::Busy(format!("{name} is open by {users} client(s)")));
        }
    }
    Ok(())
}

pub(crate) async fn rename(cx: &Cx, name: String, to: String) -> OpResult {
    commit(cx, Some(8), Reserve::Normal, &|core| tree(core)?.plan_rename(&name, &to)).await?;
    Ok(Reply::Done)
}

pub(crate) async fn set_props(cx: &Cx, name: String, changes: Vec<PropChange>) -> OpResult {
    commit(cx, Some(8), Reserve::Normal, &|core| tree(core)?.plan_set_props(&name, &changes))
        .await?;
    Ok(Reply::Done)
}

pub(crate) async fn hold(cx: &Cx, name: String, tag: String, set: bool) -> OpResult {
    commit(cx, Some(8), Reserve::Normal, &|core| tree(core)?.plan_hold(&name, &tag, set)).await?;
    Ok(Reply::Done)
}

pub(crate) async fn get_props(cx: &Cx, name: String) -> OpResult {
    let id = match name.as_str() {
        "" => cow_snaptree::POOL_NODE,
        _ => resolve(cx, &name)?,
    };
    load_props(cx, id).await?;
    let mut core = cx.core();
    let (mut props, mut holds) = (Vec::new(), Vec::new());
    if let Some(found) = core.pool()?.tree.node(id).and_then(|node| node.props()) {
        props = found.map.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        holds = found.holds.iter().cloned().collect();
    }
    Ok(Reply::Props { props, holds })
}

pub(crate) async fn resize(cx: &Cx, volume: String, size_bytes: u64, shrink: bool) -> OpResult {
    let block = BLOCK_SIZE as u64;
    let old = {
        let mut core = cx.core();
        let node = resolve_in(&mut core, &volume)?;
        core.pool()?.tree.node(node).map_or(0, |n| n.entry.size_bytes)
    };
    let mut _turn = None;
    if size_bytes < old && shrink {
        // Nobody writes to what is cut off until that has happened.
        let id = cx.core().pool()?.tree.volume_by_name(&volume);
        let id = id.ok_or_else(|| Error::NotFound(volume.clone()))?;
        let (first, end) = (size_bytes / block, old.div_ceil(block));
        _turn = Some(lock_range(cx, id, first, end, true).await);
        if !size_bytes.is_multiple_of(block) {
            // What is cut off inside the last block must not come back when the volume grows.
            let end = size_bytes.next_multiple_of(block).min(old);
            zero_tail(cx, &volume, size_bytes, end).await?;
        }
    }
    commit(cx, Some(16), Reserve::Normal, &|core| {
        let tree = tree(core)?;
        let mut records = tree.plan_resize(&volume, size_bytes, shrink)?;
        let head = tree.resolve(&volume)?;
        let old = tree.node(head).map_or(0, |n| n.entry.size_bytes);
        let (keep, had) = (size_bytes.div_ceil(block), old.div_ceil(block));
        if keep < had
            && let Some(id) = tree.volume_by_name(&volume)
        {
            let clear = Record::MapClear { volume: id, lba: Lba(keep), blocks: had - keep };
            records.insert(0, clear);
        }
        Ok(records)
    })
    .await?;
    Ok(Reply::Done)
}

fn resolve_in(core: &mut Core, name: &str) -> Result<NodeId, Error> {
    Ok(core.pool()?.tree.resolve(name)?)
}

async fn zero_tail(cx: &Cx, volume: &str, from: u64, to: u64) -> Result<(), Error> {
    let opened = cx.core().open_export(volume, true)?;
    let Reply::Export { export, .. } = opened else { return Ok(()) };
    let result = crate::write::zero_inside_block(cx, export, from, to).await;
    cx.core().exports.remove(&export);
    result.map(|_| ())
}

/// Waits until nothing that was deleted is being walked and nothing is left to be trimmed, and until
/// what that has freed can be used and was given back below.
pub(crate) async fn wait_reclaim(cx: &Cx) -> OpResult {
    loop {
        cx.core().fold.trim_everything = true;
        fold_now(cx).await?;
        let mut core = cx.core();
        let (starved, starved_of_rows) = (core.fold.trim_starved, core.fold.detach_starved);
        let pool = core.pool()?;
        let tree = &pool.tree;
        if (starved_of_rows || pool.cp.detached.is_empty())
            && tree.walkable().is_empty()
            && (starved || tree.untrimmed().next().is_none())
        {
            break;
        }
    }
    if !cx.core().fold.batches.is_empty() {
        fold_now(cx).await?;
    }
    wait_punched(cx).await;
    Ok(Reply::Done)
}
