//! cow-alloc: which blocks are free, which block comes next, and the bitmap pages that a
//! checkpoint writes. The engine calls it, and the checker its page decoder; it calls cow-format
//! alone and does no I/O: it asks for pages and is given them.
//!
//! Two maps, never to be confused (design section 4, "Homes"):
//!
//! ```text
//! image      what the newest checkpoint refers to; on disk in the zones' active homes
//! used       image + unfolded + quarantine + leaving + withheld; in memory only; set = not
//!            allocatable
//!
//! unfolded   handed out (or named by a replayed record), not in a checkpoint yet
//! quarantine freed by a checkpoint whose predecessor is still a fallback
//! leaving    no fallback needs it; being given back to the file system below, then free
//! withheld   failed a write; never allocated again
//! ```
//!
//! A block's way: free -> `alloc` -> unfolded -> `stage` (add), `commit` -> image -> `stage`
//! (free), `commit` -> quarantine -> `release` -> free, or after `leave` through a discard below
//! (`discard.rs`). A block that is overwritten before it was ever folded goes from unfolded to
//! quarantine.
//!
//! Memory: a descriptor a zone always; the two bitmaps of a zone (8 KiB) only while it is
//! *resident*. A zone with unfolded blocks is pinned, as nothing else knows them; any other can
//! be rebuilt from its page, the quarantine and the withheld blocks, and is evicted when over
//! the budget.
//!
//! Invariants: `free_blocks` is the exact number of clear `used` bits over all zones, resident or
//! not; a staged page never holds a block that was not in the image or staged as added; nothing
//! that the image, the journal or the fallback refers to is ever handed out.
#![forbid(unsafe_code)]

mod allocator;
mod bits;
mod discard;
mod error;
mod frontier;
mod grow;
mod image;
mod leaving;
mod load;
mod quarantine;
mod release;
mod resident;
mod seek;
mod stage;
#[cfg(test)]
mod tests;
mod zone;

pub use allocator::Allocator;
pub use discard::{Chosen, MAX_DISCARD};
pub use error::AllocError;
pub use frontier::Stream;
pub use image::{ZoneImage, decode_page};
pub use leaving::CELL_BLOCKS;
pub use resident::MAX_RESIDENT;
pub use stage::Staged;
