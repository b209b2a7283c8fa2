//! cow-extent: the extent map of a pool: the in-memory layers that writes go into, the leaf merge
//! that a fold is made of, and the cache of map nodes. The radix nodes themselves are cow-format's
//! `mapnode`; reading and writing them is the engine's, which calls this crate.
//!
//! A *layer* belongs to exactly one node of the snapshot tree, whoever reads through it. A
//! snapshot freezes a layer in place, as its head goes on under a new node; a fold freezes all of
//! them by taking the whole [`Layers`] and leaving an empty one behind.
#![forbid(unsafe_code)]

mod cache;
mod layer;
mod leaf;
mod merge;
mod ranges;
#[cfg(test)]
mod tests;

pub use cache::NodeCache;
pub use layer::{Base, Layers, NodeLayer, Probe, row_blocks};
pub use leaf::{Entry, LeafLayer};
pub use merge::{LeafChange, merge_leaf};
pub use ranges::RangeSet;
