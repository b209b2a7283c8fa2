//! The mounts of the pool that this process has open.

use super::follow;
use crate::failure::Failure;
use cow_fuse::{Mount, mountinfo, protect};
use cowstore::{Error, MountHost, Pool, runtime};
use parking_lot::Mutex;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// How long the end of a mount that nobody uses is waited for.
const END_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a connection that was closed is on its way out.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(20);

/// What the directories for attached volumes end in, and a number.
pub const OWN: &str = "mnt.";

/// All of them. They end when they are unmounted, by whomever.
pub struct Mounts {
    pool: Weak<Pool>,
    state: Mutex<State>,
    on_empty: Option<OnEmpty>,
}

/// For a process that ends with the last of its mounts.
pub struct OnEmpty {
    /// Whether it has something else to do, and stays.
    pub is_busy: Box<dyn Fn() -> bool + Send + Sync>,
    /// Ends it.
    pub end: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct State {
    mounts: Vec<Mount>,
    /// Where it is mounted for `attach`.
    own: Option<PathBuf>,
    /// It is kept for devices over NBD connections, which may not be there yet.
    kept: bool,
    /// The last one has ended, and the process ends with it.
    ending: bool,
}

impl State {
    fn is_unmounted(&self) -> bool {
        self.mounts.iter().all(|mount| mount.ended().has_ended())
    }

    /// Whether something of the pool may be attached.
    fn may_be_attached(&self) -> bool {
        self.kept || self.has_own()
    }

    /// Whether it is mounted for `attach`.
    fn has_own(&self) -> bool {
        let is_own = |mount: &Mount| Some(mount.dir()) == self.own.as_deref();
        self.mounts.iter().any(|mount| is_own(mount) && !mount.ended().has_ended())
    }
}

impl Mounts {
    /// None yet. With `on_empty` the process ends when the last one has ended; nothing is mounted
    /// after that. What is attached follows changes of its volumes.
    pub fn new(pool: &Arc<Pool>, on_empty: Option<OnEmpty>) -> Result<Arc<Self>, Failure> {
        let mounts =
            Arc::new(Self { pool: Arc::downgrade(pool), state: Mutex::default(), on_empty });
        let served = Arc::downgrade(&mounts);
        follow::start(pool, move || {
            let mounts = served.upgrade();
            mounts.is_some_and(|mounts| mounts.state.lock().may_be_attached())
        })?;
        Ok(mounts)
    }

