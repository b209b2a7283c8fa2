//! Requests about names and attributes. They ask the pool and wait for it, so they run on a thread
//! of their own ([`Names::run`]): the event loops stay free for data.
//!
//! Inode numbers are identities: that of a volume stays through snapshots and rollbacks (which
//! give it another node of the snapshot tree), and none is ever used again. The kernel keeps
//! nothing: names and attributes are asked for each time, so that snapshots, renames and resizes
//! are seen at once.

use crate::errno;
use crate::handles::{Entry, File, Handles};
use cowstore::{Error, NodeInfo, Pool};
use fuser::{Errno, FileAttr, FileType, INodeNo};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, SystemTime};

/// The directory itself.
pub(crate) const ROOT: u64 = 1;
/// What a name may be at most: two names of 128 bytes and the sign between them.
pub(crate) const NAME_MAX_BYTES: u32 = 257;
const BLOCK_BYTES: u64 = 4096;
/// `st_blocks` counts in these.
const SECTOR_BYTES: u64 = 512;

type Job = Box<dyn FnOnce(&Names) + Send>;

/// The way to the thread; dropping it ends the thread.
pub(crate) struct Asker {
    jobs: Mutex<Sender<Job>>,
}

impl Asker {
    /// Starts the thread.
    pub(crate) fn start(pool: Arc<Pool>, handles: Arc<Handles>) -> std::io::Result<Self> {
        let (jobs, waiting) = channel();
        let names = Names {
            root: Owner::of_this_process(),
            seen: Mutex::default(),
            changed: Mutex::new(Changed { at: SystemTime::now(), mark: (0, 0) }),
            pool,
            handles,
        };
        thread::Builder::new().name("cow-names".into()).spawn(move || names.run(&waiting))?;
        Ok(Self { jobs: Mutex::new(jobs) })
    }

    /// Runs `job` there. If the thread is gone the job is dropped, and its reply says `EIO`.
    pub(crate) fn ask(&self, job: impl FnOnce(&Names) + Send + 'static) {
        let _ = self.jobs.lock().send(Box::new(job));
    }
}

#[derive(Clone, Copy)]
struct Owner {
    uid: u32,
    gid: u32,
}

impl Owner {
    fn of_this_process() -> Self {
        let (uid, gid) = crate::sys::effective_ids();
        Self { uid, gid }
    }
}

/// A name that the kernel knows, and how often it was told.
struct Seen {
    name: String,
    count: u64,
}

/// When the pool was last seen to have changed.
struct Changed {
    at: SystemTime,
    /// Writes that it had taken, and its last durable frame.
    mark: (u64, u64),
}

/// What the thread works on.
pub(crate) struct Names {
    pool: Arc<Pool>,
    handles: Arc<Handles>,
    root: Owner,
    seen: Mutex<HashMap<u64, Seen>>,
    changed: Mutex<Changed>,
}

/// Space and names of a pool, as `statfs` tells them.
pub(crate) struct Space {
    pub(crate) blocks: u64,
    pub(crate) free: u64,
    pub(crate) files: u64,
}

impl Names {
    fn run(&self, waiting: &Receiver<Job>) {
        while let Ok(job) = waiting.recv() {
            job(self);
        }
    }

    /// A name in the directory. The kernel will forget as often as it was told.
    pub(crate) fn lookup(&self, name: &str) -> Result<FileAttr, Errno> {
        let info = self.describe(name)?.ok_or(Errno::ENOENT)?;
        let attr = self.attr_of(&info);
        let mut seen = self.seen.lock();
        let known = seen.entry(attr.ino.0).or_insert(Seen { name: String::new(), count: 0 });
        known.count += 1;
        known.name = info.name;
        Ok(attr)
    }

    /// The kernel has let go of an inode `count` times.
    pub(crate) fn forget(&self, ino: u64, count: u64) {
        let mut seen = self.seen.lock();
        if let Some(known) = seen.get_mut(&ino) {
            known.count = known.count.saturating_sub(count);
            if known.count == 0 {
                seen.remove(&ino);
            }
        }
    }

    /// The attributes of an inode that was looked up, whatever it is called by now.
    pub(crate) fn attr(&self, ino: u64) -> Result<FileAttr, Errno> {
        if ino == ROOT {
            return Ok(self.root_attr());
        }
        self.find(ino).map(|info| self.attr_of(&info))
    }

    /// Opens a file.
    pub(crate) fn open(&self, ino: u64, write: bool) -> Result<u64, Errno> {
        if ino == ROOT {
            return Err(Errno::EISDIR);
        }
        let info = self.find(ino)?;
        if write && (!info.is_volume() || self.pool.is_read_only()) {
            return Err(Errno::EROFS);
        }
        let export = self.pool.open_export(&info.name, write).map_err(|e| errno::of(&e))?;
        Ok(self.handles.add_file(File { export, ino }))
    }

