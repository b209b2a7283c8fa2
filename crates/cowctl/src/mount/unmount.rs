//! `umount`.

use super::{beside, wait_for};
use crate::answers::watch;
use crate::args::Umount;
use crate::failure::Failure;
use cow_fuse::mountinfo;
use cowstore::control::ControlClient;
use cowstore::runtime::Holder;
use cowstore::{Answer, Error, Identity, Manage, Verb};
use std::io;
use std::path::Path;

/// Unmounts a pool. If the process that served it was there for that alone, it has ended, and the
/// pool is closed, when this returns.
pub fn umount(args: &Umount) -> Result<(), Failure> {
    let dir = &args.dir;
    let at = beside(&std::path::absolute(dir).map_err(Failure::file(dir))?);
    let entry = mountinfo::at(&at).map_err(Failure::file(&at))?;
    let Some(entry) = entry else {
        return Err(Failure::NotFound(format!("{}: nothing is mounted there", dir.display())));
    };
    if !entry.is_pool() {
        let text = format!("{}: what is mounted there is no pool", dir.display());
        return Err(Failure::Refused(text));
    }
    if let Some(pool) = entry.pool() {
        // Nothing there may be looked at before.
        watch(&pool)?;
        if ask(&pool, &at)? {
            return Ok(());
        }
    }
    let is_dead = cow_fuse::is_dead(&at);
    match cow_fuse::unmount(&at, is_dead) {
        Ok(()) if is_dead => {
            eprintln!("cowctl: note: {}: the process that served it had died", dir.display());
            Ok(())
        }
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            Err(Failure::Refused(format!("{}: something there is open", dir.display())))
        }
        Err(error) => Err(Failure::file(&at)(error)),
    }
}

/// Has the process that serves the mount end it. False if there is none.
fn ask(pool: &Path, at: &Path) -> Result<bool, Failure> {
    let Ok(client) = ControlClient::connect(pool) else { return Ok(false) };
    let verb = Verb::Unmount { dir: Some(at.into()) };
    match client.call(verb, &mut |_| {}) {
        Ok(Answer::Unmounted { ends }) => {
            if ends {
                wait_for_end(pool);
            }
            Ok(true)
        }
        Ok(other) => Err(Failure::Failed(format!("unexpected answer {other:?}"))),
        // Left over from another process, or this one mounts nothing.
        Err(Error::NotFound(_) | Error::Unsupported(_)) => Ok(false),
        Err(error) => Err(Failure::of(pool)(error)),
    }
}

/// Waits until the holder of the pool has let go of it.
pub fn wait_for_end(pool: &Path) {
    let Ok(identity) = Identity::read(pool) else { return };
    let first = Holder::of(&identity).map(|holder| holder.pid);
    wait_for(|| {
        let holder = Holder::of(&identity).filter(Holder::is_alive);
        holder.is_none_or(|holder| Some(holder.pid) != first)
    });
}
