//! The node table: its chunks, pages and entries.

use crate::context::Cx;
use crate::reach::{Mark, Reach};
use crate::report::Structure;
use cow_format::checkpoint::Checkpoint;
use cow_format::entry::{NodeEntry, NodeKind, PAGE_ENTRIES};
use cow_format::geometry::{CHUNK_BLOCKS, CHUNK_PAGES, Geometry, ZONE_BLOCKS};
use cow_format::page::table_crc;
use cow_format::table::{entries, is_overflow, overflow_of};
use cow_format::{Buf, Phys};
use cow_snaptree::{Counters, Tree};

/// Pages between two reports of progress.
const WINDOW: usize = 64;

/// Reads the table. `None` when it is damaged: what it describes cannot be followed.
pub(crate) fn read(cx: &mut Cx<'_>, cp: &Checkpoint, reach: &mut Reach) -> Option<Tree> {
    mark_chunks(cx, cp, reach);
    let entries = read_entries(cx, cp)?;
    tree_of(cx, cp, entries.into_iter())
}

/// The entries, with their slots; `None` when they cannot all be read.
pub(crate) fn read_entries(cx: &mut Cx<'_>, cp: &Checkpoint) -> Option<Vec<(u32, NodeEntry)>> {
    let (mut entries, mut whole) = (Vec::new(), true);
    for page in (0..cp.pages.len() as u32).filter(|page| !is_overflow(*page)) {
        whole &= read_page(cx, cp, page, &mut entries);
    }
    whole.then_some(entries)
}

/// The tree that they make; `None` when they make none.
pub(crate) fn tree_of(
    cx: &mut Cx<'_>,
    cp: &Checkpoint,
    entries: impl Iterator<Item = (u32, NodeEntry)>,
) -> Option<Tree> {
    let counters = Counters {
        last_gen: cow_format::Gen(cp.last_gen),
        last_node: cow_format::NodeId(cp.last_node),
        last_volume: cow_format::VolumeId(cp.last_volume),
        last_group: cp.last_group,
    };
    match Tree::from_entries(entries, counters) {
        Ok(tree) => Some(tree),
        Err(error) => {
            cx.corrupt(Structure::SnapshotTree, "node table", error);
            None
        }
    }
}

/// Marks the chunks of the table.
pub(crate) fn mark_chunks(cx: &mut Cx<'_>, cp: &Checkpoint, reach: &mut Reach) {
    for (index, chunk) in cp.chunks.iter().enumerate() {
        let place = format!("table chunk {index}, block {chunk}");
        if chunk.0 % ZONE_BLOCKS + CHUNK_BLOCKS > ZONE_BLOCKS {
            cx.corrupt(Structure::Checkpoint, &place, "does not lie in one zone");
        }
        for block in (0..CHUNK_BLOCKS).filter_map(|i| chunk.0.checked_add(i)) {
            let what = match reach.mark(Phys(block)) {
                Mark::New => continue,
                Mark::Again => "overlaps another chunk",
                Mark::NoData => "lies where no data may be",
            };
            cx.corrupt(Structure::Checkpoint, &place, what);
            break;
        }
    }
}

/// Whether the page, and that of its overflow entries, is what the checkpoint says.
fn read_page(
    cx: &mut Cx<'_>,
    cp: &Checkpoint,
    page: u32,
    found: &mut Vec<(u32, NodeEntry)>,
) -> bool {
    if (page as usize).is_multiple_of(WINDOW) {
        cx.progress(crate::Phase::Tables, u64::from(page), cp.pages.len() as u64);
    }
    let overflow_page = overflow_of(page);
    let (main, overflow) = (written(cx, cp, page), written(cx, cp, overflow_page));
    let (Some(main), Some(overflow)) = (main, overflow) else { return false };
    let Some((at, buf)) = main else {
        let used = cp.pages[overflow_page as usize].used;
        if used > 0 {
            let place = format!("page {overflow_page}");
            cx.corrupt(Structure::TablePage, place, "overflow entries of no entries");
        }
        return used == 0;
    };
    let (mut used, mut overflows, mut whole) = (0, 0, true);
    let bytes = overflow.as_ref().map(|(_, buf)| &buf[..]);
    for (slot, entry) in entries(page, &buf, bytes, at) {
        let place = format!("page {page}, block {at}, entry {}", slot % PAGE_ENTRIES as u32);
        match entry {
            Ok(entry) => {
                used += 1;
                overflows += u32::from(entry.encode_overflow().is_some());
                check_entry(cx, &entry, &place);
                found.push((slot, entry));
            }
            Err(error) => {
                cx.corrupt(Structure::NodeEntry, place, &error);
                cx.unknown = cx.unknown.take().or(error.is_unknown().then_some(error));
                whole = false;
            }
        }
    }
    for (page, used) in [(page, used), (overflow_page, overflows)] {
        let said = u32::from(cp.pages[page as usize].used);
        if whole && used != said {
            let what = format!("{used} entries, the checkpoint says {said}");
            cx.corrupt(Structure::TablePage, format!("page {page}"), what);
        }
    }
    whole
}

/// The block of a page and its bytes; nothing within if it was never written, nothing at all if it
/// cannot be what the checkpoint describes.
fn written(cx: &mut Cx<'_>, cp: &Checkpoint, page: u32) -> Option<Option<(Phys, Buf)>> {
    let desc = cp.pages.get(page as usize)?;
    let place = format!("page {page}");
    if desc.fresh {
        if desc.used != 0 {
            cx.corrupt(Structure::TablePage, place, "never written, but in use");
            return None;
        }
        return Some(None);
    }
    let (chunk, in_chunk) = (u64::from(page) / CHUNK_PAGES, u64::from(page) % CHUNK_PAGES);
    let chunk = cp.chunks.get(chunk as usize).filter(|chunk| chunk.0 < cp.pool_blocks)?;
    let at = Geometry::table_home(*chunk, in_chunk, desc.home);
    let place = format!("{place}, block {at}");
    let buf = match cx.read(at, 1) {
        Ok(buf) => buf,
        Err(cause) => {
            cx.corrupt(Structure::TablePage, place, cause);
            return None;
        }
    };
    if table_crc(&buf, cx.tag, at) != desc.crc {
        cx.corrupt(Structure::TablePage, place, "checksum mismatch");
        return None;
    }
    Some(Some((at, buf)))
}

/// What an entry says of itself.
fn check_entry(cx: &mut Cx<'_>, entry: &NodeEntry, place: &str) {
    let place = format!("{place}: node {}", entry.id);
    if entry.kind == NodeKind::Pool {
        if !entry.root.phys.is_none() || entry.row.len > 0 {
            cx.corrupt(Structure::NodeEntry, place, "the pool's node has a map");
        }
        return;
    }
    let (root, none) = (&entry.root, entry.root.phys.is_none());
    if none && root.crc != 0 && root.crc != u32::MAX {
        cx.corrupt(Structure::NodeEntry, &place, "its root is neither a block nor empty");
    }
    if root.birth > entry.label_gen {
        cx.corrupt(Structure::Ownership, &place, "its root is younger than itself");
    }
    let blobs = [(entry.row, "kill row"), (entry.props, "properties")];
    for (blob, name) in blobs {
        if blob.phys.is_none() != (blob.len == 0) {
            cx.corrupt(
                Structure::NodeEntry,
                &place,
                format!("its {name} has no block or no length"),
            );
        }
    }
}
