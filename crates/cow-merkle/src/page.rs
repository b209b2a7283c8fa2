//! Pages, and where they come from.

use crate::digest::{Digest, page_hash, root_hash, zero_hash};
use crate::{BLOCK_SIZE, FANOUT, MAX_LEVEL};
use std::convert::Infallible;

/// A page: the digests of its 128 children.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    level: u8,
    index: u64,
    // Plain arrays, not `Digest`: their bytes are the page's bytes.
    children: Box<[[u8; 32]; FANOUT]>,
}

impl Page {
    /// A page all below which is zero.
    ///
    /// # Panics
    /// When `level` is not 1 to [`MAX_LEVEL`]: that is a fault of the caller.
    pub fn zero(level: u8, index: u64) -> Self {
        assert!((1..=MAX_LEVEL).contains(&level), "no page of level {level}");
        Self { level, index, children: Box::new([zero_hash(level - 1).0; FANOUT]) }
    }

    /// The page that was stored as `bytes`. Any bytes are a page; whether it is the right one its
    /// digest tells.
    ///
    /// # Panics
    /// As [`Page::zero`].
    pub fn from_bytes(level: u8, index: u64, bytes: &[u8; BLOCK_SIZE]) -> Self {
        let mut page = Self::zero(level, index);
        page.children.as_flattened_mut().copy_from_slice(bytes);
        page
    }

    /// The 4096 bytes to store.
    pub fn bytes(&self) -> &[u8] {
        self.children.as_flattened()
    }

    /// Its level, 1 for the pages over blocks.
    pub fn level(&self) -> u8 {
        self.level
    }

    /// Which page of its level.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Digest of child `slot`, 0 to 127.
    pub fn child(&self, slot: usize) -> Digest {
        Digest(self.children[slot])
    }

    /// Sets the digest of child `slot`.
    pub fn set(&mut self, slot: usize, digest: Digest) {
        self.children[slot] = digest.0;
    }

    /// Whether all below it is zero: such a page need not be stored.
    pub fn is_zero(&self) -> bool {
        let zero = zero_hash(self.level - 1);
        self.children.iter().all(|child| *child == zero.0)
    }

    /// Its digest.
    pub fn digest(&self) -> Digest {
        page_hash(self.level, self.index, &self.children)
    }

    /// The root of a volume of `size_bytes` that this is the top page of.
    pub(crate) fn root(&self, size_bytes: u64) -> Digest {
        root_hash(size_bytes, self.level, self.digest())
    }
}

/// The level of the top page of a volume; `None` when it is too large for the format.
pub fn top_level(size_bytes: u64) -> Option<u8> {
    let blocks = u128::from(size_bytes.div_ceil(BLOCK_SIZE as u64));
    (1..=MAX_LEVEL).find(|&level| (FANOUT as u128).pow(u32::from(level)) >= blocks)
}

/// A volume's pages, to be read.
pub trait Pages {
    /// Why a page cannot be had.
    type Error;

    /// Page `index` of `level`; `None` when all below it is zero.
    ///
    /// # Errors
    /// When the page cannot be had.
    fn load(&mut self, level: u8, index: u64) -> Result<Option<Page>, Self::Error>;
}

/// A volume's pages, to be changed.
pub trait PagesMut: Pages {
    /// Keeps `page` in place of the one before; of a zero page ([`Page::is_zero`]) there is
    /// nothing to keep.
    ///
    /// # Errors
    /// When the page cannot be kept.
    fn save(&mut self, page: &Page) -> Result<(), Self::Error>;
}

impl<P: Pages + ?Sized> Pages for &mut P {
    type Error = P::Error;

    fn load(&mut self, level: u8, index: u64) -> Result<Option<Page>, Self::Error> {
        (**self).load(level, index)
    }
}

impl<P: PagesMut + ?Sized> PagesMut for &mut P {
    fn save(&mut self, page: &Page) -> Result<(), Self::Error> {
        (**self).save(page)
    }
}

/// No pages before, and none kept: for who wants the root alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoPages;

impl Pages for NoPages {
    type Error = Infallible;

    fn load(&mut self, _: u8, _: u64) -> Result<Option<Page>, Infallible> {
        Ok(None)
    }
}

impl PagesMut for NoPages {
    fn save(&mut self, _: &Page) -> Result<(), Infallible> {
        Ok(())
    }
}
