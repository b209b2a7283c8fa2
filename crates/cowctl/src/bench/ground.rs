//! Where the load goes: a scratch volume, in a pool of its own or in one that is there.

use super::load::Pattern;
use super::plain::{self, Plain};
use super::spec::{Limit, Spec};
use crate::failure::Failure;
use crate::session;
use crate::units::human_size;
use cowstore::transfer::IMPORTING;
use cowstore::{
    BLOCK_SIZE, CreateOptions, DeleteOptions, DriverOptions, Error, OpenOptions, Pool,
    SnapshotOptions, Volume,
};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

const PIECE_BYTES: usize = 1 << 20;
/// Of a temporary pool, for the pool itself.
const POOL_BYTES: u64 = 256 << 20;
/// Of a temporary pool, for what is written until what it replaces is free again, however small the volume is.
const TURNOVER_BYTES: u64 = 6 << 30;
/// The property of a pool that has undo snapshots deleted while it is full.
const UNDO_FOR_SPACE: &str = "undo-for-space";
/// Left free of the file system.
const SPARE_BYTES: u64 = 64 << 20;

/// The pool, and the volume in it.
pub struct Ground {
    /// Of a temporary pool, which has none any more, the one it was made at.
    path: PathBuf,
    /// Where there is a place for other files.
    dir: PathBuf,
    pool: Pool,
    volume: String,
    has_volume: bool,
    is_temporary: bool,
}

/// Bytes that the file system of `dir` has for us.
fn free_bytes(dir: &Path) -> Result<u64, Failure> {
    let found = rustix::fs::statvfs(dir).map_err(|e| Failure::file(dir)(e.into()))?;
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    Ok(free.saturating_sub(SPARE_BYTES))
}

/// Checks that it has so many.
fn must_have_room(dir: &Path, bytes: u64) -> Result<(), Failure> {
    let free = free_bytes(dir)?;
    if bytes > free {
        return Err(Failure::NoSpace(format!(
            "{}: {} would be needed there, and there is room for {}; use a smaller --size",
            dir.display(),
            human_size(bytes),
            human_size(free)
        )));
    }
    Ok(())
}

fn open_options(driver: &DriverOptions) -> OpenOptions {
    OpenOptions { driver_options: driver.clone(), ..session::open_options(false) }
}

/// What the volume may take of a pool that is there: what is replaced comes back with a delay, and not while a snapshot has it.
fn taken(spec: &Spec) -> u64 {
    spec.size_bytes().saturating_mul(if spec.snapshot { 3 } else { 2 })
}

/// Size of a temporary pool: so large, where there are so many bytes, that it does not come to the mark of 80 %.
fn own_bytes(spec: &Spec, free: u64) -> u64 {
    let size = spec.size_bytes();
    let kept = size.saturating_mul(if spec.snapshot { 2 } else { 1 });
    let most = TURNOVER_BYTES.max(size.saturating_mul(2));
    let spare = match spec.limit {
        Limit::Ops(ops) => most.min(ops.saturating_mul(spec.bs)).max(size),
        Limit::Time { .. } => {
            most.min(free.saturating_sub(kept.saturating_add(POOL_BYTES))).max(size)
        }
    };
    kept.saturating_add(spare).saturating_add(POOL_BYTES) / BLOCK_SIZE as u64 * BLOCK_SIZE as u64
}

impl Ground {
    /// A pool of its own in `dir`, preallocated, every block of which was written.
    pub fn in_directory(
        dir: &Path,
        spec: &Spec,
        driver: &DriverOptions,
        stop: &AtomicBool,
    ) -> Result<Self, Failure> {
        match fs::metadata(dir) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(Failure::Usage(format!("{}: not a directory", dir.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Failure::NotFound(format!("{}: no such directory", dir.display())));
            }
            Err(error) => return Err(Failure::file(dir)(error)),
        }
        let raw = if spec.vs_raw { spec.size_bytes() } else { 0 };
        let size = own_bytes(spec, free_bytes(dir)?.saturating_sub(raw));
        must_have_room(dir, size.saturating_add(raw))?;
        let own = plain::short_lived(dir)?;
        let path = own.path().join("pool.cow");
        let fail = Failure::of(&path);
        let open = open_options(driver);
        let options = CreateOptions {
            preallocate: true,
            open: open.clone(),
            ..CreateOptions::with_size(size)
        };
        Pool::create(&path, &options).and_then(Pool::close).map_err(&fail)?;
        // From here on it has no name, and goes with this process.
        let file = File::open(&path).map_err(Failure::file(&path))?;
        let mut over = Plain::open(&path, driver)?;
        plain::unname(&path, own)?;
        over.write_back(stop)?;
        drop(over);
        let nameless = format!("/proc/self/fd/{}", file.as_raw_fd());
        let pool = Pool::open(nameless, &open).map_err(&fail)?;
        let (dir, volume) = (dir.to_owned(), "bench".into());
        Ok(Self { path, dir, pool, volume, has_volume: false, is_temporary: true })
    }

