//! The tree of snapshots, in memory: heads and snapshots, volumes and their names, properties
//! and holds, who owns a block (ownership), what died where (kill rows), and what deleting a set
//! would free. Design sections 1 to 4 and 14.
//!
//! Only the engine and the checker call it. It knows nothing of block addresses, layers or map
//! nodes: the fold tells it that a pointer of some birth was written, replaced or freed. It does
//! no I/O, reads no clock and draws no random numbers; [`Tree::apply`] is the same function of
//! the state at runtime and in a replay.
//!
//! # The ownership lemma
//!
//! Each node has a label (`gen`) above its parent's, and what is written on its behalf carries
//! that label as *birth*. A pointer in the tree of `x` with `birth <= gen(parent(x))` is therefore
//! identical to the pointer at that place in the parent's tree, and one with a greater birth is
//! invisible to the parent and to its other children. So a pointer that `x` replaces is free if
//! its birth is above the parent's gen: one compare, no reference count.
//!
//! # Rules for the caller
//!
//! * Plan, journal, [`Tree::apply`]: a `plan_*` method changes nothing. Ids and generations in
//!   its records follow from the state, so a plan must be applied before the next is made.
//! * A fold works on a clone (cheap: nodes are shared) taken at its start. The foreground's later
//!   records are then applied to that clone, which becomes the tree.
//! * In a fold: [`Tree::root_for_fold`] for each node by ascending gen (R1), [`Tree::kill`] and
//!   [`Tree::note_born`] while merging, then walks, then [`Tree::assign_slots`], then the blobs of
//!   [`Tree::dirty_rows`] and [`Tree::dirty_props`], then [`Tree::dirty_pages`].
//! * Rows and properties are read on demand. A change to one that is not loaded is kept and
//!   merged when it is ([`Tree::load_row`], [`Tree::load_props`]); a fold loads those it writes.
#![forbid(unsafe_code)]

mod account;
mod apply;
mod blobs;
mod change;
mod charge;
mod children;
mod chunkmap;
mod components;
mod delete;
mod detach;
mod error;
mod free_up;
mod groups;
mod idset;
mod loading;
mod lookup;
mod name;
mod node;
mod plan;
mod policy;
mod props;
mod retention;
mod rollback;
mod row;
mod seals;
mod sizes;
mod space;
mod table;
mod tree;
mod trim;
mod undo_space;
mod walk;

#[cfg(test)]
mod tests;

pub use blobs::PROPS_BLOCKS;
pub use children::Children;
pub use components::Component;
pub use error::{NoSlots, TreeError};
pub use idset::IdSet;
pub use loading::Loading;
pub use name::valid_name;
pub use node::Node;
pub use plan::{MAX_TARGETS, NewVolume, PropEdit, SnapOptions, check_targets};
pub use policy::LIMIT;
pub use props::{GROUP, KEEP, Props};
pub use retention::Keep;
pub use rollback::{MAX_UNDO, UNDO_EXPIRY_NS};
pub use row::Row;
pub use seals::ROOTS;
pub use sizes::SetSizeAnswer;
pub use space::{BUDGET, RESERVE, Reserve, SpacePolicy};
pub use table::{MAX_NODES, ROLLBACK_SLOTS};
pub use tree::{Counters, Limits, POOL_NODE, Tree, TreeCounts, Volume};
pub use undo_space::{SPACE_MARKS, UNDO_FOR_SPACE};
pub use walk::{OldBlob, Splice};
