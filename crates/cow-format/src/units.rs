//! A type of its own for every integer that means something. Index, count and size are never
//! mixed: a `Lba` cannot be handed to a function that wants a `Phys`.

use crate::BLOCK_SIZE;
use std::fmt;

/// log2 of the fan-out of the map.
pub const FANOUT_BITS: u32 = 8;

macro_rules! unit {
    ($(#[$doc:meta])* $name:ident, $int:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $int);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

unit!(
    /// Logical block address: the index of a 4 KiB block inside a volume.
    Lba, u64
);
unit!(
    /// Physical block address: 8 bits of device, 40 bits of block on it. Block 0 of device 0 is
    /// a superblock and never data, so `Phys(0)` stands for "none".
    Phys, u64
);
unit!(
    /// Generation: pool-wide, one more for every record group that creates snapshot-tree nodes.
    /// As a *birth* it says on whose behalf a pointer was written.
    Gen, u32
);
unit!(
    /// Identity of a node of the snapshot tree (a head or a snapshot). Never reused; 0 is none.
    NodeId, u64
);
unit!(
    /// Identity of a volume. Never reused; 0 is none.
    VolumeId, u64
);
unit!(
    /// The node id of the `VolCreate` at the root of a snapshot tree: constant over snapshots,
    /// clones and rollbacks, which share map nodes.
    FamilyId, u64
);
unit!(
    /// Sequence number of a journal frame: one more for every frame of the pool's life.
    FrameSeq, u64
);
unit!(
    /// Raised at every read-write open, so that a frame that recovery cut cannot return.
    Epoch, u32
);

impl Phys {
    /// The null pointer.
    pub const NONE: Self = Self(0);
    /// One more than the highest address that 48 bits can hold.
    pub const LIMIT: u64 = 1 << 48;

    /// Whether this points nowhere.
    pub fn is_none(self) -> bool {
        self.0 == 0
    }

    /// The address `blocks` further on.
    pub fn offset(self, blocks: u64) -> Self {
        Self(self.0 + blocks)
    }

    /// Offset in bytes on the device.
    pub fn byte_offset(self) -> u64 {
        self.0 * BLOCK_SIZE as u64
    }
}

impl Lba {
    /// Index of the leaf (256 blocks, 1 MiB) that maps this block.
    pub fn leaf(self) -> u64 {
        self.0 >> FANOUT_BITS
    }

    /// Slot inside that leaf.
    pub fn slot(self) -> u8 {
        (self.0 & 0xff) as u8
    }
}

impl Gen {
    /// Creation is refused from here on (design section 2: 2^32 - 2^16).
    pub const CREATE_LIMIT: u32 = u32::MAX - 0xffff;
}
