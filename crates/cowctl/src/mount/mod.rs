//! `mount` and `umount`: a pool as a directory of files.
//!
//! The process that has the pool open serves its mounts. Every other one asks it to, and may use
//! what is mounted; that process itself never does.

mod background;
mod follow;
mod host;
mod server;
mod unmount;

pub use host::{Hosted, Mounts, OWN};
pub use unmount::{umount, wait_for_end};

use crate::answers::must_answer;
use crate::args::Mount;
use crate::failure::Failure;
use crate::output;
use crate::session::{must_exist, open_options};
use cow_fuse::protect;
use cowstore::control::ControlClient;
use cowstore::{Answer, Error, Manage, Pool, Verb};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a server that is about to end is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);

/// Mounts the pool and, unless another process does it, serves it.
pub fn run(path: &Path, args: &Mount) -> Result<(), Failure> {
    must_exist(path)?;
    must_answer(path)?;
    if args.dir.is_none() && !args.child {
        return Err(Failure::Usage("where? cowctl mount DIR".into()));
    }
    let dir = args.dir.as_deref().map(directory).transpose()?;
    if args.child {
        background::detach();
        return serve(path, dir.as_deref(), args.read_only, args.nbd);
    }
    if args.background {
        let (dir, pid) = ensure(path, dir.as_deref(), args.read_only)?;
        return output::line(server::ready(path, &dir, pid));
    }
    match serve(path, dir.as_deref(), args.read_only, false) {
        Err(Failure::Store { error: Error::Busy(text), .. }) => {
            let Some(client) = connect(path)? else { return Err(Failure::Refused(text)) };
            let (dir, pid) = ask(path, &client, dir.as_deref()).map_err(Failure::of(path))?;
            output::line(server::ready(path, &dir, pid))
        }
        served => served,
    }
}

fn serve(path: &Path, dir: Option<&Path>, read_only: bool, nbd: bool) -> Result<(), Failure> {
    let fail = Failure::of(path);
    // Ordinary users cannot, and whoever serves a block device learns of it then.
    let _ = protect::mark_io_flusher();
    let opened = Pool::open(path, &open_options(read_only)).map_err(Failure::opening(path))?;
    let pool = Arc::new(opened);
    let served = server::run(&pool, dir, nbd);
    let closed = pool.shutdown().map_err(&fail);
    served.and(closed)
}

/// Has the pool mounted by the process that holds it, or else by one in the background. Says where
/// it is, and which process that is.
pub fn ensure(path: &Path, dir: Option<&Path>, read_only: bool) -> Result<(PathBuf, u32), Failure> {
    patiently(|| match connect(path)? {
        Some(client) => ask(path, &client, dir).map_err(Failure::of(path)),
        None => background::start(path, dir, read_only, false),
    })
}

/// Reaches the process that holds the pool, or else one in the background that serves NBD.
pub fn ensure_nbd(path: &Path) -> Result<ControlClient, Failure> {
    patiently(|| {
        let client = match connect(path)? {
            Some(client) => client,
            None => {
                background::start(path, None, false, true)?;
                let gone = || Failure::Refused(format!("{}: its server has ended", path.display()));
                connect(path)?.ok_or_else(gone)?
            }
        };
        client.call(Verb::Keep, &mut |_| {}).map_err(Failure::of(path))?;
        Ok(client)
    })
}

/// Another process may be about to serve the pool, or about to end.
fn patiently<T>(mut action: impl FnMut() -> Result<T, Failure>) -> Result<T, Failure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match action() {
            Err(failure) if failure.exit_code() == 4 && Instant::now() <= deadline => {
                std::thread::sleep(PAUSE);
            }
            done => return done,
        }
    }
}

/// The process that holds the pool, if one does and can be talked to.
pub fn connect(path: &Path) -> Result<Option<ControlClient>, Failure> {
    match ControlClient::connect(path) {
        Ok(client) => Ok(Some(client)),
        Err(Error::Busy(_)) => Ok(None),
        Err(error) => Err(Failure::of(path)(error)),
    }
}

fn ask(path: &Path, client: &ControlClient, dir: Option<&Path>) -> Result<(PathBuf, u32), Error> {
    match client.call(Verb::Mount { dir: dir.map(Into::into) }, &mut |_| {})? {
        Answer::Mounted { dir, pid } => Ok((dir, pid)),
        other => Err(Error::Unsupported(format!("{}: answered {other:?}", path.display()))),
    }
}

/// A directory to mount at, by a path that does not depend on where this process is.
fn directory(dir: &Path) -> Result<PathBuf, Failure> {
    let absolute = std::path::absolute(dir).map_err(Failure::file(dir))?;
    if cow_fuse::is_dead(&absolute) {
        return Ok(beside(&absolute));
    }
    match absolute.canonicalize() {
        Ok(found) if found.is_dir() => Ok(found),
        Ok(_) => Err(Failure::Usage(format!("{}: not a directory", dir.display()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(Failure::NotFound(format!("{}: no such directory", dir.display())))
        }
        Err(error) => Err(Failure::file(dir)(error)),
    }
}

/// The canonical path of something that itself may not be looked at.
fn beside(path: &Path) -> PathBuf {
    let parent = path.parent().and_then(|parent| parent.canonicalize().ok());
    match (parent, path.file_name()) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => path.into(),
    }
}

/// Waits until `condition` holds; whether it does in time.
fn wait_for(mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(PAUSE);
    }
}
