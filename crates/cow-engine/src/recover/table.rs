//! Reading the node table that a checkpoint describes: pages side by side in one read, and while some
//! reads are under way the pages of others are entered. Where such a read fails, or a page in it is
//! not what was written, each such page is read once more by itself, so that no page is lost with its
//! neighbour.

use super::read_twice;
use crate::error::Error;
use crate::task::{Cx, join_all};
use cow_format::checkpoint::{Checkpoint, PageDesc};
use cow_format::entry::{ENTRY_LEN, NodeEntry, PAGE_ENTRIES};
use cow_format::geometry::{CHUNK_PAGES, Geometry};
use cow_format::page::table_crc;
use cow_format::superblock::Superblock;
use cow_format::{Buf, Phys};
use cow_snaptree::Loading;
use std::cell::RefCell;

/// Most blocks of one read: 128 KiB.
const MAX_RUN: usize = 32;
/// Reads that are begun together, which costs less than one by one, and their blocks.
const WINDOW: usize = 16;
const WINDOW_BLOCKS: usize = 64;
/// Windows at once: the pages of one are entered while the device reads another.
const LANES: usize = 4;
const OP: &str = "read of the node table";

/// A page of the table, and where its newest version is.
#[derive(Clone, Copy)]
struct Page {
    index: usize,
    at: Phys,
    crc: u32,
}

/// Enters the nodes of all pages in use.
pub(super) async fn read(
    cx: &Cx,
    sb: &Superblock,
    cp: &Checkpoint,
    nodes: &mut Loading,
) -> Result<(), Error> {
    let tag = sb.pool_tag();
    let mut pages: Vec<Page> = used_pages(cp);
    pages.sort_unstable_by_key(|page| page.at);
    let runs: Vec<&[Page]> =
        pages.chunk_by(|a, b| a.at.0 + 1 == b.at.0).flat_map(|run| run.chunks(MAX_RUN)).collect();
    let (left, nodes) = (RefCell::new(runs.as_slice()), RefCell::new(nodes));
    let lane = async || {
        loop {
            let window = next_window(&mut left.borrow_mut());
            if window.is_empty() {
                return Ok(());
            }
            let read = join_all(window.iter().map(|run| read_run(cx, tag, run))).await;
            for (run, buf) in window.iter().zip(read) {
                let buf = buf?;
                for (i, page) in run.iter().enumerate() {
                    enter(page, buf.block(i), &mut nodes.borrow_mut())?;
                }
            }
        }
    };
    join_all((0..LANES).map(|_| lane())).await.into_iter().collect()
}

/// Takes the reads that are begun together next, one at least while there is one.
fn next_window<'a, 'b>(left: &mut &'a [&'b [Page]]) -> &'a [&'b [Page]] {
    let mut blocks = 0;
    let fits = |run: &&&[Page]| {
        blocks += run.len();
        blocks <= WINDOW_BLOCKS
    };
    let (window, rest) = left.split_at(left.iter().take(WINDOW).take_while(fits).count());
    *left = rest;
    window
}

fn used_pages(cp: &Checkpoint) -> Vec<Page> {
    let used = cp.pages.iter().enumerate().filter(|(_, desc)| !desc.fresh && desc.used > 0);
    let page = |(index, desc): (usize, &PageDesc)| {
        let chunk = cp.chunks[index / CHUNK_PAGES as usize];
        let at = Geometry::table_home(chunk, index as u64 % CHUNK_PAGES, desc.home);
        Page { index, at, crc: desc.crc }
    };
    used.map(page).collect()
}

/// Pages that lie side by side.
async fn read_run(cx: &Cx, tag: u64, run: &[Page]) -> Result<Buf, Error> {
    let [first, _, ..] = run else { return read_alone(cx, tag, &run[0]).await };
    if let Ok(mut buf) = cx.read(first.at, run.len(), false).await {
        for (i, page) in run.iter().enumerate() {
            if table_crc(buf.block(i), tag, page.at) != page.crc {
                // It was wrong in that read: past the caches is the next try.
                *buf.block_mut(i) = *reread(cx, tag, page).await?.block(0);
            }
        }
        return Ok(buf);
    }
    let mut buf = Buf::zeroed(run.len());
    for (i, page) in run.iter().enumerate() {
        *buf.block_mut(i) = *read_alone(cx, tag, page).await?.block(0);
    }
    Ok(buf)
}

async fn read_alone(cx: &Cx, tag: u64, page: &Page) -> Result<Buf, Error> {
    let buf = read_twice(cx, page.at, 1, false, OP).await?;
    if table_crc(&buf, tag, page.at) == page.crc {
        return Ok(buf);
    }
    reread(cx, tag, page).await
}

async fn reread(cx: &Cx, tag: u64, page: &Page) -> Result<Buf, Error> {
    let buf = read_twice(cx, page.at, 1, true, OP).await?;
    if table_crc(&buf, tag, page.at) != page.crc {
        let (index, at) = (page.index, page.at);
        let what = format!("node table page {index} at block {at}: checksum mismatch");
        return Err(Error::Corrupt(what));
    }
    Ok(buf)
}

fn enter(page: &Page, bytes: &[u8], nodes: &mut Loading) -> Result<(), Error> {
    for (i, bytes) in bytes.chunks_exact(ENTRY_LEN).enumerate() {
        let entry = NodeEntry::decode(bytes, page.at).map_err(|e| Error::Corrupt(e.to_string()))?;
        if let Some(entry) = entry {
            nodes.enter((page.index * PAGE_ENTRIES + i) as u32, entry)?;
        }
    }
    Ok(())
}
