//! The primitives of threads that the way to the reactor and back is made of. `tests/threads` compiles the files
//! that use them once more, with those of a model checker in their place.

pub(crate) use parking_lot::{Condvar, Mutex};
pub(crate) use std::thread::yield_now;
pub(crate) use std::thread_local;
