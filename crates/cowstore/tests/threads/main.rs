//! The threads of a pool under a model checker (shuttle): callers, the reactor, and the workers of the thread driver,
//! in orders that a scheduler chooses at every lock, condition and atomic, thousands of them.
//!
//! The files that hold what threads share are compiled here once more, as they are, with the checker's primitives
//! (`cowstore::sync`, `cow_io::primitives`): the queue to the reactor, the reactor, completions and inboxes, the
//! notifier, the mailbox, the pool of workers and the driver on it. What is checked: every request is answered exactly
//! once, whatever ends the pool and when; nobody sleeps for ever (the checker calls that a deadlock); a source of
//! requests leaves exactly once.
//!
//! The engine is not here, as it has no threads: all it does is in steps on the reactor's thread. In which order
//! *its* tasks and completions come is explored by `cow-sim` (`linear`).
//!
//! `COW_SHUTTLE_ITERATIONS` is how many orders each check tries; a failure prints the schedule, and
//! `shuttle::replay` repeats it.
#![allow(clippy::unwrap_used, clippy::expect_used, dead_code, unused_imports)]

extern crate self as cow_io;

#[path = "../../src/completion.rs"]
mod completion;
#[path = "../../../cow-io/src/driver.rs"]
mod driver;
#[path = "../../src/linger.rs"]
mod linger;
#[path = "../../../cow-io/src/message.rs"]
mod message;
#[path = "../../../cow-io/src/notify.rs"]
mod notify;
#[path = "../../src/pace.rs"]
mod pace;
#[path = "../../../cow-io/src/pool.rs"]
mod pool;
#[path = "../../src/queue.rs"]
mod queue;
#[path = "../../src/reactor.rs"]
mod reactor;
#[path = "../../../cow-io/src/request.rs"]
mod request;
#[path = "../../src/source.rs"]
mod source;
#[path = "../../../cow-io/src/threads.rs"]
mod threads;

mod checks;
mod stand_ins;
mod sync;

pub use driver::{Driver, WatchId};
pub use message::Message;
pub use notify::Notifier;
pub use request::{IoDone, IoOp, IoRequest};

mod primitives {
    pub(crate) use shuttle::sync::atomic::{AtomicBool, Ordering};
    pub(crate) use shuttle::sync::{Condvar, Mutex, MutexGuard};
    pub(crate) use shuttle::thread::{Builder, JoinHandle};
    pub(crate) use std::sync::PoisonError;
}

/// `cowstore::error`, and of `cow_io::error` what a request needs.
mod error {
    pub(crate) use cow_engine::Error;

    pub(crate) fn closed() -> Error {
        Error::Poisoned("it is closed".into())
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum OpKind {
        Read,
        Write,
        Flush,
        Discard,
        Allocate,
        Grow,
    }

    #[derive(Clone, Copy, Debug)]
    pub struct IoError {
        pub op: OpKind,
        pub offset: u64,
        pub errno: i32,
    }
}

mod arena {
    pub(crate) struct Arena;

    impl Arena {
        pub(crate) fn pool(&self) -> cow_format::BufPool {
            cow_format::BufPool::default()
        }
    }
}

mod blocking {
    pub(crate) use crate::stand_ins::finish;
}

mod image {
    pub(crate) use crate::stand_ins::Image;
}

mod op {
    pub(crate) struct Op {
        pub(crate) tag: u64,
    }
}

mod sys {
    pub(crate) fn block_signals() {}

    pub(crate) fn event_counter() -> std::io::Result<std::fs::File> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
}

mod bypass {
    pub(crate) struct CacheBypass;

    impl CacheBypass {
        pub(crate) fn forget(&self, _: u64, _: u64) {}
    }
}

mod runtime {
    pub(crate) struct Registration;

    impl Registration {
        pub(crate) fn remove(&self) {}
    }
}
