//! The steps of the hot path, each ready to be called again and again.

pub mod codec;
pub mod engine;
pub mod state;
pub mod tree;
