//! Hashing: slice by slice, from the pages of an ancestor if those are in memory.
//!
//! A slice is 128 blocks, a page of level 1. One is in memory at a time, and after each of them
//! everybody else has a turn.

use super::pace::Pace;
use super::scan::{Look, Next, next, slots};
use super::store::{Overflow, Store};
use super::view::View;
use crate::error::Error;
use crate::mapping::Mapping;
use crate::read::{Pin, read_mapped};
use crate::seal_state::{PageSet, PagesOf};
use crate::task::Cx;
use cow_format::mapnode::Slot;
use cow_format::{BLOCK_SIZE, Lba, mutant};
use cow_merkle::{BuildError, Builder, Digest, FANOUT, Page, leaf_hash, resize, zero_hash};
use std::rc::Rc;

const SLICE: u64 = FANOUT as u64;
/// Ancestors that are looked at for pages.
const MAX_ANCESTORS: usize = 4096;

/// Why a build ended without a root.
enum Stop {
    Overflow,
    Error(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<BuildError<Overflow>> for Stop {
    fn from(error: BuildError<Overflow>) -> Self {
        match error {
            BuildError::Pages(Overflow) => Self::Overflow,
            BuildError::TooLarge { size_bytes } => Self::Error(Error::Unsupported(format!(
                "a volume of {size_bytes} bytes is too large for a content root"
            ))),
            BuildError::Beyond { block } | BuildError::Order { block } => {
                Self::Error(Error::Corrupt(format!("the map has block {block} in a wrong place")))
            }
        }
    }
}

/// Hashes one view.
struct Hasher<'a> {
    cx: &'a Cx,
    view: &'a View,
    pace: &'a Pace,
    builder: Builder<&'a mut Store>,
}

/// The pages of a view, of `limit` bytes at most.
pub(super) async fn build(
    cx: &Cx,
    view: &View,
    pace: &Pace,
    limit: usize,
) -> Result<PageSet, Error> {
    let named = |error| match error {
        // What is wrong with a map node is said without a name.
        Error::Corrupt(text) if !text.starts_with(&view.name) => {
            Error::Corrupt(format!("{}: {text}", view.name))
        }
        other => other,
    };
    if let Some(base) = nearest(cx, view) {
        match update(cx, view, pace, &base, limit).await {
            Ok(set) => return Ok(set),
            Err(Stop::Overflow) => {}
            Err(Stop::Error(error)) => return Err(named(error)),
        }
    }
    match full(cx, view, pace, limit).await {
        Ok(set) => Ok(set),
        Err(Stop::Error(error)) => Err(named(error)),
        Err(Stop::Overflow) => Err(Error::Limit("memory for content roots".into())),
    }
}

/// The pages of the nearest ancestor whose pages are in memory, if that is not larger.
fn nearest(cx: &Cx, view: &View) -> Option<Rc<PageSet>> {
    view.map?;
    let mut core = cx.core();
    let mut at = view.node;
    for _ in 0..MAX_ANCESTORS {
        let pool = core.pool.as_ref()?;
        at = pool.tree.node(at)?.entry.parent;
        let entry = &pool.tree.node(at)?.entry;
        let (label, size_bytes) = (entry.label_gen, entry.size_bytes);
        let (layers, root, _) = pool.layer_chain(at);
        if !layers.is_empty() {
            continue;
        }
        if size_bytes > view.size_bytes {
            return None;
        }
        if let Some(set) = core.seal.find(PagesOf { node: at, map: Some(root), size_bytes }) {
            return (set.label == label).then_some(set);
        }
    }
    None
}

async fn full(cx: &Cx, view: &View, pace: &Pace, limit: usize) -> Result<PageSet, Stop> {
    let mut store = Store::new(1, limit);
    let builder = Builder::update(view.size_bytes, &mut store)?;
    let mut hasher = Hasher { cx, view, pace, builder };
    hasher.data(0, view.blocks()).await?;
    let root = hasher.builder.finish()?;
    Ok(page_set(view, root, store))
}

async fn update(
    cx: &Cx,
    view: &View,
    pace: &Pace,
    base: &PageSet,
    limit: usize,
) -> Result<PageSet, Stop> {
    let mut store = Store::of(base.pages.clone(), base.floor, limit);
    if base.of.size_bytes != view.size_bytes && !mutant::is("rootsize") {
        resize(&mut store, base.of.size_bytes, view.size_bytes)?;
    }
    let builder = Builder::update(view.size_bytes, &mut store)?;
    let mut hasher = Hasher { cx, view, pace, builder };
    hasher.changes(base).await?;
    let root = hasher.builder.finish()?;
    Ok(page_set(view, root, store))
}

fn page_set(view: &View, root: Digest, store: Store) -> PageSet {
    PageSet {
        of: view.pages_of(),
        label: view.label,
        root: root.0,
        floor: store.floor,
        pages: store.pages,
    }
}

/// One page, from the data below it alone.
pub(super) async fn page_of(
    cx: &Cx,
    view: &View,
    pace: &Pace,
    level: u8,
    index: u64,
) -> Result<Page, Error> {
    let mut store = Store::new(level, usize::MAX);
    let span = SLICE.pow(u32::from(level));
    let (first, end) = (index.saturating_mul(span), (index + 1).saturating_mul(span));
    let made = async {
        let builder = Builder::update(view.size_bytes, &mut store)?;
        let mut hasher = Hasher { cx, view, pace, builder };
        hasher.data(first, end.min(view.blocks())).await?;
        hasher.builder.finish()?;
        Ok(())
    };
    match made.await {
        Ok(()) => {}
        Err(Stop::Error(error)) => return Err(error),
        Err(Stop::Overflow) => return Err(Error::Limit("memory for content roots".into())),
    }
    let page = store.pages.remove(&(level, index));
    Ok(page.map_or_else(|| Page::zero(level, index), |page| Page::clone(&page)))
}

impl Hasher<'_> {
    /// All that is in a range, which begins and ends with a slice; whether there is anything.
    async fn data(&mut self, first: u64, end: u64) -> Result<bool, Stop> {
        let (mut at, mut any) = (first, false);
        while at < end {
            let Next::Block(block) = self.next(Look::Data, at).await? else { break };
            let slice = block / SLICE * SLICE;
            if slice >= end {
                break;
            }
            self.slice(slice, Look::Data).await?;
            any = true;
            at = slice + SLICE;
        }
        Ok(any)
    }

