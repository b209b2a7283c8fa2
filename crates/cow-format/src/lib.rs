//! cow-format: what the bytes on the device mean. Ids and units, the on-disk structures with
//! their encoders and checked decoders, checksums, the layout of a pool, and the aligned memory
//! that holds blocks. docs/format.md has the field tables.
//!
//! This is the lowest crate: everything may call it, it calls nothing. It does no I/O and knows
//! no clock. A decoder never panics on bytes that came from a device: it says what is wrong.
#![forbid(unsafe_code)]

pub mod blob;
mod buf;
pub mod checkpoint;
pub mod checksum;
pub mod entry;
mod error;
pub mod frame;
pub mod geometry;
mod idmap;
pub mod mapnode;
pub mod mutant;
mod name;
pub mod page;
pub mod record;
mod size;
pub mod superblock;
pub mod table;
#[cfg(test)]
mod tests;
mod units;
pub mod wire;

pub use buf::{Block, BlockMemory, Buf, BufPool, BufSlice, BufSource};
pub use error::FormatError;
pub use idmap::{IdHasher, IdMap, IdSet};
pub use name::Name;
pub use size::{SIZE_UNITS, parse_size};
pub use units::{Epoch, FamilyId, FrameSeq, Gen, Lba, NodeId, Phys, VolumeId};

/// The unit of everything, in bytes.
pub const BLOCK_SIZE: usize = 4096;

#[cfg(target_endian = "big")]
compile_error!("the on-disk structures are little-endian and are read in place");
