//! From the digests of blocks to the root: one page of each level is open at a time, and is
//! closed into the one above it when a block comes that lies outside of it. So a whole volume
//! costs time for its non-zero blocks only, and an update time for what changed.

use crate::FANOUT;
use crate::digest::{Digest, zero_hash};
use crate::page::{NoPages, Page, Pages, PagesMut, top_level};

/// Why a root could not be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError<E> {
    /// The volume is larger than the format allows.
    #[error("a volume of {size_bytes} bytes is too large for a content root")]
    TooLarge {
        /// Its size.
        size_bytes: u64,
    },
    /// The block lies behind the end of the volume.
    #[error("block {block} lies behind the end of the volume")]
    Beyond {
        /// Which.
        block: u64,
    },
    /// The block came after one with the same or a higher index.
    #[error("block {block} came out of order")]
    Order {
        /// Which.
        block: u64,
    },
    /// A page could not be loaded or kept.
    #[error(transparent)]
    Pages(E),
}

impl<E> From<E> for BuildError<E> {
    fn from(error: E) -> Self {
        Self::Pages(error)
    }
}

/// Takes the digests of blocks in ascending order and gives the root.
#[derive(Debug)]
pub struct Builder<P = NoPages> {
    pages: P,
    size_bytes: u64,
    top_level: u8,
    /// The open page of each level, from level 1 on.
    open: Vec<Option<Page>>,
    /// The lowest block that may come next.
    next: u64,
}

impl Builder {
    /// The root of a volume of `size_bytes` from its blocks alone. Blocks that are left out are
    /// zeros.
    ///
    /// # Errors
    /// [`BuildError::TooLarge`].
    pub fn new(size_bytes: u64) -> Result<Self, BuildError<std::convert::Infallible>> {
        Self::update(size_bytes, NoPages)
    }
}

impl<P: PagesMut> Builder<P> {
    /// The root of a volume of `size_bytes` whose `pages` are those of an earlier state of the
    /// same size (of no state: none). Blocks that are left out are as they were; the pages become
    /// those of the new state. After an error they are of no use.
    ///
    /// # Errors
    /// [`BuildError::TooLarge`].
    pub fn update(size_bytes: u64, pages: P) -> Result<Self, BuildError<P::Error>> {
        let top_level = top_level(size_bytes).ok_or(BuildError::TooLarge { size_bytes })?;
        let open = (0..top_level).map(|_| None).collect();
        Ok(Self { pages, size_bytes, top_level, open, next: 0 })
    }

    /// Block `block` has the digest `digest` ([`crate::leaf_hash`], or [`zero_hash`] of level 0
    /// for a hole).
    ///
    /// # Errors
    /// When the block is out of order or out of the volume, and when a page cannot be had.
    pub fn push(&mut self, block: u64, digest: Digest) -> Result<(), BuildError<P::Error>> {
        if block >= self.size_bytes.div_ceil(crate::BLOCK_SIZE as u64) {
            return Err(BuildError::Beyond { block });
        }
        if block < self.next {
            return Err(BuildError::Order { block });
        }
        self.next = block + 1;
        Ok(self.put(1, block, digest)?)
    }

    /// The root, when all blocks have come.
    ///
    /// # Errors
    /// When a page cannot be had.
    pub fn finish(mut self) -> Result<Digest, BuildError<P::Error>> {
        (1..self.top_level).try_for_each(|level| self.close(level))?;
        let top = match self.open[usize::from(self.top_level) - 1].take() {
            Some(top) => {
                self.pages.save(&top)?;
                top
            }
            None => load(&mut self.pages, self.top_level, 0)?,
        };
        debug_assert_eq!(top.index(), 0);
        Ok(top.root(self.size_bytes))
    }

    /// Puts `digest` into the page of `level` that has the child `child`.
    fn put(&mut self, level: u8, child: u64, digest: Digest) -> Result<(), P::Error> {
        let at = usize::from(level) - 1;
        let (index, slot) = (child / FANOUT as u64, (child % FANOUT as u64) as usize);
        if self.open[at].as_ref().is_some_and(|page| page.index() != index) {
            self.close(level)?;
        }
        let page = match &mut self.open[at] {
            Some(page) => page,
            none => none.insert(load(&mut self.pages, level, index)?),
        };
        page.set(slot, digest);
        Ok(())
    }

    /// Closes the open page of a level below the top into the one above.
    fn close(&mut self, level: u8) -> Result<(), P::Error> {
        debug_assert!(level < self.top_level, "a block beyond the top page");
        let Some(page) = self.open[usize::from(level) - 1].take() else { return Ok(()) };
        self.pages.save(&page)?;
        self.put(level + 1, page.index(), page.digest())
    }
}

fn load<P: Pages>(pages: &mut P, level: u8, index: u64) -> Result<Page, P::Error> {
    let page = pages.load(level, index)?;
    debug_assert!(page.as_ref().is_none_or(|p| (p.level(), p.index()) == (level, index)));
    Ok(page.unwrap_or_else(|| Page::zero(level, index)))
}

/// A volume changes its size: makes its pages those of the new size, and gives the new root. What
/// lies behind the smaller of the two sizes must be zero (before a volume shrinks, an update has
/// to say so).
///
/// # Errors
/// [`BuildError::TooLarge`], and when a page cannot be had.
pub fn resize<P: PagesMut>(
    pages: &mut P,
    from_bytes: u64,
    to_bytes: u64,
) -> Result<Digest, BuildError<P::Error>> {
    let top = |size_bytes| top_level(size_bytes).ok_or(BuildError::TooLarge { size_bytes });
    let (from, to) = (top(from_bytes)?, top(to_bytes)?);
    for level in from + 1..=to {
        let mut page = Page::zero(level, 0);
        page.set(0, load(pages, level - 1, 0)?.digest());
        pages.save(&page)?;
    }
    for level in to + 1..=from {
        let page = load(pages, level, 0)?;
        debug_assert!((1..FANOUT).all(|slot| page.child(slot) == zero_hash(level - 1)));
        pages.save(&Page::zero(level, 0))?;
    }
    Ok(load(pages, to, 0)?.root(to_bytes))
}
