//! What differs between two volumes: a descent into unequal subtrees only.

use crate::FANOUT;
use crate::digest::{Digest, zero_hash};
use crate::page::{Page, Pages, top_level};

/// One of two volumes that are compared.
#[derive(Debug)]
pub struct Side<'a, P> {
    /// Its pages. Perhaps of a remote machine: every page is checked against its digest.
    pub pages: &'a mut P,
    /// Its size.
    pub size_bytes: u64,
    /// Its root.
    pub root: Digest,
}

/// Why two volumes could not be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompareError<E> {
    /// A volume is larger than the format allows.
    #[error("a volume of {size_bytes} bytes is too large for a content root")]
    TooLarge {
        /// Its size.
        size_bytes: u64,
    },
    /// A page is not the one that the root covers.
    #[error("page {index} of level {level} does not have the digest that it should have")]
    Damaged {
        /// Its level.
        level: u8,
        /// Which page of its level.
        index: u64,
    },
    /// A page could not be loaded.
    #[error(transparent)]
    Pages(#[from] E),
}

/// Calls `differs` with the index of every block whose content differs, ascending. Behind the
/// smaller of two sizes a volume counts as zeros. Loads a page of either side only where they
/// differ.
///
/// # Errors
/// See [`CompareError`]; what was reported up to then is right.
pub fn compare<A, B, E>(
    a: Side<'_, A>,
    b: Side<'_, B>,
    mut differs: impl FnMut(u64),
) -> Result<(), CompareError<E>>
where
    A: Pages<Error = E>,
    B: Pages<Error = E>,
{
    if a.root == b.root && a.size_bytes == b.size_bytes {
        return Ok(());
    }
    let top = |size_bytes| top_level(size_bytes).ok_or(CompareError::TooLarge { size_bytes });
    let level = top(a.size_bytes)?.max(top(b.size_bytes)?);
    let (mut a, mut b) = (Walk::new(a, level)?, Walk::new(b, level)?);
    let tops = (a.top(level), b.top(level));
    descend(&mut a, &mut b, tops, &mut differs)
}

/// Both pages have the same place. At most [`crate::MAX_LEVEL`] calls deep.
fn descend<A, B, E>(
    a: &mut Walk<'_, A>,
    b: &mut Walk<'_, B>,
    (in_a, in_b): (Page, Page),
    differs: &mut impl FnMut(u64),
) -> Result<(), CompareError<E>>
where
    A: Pages<Error = E>,
    B: Pages<Error = E>,
{
    let level = in_a.level();
    for slot in (0..FANOUT).filter(|&slot| in_a.child(slot) != in_b.child(slot)) {
        let child = in_a.index() * FANOUT as u64 + slot as u64;
        if level == 1 {
            differs(child);
            continue;
        }
        let below = (
            a.page(level - 1, child, in_a.child(slot))?,
            b.page(level - 1, child, in_b.child(slot))?,
        );
        descend(a, b, below, differs)?;
    }
    Ok(())
}

/// A side, seen as if its tree were as high as that of the other.
struct Walk<'a, P> {
    pages: &'a mut P,
    top_level: u8,
    /// Its own top page, and one page of each level above it: whose child 0 is the one below.
    spine: Vec<Page>,
}

impl<'a, P: Pages> Walk<'a, P> {
    fn new(side: Side<'a, P>, level: u8) -> Result<Self, CompareError<P::Error>> {
        let Side { pages, size_bytes, root } = side;
        let own = top_level(size_bytes).ok_or(CompareError::TooLarge { size_bytes })?;
        let top = pages.load(own, 0)?.unwrap_or_else(|| Page::zero(own, 0));
        if top.root(size_bytes) != root {
            return Err(CompareError::Damaged { level: own, index: 0 });
        }
        let mut spine = vec![top];
        for level in own + 1..=level {
            let mut page = Page::zero(level, 0);
            if let Some(below) = spine.last() {
                page.set(0, below.digest());
            }
            spine.push(page);
        }
        Ok(Self { pages, top_level: own, spine })
    }

    fn top(&self, level: u8) -> Page {
        self.spine[usize::from(level - self.top_level)].clone()
    }

    fn page(
        &mut self,
        level: u8,
        index: u64,
        digest: Digest,
    ) -> Result<Page, CompareError<P::Error>> {
        if digest == zero_hash(level) {
            return Ok(Page::zero(level, index));
        }
        if level >= self.top_level {
            return Ok(self.top(level));
        }
        match self.pages.load(level, index)? {
            Some(page) if page.digest() == digest => Ok(page),
            _ => Err(CompareError::Damaged { level, index }),
        }
    }
}
