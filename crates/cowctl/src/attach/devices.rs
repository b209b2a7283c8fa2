//! What of a pool is attached, found out from the kernel: loop devices over a mount of the pool
//! that was made for `attach`, and NBD devices that say so by what they are called.

use crate::failure::Failure;
use crate::mount::OWN;
use crate::nbd_devices::{self, ServerState};
use cow_fuse::loops::{self, LoopDevice};
use cow_fuse::mountinfo::{self, MountEntry};
use cow_nbd::device::NbdDevice;
use cowstore::{Identity, runtime};
use std::fs;
use std::io;
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
    /// `VOL` or `VOL@SNAP`, as it was called when it was attached.
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

/// All of a pool, by kind and number of the device.
pub fn of_pool(identity: &Identity) -> Result<Vec<Attached>, Failure> {
    let prefix = own_prefix(identity)?;
    let of = |device: LoopDevice| {
        let backing = device.backing.to_str()?;
        let (number, name) = backing.strip_prefix(&prefix)?.split_once('/')?;
        let is_ours = number.bytes().all(|byte| byte.is_ascii_digit()) && !name.contains('/');
        let name = name.to_owned();
        is_ours.then_some(Attached { name, device: Device::Loop(device) })
    };
    let nbd = nbd_devices::of_pool(identity).into_iter().map(|attached| Attached {
        name: attached.name,
        device: Device::Nbd(attached.device, attached.server),
    });
    Ok(loops::list().into_iter().filter_map(of).chain(nbd).collect())
}
