//! Sockets: where clients come from, and the stream to one of them.
//!
//! A Unix socket must never be open to others, not even between `bind` and `chmod`, and changing
//! the umask would be felt by every thread. So it is bound in a directory of its own that nobody
//! else may enter, gets its mode there, and is then renamed to its place. A socket file that
//! nobody listens on any more is replaced; a lock on the directory keeps two servers from doing
//! that to each other.

use crate::error::ServerError;
use crate::sys::{self, SocketKind};
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// A socket that listens.
#[derive(Debug)]
pub enum Listener {
    /// A Unix socket.
    Unix(UnixListener),
    /// A TCP socket.
    Tcp(TcpListener),
}

impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Self {
        Self::Unix(listener)
    }
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

impl Listener {
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(listener) => listener.as_fd(),
            Self::Tcp(listener) => listener.as_fd(),
        }
    }

    pub(crate) fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Unix(listener) => listener.set_nonblocking(true),
            Self::Tcp(listener) => listener.set_nonblocking(true),
        }
    }

    /// Takes one client, with a name for it that a human understands.
    pub(crate) fn accept(&self) -> io::Result<(Stream, String)> {
        match self {
            Self::Unix(listener) => {
                let (stream, _) = listener.accept()?;
                let name = sys::peer(stream.as_fd())
                    .map(|peer| format!("unix:pid={},uid={}", peer.pid, peer.uid));
                Ok((Stream::Unix(stream), name.unwrap_or_else(|_| "unix".to_owned())))
            }
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept()?;
                stream.set_nodelay(true)?;
                sys::keep_alive(stream.as_fd())?;
                Ok((Stream::Tcp(stream), address.to_string()))
            }
        }
    }

    /// Where clients find it.
    pub(crate) fn endpoint(&self) -> io::Result<Endpoint> {
        match self {
            Self::Unix(listener) => {
                let address = listener.local_addr()?;
                Ok(address.as_pathname().map_or(Endpoint::Unnamed, |path| {
                    Endpoint::Unix(std::path::absolute(path).unwrap_or_else(|_| path.into()))
                }))
            }
            Self::Tcp(listener) => Ok(Endpoint::Tcp(listener.local_addr()?)),
        }
    }
}

/// Where clients find a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Unix(PathBuf),
    Tcp(SocketAddr),
    Unnamed,
}

/// The connection to one client.
#[derive(Debug)]
pub(crate) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    pub(crate) fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => (&*stream).read(buf),
            Self::Tcp(stream) => (&*stream).read(buf),
        }
    }

    pub(crate) fn write(&self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => (&*stream).write(buf),
            Self::Tcp(stream) => (&*stream).write(buf),
        }
    }

    pub(crate) fn write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => (&*stream).write_vectored(slices),
            Self::Tcp(stream) => (&*stream).write_vectored(slices),
        }
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(stream) => stream.as_fd(),
            Self::Tcp(stream) => stream.as_fd(),
        }
    }

    /// Ends one or both directions. A stream that is already down is fine.
    pub(crate) fn shutdown(&self, how: Shutdown) {
        let _ = match self {
            Self::Unix(stream) => stream.shutdown(how),
            Self::Tcp(stream) => stream.shutdown(how),
        };
    }

    pub(crate) fn set_timeouts(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Unix(stream) => {
                stream.set_read_timeout(timeout)?;
                stream.set_write_timeout(timeout)
            }
            Self::Tcp(stream) => {
                stream.set_read_timeout(timeout)?;
                stream.set_write_timeout(timeout)
            }
        }
    }
}

/// A socket file that this server has made, and removes again if it is still the same.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// A directory that nobody else may enter, gone when dropped.
struct PrivateDir(PathBuf);

impl PrivateDir {
    fn new(parent: &Path) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        // Short, because the path of a socket must fit into 107 bytes.
        let path = parent.join(format!(".{:x}.{next:x}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for PrivateDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Binds a Unix socket at `path`, for its owner alone.
pub(crate) fn bind_unix(path: &Path) -> Result<(UnixListener, PathBuf, SocketFile), ServerError> {
    let path = std::path::absolute(path).map_err(|source| bind_error(path, source))?;
    let failed = |source| bind_error(&path, source);
    let parent = path.parent().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
    let lock = File::open(parent).map_err(failed)?;
    lock.lock().map_err(failed)?;
    remove_stale(&path)?;
    let private = PrivateDir::new(parent).map_err(failed)?;
    let hidden = private.0.join("s");
    let listener = UnixListener::bind(&hidden).map_err(failed)?;
    fs::set_permissions(&hidden, Permissions::from_mode(0o600)).map_err(failed)?;
    let identity = identity(&hidden).map_err(failed)?;
    fs::rename(&hidden, &path).map_err(failed)?;
    Ok((listener, path.clone(), SocketFile { path, identity }))
}

fn bind_error(path: &Path, source: io::Error) -> ServerError {
    ServerError::Bind { address: path.display().to_string(), source }
}

/// Makes way for a new socket, unless something else than a dead socket is in the way.
fn remove_stale(path: &Path) -> Result<(), ServerError> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(bind_error(path, error)),
    };
    let address = || path.display().to_string();
    if !metadata.file_type().is_socket() {
        return Err(ServerError::NotASocket { address: address() });
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(ServerError::InUse { address: address() }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|error| bind_error(path, error))
        }
        Err(error) => Err(bind_error(path, error)),
    }
}

/// The listening sockets that systemd passed to this process (`LISTEN_PID`, `LISTEN_FDS`), none
/// if it did not. They can be taken once; every later call returns none.
///
/// # Errors
/// When the variables make no sense, or a descriptor is not a socket that listens.
pub fn inherited_listeners() -> Result<Vec<Listener>, ServerError> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    const FIRST: RawFd = 3;
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Ok(Vec::new());
    }
    let count = number("LISTEN_FDS").unwrap_or(0).min(1024) as RawFd;
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(Vec::new());
    }
    let mut listeners = Vec::new();
    for raw in FIRST..FIRST + count {
        // SAFETY: the variables say that these descriptors were passed to this very process for
        // it to own, and `TAKEN` lets only one call here.
        let fd = unsafe { sys::adopt(raw) };
        let failed = |source| ServerError::Inherited { fd: raw, source };
        let fd = fd.map_err(failed)?;
        listeners.push(match sys::socket_kind(fd.as_fd()).map_err(failed)? {
            SocketKind::UnixListener => Listener::Unix(fd.into()),
            SocketKind::TcpListener => Listener::Tcp(fd.into()),
            SocketKind::Other => return Err(failed(io::ErrorKind::InvalidInput.into())),
        });
    }
    Ok(listeners)
}
