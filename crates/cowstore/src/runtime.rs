//! Who has a pool open: the registry of holders under the runtime directory.
//!
//! ```text
//!   <runtime>/cow/<key>.json     {"pid", "program", "socket", "path"} of the process that holds it
//!   <runtime>/cow/<key>.sock     its control socket, if it serves one
//! ```
//!
//! The lock is the one on the image itself; an entry here only says who has it, and is believed
//! only while the lock is taken. [`Identity::key`] names the entry: uuid and the file's device
//! and inode, so a copy of a pool's file (same uuid) has an entry of its own. The entry is
//! written after the lock was taken and removed before it is released, so it is never removed
//! under the next holder.
//!
//! `<runtime>` is `$COW_RUNTIME_DIR`; else, for root, `/run`; else `$XDG_RUNTIME_DIR`; else
//! `cow-<uid>` in the temporary directory. What is used must belong to this user and be closed to
//! all others.

use crate::error::{Error, os_error};
use crate::identity::Identity;
use crate::sys::effective_uid;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::env;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Longest entry that is read.
const ENTRY_MAX_BYTES: u64 = 64 << 10;

/// The process that holds a pool, as it says itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// What it calls itself.
    pub program: String,
    /// Its control socket, if it has one.
    #[serde(default)]
    pub socket: Option<PathBuf>,
    /// Where it found the pool.
    #[serde(default)]
    pub path: PathBuf,
}

impl Holder {
    /// The holder of a pool, if one has registered. Whether it still lives is for the lock to
    /// say.
    pub fn of(identity: &Identity) -> Option<Self> {
        read_entry(&directory().ok()?.join(format!("{}.json", identity.key)))
    }

    /// Whether its process exists.
    pub fn is_alive(&self) -> bool {
        Path::new("/proc").join(self.pid.to_string()).exists() || !Path::new("/proc/self").exists()
    }
}

/// A place for what belongs to an open pool and must not outlive this boot: `<key>.<ending>` in the
/// directory of the registry, which is made if need be. Nothing is made there.
///
/// # Errors
/// `Unsupported` when there is no directory that is closed to others.
pub fn path_of(identity: &Identity, ending: &str) -> Result<PathBuf, Error> {
    Ok(directory()?.join(format!("{}.{ending}", identity.key)))
}

/// The text of a busy pool.
pub(crate) fn in_use(path: &Path, holder: Option<&Holder>) -> String {
    match holder {
        Some(Holder { program, pid, .. }) => {
            format!("{}: in use by {program} (pid {pid})", path.display())
        }
        None => format!("{}: in use by another process", path.display()),
    }
}

