//! Counters, kill rows and properties, as a walk counts them.

use super::RepairError;
use super::action::Action;
use super::cut::slots_by_id;
use super::work::{Survey, Work};
use crate::tally::sum;
use crate::tree::{gen_of, is_walking, name_of};
use cow_format::blob::{BlobKind, BlobRef, PAYLOAD, encode_chain};
use cow_format::entry::{Count, NodeEntry};
use cow_format::geometry::CHUNK_BLOCKS;
use cow_format::wire::Writer;
use cow_format::{Gen, NodeId};
use cow_snaptree::{POOL_NODE, Props};
use std::collections::{BTreeMap, HashMap};

/// The tag that stands for holds whose own cannot be read, as a fold names it.
const LOST_HOLD: &str = "damaged";
const UNKNOWN: Count = Count { data: u64::MAX, map: u64::MAX };

/// Makes what is stored say what the survey has counted; whether something had to be changed.
pub(super) fn correct(work: &mut Work<'_>, survey: &Survey) -> Result<bool, RepairError> {
    let mut changed = false;
    let slots = slots_by_id(&work.entries);
    for id in &survey.unread.props {
        changed |= drop_props(work, survey, &slots, *id)?;
    }
    for (id, slot) in slots {
        let Some(old) = work.entries.get(&slot).cloned() else { continue };
        let mut new = old.clone();
        if id != POOL_NODE {
            rebuild_row(work, survey, &mut new)?;
            if survey.whole {
                count(survey, &mut new);
            }
        }
        if new != old {
            changed = true;
            if numbers(&new) != numbers(&old) {
                work.actions.push(Action::Recount { name: name_of(&survey.tree, id) });
            }
            work.entries.insert(slot, new);
        }
    }
    Ok(changed)
}

fn numbers(entry: &NodeEntry) -> [Count; 4] {
    [entry.born, entry.own, entry.mapped, entry.unique]
}

/// The counts in an entry.
fn count(survey: &Survey, entry: &mut NodeEntry) {
    let id = entry.id;
    entry.born = survey.sums.born.get(&id).copied().unwrap_or_default();
    if let Some(counted) = survey.unread.counted.get(&id) {
        entry.own = counted.own;
        entry.mapped = counted.mapped.unwrap_or(entry.mapped);
        let is_walked = is_walking(&survey.tree, id);
        if (counted.mapped.is_some() || is_walked) && counted.row.is_some() {
            entry.inexact = false;
        }
    }
    let Some(node) = survey.tree.node(id) else { return };
    let only_child = node.children.first().filter(|_| node.children.len() == 1);
    let row = only_child.and_then(|child| survey.unread.counted.get(child)?.row.as_ref());
    if let Some(row) = row.filter(|_| entry.unique != UNKNOWN) {
        let above = gen_of(&survey.tree, Some(entry.parent));
        let cells = row.iter().map(|(birth, count)| (*birth, *count));
        entry.unique = sum(cells, above, entry.label_gen);
    }
}

/// The kill row, if what is stored says something else or cannot be read.
fn rebuild_row(
    work: &mut Work<'_>,
    survey: &Survey,
    entry: &mut NodeEntry,
) -> Result<(), RepairError> {
    let unreadable = survey.unread.rows.contains(&entry.id);
    let counted = survey.unread.counted.get(&entry.id);
    let row = counted.and_then(|counted| counted.row.as_ref());
    let payload = match row {
        // What it said is not known, as a neighbour of it is being reclaimed.
        None if unreadable => {
            entry.inexact = true;
            Vec::new()
        }
        Some(row) if unreadable || counted.is_some_and(|counted| !counted.same) => cells(row),
        _ => return Ok(()),
    };
    entry.row = write_chain(work, survey, BlobKind::Row, entry.id, &payload)?;
    work.actions.push(Action::RebuildRow { name: name_of(&survey.tree, entry.id) });
    Ok(())
}

/// The payload of a kill row. docs/format.md, "Blob".
fn cells(row: &BTreeMap<Gen, Count>) -> Vec<u8> {
    let mut w = Writer::default();
    for (birth, count) in row {
        let (mut data, mut map) = (count.data, count.map);
        while data > 0 || map > 0 {
            let part = |rest: u64| rest.min(u64::from(u32::MAX)) as u32;
            w.u32(birth.0);
            w.u32(part(data));
            w.u32(part(map));
            data -= u64::from(part(data));
            map -= u64::from(part(map));
        }
    }
    w.bytes
}

fn drop_props(
    work: &mut Work<'_>,
    survey: &Survey,
    slots: &HashMap<NodeId, u32>,
    id: NodeId,
) -> Result<bool, RepairError> {
    let Some(slot) = slots.get(&id) else { return Ok(false) };
    let Some(mut entry) = work.entries.get(slot).cloned() else { return Ok(false) };
    let holds = entry.holds;
    let mut props = Props::default();
    if holds > 0 {
        props.holds.insert(LOST_HOLD.to_owned());
    }
    entry.holds = props.holds.len() as u32;
    let payload = if props.is_empty() { Vec::new() } else { props.encode() };
    entry.props = write_chain(work, survey, BlobKind::Props, id, &payload)?;
    work.entries.insert(*slot, entry);
    work.actions.push(Action::DropProperties { name: name_of(&survey.tree, id), holds });
    Ok(true)
}

fn write_chain(
    work: &mut Work<'_>,
    survey: &Survey,
    kind: BlobKind,
    id: NodeId,
    payload: &[u8],
) -> Result<BlobRef, RepairError> {
    let count = payload.len().div_ceil(PAYLOAD);
    let blocks = (0..count).map(|_| work.take(survey)).collect::<Result<Vec<_>, _>>()?;
    let (parts, blob) = encode_chain(kind, id, work.tag(), payload, &blocks);
    for (at, buf) in &parts {
        work.overlay.put(*at, buf);
    }
    Ok(blob)
}

/// The counts of the checkpoint.
pub(super) fn count_pool(work: &mut Work<'_>, survey: &Survey) {
    let chunks = work.cp.chunks.len() as u64 * CHUNK_BLOCKS;
    let total = survey.sums.total;
    let metadata = total.map + survey.report.stats.blob_blocks + chunks;
    let old = &work.base.cp;
    if (old.data_blocks, old.meta_blocks) != (total.data, metadata) {
        work.actions.push(Action::RecountPool {
            data: (old.data_blocks, total.data),
            metadata: (old.meta_blocks, metadata),
        });
    }
    (work.cp.data_blocks, work.cp.meta_blocks) = (total.data, metadata);
}
