//! The system calls that std does not offer, each behind a safe function. All `unsafe` code of
//! this crate is here.

use std::fs::File;
use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

/// Room for the descriptors of one message; the kernel drops more than fit.
const CONTROL_WORDS: usize = 8;

/// Aligned as a control message header must be.
type Control = [u64; CONTROL_WORDS];

/// The effective user of this process.
pub(crate) fn effective_uid() -> u32 {
    // SAFETY: geteuid takes nothing and cannot fail.
    unsafe { libc::geteuid() }
}

/// Asks the kernel to forget the clean pages of a range. It is advice: failure changes nothing.
pub(crate) fn forget_pages(file: &File, offset: u64, len: u64) {
    let (Ok(offset), Ok(len)) = (i64::try_from(offset), i64::try_from(len)) else { return };
    // SAFETY: posix_fadvise takes no pointer, and the descriptor is open while `file` lives.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), offset, len, libc::POSIX_FADV_DONTNEED) };
}

/// The first byte of data at or after `from`; `ENXIO` when there is none.
pub(crate) fn seek_data(file: &File, from: u64) -> io::Result<u64> {
    seek(file, from, libc::SEEK_DATA)
}

/// The first hole at or after `from`; the end of the file counts as one.
pub(crate) fn seek_hole(file: &File, from: u64) -> io::Result<u64> {
    seek(file, from, libc::SEEK_HOLE)
}

fn seek(file: &File, from: u64, whence: libc::c_int) -> io::Result<u64> {
    let from = libc::off_t::try_from(from).map_err(io::Error::other)?;
    // SAFETY: lseek takes no pointer, and the descriptor is open while `file` is borrowed.
    let at = unsafe { libc::lseek(file.as_raw_fd(), from, whence) };
    u64::try_from(at).map_err(|_| io::Error::last_os_error())
}

/// The user of the process at the other end when it connected.
pub(crate) fn peer_uid(stream: &UnixStream) -> io::Result<u32> {
    let mut credentials = MaybeUninit::<libc::ucred>::zeroed();
    let mut len = mem::size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `credentials`, which are that many; any
    // bytes, and the zeros before, are a valid ucred.
    let (result, credentials) = unsafe {
        let result = libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            credentials.as_mut_ptr().cast(),
            &raw mut len,
        );
        (result, credentials.assume_init())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(credentials.uid) }
}

/// Sends the front of `bytes`, and with it `file`. Returns how many bytes went.
pub(crate) fn send(
    stream: &UnixStream,
    bytes: &[u8],
    file: Option<BorrowedFd<'_>>,
) -> io::Result<usize> {
    let mut control: Control = [0; CONTROL_WORDS];
    let mut vector =
        libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: all zeros is a valid msghdr: no name, no vectors, no control data.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    if let Some(file) = file {
        const FD_BYTES: u32 = mem::size_of::<RawFd>() as u32;
        message.msg_control = control.as_mut_ptr().cast();
        // SAFETY: CMSG_SPACE only computes.
        message.msg_controllen = unsafe { libc::CMSG_SPACE(FD_BYTES) } as _;
        // SAFETY: the control buffer is aligned and longer than a header and one descriptor
        // (asserted in the tests), so CMSG_FIRSTHDR is not null and its data has room.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(FD_BYTES) as _;
            libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(file.as_raw_fd());
        }
    }
    // SAFETY: the message points to `vector`, `bytes` and `control`, which outlive the call and
    // are only read.
    let sent = unsafe { libc::sendmsg(stream.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Receives bytes, and the descriptors that came with them. Returns how many bytes; 0 is the end.
pub(crate) fn receive(
    stream: &UnixStream,
    bytes: &mut [u8],
    files: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut control: Control = [0; CONTROL_WORDS];
    let mut vector = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: all zeros is a valid msghdr.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = mem::size_of::<Control>() as _;
    // SAFETY: the message points to `vector`, `bytes` and `control`, which outlive the call and
    // are not otherwise used in it.
    let count =
        unsafe { libc::recvmsg(stream.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    take_files(&message, files);
    Ok(count)
}

/// Takes over the descriptors that a received message carries.
fn take_files(message: &libc::msghdr, files: &mut Vec<OwnedFd>) {
    // SAFETY: the kernel has filled the control buffer that `message` points to, and its length:
    // the macros stay inside. Each descriptor is ours, open, and taken over exactly once.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let data = libc::CMSG_DATA(header).cast::<RawFd>();
                let bytes =
                    ((*header).cmsg_len as usize).saturating_sub(libc::CMSG_LEN(0) as usize);
                for index in 0..bytes / mem::size_of::<RawFd>() {
                    files.push(OwnedFd::from_raw_fd(data.add(index).read_unaligned()));
                }
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};
    use std::os::fd::AsFd;

    #[test]
    fn the_control_buffer_has_room_for_a_descriptor() {
        // SAFETY: CMSG_SPACE only computes.
        let needed = unsafe { libc::CMSG_SPACE(mem::size_of::<RawFd>() as u32) };
        assert!(needed as usize <= mem::size_of::<Control>());
    }

    #[test]
    fn a_descriptor_goes_over() {
        let (one, two) = UnixStream::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"content").unwrap();
        assert_eq!(send(&one, b"abc", Some(file.as_fd())).unwrap(), 3);
        assert_eq!(send(&one, b"def", None).unwrap(), 3);
        drop(file);
        let (mut bytes, mut files) = ([0; 16], Vec::new());
        let mut count = receive(&two, &mut bytes, &mut files).unwrap();
        let mut received = File::from(files.pop().unwrap());
        received.rewind().unwrap();
        let mut text = String::new();
        received.read_to_string(&mut text).unwrap();
        assert_eq!(text, "content");
        // SAFETY: fcntl takes no pointer here.
        let flags = unsafe { libc::fcntl(received.as_raw_fd(), libc::F_GETFD) };
        assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
        while count < 6 {
            count += receive(&two, &mut bytes[count..], &mut files).unwrap();
        }
        assert_eq!(&bytes[..6], b"abcdef");
        assert!(files.is_empty());
        drop(one);
        assert_eq!(receive(&two, &mut bytes, &mut files).unwrap(), 0);
    }

    #[test]
    fn the_peer_is_this_user() {
        let (one, _two) = UnixStream::pair().unwrap();
        assert_eq!(peer_uid(&one).unwrap(), effective_uid());
    }
}
