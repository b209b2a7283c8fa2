//! A disk below a real process whose power can be cut: a FUSE file system over a directory, with direct I/O.
//!
//! ```text
//!   state   the files, and when the power goes     fs    the kernel's requests
//!   cache   one file: what is flushed, and what is not    rng   a seed's random numbers
//! ```
//!
//! What is written stays in a cache until it is flushed. When the power goes, every request fails from
//! then on, and of what was not flushed the seed chooses what is on the disk: any subset, in
//! any order, torn between sectors of 512 bytes, with or without the growth of the file. A flush may
//! also *lie*: it is answered, and makes nothing durable. Names of files are durable at once.
//!
//! The files below are written by this process alone, so the "next boot" sees exactly what the
//! cut has left. Tests of one process must not look into the mount themselves: it is this process
//! that answers.

mod cache;
mod fs;
mod rng;
mod state;

pub use rng::Rng;
pub use state::{Cut, Flushes};

use crate::tools::run_ok;
use fs::ShimFs;
use fuser::{BackgroundSession, Config, MountOption, Session};
use state::State;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A mounted shim; unmounted when dropped.
pub struct Shim {
    backing: PathBuf,
    dir: PathBuf,
    state: Arc<Mutex<State>>,
    session: Option<BackgroundSession>,
}

impl Shim {
    /// Shows what is in the directory `backing` at the directory `dir`; both are made if need be.
    #[track_caller]
    pub fn mount(backing: &Path, dir: &Path, seed: u64) -> Self {
        std::fs::create_dir_all(backing).expect("a directory");
        std::fs::create_dir_all(dir).expect("a directory");
        let (state, session) = start(backing, dir, seed);
        Self { backing: backing.into(), dir: dir.into(), state, session: Some(session) }
    }

    /// Where it is mounted.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What flushes do from now on.
    pub fn set_flushes(&self, flushes: Flushes) {
        self.state().set_flushes(flushes);
    }

    /// Has the power go now.
    pub fn cut(&self) -> Cut {
        self.state().cut()
    }

    /// Has the power go during the `count`th change or flush from now on.
    pub fn cut_after(&self, count: u64) {
        self.state().cut_after(count);
    }

    /// What the cut has done, if there was one.
    pub fn has_cut(&self) -> Option<Cut> {
        self.state().has_cut()
    }

    /// The power is back, and what is on the disk is mounted again. All who used it must have
    /// ended.
    #[track_caller]
    pub fn boot(&mut self, seed: u64) {
        self.cut();
        self.unmount();
        let (state, session) = start(&self.backing, &self.dir, seed);
        self.state = state;
        self.session = Some(session);
    }

    fn unmount(&mut self) {
        if let Some(session) = self.session.take() {
            // A process that was killed may still be about to close its files.
            run_ok(&["umount", "-l", self.dir.to_str().expect("UTF-8")]);
            drop(session);
        }
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        self.unmount();
    }
}

fn start(backing: &Path, dir: &Path, seed: u64) -> (Arc<Mutex<State>>, BackgroundSession) {
    let state = Arc::new(Mutex::new(State::new(backing, seed).expect("the files below")));
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("cow-shim".into())];
    config.n_threads = Some(2);
    config.clone_fd = true;
    let session = Session::new(ShimFs::new(state.clone()), dir, &config);
    let session = session.and_then(Session::spawn).expect("the shim is mounted");
    (state, session)
}
