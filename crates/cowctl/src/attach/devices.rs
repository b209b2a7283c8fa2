//! What of a pool is attached, found out from the kernel: loop devices over a mount of the pool
//! that was made for `attach`.

use crate::failure::Failure;
use crate::mount::OWN;
use cow_fuse::loops::{self, LoopDevice};
use cow_fuse::mountinfo::{self, MountEntry};
use cowstore::{Identity, runtime};
use std::fs;
use std::path::{Path, PathBuf};

/// A volume or snapshot behind a loop device.
pub struct Attached {
    /// `VOL` or `VOL@SNAP`, as it was called when it was attached.
    pub name: String,
    /// The device.
    pub device: LoopDevice,
}

impl Attached {
    /// Where it is mounted.
    pub fn mounts(&self) -> Vec<PathBuf> {
        let entries = mountinfo::mounts().unwrap_or_default();
        let numbers = numbers_of(self.device.number);
        let path = self.device.path();
        let is_of = |entry: &MountEntry| {
            let source = Path::new(&entry.source);
            // Some file systems show a number of their own; those name the device.
            let resolved = source.canonicalize().unwrap_or_else(|_| source.into());
            numbers.contains(&entry.device)
                || (source.is_absolute() && is_device_or_partition(&resolved, &path))
        };
        entries.into_iter().filter(is_of).map(|entry| entry.dir).collect()
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

/// The device numbers of a loop device and its partitions.
fn numbers_of(number: u32) -> Vec<(u32, u32)> {
    let dir = Path::new("/sys/block").join(format!("loop{number}"));
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

/// All of a pool, by number of the device.
pub fn of_pool(identity: &Identity) -> Result<Vec<Attached>, Failure> {
    let prefix = own_prefix(identity)?;
    let of = |device: LoopDevice| {
        let backing = device.backing.to_str()?;
        let (number, name) = backing.strip_prefix(&prefix)?.split_once('/')?;
        let is_ours = number.bytes().all(|byte| byte.is_ascii_digit()) && !name.contains('/');
        let name = name.to_owned();
        is_ours.then_some(Attached { name, device })
    };
    Ok(loops::list().into_iter().filter_map(of).collect())
}
