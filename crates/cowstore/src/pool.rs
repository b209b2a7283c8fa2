//! A pool that is open in this process.

use crate::bypass::CacheBypass;
use crate::core::{Core, Facts, OpFuture, VolumeChange};
use crate::create;
use crate::error::{Error, image_error, os_error};
use crate::identity::Identity;
use crate::options::{CreateOptions, OpenOptions};
use crate::queue::Queue;
use crate::reactor::{self, Machine, Parts, wall_ns};
use crate::runtime::{Holder, Registration, in_use};
use crate::source::Source;
use crate::volume::{Export, Snapshot, Volume};
use cow_engine::{Config, Engine, Op, Reply};
use cow_format::{BLOCK_SIZE, BufPool};
use cow_io::{Image, ImageError, open_driver};
use parking_lot::Mutex;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long the last I/O of a process that was killed is waited for.
const LAST_IO: Duration = Duration::from_secs(5);

/// A pool that is open in this process. One thread, its reactor, does all the work; every method
/// may be called from any thread, but none that blocks inside a completion callback.
///
/// [`Pool::close`] ends it with a checkpoint. Dropping it ends it as a crash would, only without
/// risk: what is in flight is waited for, nothing is flushed, and what was not flushed may be
/// missing when it is opened again. Volumes that are still open then fail.
///
/// ```
/// # fn main() -> Result<(), cowstore::Error> {
/// # let dir = std::env::temp_dir().join(format!("cowstore-doc-pool-{}", std::process::id()));
/// # std::fs::create_dir_all(&dir).unwrap();
/// use cowstore::{CreateOptions, Pool, SnapshotOptions};
///
/// let path = dir.join("pool.cow");
/// let pool = Pool::create(&path, &CreateOptions::with_size(256 << 20))?;
/// pool.create_volume("disk", 1 << 30, &[])?;
/// let disk = pool.volume("disk")?;
/// disk.write_at(b"hello", 4000)?;
/// pool.snapshot(&["disk@before"], SnapshotOptions::default())?;
/// disk.write_at(b"HELLO", 4000)?;
///
/// let mut bytes = [0; 5];
/// pool.open_snapshot("disk@before")?.read_at(&mut bytes, 4000)?;
/// assert_eq!(&bytes, b"hello");
/// pool.close()?;
/// # std::fs::remove_dir_all(&dir).unwrap();
/// # Ok(())
/// # }
/// ```
pub struct Pool {
    pub(crate) core: Arc<Core>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Pool {
    /// Creates a pool in a new file, or on a block device, and opens it for writing.
    ///
    /// # Errors
    /// `Exists` when there is anything already and `force` is not set, `Invalid` for a size that
    /// a pool cannot have.
    pub fn create(path: impl AsRef<Path>, options: &CreateOptions) -> Result<Self, Error> {
        Self::create_with(path.as_ref(), options, Engine::new)
    }

    pub(crate) fn create_with<M: Machine + 'static>(
        path: &Path,
        options: &CreateOptions,
        make: impl FnOnce(Config) -> M + Send + 'static,
    ) -> Result<Self, Error> {
        let image = create::create(path, options).map_err(|error| name_holder(path, error))?;
        let open = OpenOptions { read_only: false, ..options.open.clone() };
        Self::start(image, path, &open, make)
    }

    /// Opens a pool.
    ///
    /// # Errors
    /// `Busy` when another process has it, and says which if that is known; `Unsupported` when
    /// it is no pool, or one that this program does not understand; `NoSpace` when its journal is
    /// longer than memory may hold and the file system below has no room for the checkpoint that this
    /// takes: nothing is lost, and it may be opened later, or for reading.
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self, Error> {
        Self::open_with(path.as_ref(), options, Engine::new)
    }

