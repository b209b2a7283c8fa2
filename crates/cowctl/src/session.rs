//! A pool while one command works on it: opened here, or reached in the process that has it.

use crate::answers::{is_stopped, must_answer};
use crate::failure::Failure;
use crate::progress::Bar;
use cowstore::transfer::{self, ExportOptions, ImportOptions, Progress, Transferred, Watch};
use cowstore::{
    Answer, ContentRoot, DiffPage, Error, Kept, Manage, NodeInfo, OpenOptions, Pool, PoolInfo,
    Props, ScrubOptions, Scrubbed, SetSize, Verb, open_manage,
};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether a command changes the pool.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It may. A pool that cannot be written is an error.
    Change,
    /// It does not: a pool that cannot be written is opened for reading.
    Look,
}

enum Reach {
    /// Open in this process.
    Local(Pool),
    /// Through the control socket; or here, when it was let go a moment ago.
    Other(Box<dyn Manage>),
}

/// A pool while one command works on it.
pub struct Session {
    path: PathBuf,
    reach: Reach,
}

/// Opens the pool, lets `work` at it, and closes it whatever came of that.
pub fn with<T>(
    path: &Path,
    access: Access,
    work: impl FnOnce(&Session) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let session = Session::open(path, access)?;
    let result = work(&session);
    let closed = session.close();
    result.and_then(|value| closed.map(|()| value))
}

/// The options every command opens a pool with.
pub fn open_options(read_only: bool) -> OpenOptions {
    OpenOptions { read_only, program: Some("cowctl".into()), ..OpenOptions::default() }
}

/// A clear word on a pool that is not there.
pub fn must_exist(path: &Path) -> Result<(), Failure> {
    match path.metadata() {
        Err(e)
            if matches!(
                e.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
            ) =>
        {
            Err(Failure::NotFound(format!("{}: no such pool", path.display())))
        }
        _ => Ok(()),
    }
}

/// Whether the system lets us write the file.
fn is_writable(path: &Path) -> bool {
    match File::options().write(true).open(path) {
        Ok(_) => true,
        Err(e) => !matches!(
            e.kind(),
            std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem
        ),
    }
}

impl Session {
    fn open(path: &Path, access: Access) -> Result<Self, Failure> {
        must_exist(path)?;
        let options = open_options(access == Access::Look && !is_writable(path));
        let reach = match Pool::open(path, &options) {
            Ok(pool) => Reach::Local(pool),
            Err(Error::Busy(_)) => {
                if is_stopped(path) {
                    must_answer(path)?;
                }
                Reach::Other(open_manage(path, &options).map_err(Failure::opening(path))?)
            }
            Err(error) => return Err(Failure::opening(path)(error)),
        };
        Ok(Self { path: path.into(), reach })
    }

    fn close(self) -> Result<(), Failure> {
        let result = match self.reach {
            Reach::Local(pool) => pool.close(),
            Reach::Other(manage) => manage.close(),
        };
        result.map_err(Failure::of(&self.path))
    }

    /// Where the pool is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the pool is open in this process.
    pub fn is_local(&self) -> bool {
        matches!(self.reach, Reach::Local(_))
    }

    /// The pool itself.
    pub fn manage(&self) -> &dyn Manage {
        match &self.reach {
            Reach::Local(pool) => pool,
            Reach::Other(manage) => &**manage,
        }
    }

    /// A content root.
    pub fn root(&self, name: &str) -> Result<ContentRoot, Failure> {
        match self.call(Verb::Root { name: name.into() })? {
            Answer::Root(root) => Ok(root),
            other => self.misfit(&other),
        }
    }

    /// Does `verb`, and shows how far it is.
    pub fn call(&self, verb: Verb) -> Result<Answer, Failure> {
        self.call_watched(verb, &|| false, &mut || {})
    }

    /// As [`Session::call`]; once `cancelled`, what runs here is given up, and what runs in
    /// another process is abandoned after `leave`, which does not return.
    fn call_watched(
        &self,
        verb: Verb,
        cancelled: &dyn Fn() -> bool,
        leave: &mut dyn FnMut(),
    ) -> Result<Answer, Failure> {
        let mut bar = Bar::new();
        let mut progress = |told: Progress| {
            bar.tell(&told);
            if cancelled() {
                leave();
            }
        };
        self.manage().call(verb, &mut progress).map_err(Failure::of(&self.path))
    }

    fn misfit<T>(&self, answer: &Answer) -> Result<T, Failure> {
        Err(Failure::Failed(format!("{}: unexpected answer {answer:?}", self.path.display())))
    }

    /// A verb that answers nothing.
    pub fn done(&self, verb: Verb) -> Result<(), Failure> {
        match self.call(verb)? {
            Answer::Done => Ok(()),
            other => self.misfit(&other),
        }
    }

    /// Scrubs the pool; ends, to be gone on with, when `interrupted` becomes true.
    pub fn scrub(
        &self,
        options: ScrubOptions,
        interrupted: &Arc<AtomicBool>,
    ) -> Result<Scrubbed, Failure> {
        let cancelled = || interrupted.load(Ordering::Relaxed);
        let mut bar = Bar::new();
        let mut progress = |told: Progress| bar.tell(&told);
        let mut watch = Watch { progress: &mut progress, cancelled: &cancelled };
        cowstore::scrub(self.manage(), &options, &mut watch).map_err(Failure::of(&self.path))
    }

    /// Gives free space back to what lies below; bytes of it.
    pub fn trim(&self) -> Result<u64, Failure> {
        match self.call(Verb::Trim)? {
            Answer::Trimmed { bytes } => Ok(bytes),
            other => self.misfit(&other),
        }
    }

