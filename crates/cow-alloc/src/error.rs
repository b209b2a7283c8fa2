//! What the allocator cannot do.

use cow_format::{FormatError, Phys};

/// Why a call did nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllocError {
    /// The zone's page must be in memory: read [`crate::Allocator::page_to_load`], hand it to
    /// [`crate::Allocator::load_zone`] and ask again.
    #[error("the bitmap page of zone {0} is needed")]
    NeedZone(u64),
    /// No free block, or no free run that is long enough.
    #[error("no free block")]
    NoSpace,
    /// Corruption: a block was to be taken that already belongs to something.
    #[error("block {0} is in use twice")]
    InUse(Phys),
    /// Corruption: a block was to be freed, or added to the image, that belongs to nothing.
    #[error("block {0} is freed twice, or was never allocated")]
    NotInUse(Phys),
    /// Corruption: a fixed area, another zone or a place past the end of the pool.
    #[error("block {0} is no data block")]
    NotData(Phys),
    /// A size that the pool cannot grow to.
    #[error("the pool cannot grow to {0} blocks")]
    BadSize(u64),
    /// A page is not what the checkpoint describes.
    #[error(transparent)]
    Page(#[from] FormatError),
}

impl AllocError {
    /// Whether the pool's metadata contradict themselves.
    pub fn is_corruption(&self) -> bool {
        !matches!(self, Self::NeedZone(_) | Self::NoSpace | Self::BadSize(_))
    }
}