    pub(crate) fn open_with<M: Machine + 'static>(
        path: &Path,
        options: &OpenOptions,
        make: impl FnOnce(Config) -> M + Send + 'static,
    ) -> Result<Self, Error> {
        let io_options =
            cow_io::OpenOptions { read_only: options.read_only, direct: options.direct };
        Self::start(open_image(path, &io_options)?, path, options, make)
    }

    /// Starts the reactor on an image that is locked.
    fn start<M: Machine + 'static>(
        image: Image,
        path: &Path,
        options: &OpenOptions,
        make: impl FnOnce(Config) -> M + Send + 'static,
    ) -> Result<Self, Error> {
        let identity = Identity::read(path)?;
        if !image.is_direct() {
            // What a failed flush of an earlier holder left in the cache is not on the device.
            let dropped = image.drop_page_cache();
            dropped.map_err(|e| os_error(format_args!("{}: sync", path.display()), &e))?;
        }
        let mut config = Config {
            device_blocks: image.size_bytes() / BLOCK_SIZE as u64,
            ack: options.ack,
            layer_bytes: options.memory.layer_bytes,
            cache_bytes: options.memory.cache_bytes,
            sparse: !image.is_block_device(),
            wall_ns: wall_ns(),
            ..Config::default()
        };
        let bypass = CacheBypass::new(path, image.is_direct());
        let direct = image.is_direct();
        let mut notes = image.io_notes().to_vec();
        let driver = open_driver(image, options.driver, &options.driver_options)
            .map_err(|e| os_error("no I/O driver", &e))?;
        config.buffers = driver.buffers();
        if let Some(reason) = driver.fallback_reason() {
            notes.push(format!("threads, not io_uring: {reason}"));
        }
        if let Some(reason) = driver.fixed_refusal() {
            notes.push(format!("no fixed buffers: {reason}"));
        }
        let program = options.program();
        let registration = register(&identity, path, &program, options.read_only, &mut notes);
        let queue = Arc::new(Queue::new(driver.notifier()));
        let facts = Facts {
            identity,
            path: path.into(),
            program,
            driver: driver.name(),
            fixed_transfers: driver.fixed_transfers(),
            direct,
            read_only: options.read_only,
            notes,
        };
        let buffers = config.buffers.clone();
        let parts = Parts {
            queue: queue.clone(),
            driver,
            bypass,
            registration: registration.clone(),
            path: path.into(),
        };
        let thread = thread::Builder::new()
            .name("cow-reactor".into())
            .spawn(move || reactor::run(parts, move || make(config)))
            .map_err(|e| os_error("cannot start a thread", &e))?;
        let core = Arc::new(Core::new(queue, buffers, facts, registration));
        let pool = Self { core, thread: Mutex::new(Some(thread)) };
        pool.done(Op::Open { read_only: options.read_only })?;
        if !options.read_only {
            pool.delete_unfinished()?;
        }
        Ok(pool)
    }

    /// Finishes everything, checkpoints, flushes, and ends the pool.
    ///
    /// # Errors
    /// What was not durable before may not be. The pool has ended in any case.
    pub fn close(self) -> Result<(), Error> {
        self.shutdown()
    }

    /// As [`Pool::close`], for a pool that is shared. A second call does nothing.
    pub fn shutdown(&self) -> Result<(), Error> {
        let Some(thread) = self.thread.lock().take() else { return Ok(()) };
        let result = self.done(Op::Close);
        self.core.queue.stop();
        // Its panic, if any, was reported by the operation.
        let _ = thread.join();
        result
    }

    /// Opens a volume for writing.
    pub fn volume(&self, name: &str) -> Result<Volume, Error> {
        if name.contains('@') {
            return Err(Error::Invalid(format!("{name}: a volume's name has no @")));
        }
        Ok(Volume { export: self.open_export(name, true)? })
    }

    /// Opens `VOL@SNAP`.
    pub fn open_snapshot(&self, name: &str) -> Result<Snapshot, Error> {
        if !name.contains('@') {
            return Err(Error::Invalid(format!("{name}: a snapshot's name is VOL@SNAP")));
        }
        Ok(Snapshot { export: self.open_export(name, false)? })
    }

    /// Opens `VOL` or `VOL@SNAP`, for reading or writing.
    pub fn open_export(&self, name: &str, write: bool) -> Result<Export, Error> {
        let reply = self.call(Op::OpenExport { name: name.into(), write })?;
        Export::new(self.core.clone(), name, reply)
    }

    /// Any operation of the engine, to be awaited: the form of every method here that takes no
    /// thread. It is begun at once; the reactor completes it.
    pub fn execute(&self, op: Op) -> OpFuture {
        self.core.execute(op)
    }

    /// Has `follower` called after each change of a name or size, whoever asked for it. That is on
    /// the pool's reactor thread, before the answer is given: it must be quick and must not block.
    pub fn on_change(&self, follower: impl Fn(&VolumeChange) + Send + Sync + 'static) {
        self.core.follow(Arc::new(follower));
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.core.facts.path
    }

    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.core.facts.identity
    }

    /// Whether it was opened for reading only.
    pub fn is_read_only(&self) -> bool {
        self.core.facts.read_only
    }

    /// Has the reactor read requests from `source` until one of them ends; then it leaves, which may
    /// be at once.
    pub fn serve(&self, source: Box<dyn Source>) {
        self.core.queue.add_source(source);
    }

    /// Where the memory for data is best taken from; see [`crate::Export::buffer`].
    pub fn buffers(&self) -> BufPool {
        self.core.buffers.clone()
    }

    pub(crate) fn call(&self, op: Op) -> Result<Reply, Error> {
        self.core.call(op)
    }

    pub(crate) fn done(&self, op: Op) -> Result<(), Error> {
        match self.call(op)? {
            Reply::Done => Ok(()),
            other => Err(crate::error::unexpected(&other)),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let Some(thread) = self.thread.get_mut().take() else { return };
        self.core.queue.stop();
        if !crate::completion::on_reactor_thread() {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({})", self.path().display())
    }
}

/// Enters this process in the registry. A pool works without; then nobody can be told who has it.
fn register(
    identity: &Identity,
    path: &Path,
    program: &str,
    shared: bool,
    notes: &mut Vec<String>,
) -> Option<Arc<Registration>> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
    let holder = Holder { pid: std::process::id(), program: program.into(), socket: None, path };
    match Registration::new(identity, holder, shared) {
        Ok(registration) => Some(Arc::new(registration)),
        Err(error) => {
            notes.push(format!("not in the registry of holders: {error}"));
            None
        }
    }
}

/// Opens and locks the image. The lock of a process that was killed goes with its last I/O, which
/// for io_uring is a moment after the process: while the registered holder is dead the lock is
/// waited for.
fn open_image(path: &Path, options: &cow_io::OpenOptions) -> Result<Image, Error> {
    let begun = Instant::now();
    loop {
        match Image::open(path, options) {
            Err(ImageError::Busy { .. }) if begun.elapsed() < LAST_IO && has_dead_holder(path) => {
                thread::sleep(Duration::from_millis(2));
            }
            Err(error @ ImageError::Busy { .. }) => {
                return Err(name_holder(path, image_error(error)));
            }
            result => return result.map_err(image_error),
        }
    }
}

fn has_dead_holder(path: &Path) -> bool {
    let holder = Identity::read(path).ok().and_then(|identity| Holder::of(&identity));
    holder.is_some_and(|holder| !holder.is_alive())
}

/// Says who has a busy pool.
fn name_holder(path: &Path, error: Error) -> Error {
    if !matches!(error, Error::Busy(_)) {
        return error;
    }
    let holder = Identity::read(path).ok().and_then(|identity| Holder::of(&identity));
    Error::Busy(in_use(path, holder.filter(Holder::is_alive).as_ref()))
}