    /// All that is younger than the pages of an ancestor.
    async fn changes(&mut self, base: &PageSet) -> Result<(), Stop> {
        let look = Look::Since(base.label);
        // What hangs below one digest of the lowest pages there are is hashed as a whole.
        let unit = SLICE.pow(u32::from(base.floor).saturating_sub(1).max(1));
        let blocks = self.view.blocks();
        let mut at = 0;
        while at < blocks {
            let (block, hole_end) = match self.next(look, at).await? {
                Next::End => break,
                Next::Block(block) => (block, None),
                Next::Hole(first, end) => match first_kept(base, first, end) {
                    Some(block) if !mutant::is("roothole") => (block, Some(end)),
                    _ => {
                        at = end;
                        continue;
                    }
                },
            };
            let first = block / unit * unit;
            if first >= blocks {
                break;
            }
            let end = (first + unit).min(blocks);
            match hole_end {
                _ if base.floor > 1 => {
                    if !self.data(first, end).await? {
                        self.builder.push(first, zero_hash(0))?;
                    }
                }
                // Holes of more than a leaf begin and end with a slice.
                Some(_) => {
                    (first..end).try_for_each(|block| self.builder.push(block, zero_hash(0)))?;
                }
                None => self.slice(first, look).await?,
            }
            at = first + unit;
        }
        Ok(())
    }

    async fn next(&self, look: Look, from: u64) -> Result<Next, Stop> {
        let _pin = Pin::new(self.cx);
        self.view.check()?;
        Ok(next(self.cx, self.view, look, from).await?)
    }

    /// The blocks of one slice that are looked for.
    async fn slice(&mut self, first: u64, look: Look) -> Result<(), Stop> {
        self.pace.turn(self.cx, self.view.node).await?;
        let count = SLICE.min(self.view.blocks() - first) as usize;
        let _pin = Pin::new(self.cx);
        self.view.check()?;
        let slots = slots(self.cx, self.view, first, count).await?;
        let wanted = |slot: &Slot| look.wants(slot);
        let mapping = |slot: &Slot| if wanted(slot) { (*slot).into() } else { Mapping::Hole };
        let mappings: Vec<Mapping> = slots.iter().map(mapping).collect();
        let data = if mappings.iter().any(|mapping| *mapping != Mapping::Hole) {
            Some(read_mapped(self.cx, self.view.node, Lba(first), &mappings).await?)
        } else {
            None
        };
        for (at, slot) in slots.iter().enumerate().filter(|(_, slot)| wanted(slot)) {
            let block = first + at as u64;
            let digest = match &data {
                Some(data) if !slot.is_hole() => self.digest(block, data.block(at)),
                _ => zero_hash(0),
            };
            self.builder.push(block, digest)?;
        }
        Ok(())
    }

    /// The end of the last block behind the volume's size counts as zeros.
    fn digest(&self, block: u64, bytes: &[u8]) -> Digest {
        let mut own = [0; BLOCK_SIZE];
        let left = self.view.size_bytes - block * BLOCK_SIZE as u64;
        let len = left.min(BLOCK_SIZE as u64) as usize;
        own[..len].copy_from_slice(&bytes[..len]);
        leaf_hash(block, &own)
    }
}

/// The first block of a range that lies below a page of the lowest level that is kept.
fn first_kept(base: &PageSet, first: u64, end: u64) -> Option<u64> {
    let span = SLICE.pow(u32::from(base.floor));
    let from = (base.floor, first / span);
    let (&(_, index), _) = base.pages.range(from..=(base.floor, u64::MAX)).next()?;
    let block = first.max(index.saturating_mul(span));
    (block < end).then_some(block)
}
