//! Which structures a pool holds, so that a test can say that none is missing.

use super::specimen::Specimen;
use crate::lose::{newest_superblock, table_blocks};
use cow_format::Phys;
use cow_format::frame::{FLAG_MORE, Frame};
use cow_format::record::Record;
use cow_format::wire::Reader;
use std::collections::BTreeSet;

/// Offsets in a node entry; docs/format.md, "Node entry".
const KIND_AT: usize = 36;
const STATE_AT: usize = 37;
const FLAGS_AT: usize = 47;
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
    for (_, block) in table_blocks(&specimen.disk) {
        let page = specimen.disk.peek(block);
        for entry in page.chunks_exact(ENTRY_LEN).filter(|entry| entry[..8] != [0; 8]) {
            // An overflow entry has zeros there.
            add(entry[KIND_AT] == 3, "undo snapshot");
            add(entry[STATE_AT] == 2, "deleted node");
            add(entry[STATE_AT] == 3, "half walked node");
            add(entry[KIND_AT] > 0 && entry[FLAGS_AT] & 8 != 0, "overflow entry");
        }
    }
    let (mut epochs, mut block) = (BTreeSet::new(), cp.tail.block);
    while block < sb.geometry.journal_blocks {
        let at = Phys(sb.geometry.journal_start + block);
        let most = (sb.geometry.journal_blocks - block).min(16);
        let bytes: Vec<u8> = (0..most).flat_map(|i| specimen.disk.peek(at.0 + i)).collect();
        let Ok((frame, _)) = Frame::decode(&bytes, sb.pool_tag(), at) else { break };
        if frame.seq < cp.tail.seq {
            break;
        }
        epochs.insert(frame.epoch);
        add(frame.flags & FLAG_MORE != 0, "group over several frames");
        let mut reader = Reader::new(&frame.payload);
        while !reader.is_done() {
            let Ok(record) = Record::decode(&mut reader) else { break };
            let text = format!("{record:?}");
            add(true, text.split([' ', '{', '(']).next().unwrap_or_default());
        }
        block += Frame::blocks_for(frame.payload.len()).max(1) as u64;
    }
    add(epochs.len() > 1, "two epochs");
    all
}