    /// The directory as it is now.
    pub(crate) fn open_directory(&self) -> Result<u64, Errno> {
        let mut entries: Vec<Entry> =
            self.live()?.map(|info| Entry { ino: inode_of(&info), name: info.name }).collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        for (name, at) in [(".", 0), ("..", 1)] {
            entries.insert(at, Entry { ino: ROOT, name: name.into() });
        }
        Ok(self.handles.add_directory(entries))
    }

    /// Space of the pool.
    pub(crate) fn space(&self) -> Result<Space, Errno> {
        let info = self.pool.info(false).map_err(|e| errno::of(&e))?;
        Ok(Space {
            blocks: info.size_bytes / BLOCK_BYTES,
            free: info.free_bytes / BLOCK_BYTES,
            files: info.volumes + info.snapshots,
        })
    }

    fn live(&self) -> Result<impl Iterator<Item = NodeInfo>, Errno> {
        let nodes = self.pool.list(false).map_err(|e| errno::of(&e))?;
        Ok(nodes.into_iter().filter(|info| info.live))
    }

    fn describe(&self, name: &str) -> Result<Option<NodeInfo>, Errno> {
        match self.pool.describe(&[name], false) {
            Ok(found) => Ok(found.into_iter().find(|info| info.live && info.name == name)),
            Err(Error::NotFound(_) | Error::Invalid(_)) => Ok(None),
            Err(error) => Err(errno::of(&error)),
        }
    }

    /// By its last name, and, if it has another by now, among all.
    fn find(&self, ino: u64) -> Result<NodeInfo, Errno> {
        let name = self.seen.lock().get(&ino).map(|known| known.name.clone());
        if let Some(name) = name
            && let Some(info) = self.describe(&name)?.filter(|info| inode_of(info) == ino)
        {
            return Ok(info);
        }
        let info = self.live()?.find(|info| inode_of(info) == ino).ok_or(Errno::ESTALE)?;
        if let Some(known) = self.seen.lock().get_mut(&ino) {
            known.name.clone_from(&info.name);
        }
        Ok(info)
    }

    fn attr_of(&self, info: &NodeInfo) -> FileAttr {
        let writable = info.is_volume() && !self.pool.is_read_only();
        let created = SystemTime::UNIX_EPOCH + Duration::from_nanos(info.created_ns);
        // What no fold has seen is not counted. A file of no blocks would be taken for empty.
        let used = info.referenced_bytes.unwrap_or(info.size_bytes);
        let used = used.clamp(BLOCK_BYTES.min(info.size_bytes), info.size_bytes);
        FileAttr {
            ino: INodeNo(inode_of(info)),
            size: info.size_bytes,
            blocks: used.div_ceil(SECTOR_BYTES),
            kind: FileType::RegularFile,
            perm: if writable { 0o600 } else { 0o400 },
            nlink: 1,
            ..self.common(if info.is_volume() { self.changed().max(created) } else { created })
        }
    }

    fn root_attr(&self) -> FileAttr {
        FileAttr {
            ino: INodeNo(ROOT),
            kind: FileType::Directory,
            perm: if self.pool.is_read_only() { 0o500 } else { 0o700 },
            nlink: 2,
            ..self.common(self.changed())
        }
    }

    fn common(&self, time: SystemTime) -> FileAttr {
        FileAttr {
            ino: INodeNo(ROOT),
            size: 0,
            blocks: 0,
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind: FileType::RegularFile,
            perm: 0,
            nlink: 1,
            uid: self.root.uid,
            gid: self.root.gid,
            rdev: 0,
            blksize: BLOCK_BYTES as u32,
            flags: 0,
        }
    }

    /// The time of the last change to a volume, for which no pool keeps one: when anything in this
    /// pool was last seen to have changed. Too late rather than too early: tools that compare times
    /// copy once more than needed, never once less.
    fn changed(&self) -> SystemTime {
        let mark = self.pool.info(false).map(|info| (info.stats.writes, info.durable_seq));
        let mut changed = self.changed.lock();
        match mark {
            Ok(mark) if mark == changed.mark => {}
            _ => {
                changed.at = SystemTime::now();
                changed.mark = mark.unwrap_or_default();
            }
        }
        changed.at
    }
}

/// The inode number of a volume or snapshot in every mount of its pool, whatever it is called. Two
/// number spaces, interleaved: a volume may have the number that its first head had.
pub fn inode_of(info: &NodeInfo) -> u64 {
    let (id, is_snapshot) = if info.is_volume() { (info.volume, 0) } else { (info.node, 1) };
    id.wrapping_add(1).wrapping_mul(2).wrapping_add(is_snapshot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cowstore::NodeKind;

    #[test]
    fn volumes_and_snapshots_have_numbers_of_their_own() {
        let info = |kind, node, volume| NodeInfo { kind, node, volume, ..NodeInfo::default() };
        let volume = inode_of(&info(NodeKind::Head, 5, 1));
        assert_eq!(volume, inode_of(&info(NodeKind::Head, 9, 1)), "it stays through a snapshot");
        assert_ne!(volume, inode_of(&info(NodeKind::User, 1, 1)));
        assert!(inode_of(&info(NodeKind::User, 0, 0)) > ROOT);
    }
}
