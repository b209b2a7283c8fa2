//! Reading the node table that a checkpoint describes: pages side by side in one read, and while some
//! reads are under way the pages of others are entered. Where such a read fails, or a page in it is
//! not what was written, each such page is read once more by itself, so that no page is lost with its
//! neighbour.

use super::read_twice;
use crate::error::Error;
use crate::task::{Cx, join_all};
use cow_format::checkpoint::{Checkpoint, PageDesc};
use cow_format::entry::PAGE_ENTRIES;
use cow_format::geometry::{CHUNK_PAGES, Geometry};
use cow_format::page::table_crc;
use cow_format::superblock::Superblock;
use cow_format::table::{ENTRY_PAGES, entries, first_slot, is_overflow, overflow_of};
use cow_format::{BLOCK_SIZE, Buf, Phys, mutant};
use cow_snaptree::Loading;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::iter::once;

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
    index: u32,
    at: Phys,
    crc: u32,
}

/// By index.
type Pages = BTreeMap<u32, Page>;
type Block = [u8; BLOCK_SIZE];

/// Enters the nodes of all pages in use.
pub(super) async fn read(
    cx: &Cx,
    sb: &Superblock,
    cp: &Checkpoint,
    nodes: &mut Loading,
) -> Result<(), Error> {
    let tag = sb.pool_tag();
    let (overflow, mut pages): (Vec<Page>, Vec<Page>) =
        used_pages(cp).partition(|page| is_overflow(page.index));
    let overflow: Pages = overflow.into_iter().map(|page| (page.index, page)).collect();
    let has_entries = |index: u32| cp.pages[(index - ENTRY_PAGES) as usize].used > 0;
    if let Some(index) = overflow.keys().find(|index| !has_entries(**index)) {
        return Err(Error::Corrupt(format!("node table page {index}: overflow of no entries")));
    }
    let runs = runs(&mut pages);
    let (left, nodes) = (RefCell::new(runs.as_slice()), RefCell::new(nodes));
    let lane = async || {
        loop {
            let window = next_window(&mut left.borrow_mut());
            if window.is_empty() {
                return Ok(());
            }
            let read = join_all(window.iter().map(|run| read_both(cx, tag, run, &overflow))).await;
            for (run, read) in window.iter().zip(read) {
                let (buf, mut overflow) = read?;
                for (i, page) in run.iter().enumerate() {
                    let overflow = overflow.remove(&overflow_of(page.index));
                    enter(page, buf.block(i), overflow.as_deref(), &mut nodes.borrow_mut())?;
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

/// About how many slots have a node: those up to the last page in use.
pub(super) fn used_slots(cp: &Checkpoint) -> usize {
    let last = used_pages(cp).filter(|page| !is_overflow(page.index)).last();
    last.map_or(0, |page| first_slot(page.index) as usize + PAGE_ENTRIES)
}

fn used_pages(cp: &Checkpoint) -> impl Iterator<Item = Page> {
    let used = (0..).zip(&cp.pages).filter(|(_, desc)| !desc.fresh && desc.used > 0);
    used.map(|(index, desc): (u32, &PageDesc)| {
        let page = u64::from(index);
        let chunk = cp.chunks[(page / CHUNK_PAGES) as usize];
        let at = Geometry::table_home(chunk, page % CHUNK_PAGES, desc.home);
        Page { index, at, crc: desc.crc }
    })
}

/// Pages by where they lie, those together that one read gets.
fn runs(pages: &mut [Page]) -> Vec<&[Page]> {
    pages.sort_unstable_by_key(|page| page.at);
    pages.chunk_by(|a, b| a.at.0 + 1 == b.at.0).flat_map(|run| run.chunks(MAX_RUN)).collect()
}

/// Pages of entries that lie side by side, and those of their overflow entries, by index.
async fn read_both(
    cx: &Cx,
    tag: u64,
    run: &[Page],
    overflow: &Pages,
) -> Result<(Buf, BTreeMap<u32, Box<Block>>), Error> {
    let overflow = run.iter().filter_map(|page| overflow.get(&overflow_of(page.index)));
    let mut overflow: Vec<Page> = overflow.copied().collect();
    let runs = runs(&mut overflow);
    let all = once(run).chain(runs.iter().copied());
    let mut read = join_all(all.map(|run| read_run(cx, tag, run))).await.into_iter();
    let buf = read.next().unwrap_or_else(|| Ok(Buf::zeroed(run.len())))?;
    let mut blocks = BTreeMap::new();
    for (run, buf) in runs.into_iter().zip(read) {
        let buf = buf?;
        let block = |(i, page): (usize, &Page)| (page.index, Box::new(*buf.block(i)));
        blocks.extend(run.iter().enumerate().map(block));
    }
    Ok((buf, blocks))
}

/// Pages that lie side by side.
async fn read_run(cx: &Cx, tag: u64, run: &[Page]) -> Result<Buf, Error> {
    let [first, _, ..] = run else { return read_alone(cx, tag, &run[0]).await };
    if let Ok(mut buf) = cx.read(first.at, run.len(), false).await {
        for (i, page) in run.iter().enumerate() {
            if !is_whole(buf.block(i), tag, page) {
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

fn is_whole(bytes: &[u8], tag: u64, page: &Page) -> bool {
    table_crc(bytes, tag, page.at) == page.crc || mutant::is("tableblind")
}

async fn read_alone(cx: &Cx, tag: u64, page: &Page) -> Result<Buf, Error> {
    let buf = read_twice(cx, page.at, 1, false, OP).await?;
    if is_whole(&buf, tag, page) {
        return Ok(buf);
    }
    reread(cx, tag, page).await
}

async fn reread(cx: &Cx, tag: u64, page: &Page) -> Result<Buf, Error> {
    let buf = read_twice(cx, page.at, 1, true, OP).await?;
    if !is_whole(&buf, tag, page) {
        let (index, at) = (page.index, page.at);
        let what = format!("node table page {index} at block {at}: checksum mismatch");
        return Err(Error::Corrupt(what));
    }
    Ok(buf)
}

fn enter(
    page: &Page,
    bytes: &Block,
    overflow: Option<&Block>,
    nodes: &mut Loading,
) -> Result<(), Error> {
    let overflow = overflow.map(|block| &block[..]);
    for (slot, entry) in entries(page.index, bytes, overflow, page.at) {
        nodes.enter(slot, entry?)?;
    }
    Ok(())
}
