//! The system calls that std does not offer, each behind a safe function. All `unsafe` code of
//! this crate is here.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
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

/// Has reads of `file` fail with `EAGAIN` rather than wait.
pub(crate) fn set_nonblocking(file: &File) -> io::Result<()> {
    // SAFETY: fcntl with these takes numbers only.
    let flags = checked(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) })?;
    // SAFETY: as above.
    checked(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) })
        .map(drop)
}

/// Waits until `file` can be read from, or is at its end.
pub(crate) fn wait_readable(file: &File) -> io::Result<()> {
    let mut poll = libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: the pointer is to one `pollfd`, which outlives the call.
    match checked(unsafe { libc::poll(ptr::from_mut(&mut poll), 1, -1) }) {
        Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
        _ => Ok(()),
    }
}

/// Reads one message: its beginning to `head`, the rest to `body`.
pub(crate) fn read_split(mut file: &File, head: &mut [u8], body: &mut [u8]) -> io::Result<usize> {
    file.read_vectored(&mut [IoSliceMut::new(head), IoSliceMut::new(body)])
}

/// Writes one message.
pub(crate) fn write_all_at_once(mut file: &File, parts: &[IoSlice<'_>]) -> io::Result<()> {
    file.write_vectored(parts).map(drop)
}

/// Two ends of a socket that keeps messages apart.
pub(crate) fn message_pair() -> io::Result<(File, OwnedFd)> {
    let mut ends = [-1; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: the kernel writes two numbers to `ends`, which has room for them.
    checked(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()) })?;
    // SAFETY: both are open, and nobody else's.
    let [ours, theirs] = ends.map(|end| unsafe { OwnedFd::from_raw_fd(end) });
    Ok((ours.into(), theirs))
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

// Of <linux/loop.h>.
const LOOP_CLR_FD: libc::c_ulong = 0x4c01;
const LOOP_GET_STATUS64: libc::c_ulong = 0x4c05;
const LOOP_SET_CAPACITY: libc::c_ulong = 0x4c07;
const LOOP_CONFIGURE: libc::c_ulong = 0x4c0a;
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4c82;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_PARTSCAN: u32 = 8;
const LO_FLAGS_DIRECT_IO: u32 = 16;

/// `struct loop_info64`.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<LoopInfo>() == 232 && size_of::<LoopConfig>() == 304);

const NO_INFO: LoopInfo = LoopInfo {
    device: 0,
    inode: 0,
    rdevice: 0,
    offset: 0,
    size_limit: 0,
    number: 0,
    encrypt_type: 0,
    encrypt_key_size: 0,
    flags: 0,
    file_name: [0; 64],
    crypt_name: [0; 64],
    encrypt_key: [0; 32],
    init: [0; 2],
};

/// The number of a loop device that is free at this moment.
pub(crate) fn loop_free(control: &File) -> io::Result<u32> {
    // SAFETY: this request takes no argument.
    let number = checked(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) })?;
    u32::try_from(number).map_err(io::Error::other)
}

/// Puts `backing` behind a loop device, all of it or nothing: direct I/O, partitions scanned.
pub(crate) fn loop_configure(
    device: &File,
    backing: &File,
    read_only: bool,
    block_bytes: u32,
) -> io::Result<()> {
    let fd = u32::try_from(backing.as_raw_fd()).map_err(io::Error::other)?;
    let read_only = if read_only { LO_FLAGS_READ_ONLY } else { 0 };
    let flags = read_only | LO_FLAGS_PARTSCAN | LO_FLAGS_DIRECT_IO;
    let info = LoopInfo { flags, ..NO_INFO };
    let config = LoopConfig { fd, block_size: block_bytes, info, reserved: [0; 8] };
    // SAFETY: the kernel reads one `loop_config`, which `config` is laid out as, and keeps its own
    // reference to the file.
    let result =
        unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, ptr::from_ref(&config)) };
    checked(result).map(drop)
}

/// Has the loop device look at the size of its file again.
pub(crate) fn loop_set_capacity(device: &File) -> io::Result<()> {
    // SAFETY: this request takes no argument.
    checked(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_SET_CAPACITY as _, NONE) }).map(drop)
}

/// Frees a loop device, as soon as nobody has it open.
pub(crate) fn loop_clear(device: &File) -> io::Result<()> {
    // SAFETY: this request takes no argument.
    checked(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CLR_FD as _, NONE) }).map(drop)
}

/// The inode number of the file behind a loop device, for which the kernel asks it.
pub(crate) fn loop_inode(device: &File) -> io::Result<u64> {
    let mut info = NO_INFO;
    // SAFETY: the kernel writes one `loop_info64`, which `info` is laid out as.
    let result = unsafe {
        libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64 as _, ptr::from_mut(&mut info))
    };
    checked(result).map(|_| info.inode)
}

// Of <linux/fs.h>; the crate libc lacks them.
const FIFREEZE: libc::c_ulong = 0xc004_5877;
const FITHAW: libc::c_ulong = 0xc004_5878;

/// Freezes the file system that `dir` lies on.
pub(crate) fn freeze(dir: &File) -> io::Result<()> {
    // SAFETY: the kernel does not look at the argument of this request.
    checked(unsafe { libc::ioctl(dir.as_raw_fd(), FIFREEZE as _, NONE) }).map(drop)
}

/// Ends that.
pub(crate) fn thaw(dir: &File) -> io::Result<()> {
    // SAFETY: the kernel does not look at the argument of this request.
    checked(unsafe { libc::ioctl(dir.as_raw_fd(), FITHAW as _, NONE) }).map(drop)
}

/// Writes what is dirty on the file system that `dir` lies on.
pub(crate) fn sync_file_system(dir: &File) -> io::Result<()> {
    // SAFETY: syncfs takes a number only.
    checked(unsafe { libc::syncfs(dir.as_raw_fd()) }).map(drop)
}

/// Makes the node of block device `number`, where nothing makes it by itself.
pub(crate) fn make_block_node(path: &Path, device: (u32, u32)) -> io::Result<()> {
    let path = c_path(path)?;
    // SAFETY: the path ends in a zero byte and outlives the call.
    let result = unsafe {
        libc::mknod(path.as_ptr(), libc::S_IFBLK | 0o600, libc::makedev(device.0, device.1))
    };
    checked(result).map(drop)
}