    /// A verb that makes nodes.
    pub fn nodes(&self, verb: Verb) -> Result<Vec<u64>, Failure> {
        match self.call(verb)? {
            Answer::Node(node) => Ok(vec![node]),
            Answer::Nodes(nodes) => Ok(nodes),
            other => self.misfit(&other),
        }
    }

    /// A rollback or undo.
    pub fn rolled_back(&self, verb: Verb) -> Result<Vec<Option<Kept>>, Failure> {
        match self.call(verb)? {
            Answer::RolledBack(kept) => Ok(kept),
            other => self.misfit(&other),
        }
    }

    /// A verb that is answered with the size of a set.
    pub fn set_size(&self, verb: Verb) -> Result<SetSize, Failure> {
        match self.call(verb)? {
            Answer::SetSize(size) => Ok(size),
            other => self.misfit(&other),
        }
    }

    /// All volumes and snapshots that are not deleted, in order: each volume, then its snapshots
    /// by age.
    pub fn list(&self, exact: bool) -> Result<Vec<NodeInfo>, Failure> {
        self.list_all(exact).map(|(live, _)| live)
    }

    /// The same, and what is deleted and not reclaimed yet.
    pub fn list_all(&self, exact: bool) -> Result<(Vec<NodeInfo>, Vec<NodeInfo>), Failure> {
        let nodes = match self.call(Verb::List { exact })? {
            Answer::List(nodes) => nodes,
            other => return self.misfit(&other),
        };
        let (mut live, deleted): (Vec<_>, Vec<_>) = nodes.into_iter().partition(|node| node.live);
        live.sort_by_cached_key(|node| {
            let volume = node.name.split('@').next().unwrap_or_default().to_owned();
            (volume, !node.is_volume(), node.created_ns, node.node)
        });
        Ok((live, deleted))
    }

    /// One volume or snapshot of a list.
    pub fn find<'a>(&self, nodes: &'a [NodeInfo], name: &str) -> Result<&'a NodeInfo, Failure> {
        let missing = || self.no_such(name);
        nodes.iter().find(|node| node.name == name).ok_or_else(missing)
    }

    /// The complaint about a name that is not there.
    pub fn no_such(&self, name: &str) -> Failure {
        let what = if name.contains('@') { "snapshot" } else { "volume" };
        Failure::NotFound(format!("{}: no such {what}: {name}", self.path.display()))
    }

    /// The state of the pool.
    pub fn info(&self, exact: bool) -> Result<PoolInfo, Failure> {
        match self.call(Verb::Info { exact })? {
            Answer::Info(info) => Ok(*info),
            other => self.misfit(&other),
        }
    }

    /// Properties and holds.
    pub fn props(&self, name: &str) -> Result<Props, Failure> {
        match self.call(Verb::GetProps { name: name.into() })? {
            Answer::Props(props) => Ok(props),
            other => self.misfit(&other),
        }
    }

    /// A page of changed extents.
    pub fn diff(
        &self,
        (from, to): (&str, &str),
        offset: u64,
        exact: bool,
    ) -> Result<DiffPage, Failure> {
        let verb = Verb::Diff { from: from.into(), to: to.into(), offset, limit: 10_000, exact };
        match self.call(verb)? {
            Answer::Diff(page) => Ok(page),
            other => self.misfit(&other),
        }
    }

    /// Imports `file`; gives up, and deletes what it made, when `interrupted` becomes true. Another
    /// process that does it gives up when this one ends.
    pub fn import(
        &self,
        file: File,
        options: ImportOptions,
        interrupted: &Arc<AtomicBool>,
    ) -> Result<Transferred, Failure> {
        let Reach::Local(pool) = &self.reach else {
            let verb = Verb::Import { options, file: Some(Arc::new(file)) };
            return self.transferred(verb, &|| false, &mut || {});
        };
        let cancelled = || interrupted.load(Ordering::Relaxed);
        let mut bar = Bar::new();
        let mut progress = |told: Progress| bar.tell(&told);
        let mut watch = Watch { progress: &mut progress, cancelled: &cancelled };
        transfer::import(pool, &file, &options, &mut watch).map_err(|e| self.given_up(e))
    }

    /// Exports `name` to `file`; gives up when `interrupted` becomes true. If another process
    /// does it, `leave` is called then before this process ends.
    pub fn export(
        &self,
        name: &str,
        file: Arc<File>,
        interrupted: &Arc<AtomicBool>,
        leave: &mut dyn FnMut(),
    ) -> Result<Transferred, Failure> {
        let cancelled = || interrupted.load(Ordering::Relaxed);
        let Reach::Local(pool) = &self.reach else {
            let mut leave = || {
                leave();
                std::process::exit(1);
            };
            let verb = Verb::Export { name: name.into(), file: Some(file) };
            return self.transferred(verb, &cancelled, &mut leave);
        };
        let mut bar = Bar::new();
        let mut progress = |told: Progress| bar.tell(&told);
        let mut watch = Watch { progress: &mut progress, cancelled: &cancelled };
        let options = ExportOptions { name: name.into() };
        transfer::export(pool, &file, &options, &mut watch).map_err(|e| self.given_up(e))
    }

    fn transferred(
        &self,
        verb: Verb,
        cancelled: &dyn Fn() -> bool,
        leave: &mut dyn FnMut(),
    ) -> Result<Transferred, Failure> {
        match self.call_watched(verb, cancelled, leave)? {
            Answer::Transferred(moved) => Ok(moved),
            other => self.misfit(&other),
        }
    }

    fn given_up(&self, error: Error) -> Failure {
        // ECANCELED
        if matches!(error, Error::Io { errno: 125, .. }) {
            return Failure::Failed(format!("{}: interrupted", self.path.display()));
        }
        Failure::of(&self.path)(error)
    }
}