    /// The pool at `path`, which nobody else may have open.
    pub fn in_pool(path: &Path, spec: &Spec, driver: &DriverOptions) -> Result<Self, Failure> {
        session::must_exist(path)?;
        let is_device = fs::metadata(path).is_ok_and(|found| found.file_type().is_block_device());
        if is_device && spec.vs_raw {
            let text = "--vs-raw: there is no room for a file beside a pool on a device";
            return Err(Failure::Usage(format!("{}: {text}", path.display())));
        }
        let pool = Pool::open(path, &open_options(driver)).map_err(Failure::of(path))?;
        let volume = format!("cowctl-bench.{}", std::process::id());
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let (path, dir) = (path.to_owned(), parent.unwrap_or(Path::new(".")).to_owned());
        let ground = Self { path, dir, pool, volume, has_volume: false, is_temporary: false };
        match ground.room(spec) {
            Ok(()) => Ok(ground),
            Err(failure) => ground.close().and(Err(failure)),
        }
    }

    fn room(&self, spec: &Spec) -> Result<(), Failure> {
        let props = self.pool.props("").map_err(Failure::of(&self.path))?.props;
        let mark = props.iter().find(|(key, value)| key == UNDO_FOR_SPACE && value != "off");
        if let Some((key, mark)) = mark {
            return Err(Failure::Refused(format!(
                "{}: {key}={mark}: the load could cost undo snapshots; turn it off for as long",
                self.path.display()
            )));
        }
        let info = self.pool.info(true).map_err(Failure::of(&self.path))?;
        let needed = taken(spec);
        if needed > info.free_bytes {
            return Err(Failure::NoSpace(format!(
                "{}: {} would be needed in the pool, and {} are free; use a smaller --size",
                self.path.display(),
                human_size(needed),
                human_size(info.free_bytes)
            )));
        }
        if spec.vs_raw { must_have_room(&self.dir, spec.size_bytes()) } else { Ok(()) }
    }

    /// The pool's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The pool.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Whether the pool was made for this.
    pub fn is_temporary(&self) -> bool {
        self.is_temporary
    }

    /// The directory of the pool.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A new volume in place of the one before; written in whole, unless it shall be fresh.
    pub fn new_volume(&mut self, spec: &Spec, stop: &AtomicBool) -> Result<Volume, Failure> {
        self.remove_volume()?;
        let fail = Failure::of(&self.path);
        // Should this process be killed, the next one that opens the pool deletes it.
        let mark = [(IMPORTING.to_owned(), "1".to_owned())];
        self.pool.create_volume(&self.volume, spec.size_bytes(), &mark).map_err(&fail)?;
        self.has_volume = true;
        let volume = self.pool.volume(&self.volume).map_err(&fail)?;
        if !spec.fresh {
            fill(&volume, stop).map_err(&fail)?;
        }
        self.settle()?;
        Ok(volume)
    }

    /// Waits until the background work on what is done has come to rest: all of it is in the map, what was replaced is free
    /// again and has been given back below.
    pub fn settle(&self) -> Result<(), Failure> {
        self.pool.wait_reclaim().map_err(Failure::of(&self.path))
    }

    /// Takes a snapshot of the volume.
    pub fn snapshot(&self) -> Result<(), Failure> {
        let name = self.snapshot_name();
        let taken = self.pool.snapshot(&[name], SnapshotOptions::default());
        taken.map(drop).map_err(Failure::of(&self.path))
    }

    /// Deletes it.
    pub fn delete_snapshot(&self) -> Result<(), Failure> {
        let deleted = self.pool.delete(&[self.snapshot_name()], DeleteOptions::default());
        deleted.map_err(Failure::of(&self.path))?;
        self.settle()
    }

    fn snapshot_name(&self) -> String {
        format!("{}@bench", self.volume)
    }

    fn remove_volume(&mut self) -> Result<(), Failure> {
        if !std::mem::replace(&mut self.has_volume, false) {
            return Ok(());
        }
        // The last answer may still be on its way out of the thread that gave it, and has the volume open until then. An
        // error will be met again.
        let _ = self.pool.info(false);
        let options = DeleteOptions { recursive: true, dry_run: false };
        let deleted = self.pool.delete(&[&self.volume], options);
        deleted.map_err(Failure::of(&self.path))?;
        self.settle()
    }

    /// Removes all that was made.
    pub fn close(mut self) -> Result<(), Failure> {
        if self.is_temporary {
            // Nobody else has seen it.
            return Ok(());
        }
        let removed = self.remove_volume();
        let closed = self.pool.close().map_err(Failure::of(&self.path));
        removed.and(closed)
    }
}

fn fill(volume: &Volume, stop: &AtomicBool) -> Result<(), Error> {
    let mut pattern = Pattern::new(PIECE_BYTES);
    let mut piece = vec![0; PIECE_BYTES];
    let size = volume.size_bytes();
    let mut offset = 0;
    while offset < size && !stop.load(Ordering::Relaxed) {
        let len = (size - offset).min(PIECE_BYTES as u64);
        let part = &mut piece[..len as usize];
        pattern.fill(part);
        volume.write_at(part, offset)?;
        offset += len;
    }
    volume.flush()
}
