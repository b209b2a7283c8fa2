//! The NBD devices of this machine that are over connections to the process that has a pool. They
//! tell so by what they are called: `cow`, the pool, that process, the inode number of the volume in
//! a mount of the pool, and its name, with a colon between.

use cow_nbd::device::{self, NbdDevice};
use cowstore::Identity;
use cowstore::runtime::Holder;

const BACKEND: &str = "cow";

/// Whether the process that serves a device is still there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ServerState {
    Alive,
    Dead,
}

/// A volume or snapshot behind one.
pub struct NbdAttached {
    /// `VOL` or `VOL@SNAP`, as it was called when it was attached.
    pub name: String,
    /// What stays when it is renamed.
    pub inode: u64,
    pub device: NbdDevice,
    pub server: ServerState,
}

/// What a device of a pool is called, served by process `server`.
pub fn backend_of(identity: &Identity, server: u32, inode: u64, name: &str) -> String {
    format!("{BACKEND}:{}:{server}:{inode}:{name}", identity.key)
}

/// All of a pool, by number of the device.
pub fn of_pool(identity: &Identity) -> Vec<NbdAttached> {
    let holder = Holder::of(identity).filter(Holder::is_alive).map(|holder| holder.pid);
    let prefix = format!("{BACKEND}:{}:", identity.key);
    let of = |device: NbdDevice| {
        let (server, rest) = device.backend.strip_prefix(&prefix)?.split_once(':')?;
        let (inode, name) = rest.split_once(':')?;
        let inode = inode.parse().ok()?;
        let is_alive = holder.is_some() && server.parse().ok() == holder;
        let state = if is_alive { ServerState::Alive } else { ServerState::Dead };
        Some(NbdAttached { name: name.to_owned(), inode, device, server: state })
    };
    device::list().into_iter().filter_map(of).collect()
}

/// Whether there are some whose I/O would fail without this process, which is asked to end; they are
/// named.
pub fn keep_server(identity: &Identity) -> bool {
    let mut devices = of_pool(identity);
    devices.retain(|attached| attached.server == ServerState::Alive);
    for attached in &devices {
        eprintln!(
            "cowctl: {}: attached as {}; ask again to end this process anyway",
            attached.name,
            attached.device.path().display()
        );
    }
    !devices.is_empty()
}
