//! cow-journal: the redo journal's ring. The writer packs record groups into frames and says
//! what to write where; the scanner follows the frames again after a crash. The engine (and the
//! checker, read-only) call it; it calls cow-format alone and does no I/O.
//!
//! ```text
//! | retained .. (kept for the fallback) .. tail | frames since | open frame | free ... |
//!   ^ retained                                                 ^ next
//! ```
//!
//! Why a frame of an earlier lap or of a cut history never comes back: the scanner takes a frame
//! only if its sequence number is the next, its chain value covers exactly the frames before it,
//! and its epoch is not below the newest one that a frame or a matching fence has shown
//! (docs/crash-consistency.md).
//!
//! Invariants: a frame never wraps around the end of the ring; at least one block between `next`
//! and `retained` stays unused, so that equal positions mean an empty ring; a group lies in one
//! frame, or in consecutive frames of its own that are all flagged `MORE` but the last.
#![forbid(unsafe_code)]

mod groups;
mod ring;
mod scanner;
#[cfg(test)]
mod tests;
mod writer;

pub use groups::{complete_prefix, records_of};
pub use ring::Ring;
pub use scanner::{EndReason, Scanner, Step};
pub use writer::{AppendError, JournalWriter, MAX_GROUP, MAX_RECORDS, Reserve, Sealed};
