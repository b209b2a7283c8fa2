//! A pool, mounted, and the end of that.

use crate::fs::PoolFs;
use crate::mountinfo::{self, SOURCE};
use crate::sys;
use cowstore::Pool;
use fuser::{Config, MountOption, Session, SessionACL};
use parking_lot::{Condvar, Mutex};
use std::ffi::{CString, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// More event loops than this wait for the pool's one reactor.
const LOOPS_MAX: usize = 4;
const UNMOUNT_HELPER: &str = "fusermount3";
const ENOTCONN: i32 = libc::ENOTCONN;

/// How a pool is mounted.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// Threads that take requests from the kernel.
    pub loops: usize,
}

impl Default for MountOptions {
    fn default() -> Self {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        Self { loops: processors.clamp(2, LOOPS_MAX) }
    }
}

/// Whether a mount has come to its end, from whichever side.
#[derive(Clone, Default)]
pub struct Ended {
    inner: Arc<(Mutex<bool>, Condvar)>,
}

impl Ended {
    fn set(&self) {
        *self.inner.0.lock() = true;
        self.inner.1.notify_all();
    }

    /// Whether it has.
    pub fn has_ended(&self) -> bool {
        *self.inner.0.lock()
    }

    /// Waits for it, but not longer than `timeout`; whether it has.
    pub fn wait_for(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut ended = self.inner.0.lock();
        while !*ended {
            if self.inner.1.wait_until(&mut ended, deadline).timed_out() {
                break;
            }
        }
        *ended
    }
}

/// A mounted pool. Dropping it changes nothing: it ends when it is unmounted, by whomever.
pub struct Mount {
    dir: PathBuf,
    ended: Ended,
}

impl Mount {
    /// Mounts `pool` at `dir`, a directory. Without the right to mount, the setuid program
    /// `fusermount3` does it. `on_end` is called when the mount has ended and has let go of the pool.
    ///
    /// # Errors
    /// Each says what could not be done; `NotFound` and `NotADirectory` mean `dir`.
    pub fn new(
        pool: Arc<Pool>,
        dir: &Path,
        options: &MountOptions,
        on_end: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let explain = |error: io::Error| named(dir, "mount", &error);
        let dir = fs::canonicalize(dir).map_err(explain)?;
        if !dir.is_dir() {
            return Err(named(&dir, "mount", &io::Error::from_raw_os_error(libc::ENOTDIR)));
        }
        let source = source_of(pool.path());
        let files = PoolFs::new(pool).map_err(explain)?;
        let session = session(files, &dir, &source, options).map_err(explain)?;
        let ended = Ended::default();
        let tell = ended.clone();
        let run = move || {
            if let Err(error) = session.run() {
                tracing::error!(%error, "the mount ended with an error");
            }
            tell.set();
            on_end();
        };
        if let Err(error) = thread::Builder::new().name("cow-fuse".into()).spawn(run) {
            // The session is dropped, and its device with it: what is mounted is dead.
            let _ = unmount(&dir, true);
            return Err(explain(error));
        }
        Ok(Self { dir, ended })
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Tells of its end.
    pub fn ended(&self) -> &Ended {
        &self.ended
    }
}

fn named(dir: &Path, action: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {action}: {error}", dir.display()))
}

/// What is shown as mounted: the path of the pool.
fn source_of(pool: &Path) -> OsString {
    let pool = fs::canonicalize(pool).unwrap_or_else(|_| pool.into());
    let mut source = OsString::from(SOURCE);
    source.push(pool);
    source
}

fn session(
    files: PoolFs,
    dir: &Path,
    source: &OsString,
    options: &MountOptions,
) -> io::Result<Session<PoolFs>> {
    let mut config = Config::default();
    config.n_threads = Some(options.loops.max(1));
    config.clone_fd = true;
    config.acl = SessionACL::Owner;
    match mount_directly(dir, source) {
        Ok(device) => Session::from_fd(files, device, SessionACL::Owner, config),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            let name = source.to_str().filter(|name| !name.contains([',', '\\']));
            config.mount_options = vec![
                MountOption::FSName(name.unwrap_or(SOURCE).into()),
                MountOption::Subtype("cow".into()),
                MountOption::DefaultPermissions,
                MountOption::NoExec,
            ];
            Session::new(files, dir, &config)
        }
        Err(error) => Err(error),
    }
}

/// Mounts with the rights of this process.
fn mount_directly(dir: &Path, source: &OsString) -> io::Result<OwnedFd> {
    let device = File::options().read(true).write(true).open("/dev/fuse").map_err(|error| {
        let text = "/dev/fuse cannot be opened; the kernel has no FUSE, or this container hides it";
        io::Error::new(error.kind(), format!("{text}: {error}"))
    })?;
    let (uid, gid) = sys::effective_ids();
    let data = format!(
        "fd={},rootmode=40000,user_id={uid},group_id={gid},default_permissions",
        device.as_raw_fd()
    );
    sys::mount_fuse(&CString::new(source.as_bytes())?, dir, &CString::new(data)?)?;
    Ok(device.into())
}

/// Unmounts `dir`. `lazily` takes it away from the name space now, and ends it when nobody uses it
/// any more.
///
/// # Errors
/// `ResourceBusy` while something in it is open.
pub fn unmount(dir: &Path, lazily: bool) -> io::Result<()> {
    match sys::unmount(dir, lazily) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => unmount_by_helper(dir, lazily),
        result => result,
    }
}

/// Users may not unmount; a setuid program does it for what they have mounted.
fn unmount_by_helper(dir: &Path, lazily: bool) -> io::Result<()> {
    let mut helper = Command::new(UNMOUNT_HELPER);
    helper.arg("-u").args(lazily.then_some("-z")).arg("--").arg(dir).stdin(Stdio::null());
    let output = helper.output().map_err(|error| {
        let text = "not found; the Debian package fuse3 brings it";
        io::Error::new(error.kind(), format!("{UNMOUNT_HELPER}: {text} ({error})"))
    })?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let kind = if text.contains("busy") {
        io::ErrorKind::ResourceBusy
    } else {
        io::ErrorKind::PermissionDenied
    };
    Err(io::Error::new(kind, text))
}

/// Takes away the mount of a pool at `dir` whose process has died. Whether there was one.
///
/// # Errors
/// When it is there and cannot be taken away.
pub fn release_stale(dir: &Path) -> io::Result<bool> {
    let mut found = false;
    // One may cover another.
    while mountinfo::at(dir)?.is_some_and(|entry| entry.is_pool()) && is_dead(dir) {
        unmount(dir, true)?;
        found = true;
    }
    Ok(found)
}

/// Whether what is mounted at `dir` has lost its process. Not to be asked by that process.
pub fn is_dead(dir: &Path) -> bool {
    fs::metadata(dir).is_err_and(|error| error.raw_os_error() == Some(ENOTCONN))
}
