//! What of a pool is attached, found out from the kernel: loop devices over a mount of the pool
//! that was made for `attach`, and NBD devices that say so by what they are called.
//!
//! The kernel knows them by the names that they had when they were attached. A volume keeps its inode
//! number in all mounts when it is renamed: by that it is known what it is called now.

use crate::failure::Failure;
use crate::mount::{OWN, connect};
use crate::nbd_devices::{self, ServerState};
use cow_fuse::inode_of;
use cow_fuse::loops::{self, LoopDevice};
use cow_fuse::mountinfo::{self, MountEntry};
use cow_nbd::device::NbdDevice;
use cowstore::{Answer, Identity, Manage, Verb, runtime};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A device of one of two kinds.
pub enum Device {
    /// Over a file of a mount.
    Loop(LoopDevice),
    /// Over connections to this process.
    Nbd(NbdDevice, ServerState),
}

impl Device {
    /// Its path.
    pub fn path(&self) -> PathBuf {
        match self {
            Self::Loop(device) => device.path(),
            Self::Nbd(device, _) => device.path(),
        }
    }

    /// How it is attached.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Loop(_) => "loop",
            Self::Nbd(..) => "nbd",
        }
    }

    /// Whether it refuses writes.
    pub fn is_read_only(&self) -> bool {
        match self {
            Self::Loop(device) => device.read_only,
            Self::Nbd(device, _) => device.read_only,
        }
    }

    /// Whether the process that serves it has died: all its I/O fails.
    pub fn is_dead(&self) -> bool {
        match self {
            Self::Loop(device) => device.is_dead(),
            Self::Nbd(_, server) => *server == ServerState::Dead,
        }
    }

    /// Frees it, and waits until it is free; `ResourceBusy` while somebody uses it.
    pub fn release(&self) -> io::Result<()> {
        match self {
            Self::Loop(device) => device.release(),
            Self::Nbd(device, _) => device.release(self.is_dead()),
        }
    }
}

/// A volume or snapshot behind a device.
pub struct Attached {
    /// `VOL` or `VOL@SNAP`; of a device whose server has died, what it was called when it was attached.
    pub name: String,
    /// The device.
    pub device: Device,
}

impl Attached {
    /// Where it is mounted.
    pub fn mounts(&self) -> Vec<PathBuf> {
        self.mount_entries().into_iter().map(|entry| entry.dir).collect()
    }

    /// What is mounted of it, in the order in which that was done.
    pub fn mount_entries(&self) -> Vec<MountEntry> {
        let entries = mountinfo::mounts().unwrap_or_default();
        let numbers = numbers_of(&self.device.path());
        let path = self.device.path();
        let is_of = |entry: &MountEntry| {
            let source = Path::new(&entry.source);
            // Some file systems show a number of their own; those name the device.
            let resolved = source.canonicalize().unwrap_or_else(|_| source.into());
            numbers.contains(&entry.device)
                || (source.is_absolute() && is_device_or_partition(&resolved, &path))
        };
        entries.into_iter().filter(is_of).collect()
    }

    /// That it cannot be detached, and why.
    pub fn in_use(&self, is_dead: bool) -> Failure {
        let (name, device) = (&self.name, self.device.path());
        let mut text = format!("{name}: {} is in use", device.display());
        for dir in self.mounts() {
            text += &format!("; umount {}", dir.display());
        }
        if is_dead {
            text += "; the process that served it has died, and all I/O fails";
        }
        Failure::Refused(text)
    }
}

fn is_device_or_partition(path: &Path, device: &Path) -> bool {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    match text(path).strip_prefix(&text(device)) {
        Some("") => true,
        Some(rest) => rest.strip_prefix('p').is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit())),
        None => false,
    }
}

/// The device numbers of a device and its partitions.
fn numbers_of(device: &Path) -> Vec<(u32, u32)> {
    let dir = Path::new("/sys/block").join(device.file_name().unwrap_or_default());
    let of = |dir: &Path| {
        let text = fs::read_to_string(dir.join("dev")).ok()?;
        let (major, minor) = text.trim().split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    let inside = fs::read_dir(&dir).into_iter().flatten().filter_map(|entry| entry.ok());
    of(&dir).into_iter().chain(inside.filter_map(|entry| of(&entry.path()))).collect()
}

/// What the paths of the directories for attached volumes of a pool begin with.
pub fn own_prefix(identity: &Identity) -> Result<String, Failure> {
    let path = runtime::path_of(identity, OWN).map_err(|e| Failure::Failed(e.to_string()))?;
    Ok(path.to_string_lossy().into_owned())
}

/// All of the pool at `path`, by kind and number of the device.
pub fn of_pool(path: &Path, identity: &Identity) -> Result<Vec<Attached>, Failure> {
    let prefix = own_prefix(identity)?;
    let of = |device: LoopDevice| {
        let backing = device.backing.to_str()?;
        let (number, name) = backing.strip_prefix(&prefix)?.split_once('/')?;
        let is_ours = number.bytes().all(|byte| byte.is_ascii_digit()) && !name.contains('/');
        let name = name.to_owned();
        is_ours.then(|| (renamed(&device), Attached { name, device: Device::Loop(device) }))
    };
    let nbd = nbd_devices::of_pool(identity).into_iter().map(|attached| {
        let inode = Some(attached.inode).filter(|_| attached.server == ServerState::Alive);
        let device = Device::Nbd(attached.device, attached.server);
        (inode, Attached { name: attached.name, device })
    });
    let mut found: Vec<_> = loops::list().into_iter().filter_map(of).chain(nbd).collect();
    if found.iter().any(|(inode, _)| inode.is_some()) {
        let names = names(path)?;
        for (inode, attached) in &mut found {
            let name = inode.as_ref().and_then(|inode| names.get(inode));
            attached.name = name.unwrap_or(&attached.name).clone();
        }
    }
    Ok(found.into_iter().map(|(_, attached)| attached).collect())
}

/// The inode number of the file behind a device, if that is not called any more what the kernel says.
fn renamed(device: &LoopDevice) -> Option<u64> {
    let inode = device.inode().ok()?;
    let is_same = fs::metadata(&device.backing).is_ok_and(|file| file.ino() == inode);
    (!is_same).then_some(inode)
}

/// What is called how in a pool that is served.
fn names(path: &Path) -> Result<HashMap<u64, String>, Failure> {
    let Some(client) = connect(path)? else { return Ok(HashMap::new()) };
    match client.call(Verb::List { exact: false }, &mut |_| {}).map_err(Failure::of(path))? {
        Answer::List(nodes) => {
            let live = nodes.into_iter().filter(|node| node.live);
            Ok(live.map(|node| (inode_of(&node), node.name)).collect())
        }
        _ => Ok(HashMap::new()),
    }
}

/// The inode number of a volume or snapshot.
pub fn inode(path: &Path, name: &str) -> Result<Option<u64>, Failure> {
    Ok(names(path)?.into_iter().find(|(_, other)| other == name).map(|(inode, _)| inode))
}
