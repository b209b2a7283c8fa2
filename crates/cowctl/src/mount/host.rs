//! The mounts of the pool that this process has open.

use cow_fuse::{Mount, MountOptions, mountinfo, protect};
use cowstore::{Error, MountHost, Pool, runtime};
use parking_lot::Mutex;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// How long the end of a mount that nobody uses is waited for.
const END_TIMEOUT: Duration = Duration::from_secs(30);

/// All of them. They end when they are unmounted, by whomever.
pub struct Mounts {
    pool: Weak<Pool>,
    state: Mutex<State>,
    on_empty: Option<Box<dyn Fn() + Send + Sync>>,
}

#[derive(Default)]
struct State {
    mounts: Vec<Mount>,
    /// The last one has ended, and the process ends with it.
    ending: bool,
}

impl Mounts {
    /// None yet. `on_empty`, if given, is called when the last one has ended; nothing is mounted
    /// after that.
    pub fn new(pool: &Arc<Pool>, on_empty: Option<Box<dyn Fn() + Send + Sync>>) -> Arc<Self> {
        Arc::new(Self { pool: Arc::downgrade(pool), state: Mutex::default(), on_empty })
    }

    /// As [`MountHost::mount`].
    pub fn add(self: &Arc<Self>, dir: Option<&Path>) -> Result<PathBuf, Error> {
        let pool = self.pool.upgrade().ok_or_else(|| Error::Busy("the pool is closed".into()))?;
        let mut state = self.state.lock();
        if state.ending {
            return Err(Error::Busy(format!("{}: its server ends", pool.path().display())));
        }
        state.mounts.retain(|mount| !mount.ended().has_ended());
        let at = place(&pool, dir)?;
        if state.mounts.iter().any(|mount| mount.dir() == at) {
            let taken = format!("{}: the pool is mounted there already", at.display());
            return if dir.is_none() { Ok(at) } else { Err(Error::Busy(taken)) };
        }
        if dir.is_none() {
            make_private(&at)?;
            protect_memory();
        }
        // Nothing of ours is there, so it may be looked at.
        cow_fuse::release_stale(&at).map_err(|e| failed(&at, &e))?;
        if let Some(other) = mountinfo::at(&at).map_err(|e| failed(&at, &e))?
            && other.is_pool()
        {
            return Err(Error::Busy(format!("{}: a pool is mounted there already", at.display())));
        }
        let mounts = Arc::downgrade(self);
        let on_end = move || mounts.upgrade().into_iter().for_each(|mounts| mounts.ended());
        let mount = Mount::new(pool, &at, &MountOptions::default(), on_end);
        let mount = mount.map_err(|e| failed(&at, &e))?;
        let dir = mount.dir().to_owned();
        state.mounts.push(mount);
        Ok(dir)
    }

    fn ended(&self) {
        let mut state = self.state.lock();
        state.mounts.retain(|mount| !mount.ended().has_ended());
        if !state.mounts.is_empty() {
            return;
        }
        if let Some(on_empty) = &self.on_empty {
            state.ending = true;
            drop(state);
            on_empty();
        }
    }

    /// Unmounts all of them, what is in use `lazily`: files that are open there fail from the end
    /// of this process on. Returns what is still mounted.
    pub fn end_all(&self, lazily: bool) -> Vec<PathBuf> {
        let mounts: Vec<_> = {
            let state = self.state.lock();
            state.mounts.iter().map(|m| (m.dir().to_owned(), m.ended().clone())).collect()
        };
        let mut left = Vec::new();
        for (dir, ended) in mounts {
            match cow_fuse::unmount(&dir, false) {
                Ok(()) => drop(ended.wait_for(END_TIMEOUT)),
                Err(_) if ended.has_ended() => {}
                Err(_) if lazily => drop(cow_fuse::unmount(&dir, true)),
                Err(_) => left.push(dir),
            }
        }
        left
    }
}

/// What the control socket has of them.
pub struct Hosted(pub Arc<Mounts>);

impl MountHost for Hosted {
    fn mount(&self, dir: Option<&Path>) -> Result<PathBuf, Error> {
        self.0.add(dir)
    }

    fn unmount(&self, dir: Option<&Path>) -> Result<bool, Error> {
        let mounts = &self.0;
        let pool = mounts.pool.upgrade().ok_or_else(|| Error::Busy("the pool is closed".into()))?;
        let at = place(&pool, dir)?;
        let ended = {
            let state = mounts.state.lock();
            let mount = state.mounts.iter().find(|mount| mount.dir() == at);
            let missing = || Error::NotFound(format!("{}: not mounted by this", at.display()));
            mount.ok_or_else(missing)?.ended().clone()
        };
        cow_fuse::unmount(&at, false).map_err(|e| failed(&at, &e))?;
        // With this lock the callback has not run yet, or has decided.
        if !ended.wait_for(END_TIMEOUT) {
            return Err(Error::Busy(format!("{}: still in use elsewhere", at.display())));
        }
        Ok(mounts.on_empty.is_some()
            && mounts.state.lock().mounts.iter().all(|mount| mount.ended().has_ended()))
    }
}

/// The directory meant. A path that somebody gave is absolute, and is not looked at: it may be a
/// mount of this process.
fn place(pool: &Pool, dir: Option<&Path>) -> Result<PathBuf, Error> {
    match dir {
        Some(dir) if dir.is_absolute() => Ok(dir.into()),
        Some(dir) => Err(Error::Invalid(format!("{}: not an absolute path", dir.display()))),
        None => runtime::path_of(pool.identity(), "mnt"),
    }
}

fn make_private(dir: &Path) -> Result<(), Error> {
    match DirBuilder::new().mode(0o700).create(dir) {
        // That it is there may mean that something dead is mounted there.
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed(dir, &error)),
        _ => Ok(()),
    }
}

/// From here on this process serves block devices to its own host.
fn protect_memory() {
    if !protect::is_io_flusher() {
        tracing::warn!("not marked as a server of block devices: that takes CAP_SYS_RESOURCE");
    }
    if let Err(error) = protect::lock_memory() {
        tracing::warn!(%error, "the memory of this process is not locked");
    }
}

fn failed(dir: &Path, error: &io::Error) -> Error {
    if error.kind() == io::ErrorKind::ResourceBusy {
        return Error::Busy(format!("{}: something there is open", dir.display()));
    }
    let mut text = error.to_string();
    if !text.starts_with(&*dir.to_string_lossy()) {
        text = format!("{}: {text}", dir.display());
    }
    match error.kind() {
        io::ErrorKind::NotFound => Error::NotFound(text),
        _ => Error::Unsupported(text),
    }
}
