//! cow-check: the offline checker, dumper and [`repair`] of a pool. It shares no code path
//! with the engine: what the engine has written is understood here a second time, from
//! docs/format.md. The library and the simulator call it; it calls the format, the journal's
//! scanner, the snapshot tree and the cache of map nodes.
//!
//! No I/O of its own: callers give it a [`Blocks`] over an image file or a simulated disk.
//!
//! # What [`check`] proves
//!
//! 1. Every copy of the superblock, every checkpoint area, every page of bitmap and node table,
//!    every kill row, all properties and every map node are what was written, where it was
//!    written (checksum and identity); so is every data block, unless that is switched off.
//! 2. The snapshot tree is one; what its nodes map stands in the allocation bitmap, and nothing
//!    else does (I1); a block is mapped at one place only (I2); births obey their nodes (I3) and
//!    parents (I4); counters and kill rows are what a walk counts (I6).
//! 3. The journal after the newest checkpoint is intact as far as it was durable, and can be
//!    applied.
//!
//! # How it walks
//!
//! Snapshot-tree nodes are visited parents first, each in lockstep with its parent: equal
//! pointers are skipped with all below them, as the parent's visit has proven them. By the
//! ownership lemma a pointer with a birth above the parent's gen belongs to this node alone, so
//! its block must not have been seen before: one bit a block suffices to find double use, and
//! every map node that is not shared is read once.
//!
//! # Torn or damaged?
//!
//! A crash may tear whatever was being written. That is told from damage by what a torn write
//! cannot do: change less than a sector. One wrong byte anywhere gives itself away by the
//! checksum's own arithmetic (`flip.rs`); torn areas are warnings, damage is corruption.
//!
//! Nothing here panics on what a device holds, and memory is bounded: by one bit a block, the
//! node table, and a list of findings that stops growing.
#![forbid(unsafe_code)]

mod bitmap;
mod blobs;
mod blocks;
mod check;
mod checkpoint;
mod context;
mod detached;
mod dump;
mod flip;
mod frames;
mod journal;
mod map;
mod reach;
pub mod repair;
mod report;
mod superblock;
mod table;
mod tally;
mod tree;
mod unread;
mod value;
mod walking;

pub use blocks::{Blocks, ReadError};
pub use check::check;
pub use context::{Options, Phase, Progress};
pub use dump::{What, dump};
pub use report::{Finding, OpenError, Report, Severity, Stats, Structure};
pub use value::Value;
