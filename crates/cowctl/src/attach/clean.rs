//! What a server that was killed has left behind: devices whose I/O fails, and the mount below
//! them. Nothing that was synced is lost with them.

use super::devices::{of_pool, own_prefix};
use super::link;
use crate::failure::Failure;
use cow_fuse::mountinfo;
use cowstore::Identity;
use std::fs;
use std::path::Path;

/// Frees what nobody uses any more, and says so. What is still in use stays as it is, and is
/// named.
pub fn clean(path: &Path, identity: &Identity) -> Result<(), Failure> {
    for attached in of_pool(path, identity)?.iter().filter(|attached| attached.device.is_dead()) {
        let (name, device) = (&attached.name, attached.device.path());
        match attached.device.release() {
            Ok(()) => {
                link::remove(&device);
                eprintln!(
                    "cowctl: note: {name}: the process that served {} had died; the device is freed, and what was synced \
                     is in the pool",
                    device.display()
                );
            }
            Err(_) => eprintln!("cowctl: note: {}", attached.in_use(true)),
        }
    }
    unmount_dead(identity)
}

/// Dead mounts that no device holds any more.
fn unmount_dead(identity: &Identity) -> Result<(), Failure> {
    let prefix = own_prefix(identity)?;
    let mounts = mountinfo::mounts().map_err(|e| Failure::Failed(e.to_string()))?;
    for entry in mounts.iter().filter(|entry| entry.is_pool()) {
        let is_ours = entry.dir.to_str().is_some_and(|dir| dir.starts_with(&prefix));
        // It stays while a device is in use; the next one to come tries again.
        if is_ours && cow_fuse::is_dead(&entry.dir) && cow_fuse::unmount(&entry.dir, false).is_ok()
        {
            let _ = fs::remove_dir(&entry.dir);
        }
    }
    Ok(())
}
