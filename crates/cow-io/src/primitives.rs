//! The primitives of threads that this crate is made of. A test of `cowstore` (`tests/threads`) compiles the files
//! that use them once more, with those of a model checker in their place.

pub(crate) use std::sync::atomic::{AtomicBool, Ordering};
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
pub(crate) use std::thread::{Builder, JoinHandle};
