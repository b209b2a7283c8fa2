//! Where blocks of a volume are.

use cow_format::Phys;
use cow_format::mapnode::Slot;
use std::ops::Deref;

/// Where a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mapping {
    /// Reads as zeros.
    Hole,
    /// Reads as an error.
    Lost,
    /// There, with that checksum.
    At(Phys, u32),
}

impl From<Slot> for Mapping {
    fn from(slot: Slot) -> Self {
        if slot.is_mapped() {
            Self::At(slot.phys, slot.crc)
        } else if slot.is_lost() {
            Self::Lost
        } else {
            Self::Hole
        }
    }
}

/// Where some blocks are, in their order. Most requests are for one.
pub(crate) enum Mappings {
    One([Mapping; 1]),
    Many(Vec<Mapping>),
}

impl Deref for Mappings {
    type Target = [Mapping];

    fn deref(&self) -> &[Mapping] {
        match self {
            Self::One(one) => one,
            Self::Many(many) => many,
        }
    }
}
