//! Which file systems are meant.

use crate::attach::of_pool;
use crate::failure::Failure;
use cow_fuse::mountinfo::{self, MountEntry};
use cowstore::Identity;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A file system that is to be frozen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where it is mounted.
    pub dir: PathBuf,
    /// The number of its device, as mounts show it.
    device: (u32, u32),
}

impl Target {
    /// Opens the directory. What is mounted there is what was meant, and stays.
    ///
    /// # Errors
    /// `NotFound` when something else is mounted there, or nothing.
    pub fn open(&self) -> io::Result<File> {
        let dir = File::open(&self.dir)?;
        let is_there = mountinfo::at(&self.dir)?.is_some_and(|entry| entry.device == self.device);
        if is_there { Ok(dir) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    /// As words of a command line.
    pub fn words(&self) -> [OsString; 2] {
        [format!("{}:{}", self.device.0, self.device.1).into(), self.dir.clone().into()]
    }

    /// From such words.
    pub fn parse(device: &OsStr, dir: &OsStr) -> Option<Self> {
        let (major, minor) = device.to_str()?.split_once(':')?;
        Some(Self { dir: dir.into(), device: (major.parse().ok()?, minor.parse().ok()?) })
    }
}

fn no_mounts(error: io::Error) -> Failure {
    Failure::Failed(format!("/proc/self/mountinfo: {error}"))
}

/// Those on the volumes of these snapshots.
pub fn on_volumes(pool: &Path, snapshots: &[String]) -> Result<Vec<Target>, Failure> {
    let identity = Identity::read(pool).map_err(Failure::of(pool))?;
    let attached = of_pool(pool, &identity)?;
    let all = mountinfo::mounts().map_err(no_mounts)?;
    let mut found = Vec::new();
    for snapshot in snapshots {
        let volume = snapshot.split('@').next().unwrap_or_default();
        let elsewhere = "if the file system on it is mounted all the same, say where: --freeze=DIR";
        let Some(attached) = attached.iter().find(|attached| attached.name == volume) else {
            return Err(Failure::Refused(format!("{volume}: not attached; {elsewhere}")));
        };
        let device = attached.device.path();
        if attached.device.is_dead() {
            let text = format!("{volume}: the process that served {} has died", device.display());
            return Err(Failure::Refused(text));
        }
        let entries = attached.mount_entries();
        if entries.is_empty() {
            let device = device.display();
            let text = format!("{volume}: nothing is mounted of {device}; {elsewhere}");
            return Err(Failure::Refused(text));
        }
        for entry in &entries {
            // One that is mounted twice may be hidden at one of the places.
            let same: Vec<_> = entries.iter().filter(|e| e.device == entry.device).collect();
            let is_seen = |e: &&&MountEntry| top(&all, &e.dir) == Some(e.device);
            let Some(seen) = same.iter().find(is_seen) else {
                let dir = entry.dir.display();
                let text = format!("{volume}: {dir}: something else is mounted over it");
                return Err(Failure::Refused(text));
            };
            found.push(Target { dir: seen.dir.clone(), device: seen.device });
        }
    }
    Ok(in_order(found, &all))
}

/// Those that are mounted at these places.
pub fn at_places(pool: &Path, dirs: &[PathBuf]) -> Result<Vec<Target>, Failure> {
    let all = mountinfo::mounts().map_err(no_mounts)?;
    let below = fs::metadata(pool).map_err(Failure::file(pool))?.dev();
    let mut found = Vec::new();
    for given in dirs {
        let dir = given.canonicalize().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                Failure::NotFound(format!("{}: no such directory", given.display()))
            }
            _ => Failure::file(given)(error),
        })?;
        let Some(device) = top(&all, &dir) else {
            let text = format!("{}: nothing is mounted there", given.display());
            return Err(Failure::NotFound(text));
        };
        if fs::metadata(&dir).map_err(Failure::file(&dir))?.dev() == below {
            let pool = pool.display();
            let text = format!("{}: {pool} itself lies on that file system", given.display());
            return Err(Failure::Refused(text));
        }
        found.push(Target { dir, device });
    }
    Ok(in_order(found, &all))
}

/// What is seen at `dir`.
fn top(all: &[MountEntry], dir: &Path) -> Option<(u32, u32)> {
    all.iter().rfind(|entry| entry.dir == dir).map(|entry| entry.device)
}

/// Each once. What was mounted last may lie on what was mounted before, and to be frozen it must
/// write: it comes first.
fn in_order(mut found: Vec<Target>, all: &[MountEntry]) -> Vec<Target> {
    let age = |target: &Target| all.iter().position(|entry| entry.device == target.device);
    found.sort_by_key(|target| std::cmp::Reverse(age(target)));
    found.dedup_by_key(|target| target.device);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(minor: u32, dir: &str) -> MountEntry {
        MountEntry {
            device: (7, minor),
            dir: dir.into(),
            kind: "ext4".into(),
            source: OsString::new(),
            read_only: false,
        }
    }

    fn target(minor: u32, dir: &str) -> Target {
        Target { dir: dir.into(), device: (7, minor) }
    }

    #[test]
    fn each_file_system_is_frozen_once_and_the_youngest_first() {
        let all = [entry(1, "/a"), entry(2, "/a/b"), entry(1, "/bind"), entry(3, "/c")];
        let found = vec![target(1, "/a"), target(3, "/c"), target(1, "/bind"), target(2, "/a/b")];
        let minors: Vec<u32> = in_order(found, &all).iter().map(|t| t.device.1).collect();
        assert_eq!(minors, [3, 2, 1]);
        assert_eq!(top(&all, Path::new("/a/b")), Some((7, 2)));
        assert_eq!(top(&all, Path::new("/b")), None);
    }

    #[test]
    fn targets_are_words_and_back() {
        let one = target(12, "/a b");
        let [device, dir] = one.words();
        assert_eq!(Target::parse(&device, &dir), Some(one));
        assert_eq!(Target::parse("7".as_ref(), &dir), None);
    }

    #[test]
    fn what_is_not_mounted_as_was_said_is_not_opened() {
        assert!(target(4_000_000, "/proc").open().is_err());
        let error = target(1, "/no/such/dir").open().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
