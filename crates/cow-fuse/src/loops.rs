//! Loop devices over files of a mount. Nobody but the kernel knows what is behind which, so the
//! kernel is asked each time: a process that dies leaves no list behind that could be wrong.
//!
//! Whoever calls these may wait for the process that serves the file, so it must not be that.

use crate::sys;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

const LOOP_MAJOR: u32 = 7;
/// Others may take the free device first, each time another one.
const ATTEMPTS: u32 = 64;
/// How long a device that nobody uses is waited for: something like udev may look at it.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);

/// A loop device with a file behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoopDevice {
    /// Its number: `/dev/loopN`.
    pub number: u32,
    /// The file behind it, by the path that it had when it was last looked up.
    pub backing: PathBuf,
    /// It refuses writes.
    pub read_only: bool,
}

impl LoopDevice {
    /// Its path.
    pub fn path(&self) -> PathBuf {
        node(self.number)
    }

    /// Whether something mounts it or a partition of it, or claims it otherwise.
    pub fn is_claimed(&self) -> bool {
        let exclusively = File::options().read(true).custom_flags(libc::O_EXCL).open(self.path());
        exclusively.is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY))
    }

    /// Whether the process that serves the file behind it has died: all its I/O fails.
    pub fn is_dead(&self) -> bool {
        self.inode().is_err_and(|error| error.raw_os_error() == Some(libc::ENOTCONN))
    }

    /// The inode number of the file behind it.
    ///
    /// # Errors
    /// `NotConnected` when the process that serves the file has died.
    pub fn inode(&self) -> io::Result<u64> {
        sys::loop_inode(&File::open(self.path())?)
    }

    /// Has it take over a new size of the file.
    ///
    /// # Errors
    /// When it has been freed meanwhile.
    pub fn refresh_size(&self) -> io::Result<()> {
        // Older kernels go by what they know already.
        let _ = fs::metadata(&self.backing);
        sys::loop_set_capacity(&File::open(self.path())?)
    }

    /// Frees it, and waits until it is free.
    ///
    /// # Errors
    /// `ResourceBusy` while somebody uses it; then it stays.
    pub fn release(&self) -> io::Result<()> {
        let in_use = || {
            let text = format!("{}: in use", self.path().display());
            io::Error::new(io::ErrorKind::ResourceBusy, text)
        };
        let deadline = Instant::now() + RELEASE_TIMEOUT;
        loop {
            {
                // Nobody can mount it between the look and the end.
                let mut open = File::options();
                match open.read(true).custom_flags(libc::O_EXCL).open(self.path()) {
                    Ok(device) => match sys::loop_clear(&device) {
                        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => return Ok(()),
                        Err(error) if error.raw_os_error() != Some(libc::EBUSY) => {
                            return Err(error);
                        }
                        _ => {}
                    },
                    Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                        return Err(in_use());
                    }
                    Err(error) => return Err(error),
                }
            }
            if find(self.number).is_none_or(|now| now.backing != self.backing) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(in_use());
            }
            thread::sleep(PAUSE);
        }
    }
}

fn node(number: u32) -> PathBuf {
    format!("/dev/loop{number}").into()
}

/// Puts `backing` behind a free loop device with direct I/O and logical blocks of `block_bytes`;
/// of 512 where that is not allowed.
///
/// # Errors
/// `NotFound` when the kernel has no loop devices.
pub fn attach(backing: &File, read_only: bool, block_bytes: u32) -> io::Result<PathBuf> {
    let explain = |path: &Path, error: io::Error| {
        io::Error::new(error.kind(), format!("{}: {error}", path.display()))
    };
    let control = Path::new("/dev/loop-control");
    let control = File::open(control).map_err(|error| explain(control, error))?;
    let mut block_bytes = block_bytes;
    for _ in 0..ATTEMPTS {
        let number = sys::loop_free(&control)?;
        let path = node(number);
        let device = open_node(&path, number).map_err(|error| explain(&path, error))?;
        match sys::loop_configure(&device, backing, read_only, block_bytes) {
            Ok(()) => return Ok(path),
            // Somebody else was faster.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && block_bytes != 512 => {
                block_bytes = 512;
            }
            Err(error) => return Err(explain(&path, error)),
        }
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "no loop device stays free long enough"))
}

/// Opens a loop device; in a container its node may be missing.
fn open_node(path: &Path, number: u32) -> io::Result<File> {
    let open = || File::options().read(true).write(true).open(path);
    match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            match sys::make_block_node(path, (LOOP_MAJOR, number)) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
                _ => open(),
            }
        }
        result => result,
    }
}

/// All loop devices that have a file behind them, by number.
pub fn list() -> Vec<LoopDevice> {
    let Ok(entries) = fs::read_dir("/sys/block") else { return Vec::new() };
    let numbers = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix("loop")?.parse().ok());
    let mut devices: Vec<LoopDevice> = numbers.filter_map(find).collect();
    devices.sort_by_key(|device| device.number);
    devices
}

fn find(number: u32) -> Option<LoopDevice> {
    let dir = Path::new("/sys/block").join(format!("loop{number}"));
    let backing = fs::read_to_string(dir.join("loop/backing_file")).ok()?;
    let backing = backing.trim_end_matches('\n');
    // What the kernel adds when the name does not lead there any more.
    let backing = backing.strip_suffix(" (deleted)").unwrap_or(backing);
    let read_only = fs::read_to_string(dir.join("ro")).is_ok_and(|text| text.trim() == "1");
    Some(LoopDevice { number, backing: backing.into(), read_only })
}
