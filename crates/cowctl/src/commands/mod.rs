//! What each verb does.

pub mod check;
pub mod diff;
pub mod dump;
pub mod list;
pub mod pool;
pub mod props;
pub mod repair;
pub mod roots;
pub mod scrub;
pub mod snapshot;
pub mod space;
pub mod transfer;
pub mod tree;
pub mod volume;

pub use tree::draw;
