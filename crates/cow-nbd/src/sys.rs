//! The few system calls that the standard library has no face for. All `unsafe` code of the crate
//! is here.

use std::ffi::CString;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// The process at the other end of a Unix socket.
pub(crate) struct Peer {
    pub(crate) pid: libc::pid_t,
    pub(crate) uid: libc::uid_t,
}

/// Waits until one of `fds` can be read, or the time is up, and tells which can.
pub(crate) fn wait_readable(
    fds: &[BorrowedFd<'_>],
    timeout: Option<Duration>,
) -> io::Result<Vec<bool>> {
    let mut polls: Vec<libc::pollfd> = fds
        .iter()
        .map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 })
        .collect();
    let timeout_ms = timeout.map_or(-1, |t| i32::try_from(t.as_millis()).unwrap_or(i32::MAX));
    // SAFETY: the pointer and the count describe `polls`, which outlives the call.
    let rc = unsafe { libc::poll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, timeout_ms) };
    if rc < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(polls.iter().map(|poll| poll.revents != 0).collect())
}

/// Receives into `first` and then `second` what there is, without waiting; 0 is the end. Fails with
/// `WouldBlock` if there is nothing.
pub(crate) fn receive_now(
    fd: BorrowedFd<'_>,
    first: &mut [u8],
    second: &mut [u8],
) -> io::Result<usize> {
    let mut slices = [IoSliceMut::new(first), IoSliceMut::new(second)];
    // SAFETY: all zeros are a valid message header: no address, no control data.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = slices.as_mut_ptr().cast();
    header.msg_iovlen = slices.len();
    // SAFETY: `IoSliceMut` has the layout of `iovec`; the slices outlive the call.
    let rc = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT) };
    usize::try_from(rc).map_err(|_| io::Error::last_os_error())
}

/// Sends as much of `slices` as there is room for, without waiting and without a signal. Fails with
/// `WouldBlock` if there is none. At most 1,024 slices.
pub(crate) fn send_now(fd: BorrowedFd<'_>, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    // SAFETY: as above.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = slices.as_ptr().cast_mut().cast();
    header.msg_iovlen = slices.len();
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: `IoSlice` has the layout of `iovec`, which the call only reads; it outlives the call.
    let rc = unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const header, flags) };
    usize::try_from(rc).map_err(|_| io::Error::last_os_error())
}

fn set_option(fd: BorrowedFd<'_>, level: i32, name: i32, value: libc::c_int) -> io::Result<()> {
    let size = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the pointer and the size describe `value`, which outlives the call.
    let rc =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), size) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn socket_option(fd: BorrowedFd<'_>, name: i32) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut size = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the pointers describe `value` and its size, which outlive the call.
    let rc = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            name,
            (&raw mut value).cast(),
            &raw mut size,
        )
    };
    if rc == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

/// Makes the kernel notice, after about two minutes, that the peer's host is gone.
pub(crate) fn keep_alive(fd: BorrowedFd<'_>) -> io::Result<()> {
    set_option(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 60)?;
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, 15)?;
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, 4)
}

/// Who is at the other end of a Unix socket.
pub(crate) fn peer(fd: BorrowedFd<'_>) -> io::Result<Peer> {
    let mut cred = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut size = size_of_val(&cred) as libc::socklen_t;
    // SAFETY: the pointers describe `cred` and its size, which outlive the call.
    let rc = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut cred).cast(),
            &raw mut size,
        )
    };
    if rc != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Peer { pid: cred.pid, uid: cred.uid })
}

/// What kind of socket a descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SocketKind {
    UnixListener,
    TcpListener,
    Other,
}

/// Looks at a descriptor that somebody else made.
pub(crate) fn socket_kind(fd: BorrowedFd<'_>) -> io::Result<SocketKind> {
    let listens = socket_option(fd, libc::SO_ACCEPTCONN)? == 1;
    let stream = socket_option(fd, libc::SO_TYPE)? == libc::SOCK_STREAM;
    Ok(match socket_option(fd, libc::SO_DOMAIN)? {
        libc::AF_UNIX if listens && stream => SocketKind::UnixListener,
        libc::AF_INET | libc::AF_INET6 if listens && stream => SocketKind::TcpListener,
        _ => SocketKind::Other,
    })
}

/// Takes descriptor `raw` over from whoever started this process, and keeps it from children.
///
/// # Safety
/// Nothing else in the process may own `raw`, now or later.
pub(crate) unsafe fn adopt(raw: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: `fcntl` with these commands touches no memory; a bad descriptor is an error.
    let rc = unsafe { libc::fcntl(raw, libc::F_SETFD, libc::FD_CLOEXEC) };
    if rc < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open, as `fcntl` has shown; the caller vouches for its ownership.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// A socket to the kernel for generic netlink.
pub(crate) fn generic_netlink() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: `socket` touches no memory.
    let raw = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_GENERIC) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Makes the node of block device `number`, where nothing makes it by itself.
pub(crate) fn make_block_node(path: &Path, number: (u32, u32)) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let device = libc::makedev(number.0, number.1);
    // SAFETY: the path ends in a zero byte and outlives the call.
    let rc = unsafe { libc::mknod(path.as_ptr(), libc::S_IFBLK | 0o600, device) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
