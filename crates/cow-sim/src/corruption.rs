//! One thing wrong with a pool that holds every structure: any sector zeroed, flipped, stale or that
//! of a neighbour, any block lost or misdirected, any bit of a header.
//!
//! * [`specimen`]: the pools, and [`contents`], what is in them; [`harm`]: what is done to them.
//! * [`forge`]: what no checksum keeps out; [`exercise`]: all that can be asked of it;
//!   [`mend`]: its repair.
//! * [`glimpse`]: all that clients can see of a pool that may be damaged, and whether it may be.
//! * [`verdict`]: one damaged pool, opened for writing, folded, opened for reading, and checked.

pub mod contents;
pub mod exercise;
pub mod flags;
pub mod forge;
pub mod glimpse;
pub mod harm;
pub mod mend;
pub mod specimen;
pub mod verdict;
