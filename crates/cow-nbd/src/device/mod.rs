//! Block devices of this machine over NBD connections: the kernel's module `nbd`, asked by generic
//! netlink (`include/uapi/linux/nbd-netlink.h`).
//!
//! A device is found again by what it was called when it was made, which the kernel keeps
//! (`/sys/block/nbdN/backend`, from Linux 5.14 on): no list outlives a process, and none can be
//! wrong. The sockets are the kernel's from then on; whoever made the device may end.

mod client;
mod netlink;

pub use client::Client;

use crate::sys;
use netlink::{Attributes, Netlink};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

const CMD_CONNECT: u8 = 1;
const CMD_DISCONNECT: u8 = 2;
const CMD_RECONFIGURE: u8 = 3;

const ATTR_INDEX: u16 = 1;
const ATTR_SIZE_BYTES: u16 = 2;
const ATTR_BLOCK_SIZE_BYTES: u16 = 3;
const ATTR_SERVER_FLAGS: u16 = 5;
const ATTR_SOCKETS: u16 = 7;
const ATTR_DEAD_CONN_TIMEOUT: u16 = 8;
const ATTR_BACKEND: u16 = 10;
const SOCKET_ITEM: u16 = 1;
const SOCKET_FD: u16 = 1;

/// How long a device that nobody uses is waited for: something like udev may look at it.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);

/// A device that has connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NbdDevice {
    /// Its number: `/dev/nbdN`.
    pub number: u32,
    /// What it was called when it was made.
    pub backend: String,
    /// It refuses writes.
    pub read_only: bool,
}

/// Whether the kernel makes such devices now.
pub fn is_supported() -> bool {
    Netlink::open().is_ok()
}

/// Whether the module is there. The kernel can be asked for devices only from the network name space that
/// it began with.
pub fn is_loaded() -> bool {
    Path::new("/sys/module/nbd").exists()
}

/// Makes a device over connections to one export, called `backend`, with logical blocks of
/// `block_bytes`. The kernel chooses which, so there is no race. When the server dies, I/O fails at
/// once.
///
/// # Errors
/// `NotFound` without the module, `PermissionDenied` without `CAP_SYS_ADMIN`, `Unsupported` if the
/// kernel does not keep what the device is called.
pub fn connect(connections: Vec<Client>, backend: &str, block_bytes: u32) -> io::Result<NbdDevice> {
    let mut netlink = Netlink::open()?;
    let first = connections.first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut sockets = Attributes::default();
    for connection in &connections {
        let mut item = Attributes::default();
        let fd = connection.stream.as_raw_fd();
        item.u32(SOCKET_FD, u32::try_from(fd).map_err(io::Error::other)?);
        sockets.nested(SOCKET_ITEM, &item);
    }
    let mut wanted = Attributes::default();
    wanted.u64(ATTR_SIZE_BYTES, first.size_bytes);
    wanted.u64(ATTR_BLOCK_SIZE_BYTES, block_bytes.into());
    wanted.u64(ATTR_SERVER_FLAGS, first.flags.into());
    wanted.u64(ATTR_DEAD_CONN_TIMEOUT, 0);
    wanted.text(ATTR_BACKEND, backend);
    wanted.nested(ATTR_SOCKETS, &sockets);
    let answer = netlink.call(CMD_CONNECT, &wanted)?;
    let number = netlink::find_u32(&answer, ATTR_INDEX)
        .ok_or_else(|| io::Error::other("the kernel does not say which device it is"))?;
    match find(number).filter(|device| device.backend == backend) {
        Some(device) => {
            device.make_node();
            Ok(device)
        }
        None => {
            disconnect(&mut netlink, number)?;
            let text = "this kernel does not keep what an NBD device is called (Linux 5.14 does)";
            Err(io::Error::new(io::ErrorKind::Unsupported, text))
        }
    }
}

fn disconnect(netlink: &mut Netlink, number: u32) -> io::Result<()> {
    let mut wanted = Attributes::default();
    wanted.u32(ATTR_INDEX, number);
    netlink.call(CMD_DISCONNECT, &wanted).map(drop)
}

impl NbdDevice {
    /// Its path.
    pub fn path(&self) -> PathBuf {
        format!("/dev/nbd{}", self.number).into()
    }

    /// In a container its node may be missing; without it, opening it says so.
    fn make_node(&self) {
        let text = fs::read_to_string(directory(self.number).join("dev")).unwrap_or_default();
        let number = text.trim().split_once(':');
        let number = number.and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        if let Some(number) = number.filter(|_| !self.path().exists()) {
            let _ = sys::make_block_node(&self.path(), number);
        }
    }

    /// Has it take over a new size.
    ///
    /// # Errors
    /// When it has been freed meanwhile.
    pub fn resize(&self, size_bytes: u64) -> io::Result<()> {
        let mut wanted = Attributes::default();
        wanted.u32(ATTR_INDEX, self.number);
        wanted.u64(ATTR_SIZE_BYTES, size_bytes);
        wanted.text(ATTR_BACKEND, &self.backend);
        Netlink::open()?.call(CMD_RECONFIGURE, &wanted).map(drop)
    }

    /// Writes out what is on its way to it, frees it, and waits until it is free.
    ///
    /// # Errors
    /// `ResourceBusy` while it is mounted or held in another way: then it stays. `TimedOut` when it is
    /// disconnected, but somebody has it open still. Whatever the server says to the flush, unless
    /// it `is_dead`.
    pub fn release(&self, is_dead: bool) -> io::Result<()> {
        {
            // The kernel would take it away from under a file system; nobody can mount it between the
            // look and the end.
            let mut open = File::options();
            let open = open.read(true).custom_flags(libc::O_EXCL).open(self.path());
            match open?.sync_all() {
                Err(error) if !is_dead => return Err(error),
                _ => disconnect(&mut Netlink::open()?, self.number)?,
            }
        }
        let deadline = Instant::now() + RELEASE_TIMEOUT;
        while find(self.number).is_some_and(|now| now.backend == self.backend) {
            if Instant::now() > deadline {
                let text = "disconnected, and free when those who have it open close it";
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    }
}

/// All devices that have connections and say what they are called, by number.
pub fn list() -> Vec<NbdDevice> {
    let Ok(entries) = fs::read_dir("/sys/block") else { return Vec::new() };
    let numbers = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix("nbd")?.parse().ok());
    let mut devices: Vec<NbdDevice> = numbers.filter_map(find).collect();
    devices.sort_by_key(|device| device.number);
    devices
}

fn directory(number: u32) -> PathBuf {
    Path::new("/sys/block").join(format!("nbd{number}"))
}

fn find(number: u32) -> Option<NbdDevice> {
    let dir = directory(number);
    let backend = fs::read_to_string(dir.join("backend")).ok()?;
    let read_only = fs::read_to_string(dir.join("ro")).is_ok_and(|text| text.trim() == "1");
    Some(NbdDevice { number, backend: backend.trim_end_matches('\n').into(), read_only })
}
