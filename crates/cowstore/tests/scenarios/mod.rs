//! What a pool must do, whatever is below it. The unit tests run this on a stand-in for the
//! engine, tests/engine.rs on the real one.
#![allow(clippy::unwrap_used, clippy::expect_used)]

pub mod control;
pub mod opening;
pub mod transfers;
pub mod verbs;
pub mod volumes;

use cowstore::{CreateOptions, Error, OpenOptions, Pool};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

/// What is below a pool.
pub trait Backend {
    fn create(&self, path: &Path, options: &CreateOptions) -> Result<Pool, Error>;
    fn open(&self, path: &Path, options: &OpenOptions) -> Result<Pool, Error>;
}

/// A directory with a pool in it.
pub struct Place {
    pub dir: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn pool(&self, backend: &dyn Backend) -> Pool {
        backend.create(&self.path("pool.cow"), &CreateOptions::with_size(256 << 20)).unwrap()
    }

    pub fn reopen(&self, backend: &dyn Backend) -> Pool {
        backend.open(&self.path("pool.cow"), &OpenOptions::default()).unwrap()
    }
}

/// Bytes that depend on where they are and on `seed`, never zero.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let byte = |at: u64| {
        let mixed = (at ^ seed << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 40) as u8 | 1
    };
    (0..len as u64).map(byte).collect()
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future on this thread.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

macro_rules! tests {
    (@ $backend:expr, $module:ident: $($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                scenarios::$module::$name(&$backend);
            }
        )*
    };
    ($backend:expr) => {
        scenarios::tests!(@ $backend, volumes: any_alignment large_and_crooked async_form
            callbacks holes_and_extents outside_is_refused changes_are_told ends_with_its_pool many_threads);
        scenarios::tests!(@ $backend, verbs: snapshots_stay rollback_and_undo clones
            deletes_and_holds names_and_sizes properties diffs bad_names);
        scenarios::tests!(@ $backend, opening: create_refuses no_pool_at_all twice_is_busy
            readers_share a_copy_opens_beside what_is_closed_is_there);
        scenarios::tests!(@ $backend, transfers: there_and_back lengths_to_the_byte
            into_a_volume larger_than_the_volume other_formats streams failures_leave_nothing
            unfinished_is_deleted_at_open of_a_volume_in_use);
        scenarios::tests!(@ $backend, control: all_verbs_from_outside files_go_over
            a_long_list strange_clients stopping served_pools_are_managed);
    };
}
pub(crate) use tests;
