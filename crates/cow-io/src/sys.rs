//! The system calls that std does not offer, each behind a safe function.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::time::Duration;

/// `BLKDISCARD`; libc does not have it.
const BLKDISCARD: libc::Ioctl = libc::_IO(0x12, 119);
/// `BLKGETSIZE64`; libc does not have it.
const BLKGETSIZE64: libc::Ioctl = libc::_IOR::<libc::size_t>(0x12, 114);

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The error number of `error`; `EIO` when it has none.
pub(crate) fn errno_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

fn signed(value: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(value).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))
}

/// Takes the advisory lock without waiting; `false` when somebody else has it.
pub(crate) fn try_flock(file: &File, exclusive: bool) -> io::Result<bool> {
    let mode = if exclusive { libc::LOCK_EX } else { libc::LOCK_SH };
    // SAFETY: flock takes no pointer, and the descriptor is open while `file` is borrowed.
    let result = check(unsafe { libc::flock(file.as_raw_fd(), mode | libc::LOCK_NB) });
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EWOULDBLOCK) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Gives the advisory lock back.
pub(crate) fn unlock(file: &File) -> io::Result<()> {
    // SAFETY: flock takes no pointer, and the descriptor is open while `file` is borrowed.
    check(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_UN) })
}

/// The size of a block device in bytes.
pub(crate) fn device_size(device: &File) -> io::Result<u64> {
    let mut size = 0u64;
    // SAFETY: BLKGETSIZE64 writes one u64 to the address given.
    check(unsafe { libc::ioctl(device.as_raw_fd(), BLKGETSIZE64, &raw mut size) })?;
    Ok(size)
}

/// The logical block size of a block device in bytes.
pub(crate) fn logical_block_size(device: &File) -> io::Result<u32> {
    let mut size: libc::c_int = 0;
    // SAFETY: BLKSSZGET writes one int to the address given.
    check(unsafe { libc::ioctl(device.as_raw_fd(), libc::BLKSSZGET, &raw mut size) })?;
    u32::try_from(size).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// Discards a range of a block device; blocks until the device is done.
pub(crate) fn discard_device(device: &File, offset: u64, len: u64) -> io::Result<()> {
    let range = [offset, len];
    // SAFETY: BLKDISCARD reads two u64 from the address given.
    check(unsafe { libc::ioctl(device.as_raw_fd(), BLKDISCARD, &raw const range) })
}

/// `fallocate` on a file.
pub(crate) fn fallocate(file: &File, mode: i32, offset: u64, len: u64) -> io::Result<()> {
    let (offset, len) = (signed(offset)?, signed(len)?);
    // SAFETY: fallocate takes no pointer, and the descriptor is open while `file` is borrowed.
    check(unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, len) })
}

/// `fdatasync`, once: `File::sync_data` repeats an interrupted call, and with it may swallow the
/// write error that the first one had consumed.
pub(crate) fn fdatasync(file: &File) -> io::Result<()> {
    // SAFETY: fdatasync takes no pointer, and the descriptor is open while `file` is borrowed.
    check(unsafe { libc::fdatasync(file.as_raw_fd()) })
}

/// `fsync`, once, for the same reason.
pub(crate) fn fsync(file: &File) -> io::Result<()> {
    // SAFETY: fsync takes no pointer, and the descriptor is open while `file` is borrowed.
    check(unsafe { libc::fsync(file.as_raw_fd()) })
}

/// Asks the kernel to forget the clean pages of `file`.
pub(crate) fn forget_pages(file: &File) -> io::Result<()> {
    // SAFETY: posix_fadvise takes no pointer, and the descriptor is open.
    match unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) } {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// Writes the vectors at `offset`; returns how many bytes were taken.
///
/// # Safety
/// Every vector must describe memory that is readable and unchanged until the call returns.
pub(crate) unsafe fn pwritev(
    file: &File,
    vectors: &[libc::iovec],
    offset: u64,
) -> io::Result<usize> {
    let count = libc::c_int::try_from(vectors.len())
        .map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let offset = signed(offset)?;
    // SAFETY: the array is borrowed for the call, and the caller vouches for what it points to.
    let written = unsafe { libc::pwritev(file.as_raw_fd(), vectors.as_ptr(), count, offset) };
    usize::try_from(written).map_err(|_| io::Error::last_os_error())
}

/// Turns direct I/O off on an open file.
pub(crate) fn clear_direct(file: &File) -> io::Result<()> {
    // SAFETY: F_GETFL takes no argument, and the descriptor is open while `file` is borrowed.
    let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
    check(flags)?;
    // SAFETY: F_SETFL takes an int.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags & !libc::O_DIRECT) })
}

/// How much memory the processes of this user may lock together, in bytes; `None` for no limit.
pub(crate) fn locked_memory_limit() -> Option<u64> {
    const CAP_IPC_LOCK: u32 = 14;
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    if bits >> CAP_IPC_LOCK & 1 == 1 {
        return None;
    }
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit writes one structure to the address given.
    let result = check(unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) });
    (result.is_err() || limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

/// A new event counter, nonblocking and closed on exec.
pub(crate) fn event_counter() -> io::Result<File> {
    // SAFETY: eventfd takes no pointer.
    let fd: RawFd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    check(fd)?;
    // SAFETY: the descriptor is fresh, open, and owned by nobody else.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// Waits until `file` can be read, no longer than `left`; returns whether it can. It may return
/// early.
pub(crate) fn wait_readable(file: &File, left: Option<Duration>) -> bool {
    let mut poll = libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let millis = left.map_or(-1, |left| {
        libc::c_int::try_from(left.as_micros().div_ceil(1000)).unwrap_or(libc::c_int::MAX)
    });
    // SAFETY: poll is given one entry, which lives across the call.
    unsafe { libc::poll(&raw mut poll, 1, millis) > 0 }
}

/// Keeps signals away from the calling thread, so that none of its calls is interrupted and the
/// program's handlers run on the program's own threads.
pub(crate) fn block_signals() {
    let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset fills the set that it is given, and pthread_sigmask only reads it.
    // Neither can fail with these arguments.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), std::ptr::null_mut());
    }
}
