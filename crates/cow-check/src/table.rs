//! The node table: its chunks, pages and entries.

use crate::context::Cx;
use crate::reach::{Mark, Reach};
use crate::report::Structure;
use cow_format::Phys;
use cow_format::checkpoint::Checkpoint;
use cow_format::entry::{ENTRY_LEN, NodeEntry, NodeKind, PAGE_ENTRIES};
use cow_format::geometry::{CHUNK_BLOCKS, CHUNK_PAGES, Geometry, ZONE_BLOCKS};
use cow_format::page::table_crc;
use cow_snaptree::{Counters, Tree};

/// Pages between two reports of progress.
const WINDOW: usize = 64;

/// Reads the table. `None` when it is damaged: what it describes cannot be followed.
pub(crate) fn read(cx: &mut Cx<'_>, cp: &Checkpoint, reach: &mut Reach) -> Option<Tree> {
    mark_chunks(cx, cp, reach);
    let (mut entries, mut whole) = (Vec::new(), true);
    for page in 0..cp.pages.len() {
        whole &= read_page(cx, cp, page, &mut entries);
    }
    if !whole {
        return None;
    }
    let counters = Counters {
        last_gen: cow_format::Gen(cp.last_gen),
        last_node: cow_format::NodeId(cp.last_node),
        last_volume: cow_format::VolumeId(cp.last_volume),
        last_group: cp.last_group,
    };
    match Tree::from_entries(entries.into_iter(), counters) {
        Ok(tree) => Some(tree),
        Err(error) => {
            cx.corrupt(Structure::SnapshotTree, "node table", error);
            None
        }
    }
}

fn mark_chunks(cx: &mut Cx<'_>, cp: &Checkpoint, reach: &mut Reach) {
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

/// Whether the page is what the checkpoint says.
fn read_page(
    cx: &mut Cx<'_>,
    cp: &Checkpoint,
    page: usize,
    entries: &mut Vec<(u32, NodeEntry)>,
) -> bool {
    let desc = &cp.pages[page];
    let place = format!("page {page}");
    if desc.fresh {
        if desc.used != 0 {
            cx.corrupt(Structure::TablePage, place, "never written, but in use");
        }
        return desc.used == 0;
    }
    let Some(&chunk) = cp.chunks.get(page / CHUNK_PAGES as usize) else { return false };
    let in_chunk = page as u64 % CHUNK_PAGES;
    if chunk.0 >= cp.pool_blocks {
        return false;
    }
    let at = Geometry::table_home(chunk, in_chunk, desc.home);
    let place = format!("{place}, block {at}");
    let buf = match cx.read(at, 1) {
        Ok(buf) => buf,
        Err(cause) => {
            cx.corrupt(Structure::TablePage, place, cause);
            return false;
        }
    };
    if table_crc(&buf, cx.tag, at) != desc.crc {
        cx.corrupt(Structure::TablePage, place, "checksum mismatch");
        return false;
    }
    let (mut used, mut whole) = (0, true);
    for (i, bytes) in buf.chunks_exact(ENTRY_LEN).enumerate() {
        match NodeEntry::decode(bytes, at) {
            Ok(None) => {}
            Ok(Some(entry)) => {
                used += 1;
                check_entry(cx, &entry, &format!("{place}, entry {i}"));
                entries.push(((page * PAGE_ENTRIES + i) as u32, entry));
            }
            Err(error) => {
                cx.corrupt(Structure::NodeEntry, format!("{place}, entry {i}"), error);
                whole = false;
            }
        }
    }
    if used != u32::from(desc.used) {
        let what = format!("{used} entries, the checkpoint says {}", desc.used);
        cx.corrupt(Structure::TablePage, place, what);
    }
    if page.is_multiple_of(WINDOW) {
        cx.progress(crate::Phase::Tables, page as u64, cp.pages.len() as u64);
    }
    whole
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
