//! `attach --as nbd`: a device of the kernel's own NBD client, over connections to the process that has
//! the pool.

use super::devices::{Attached, inode};
use super::place::Place;
use super::sector;
use crate::args::Attach;
use crate::failure::Failure;
use crate::mount::ensure_nbd;
use crate::nbd_devices::backend_of;
use cow_nbd::device::{self, Client};
use cowstore::control::ControlClient;
use cowstore::runtime::Holder;
use cowstore::{Answer, Identity, Manage, Verb};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

/// More connections than this gain nothing.
const CONNECTIONS_MAX: usize = 4;

/// Makes the device; returns its path. If no process has the pool, one in the background is started.
pub fn attach(path: &Path, identity: &Identity, args: &Attach) -> Result<PathBuf, Failure> {
    need_module()?;
    let client = ensure_nbd(path)?;
    let place = place(path, &client, &args.name)?;
    let connect = || connect(path, &place, &args.name);
    let mut first = connect()?;
    let fail = |error: io::Error| Failure::Failed(format!("{}: {error}", args.name));
    let block_bytes = match args.sector_size.as_deref() {
        Some(bytes) => bytes.parse().map_err(|_| Failure::Usage(format!("{bytes}: no size")))?,
        None => {
            let len = first.size_bytes.min(sector::HEAD_BYTES as u64);
            let len = u32::try_from(len).map_err(|e| Failure::Failed(e.to_string()))?;
            let head = first.read(0, len).map_err(fail)?;
            sector::choose(&head, first.size_bytes)
        }
    };
    let count = match first.can_have_several() {
        true => thread::available_parallelism().map_or(1, usize::from).min(CONNECTIONS_MAX),
        false => 1,
    };
    let mut connections = vec![first];
    for _ in 1..count {
        connections.push(connect()?);
    }
    let server = Holder::of(identity).map_or(0, |holder| holder.pid);
    let missing =
        || Failure::NotFound(format!("{}: no longer there: {}", path.display(), args.name));
    let inode = inode(path, &args.name)?.ok_or_else(missing)?;
    let backend = backend_of(identity, server, inode, &args.name);
    let made = device::connect(connections, &backend, block_bytes);
    made.map(|device| device.path()).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => Failure::Failed(format!("{error}: that takes root")),
        _ => fail(error),
    })
}

/// Sees to it that the kernel makes such devices.
fn need_module() -> Result<(), Failure> {
    if device::is_supported() {
        return Ok(());
    }
    let mut modprobe = Command::new("modprobe");
    modprobe.args(["-q", "nbd"]).stdin(Stdio::null()).stdout(Stdio::null());
    // Whether that helped is seen; what it says is less clear than what is said here.
    let _ = modprobe.stderr(Stdio::null()).status();
    if device::is_supported() {
        return Ok(());
    }
    let why = if device::is_loaded() {
        "its module nbd answers only in the network name space of the host"
    } else {
        "its module nbd is not there, and cannot be loaded (modprobe nbd)"
    };
    Err(Failure::Failed(format!(
        "no NBD devices in this kernel: {why}; without --as nbd a volume is attached through FUSE and a loop device"
    )))
}

/// Where the process that has the pool serves `name`.
fn place(path: &Path, client: &ControlClient, name: &str) -> Result<Place, Failure> {
    let call = |verb| client.call(verb, &mut |_| {}).map_err(Failure::of(path));
    let exports = match call(Verb::Exports)? {
        Answer::Exports(exports) => exports,
        _ => Vec::new(),
    };
    if let Some(export) = exports.iter().find(|export| export.name == name) {
        return Place::of_uri(&export.uri).ok_or_else(|| {
            Failure::Failed(format!("{}: not understood: {}", path.display(), export.uri))
        });
    }
    let is_there = match call(Verb::List { exact: false })? {
        Answer::List(nodes) => nodes.iter().any(|node| node.live && node.name == name),
        _ => false,
    };
    if is_there {
        return Err(Failure::Refused(format!(
            "{}: the process that has it serves no NBD; `cowctl serve` does",
            path.display()
        )));
    }
    let what = if name.contains('@') { "snapshot" } else { "volume" };
    Err(Failure::NotFound(format!("{}: no such {what}: {name}", path.display())))
}

fn connect(path: &Path, place: &Place, name: &str) -> Result<Client, Failure> {
    let connected = match place {
        Place::Unix(socket) => Client::unix(Path::new(socket), name),
        Place::Tcp(host, port) => match port.parse() {
            Ok(port) => Client::tcp(host, port, name),
            Err(_) => Err(io::Error::other(format!("{port}: not a port"))),
        },
    };
    connected.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Failure::NotFound(format!("{}: {error}", path.display())),
        _ => Failure::Failed(format!("{}: its NBD server: {error}", path.display())),
    })
}

/// How large the volume is now, as its server says to a new client.
pub fn size_now(path: &Path, attached: &Attached) -> Result<u64, Failure> {
    let client = crate::mount::connect(path)?
        .ok_or_else(|| Failure::Refused(format!("{}: not served", path.display())))?;
    let place = place(path, &client, &attached.name)?;
    Ok(connect(path, &place, &attached.name)?.size_bytes)
}
