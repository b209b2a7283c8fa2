//! The system calls that std does not offer, each behind a safe function. All `unsafe` code of
//! this crate is here.

use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

/// Effective user and group of this process.
pub(crate) fn effective_ids() -> (u32, u32) {
    // SAFETY: neither takes anything, and neither can fail.
    unsafe { (libc::geteuid(), libc::getegid()) }
}

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// Mounts a FUSE file system; `data` are its options.
pub(crate) fn mount_fuse(source: &CStr, dir: &Path, data: &CStr) -> io::Result<()> {
    let dir = c_path(dir)?;
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    let kind = c"fuse.cow";
    // SAFETY: all four are strings that end in a zero byte and outlive the call; the kernel copies
    // them.
    checked(unsafe {
        libc::mount(source.as_ptr(), dir.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast())
    })
    .map(drop)
}

/// Unmounts `dir`; `lazily` takes it away from the name space now, and ends it when nobody uses it.
pub(crate) fn unmount(dir: &Path, lazily: bool) -> io::Result<()> {
    let dir = c_path(dir)?;
    let flags = libc::UMOUNT_NOFOLLOW | if lazily { libc::MNT_DETACH } else { 0 };
    // SAFETY: the path ends in a zero byte and outlives the call.
    checked(unsafe { libc::umount2(dir.as_ptr(), flags) }).map(drop)
}

// Of <linux/prctl.h>; the crate libc lacks them.
const PR_SET_IO_FLUSHER: libc::c_int = 57;
const PR_GET_IO_FLUSHER: libc::c_int = 58;
const NONE: libc::c_ulong = 0;

pub(crate) fn mark_io_flusher() -> io::Result<()> {
    let on: libc::c_ulong = 1;
    // SAFETY: prctl with this option takes numbers only.
    checked(unsafe { libc::prctl(PR_SET_IO_FLUSHER, on, NONE, NONE, NONE) }).map(drop)
}

pub(crate) fn is_io_flusher() -> bool {
    // SAFETY: prctl with this option takes numbers only.
    unsafe { libc::prctl(PR_GET_IO_FLUSHER, NONE, NONE, NONE, NONE) == 1 }
}

pub(crate) fn lock_memory() -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to `limit`, which outlives the call.
    checked(unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, ptr::from_mut(&mut limit)) })?;
    // Once locked, memory beyond the limit could not be had at all: all or nothing.
    if limit.rlim_cur != libc::RLIM_INFINITY && effective_ids().0 != 0 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let flags = libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT;
    // SAFETY: mlockall takes no pointer; it changes where pages are, not what is in them.
    checked(unsafe { libc::mlockall(flags) }).map(drop)
}