fn read_entry(path: &Path) -> Option<Holder> {
    let mut text = String::new();
    let file = File::options().read(true).custom_flags(libc::O_NOFOLLOW).open(path).ok()?;
    file.take(ENTRY_MAX_BYTES).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// The directory of the registry, made if need be: `<runtime>/cow`.
pub(crate) fn directory() -> Result<PathBuf, Error> {
    let variable = |name| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    directory_in(variable("COW_RUNTIME_DIR"), variable("XDG_RUNTIME_DIR"), effective_uid())
}

fn directory_in(
    chosen: Option<PathBuf>,
    session: Option<PathBuf>,
    uid: u32,
) -> Result<PathBuf, Error> {
    let system = Some(PathBuf::from("/run")).filter(|run| uid == 0 && run.is_dir());
    let session = session.filter(|dir| dir.is_dir());
    let runtime = match chosen {
        Some(chosen) => {
            make_private(&chosen, true)?;
            chosen
        }
        None => match system.or(session) {
            Some(found) => found,
            None => {
                let fallback = env::temp_dir().join(format!("cow-{uid}"));
                make_private(&fallback, false)?;
                check_private(&fallback, uid)?;
                fallback
            }
        },
    };
    let directory = runtime.join("cow");
    make_private(&directory, false)?;
    check_private(&directory, uid)?;
    Ok(directory)
}

fn make_private(path: &Path, recursive: bool) -> Result<(), Error> {
    match DirBuilder::new().mode(0o700).recursive(recursive).create(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(os_error(path.display(), &e)),
        _ => Ok(()),
    }
}

/// Nobody else may put anything here, or look.
fn check_private(path: &Path, uid: u32) -> Result<(), Error> {
    let metadata = fs::symlink_metadata(path).map_err(|e| os_error(path.display(), &e))?;
    if metadata.is_dir() && metadata.uid() == uid && metadata.mode() & 0o077 == 0 {
        return Ok(());
    }
    let text = "must be a directory of this user's that is closed to others (mode 0700)";
    Err(Error::Unsupported(format!("{}: {text}", path.display())))
}

/// Binds a unix socket that only this user may connect to.
pub(crate) fn bind(socket: &Path) -> io::Result<UnixListener> {
    let listener = with_short_path(socket, |path| UnixListener::bind(path))?;
    // Its directory is closed to others, so nobody has come in between.
    fs::set_permissions(socket, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Connects to a unix socket.
pub(crate) fn connect(socket: &Path) -> io::Result<UnixStream> {
    with_short_path(socket, |path| UnixStream::connect(path))
}

/// The address of a unix socket has room for 107 bytes. A longer path is reached through its
/// directory, opened.
fn with_short_path<T>(socket: &Path, action: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let (Some(parent), Some(name)) = (socket.parent(), socket.file_name()) else {
        return action(socket);
    };
    if socket.as_os_str().len() < 100 {
        return action(socket);
    }
    let directory = File::open(parent)?;
    action(&Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name))
}

/// This process's entry in the registry, while it holds a pool.
pub(crate) struct Registration {
    directory: PathBuf,
    key: String,
    state: Mutex<State>,
}

struct State {
    holder: Holder,
    removed: bool,
}

impl Registration {
    /// Registers this process as the holder of the pool, whose lock it has. `shared` when it has
    /// it for reading only: then other readers may be there, and the first of them stays.
    pub(crate) fn new(identity: &Identity, holder: Holder, shared: bool) -> Result<Self, Error> {
        let directory = directory()?;
        let registration = Self {
            directory,
            key: identity.key.clone(),
            state: Mutex::new(State { holder: holder.clone(), removed: false }),
        };
        let path = registration.entry();
        if shared && let Some(other) = read_entry(&path).filter(Holder::is_alive) {
            return Err(Error::Busy(format!("{} (pid {}) reads it", other.program, other.pid)));
        }
        registration.write(&holder)?;
        if !shared {
            // Of a holder that was killed: the lock is ours, so nobody serves it.
            let _ = fs::remove_file(registration.socket_path());
        }
        Ok(registration)
    }

    fn entry(&self) -> PathBuf {
        self.directory.join(format!("{}.json", self.key))
    }

    /// Where its control socket belongs.
    pub(crate) fn socket_path(&self) -> PathBuf {
        self.directory.join(format!("{}.sock", self.key))
    }

    /// Announces the control socket, or takes it back.
    pub(crate) fn set_socket(&self, socket: Option<PathBuf>) -> Result<(), Error> {
        let mut state = self.state.lock();
        state.holder.socket = socket;
        if state.removed {
            return Err(crate::error::closed());
        }
        self.write(&state.holder)
    }

    /// Takes the entry away. To be called while the lock is still held.
    pub(crate) fn remove(&self) {
        let mut state = self.state.lock();
        if !std::mem::replace(&mut state.removed, true) {
            // If it stays, nobody believes it: the lock is free.
            let _ = fs::remove_file(self.entry());
        }
    }

    /// Replaces the entry in one step.
    fn write(&self, holder: &Holder) -> Result<(), Error> {
        let path = self.entry();
        let temporary = self.directory.join(format!("{}.{}.tmp", self.key, holder.pid));
        let text = serde_json::to_string(holder).map_err(|e| Error::Invalid(e.to_string()))?;
        let fail = |e: io::Error| os_error(path.display(), &e);
        let _ = fs::remove_file(&temporary);
        let options = File::options().write(true).create_new(true).mode(0o600).open(&temporary);
        let written = options.and_then(|mut file| file.write_all(text.as_bytes()));
        let result = written.and_then(|()| fs::rename(&temporary, &path));
        if result.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        result.map_err(fail)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.remove();
    }
}

#[cfg(test)]
mod tests;
