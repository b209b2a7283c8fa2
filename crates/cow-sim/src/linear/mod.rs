//! Linearizability (I13): whether a recorded history of concurrent clients could have been the work of
//! one client at a time.
//!
//! A history is a list of operations, each with the moment at which it was asked and that at which it was
//! answered. It is *linearizable* if every operation can be given one point in between at which it
//! happened, such that in the order of these points each answer is the right one (Herlihy and Wing,
//! "Linearizability: a correctness condition for concurrent objects", 1990).
//!
//! * [`op`]: what is recorded; [`state`]: the sequential specification.
//! * [`search`]: the decision, after Wing and Gong ("Testing and verifying concurrent objects", 1993) with
//!   the memory of Lowe ("Testing for linearizability", 2017).
//! * [`brute`]: the same by trying all permutations, for tiny histories: the checker's checker.
//! * [`area`]: the blocks that are looked at.
//! * [`clients`]: random clients of the engine in the simulated world.
//!
//! # What is one object
//!
//! The blocks of a volume would be registers, and linearizability is local: a history of several objects is
//! linearizable if that of each object is. But a snapshot is one moment of *all* blocks of a volume, and
//! so are rollback and clone, and the point of each is one for all blocks. So the object is a volume with
//! its snapshots and all that are cloned from it; volumes that no clone connects are decided one by one. Within
//! that, a read is taken apart into one read of each block: the engine promises that a block is read as
//! it was at one moment, and not that two blocks are. A write is not taken apart: its blocks are one
//! group of records, and a snapshot has all of them or none.
//!
//! # What the oracle of the histories does not decide
//!
//! [`crate::oracle`] keeps, for a read in flight, the set of values that each block may have. It is one set for
//! each read: two reads, one after the other, may see a write in flight as done and then as not done. It keeps
//! clients from writing the same block at once, and says nothing of reads beside rollbacks. All that is
//! decided here. On the other hand it judges what crashes leave behind, which is not linearizable (what was
//! acknowledged and not flushed may be gone), and that is not decided here.
pub mod area;
pub mod brute;
pub mod clients;
pub mod op;
pub mod search;
pub mod state;

pub use op::{Call, Node, Op};
pub use search::{Verdict, check, judge};
