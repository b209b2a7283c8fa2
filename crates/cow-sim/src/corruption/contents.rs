//! Which structures a pool holds, so that a test can say that none is missing.

use super::specimen::Specimen;
use crate::lose::{newest_superblock, table_blocks};
use crate::value::Page;
use cow_format::checkpoint::{FLAG_LEAKS, FLAG_NO_FALLBACK};
use cow_format::frame::{FLAG_MORE, FLAG_PAD, Frame};
use cow_format::geometry::CHUNK_PAGES;
use cow_format::record::Record;
use cow_format::wire::Reader;
use cow_format::{FrameSeq, Phys, mapnode, table};
use std::collections::BTreeSet;

/// Offsets in a node entry; docs/format.md, "Node entry".
const KIND_AT: usize = 36;
const STATE_AT: usize = 37;
const CONSISTENCY_AT: usize = 38;
const FLAGS_AT: usize = 47;
const PARENT_AT: usize = 24;
const ROOT_AT: usize = 40;
const HOLDS_AT: usize = 146;
const FREEZE_AT: usize = 150;
const GROUP_AT: usize = 154;
const EXPIRY_AT: usize = 162;
const ORIGIN_AT: usize = 194;
const ENTRY_LEN: usize = 256;

/// Names of structures: of blocks as [`super::verdict::kind_of`] has them, of records behind the newest
/// checkpoint as their type is called, and some more.
#[must_use]
pub fn contents(specimen: &Specimen) -> BTreeSet<String> {
    let mut all: BTreeSet<String> = specimen
        .used()
        .iter()
        .map(|&block| super::verdict::kind_of(specimen, block).to_owned())
        .collect();
    let mut add = |is_there: bool, name: &str| {
        if is_there {
            all.insert(name.to_owned());
        }
    };
    let Some(sb) = newest_superblock(&specimen.disk) else { return all };
    add(!sb.fences.is_empty(), "fence");
    let checkpoints = specimen.checkpoints();
    let [cp, before, ..] = checkpoints.as_slice() else { return all };
    add(before.seq + 1 == cp.seq, "fallback");
    add(!cp.detached.is_empty(), "detached subtree");
    add(!cp.damage.is_empty(), "noted damage");
    add(cp.damage_overflow > 0, "more damage than is listed");
    add(!cp.withheld.is_empty(), "withheld block");
    add(cp.flags & FLAG_LEAKS != 0, "leaks");
    add(cp.flags & FLAG_NO_FALLBACK != 0, "no fallback");
    add(cp.pool_blocks > sb.geometry.mkfs_blocks, "grown pool");
    add(cp.zones.iter().any(|zone| !zone.fresh && zone.home == 1), "second home of a bitmap page");
    add(cp.pages.iter().any(|page| !page.fresh && page.home == 1), "second home of a table page");
    for block in specimen.used() {
        slots(&specimen.disk.peek(block), &mut add);
    }
    let mut parents = BTreeSet::new();
    for (number, block) in table_blocks(&specimen.disk) {
        let page = specimen.disk.peek(block);
        let is_overflow = table::is_overflow((number % CHUNK_PAGES) as u32);
        for entry in page.chunks_exact(ENTRY_LEN).filter(|entry| entry[..8] != [0; 8]) {
            let is_entry = !is_overflow;
            add(is_entry && entry[STATE_AT] == 1, "live node");
            add(is_entry && entry[KIND_AT] == 1, "head");
            add(is_entry && entry[KIND_AT] == 2, "user snapshot");
            add(is_entry && entry[KIND_AT] == 4, "automatic snapshot");
            add(is_entry && entry[KIND_AT] == 5, "properties of the pool");
            add(is_entry && entry[FLAGS_AT] & 1 != 0, "inexact counts");
            add(is_entry && entry[FLAGS_AT] & 2 != 0, "trimmed branch point");
            add(is_entry && entry[FLAGS_AT] & 4 != 0, "policy");
            for (way, name) in (1..).zip(["stopped", "frozen", "quiesced", "freeze failed"]) {
                add(is_entry && entry[CONSISTENCY_AT] == way, name);
            }
            add(is_entry && entry[FREEZE_AT..][..4] != [0; 4], "time of a freeze");
            add(is_entry && entry[HOLDS_AT..][..4] != [0; 4], "hold");
            add(is_entry && entry[GROUP_AT..][..8] != [0; 8], "group");
            add(is_entry && entry[EXPIRY_AT..][..8] != [0; 8], "expiry");
            add(is_entry && entry[ORIGIN_AT..][..8] != [0; 8], "origin");
            add(is_entry && entry[ROOT_AT..][..6] == [0; 6], "empty tree");
            let (parent, is_root) = (&entry[PARENT_AT..][..8], entry[PARENT_AT..][..8] == [0; 8]);
            add(is_entry && !is_root && !parents.insert(parent.to_vec()), "branch point");
            add(!is_entry && entry[8..40] != [0; 32], "content root");
            add(!is_entry && entry[40..120] != [0; 80], "long name");
            add(is_entry && entry[KIND_AT] == 3, "undo snapshot");
            add(is_entry && entry[STATE_AT] == 2, "deleted node");
            add(is_entry && entry[STATE_AT] == 3, "half walked node");
            add(is_entry && entry[FLAGS_AT] & 8 != 0, "overflow entry");
        }
    }
    let (mut epochs, mut block, mut next) = (BTreeSet::new(), cp.tail.block, cp.tail.seq);
    loop {
        block %= sb.geometry.journal_blocks;
        let at = Phys(sb.geometry.journal_start + block);
        let most = (sb.geometry.journal_blocks - block).min(16);
        let bytes: Vec<u8> = (0..most).flat_map(|i| specimen.disk.peek(at.0 + i)).collect();
        let Ok((frame, _)) = Frame::decode(&bytes, sb.pool_tag(), at) else { break };
        if frame.seq != next {
            break;
        }
        next = FrameSeq(frame.seq.0 + 1);
        epochs.insert(frame.epoch);
        add(frame.flags & FLAG_MORE != 0, "group over several frames");
        add(frame.flags & FLAG_PAD != 0, "pad");
        let mut reader = Reader::new(&frame.payload);
        while !reader.is_done() {
            let Ok(record) = Record::decode(&mut reader) else { break };
            let text = format!("{record:?}");
            add(true, text.split([' ', '{', '(']).next().unwrap_or_default());
        }
        block += u64::from(frame.blocks);
    }
    add(epochs.len() > 1, "two epochs");
    all
}

/// What the slots of a map node are.
fn slots(page: &Page, add: &mut impl FnMut(bool, &str)) {
    if page[..4] != mapnode::MAGIC.to_le_bytes() {
        return;
    }
    add(true, ["leaf", "level 1", "level 2", "level 3", "level 4"][usize::from(page[6].min(4))]);
    for slot in 0..mapnode::FANOUT {
        let is_null =
            page[64 + 4 * slot..][..4] == [0; 4] && page[1088 + 2 * slot..][..2] == [0; 2];
        let crc = &page[2624 + 4 * slot..][..4];
        add(is_null && crc == [0; 4], "hole");
        add(is_null && page[6] == 0 && crc == [0xff; 4], "lost block");
    }
}