    /// As [`MountHost::mount`].
    pub fn add(self: &Arc<Self>, dir: Option<&Path>) -> Result<PathBuf, Error> {
        let pool = self.pool.upgrade().ok_or_else(|| Error::Busy("the pool is closed".into()))?;
        let mut state = self.state.lock();
        if state.ending {
            return Err(Error::Busy(format!("{}: its server ends", pool.path().display())));
        }
        state.mounts.retain(|mount| !mount.ended().has_ended());
        let is_ours = |at: &Path| state.mounts.iter().any(|mount| mount.dir() == at);
        let at = match (dir, &state.own) {
            (Some(dir), _) => absolute(dir)?,
            (None, Some(own)) if is_ours(own) => return Ok(own.clone()),
            (None, _) => {
                protect_memory();
                own_place(&pool)?
            }
        };
        if is_ours(&at) {
            let text = format!("{}: the pool is mounted there already", at.display());
            return Err(Error::Busy(text));
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
        let mount = Mount::new(pool, &at, on_end);
        let mount = mount.map_err(|e| failed(&at, &e))?;
        let at = mount.dir().to_owned();
        state.mounts.push(mount);
        if dir.is_none() {
            state.own = Some(at.clone());
        }
        Ok(at)
    }

    fn ended(&self) {
        let mut state = self.state.lock();
        state.mounts.retain(|mount| !mount.ended().has_ended());
        self.end_if_empty(&mut state);
    }

    /// Ends the process, if that is what it does now. Whether it ends.
    fn end_if_empty(&self, state: &mut State) -> bool {
        let Some(on_empty) = &self.on_empty else { return false };
        if !state.ending && !state.kept && state.is_unmounted() && !(on_empty.is_busy)() {
            state.ending = true;
            (on_empty.end)();
        }
        state.ending
    }

    /// Ends the process, if that is what it does now: clients of its NBD server, who kept it, may have
    /// gone.
    pub fn look(&self) {
        self.end_if_empty(&mut self.state.lock());
    }

    /// Nothing is attached any more. Whether the process ends; the last connection may be on its way
    /// out.
    fn let_go(&self) -> bool {
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        self.state.lock().kept = false;
        loop {
            let mut state = self.state.lock();
            let ends = self.end_if_empty(&mut state);
            let may_end = self.on_empty.is_some() && state.is_unmounted();
            drop(state);
            if ends || !may_end || Instant::now() > deadline {
                return ends;
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Unmounts all of them. What is in use stays the first time that this is `asked`, and is named;
    /// later it goes, and what is open there fails from then on. Whether all is gone.
    pub fn end_all(&self, asked: u32) -> bool {
        let mounts: Vec<_> = {
            let state = self.state.lock();
            state.mounts.iter().map(|m| (m.dir().to_owned(), m.ended().clone())).collect()
        };
        let mut all = true;
        for (dir, ended) in mounts {
            if cow_fuse::unmount(&dir, false).is_ok() {
                ended.wait_for(END_TIMEOUT);
                remove_own(&dir, &self.state.lock());
            } else if !ended.has_ended() && asked > 1 {
                // It cannot be helped; the process ends.
                let _ = cow_fuse::unmount(&dir, true);
            } else if !ended.has_ended() {
                all = false;
                eprintln!(
                    "cowctl: {}: something there is open; ask again to end this process anyway",
                    dir.display()
                );
            }
        }
        all
    }
}

/// Nothing is there any more.
fn remove_own(dir: &Path, state: &State) {
    if state.own.as_deref() == Some(dir) {
        let _ = fs::remove_dir(dir);
    }
}

/// What the control socket has of them.
pub struct Hosted(pub Arc<Mounts>);

impl MountHost for Hosted {
    fn mount(&self, dir: Option<&Path>) -> Result<PathBuf, Error> {
        self.0.add(dir)
    }

    fn keep(&self) -> Result<(), Error> {
        let mut state = self.0.state.lock();
        if state.ending {
            return Err(Error::Busy("its server ends".into()));
        }
        state.kept = true;
        protect_memory();
        Ok(())
    }

    fn unmount(&self, dir: Option<&Path>) -> Result<bool, Error> {
        let mounts = &self.0;
        let pool = mounts.pool.upgrade().ok_or_else(|| Error::Busy("the pool is closed".into()))?;
        let is_kept = |state: &State| state.kept && !state.has_own();
        if dir.is_none() && is_kept(&mounts.state.lock()) {
            return Ok(mounts.let_go());
        }
        let (at, ended) = {
            let state = mounts.state.lock();
            let own = || {
                let none = || Error::NotFound(format!("{}: no attachments", pool.path().display()));
                state.own.clone().ok_or_else(none)
            };
            let at = dir.map_or_else(own, absolute)?;
            let mount = state.mounts.iter().find(|mount| mount.dir() == at);
            let missing = || Error::NotFound(format!("{}: not mounted by this", at.display()));
            (at.clone(), mount.ok_or_else(missing)?.ended().clone())
        };
        cow_fuse::unmount(&at, false).map_err(|e| failed(&at, &e))?;
        if !ended.wait_for(END_TIMEOUT) {
            return Err(Error::Busy(format!("{}: still in use elsewhere", at.display())));
        }
        remove_own(&at, &mounts.state.lock());
        if dir.is_none() {
            return Ok(mounts.let_go());
        }
        Ok(mounts.end_if_empty(&mut mounts.state.lock()))
    }
}

/// The directory meant. It is not looked at: it may be a mount of this process.
fn absolute(dir: &Path) -> Result<PathBuf, Error> {
    if dir.is_absolute() {
        return Ok(dir.into());
    }
    Err(Error::Invalid(format!("{}: not an absolute path", dir.display())))
}

/// A new directory for what is attached. Each process has its own: where one has died its dead mount
/// stays as long as a device over it is in use, and tells what that is.
fn own_place(pool: &Pool) -> Result<PathBuf, Error> {
    let mut number = 1;
    loop {
        let dir = runtime::path_of(pool.identity(), &format!("{OWN}{number}"))?;
        let taken = mountinfo::at(&dir).map_err(|e| failed(&dir, &e))?.is_some();
        let made = if taken { Ok(()) } else { DirBuilder::new().mode(0o700).create(&dir) };
        match made {
            Ok(()) if taken => number += 1,
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed(&dir, &error));
            }
            _ => return Ok(dir),
        }
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
