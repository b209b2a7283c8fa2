//! The primitives of threads that the queue of a connection is made of. `tests/threads.rs` compiles it once more, with
//! those of a model checker in their place.

pub(crate) use parking_lot::{Condvar, Mutex};
pub(crate) use std::sync::atomic::{AtomicBool, Ordering};
pub(crate) use std::thread;
