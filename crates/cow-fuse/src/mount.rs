//! A pool, mounted, and the end of that.

use crate::bridge::Bridge;
use crate::device::{Device, TRANSFER_MAX_BYTES};
use crate::fs::PoolFs;
use crate::handles::Handles;
use crate::mountinfo::{self, SOURCE};
use crate::sys;
use cowstore::{Pool, Source};
use fuser::{
    Config, Filesystem, InitFlags, KernelConfig, MountOption, Request, Session, SessionACL,
};
use parking_lot::{Condvar, Mutex};
use std::ffi::{CString, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Requests of direct I/O that the kernel has in flight at once.
const BACKGROUND_MAX: u16 = 256;
const UNMOUNT_HELPER: &str = "fusermount3";
const ENOTCONN: i32 = libc::ENOTCONN;

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
        on_end: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let explain = |error: io::Error| named(dir, "mount", &error);
        let dir = fs::canonicalize(dir).map_err(explain)?;
        if !dir.is_dir() {
            return Err(named(&dir, "mount", &io::Error::from_raw_os_error(libc::ENOTDIR)));
        }
        let source = source_of(pool.path());
        let session = session(&dir, &source).map_err(explain)?;
        let ended = Ended::default();
        let tell = ended.clone();
        let served = serve(pool, &session).and_then(|served| {
            let run = move || {
                served.run();
                // What the helper mounted it unmounts again.
                drop(session);
                tell.set();
                on_end();
            };
            thread::Builder::new().name("cow-fuse".into()).spawn(run)
        });
        if let Err(error) = served {
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

/// What serves the requests of a mount.
struct Served {
    bridge: Bridge,
    /// The device, when the reactor does not read from it any more.
    back: Receiver<Box<Device>>,
}

fn serve(pool: Arc<Pool>, session: &Session<Handshake>) -> io::Result<Served> {
    let handles = Arc::new(Handles::default());
    let device = File::from(session.as_fd().try_clone_to_owned()?);
    sys::set_nonblocking(&device)?;
    let files = PoolFs::new(pool.clone(), handles.clone())?;
    let (bridge, others) = Bridge::start(files, device.try_clone()?)?;
    let (home, back) = channel();
    let buffers = pool.buffers();
    let new_body = Box::new(move || buffers.for_bytes(TRANSFER_MAX_BYTES));
    let device = Device::new(device, handles, others, home, new_body);
    pool.serve(Box::new(device));
    Ok(Served { bridge, back })
}

impl Served {
    /// Returns when the mount has ended and the pool has been let go of.
    fn run(self) {
        let Self { bridge, back } = self;
        if let Ok(mut device) = back.recv() {
            while !device.has_ended {
                if let Err(error) = device.wait() {
                    tracing::error!(%error, "cannot wait for requests of the kernel");
                    break;
                }
                device.take();
            }
        }
        bridge.join();
    }
}

/// Settles with the kernel what the mount can.
struct Handshake;

impl Filesystem for Handshake {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Each of these makes it faster; an old kernel lacks some.
        for wanted in [InitFlags::FUSE_ASYNC_DIO, InitFlags::FUSE_PARALLEL_DIROPS] {
            let _ = config.add_capabilities(wanted);
        }
        let _ = config.set_max_write(TRANSFER_MAX_BYTES as u32);
        let _ = config.set_max_background(BACKGROUND_MAX);
        let _ = config.set_congestion_threshold(BACKGROUND_MAX);
        Ok(())
    }
}

fn session(dir: &Path, source: &OsString) -> io::Result<Session<Handshake>> {
    let mut config = Config::default();
    config.acl = SessionACL::Owner;
    match mount_directly(dir, source) {
        Ok(device) => Session::from_fd(Handshake, device, SessionACL::Owner, config),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            let name = source.to_str().filter(|name| !name.contains([',', '\\']));
            config.mount_options = vec![
                MountOption::FSName(name.unwrap_or(SOURCE).into()),
                MountOption::Subtype("cow".into()),
                MountOption::DefaultPermissions,
                MountOption::NoExec,
            ];
            Session::new(Handshake, dir, &config)
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
