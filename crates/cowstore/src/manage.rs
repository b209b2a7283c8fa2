//! One interface to a pool, whether this process has it open or another one does.
//!
//! A program that is written against [`Manage`] works alike in both cases.

use crate::error::Error;
use crate::scrub_page::ScrubPage;
use crate::transfer::{ImportOptions, Progress, Transferred};
use crate::types::{
    ContentRoot, DiffPage, Kept, NodeInfo, PoolInfo, Props, SetSize, SnapshotOptions,
};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What can be asked of a pool, in a form that can be sent. Names are `VOL` or `VOL@SNAP`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub enum Verb {
    /// See [`crate::Pool::create_volume`]. Answer: `Node`.
    CreateVolume {
        /// Its name.
        name: String,
        /// Its size.
        size_bytes: u64,
        /// Its properties.
        #[serde(default)]
        props: Vec<(String, String)>,
    },
    /// See [`crate::Pool::snapshot`]. Answer: `Nodes`.
    Snapshot {
        /// The names, each `VOL@SNAP`.
        names: Vec<String>,
        /// How.
        #[serde(default)]
        options: SnapshotOptions,
    },
    /// See [`crate::Pool::rollback`]. Answer: `RolledBack`.
    Rollback {
        /// The names, each `VOL@SNAP`.
        names: Vec<String>,
        /// Do not keep what is replaced.
        #[serde(default)]
        discard_current: bool,
        /// Fence clients instead of refusing.
        #[serde(default)]
        force: bool,
    },
    /// See [`crate::Pool::undo`]. Answer: `RolledBack`, of one.
    Undo {
        /// The volume.
        volume: String,
        /// Fence clients instead of refusing.
        #[serde(default)]
        force: bool,
    },
    /// See [`crate::Pool::clone_volume`]. Answer: `Node`.
    Clone {
        /// The snapshot.
        source: String,
        /// The new volume.
        name: String,
        /// Its properties.
        #[serde(default)]
        props: Vec<(String, String)>,
    },
    /// See [`crate::Pool::delete`]. Answer: `SetSize`.
    Delete {
        /// What.
        names: Vec<String>,
        /// The snapshots of volumes, too.
        #[serde(default)]
        recursive: bool,
        /// Nothing; only say what would be freed.
        #[serde(default)]
        dry_run: bool,
    },
    /// See [`crate::Pool::prune`]. Answer: `SetSize`.
    Prune {
        /// The volumes; all if empty.
        #[serde(default)]
        volumes: Vec<String>,
        /// Nothing; only say what would be freed.
        #[serde(default)]
        dry_run: bool,
    },
    /// See [`crate::Pool::rename`]. Answer: `Done`.
    Rename {
        /// What.
        name: String,
        /// Its new name.
        to: String,
    },
    /// See [`crate::Pool::resize`]. Answer: `Done`.
    Resize {
        /// The volume.
        volume: String,
        /// Its new size.
        size_bytes: u64,
        /// It may become smaller.
        #[serde(default)]
        shrink: bool,
    },
    /// See [`crate::Pool::set_props`]. Answer: `Done`.
    SetProps {
        /// Whose; empty for the pool's.
        name: String,
        /// `None` removes.
        changes: Vec<(String, Option<String>)>,
    },
    /// See [`crate::Pool::props`]. Answer: `Props`.
    GetProps {
        /// Whose; empty for the pool's.
        name: String,
    },
    /// See [`crate::Pool::hold`] and [`crate::Pool::release`]. Answer: `Done`.
    Hold {
        /// Whose.
        name: String,
        /// The tag.
        tag: String,
        /// Set, or release.
        set: bool,
    },
    /// See [`crate::Pool::list`]. Answer: `List`.
    List {
        /// Fold first.
        #[serde(default)]
        exact: bool,
    },
    /// See [`crate::Pool::set_size`]. Answer: `SetSize`.
    SetSize {
        /// What.
        names: Vec<String>,
        /// Read maps where counts leave bounds.
        #[serde(default)]
        wait: bool,
    },
    /// See [`crate::Pool::free_up`]. Answer: `SetSize`.
    FreeUp {
        /// Bytes of data.
        bytes: u64,
    },
    /// See [`crate::Pool::info`]. Answer: `Info`.
    Info {
        /// Fold first.
        #[serde(default)]
        exact: bool,
    },
    /// A page of what [`crate::Pool::diff`] tells. As long as a client of the control socket asks
    /// for page after page of the same two states, neither can be deleted. Answer: `Diff`.
    Diff {
        /// The older state.
        from: String,
        /// The newer one.
        to: String,
        /// Go on at this byte.
        #[serde(default)]
        offset: u64,
        /// At most so many extents.
        limit: usize,
        /// Compare bytes.
        #[serde(default)]
        exact: bool,
    },
    /// See [`crate::Pool::root`]. Reports progress. Answer: `Root`.
    Root {
        /// Whose.
        name: String,
    },
    /// See [`crate::Pool::merkle_page`]. Reports progress. Answer: `MerklePage`.
    MerklePage {
        /// Whose.
        name: String,
        /// Its level.
        level: u8,
        /// Which of its level.
        index: u64,
    },
    /// See [`crate::Pool::grow`]. Answer: `Done`.
    Grow {
        /// New size of the pool.
        size_bytes: u64,
    },
    /// See [`crate::Pool::checkpoint`]. Answer: `Done`.
    Checkpoint,
    /// See [`crate::Pool::wait_reclaim`]. Reports progress. Answer: `Done`.
    WaitReclaim,
    /// See [`crate::Pool::trim`]. Reports progress. Answer: `Trimmed`.
    Trim,
    /// A step of [`crate::scrub()`]. Answer: `Scrubbed`.
    Scrub {
        /// Where the step before it ended: node, block, last node; zeros at the beginning.
        #[serde(default)]
        cursor: (u64, u64, u64),
        /// About so many blocks; there are bounds.
        #[serde(default)]
        blocks: u64,
    },
    /// See [`crate::transfer::import`]. Reports progress. Answer: `Transferred`.
    Import {
        /// What is imported, and where to.
        #[serde(flatten)]
        options: ImportOptions,
        /// The image; passed to another process as a descriptor.
        #[serde(skip)]
        file: Option<Arc<File>>,
    },
    /// See [`crate::transfer::export`]. Reports progress. Answer: `Transferred`.
    Export {
        /// What is exported.
        name: String,
        /// Where to; passed to another process as a descriptor.
        #[serde(skip)]
        file: Option<Arc<File>>,
    },
    /// What the process that has the pool serves, and to whom. Answer: `Exports`.
    Exports,
    /// The process that has the pool shall mount it: every volume and snapshot becomes a file.
    /// Answer: `Mounted`.
    Mount {
        /// An absolute path; a place of that process's own, for `attach`, if not given.
        #[serde(default)]
        dir: Option<PathBuf>,
    },
    /// The process that has the pool is about to have block devices of its own host made over its NBD
    /// server. It shall keep its memory, and stay until `Unmount` without a directory. Answer: `Done`.
    Keep,
    /// It shall unmount it; without a directory, all that was there for `attach` has ended. Answer:
    /// `Unmounted`.
    Unmount {
        /// As for `Mount`.
        #[serde(default)]
        dir: Option<PathBuf>,
    },
    /// The process that has the pool shall end in good order. Answer: `Done`, when it has begun
    /// to.
    Shutdown,
}

impl Verb {
    /// The file that goes with it.
    pub(crate) fn file(&self) -> Option<&Arc<File>> {
        match self {
            Self::Import { file, .. } | Self::Export { file, .. } => file.as_ref(),
            _ => None,
        }
    }

    /// Attaches a file that came beside it.
    pub(crate) fn set_file(&mut self, received: Option<File>) {
        if let Self::Import { file, .. } | Self::Export { file, .. } = self {
            *file = received.map(Arc::new);
        }
    }
}

/// What a [`Verb`] is answered with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Done.
    Done,
    /// A new node.
    Node(u64),
    /// New nodes, in the order asked.
    Nodes(Vec<u64>),
    /// Which snapshots keep what was replaced, in the order asked.
    RolledBack(Vec<Option<Kept>>),
    /// Volumes and snapshots.
    List(Vec<NodeInfo>),
    /// What a set frees, or would.
    SetSize(SetSize),
    /// Properties.
    Props(Props),
    /// State of the pool.
    Info(Box<PoolInfo>),
    /// What was given back to the layer below.
    Trimmed {
        /// Bytes, those included that it had back before.
        bytes: u64,
    },
    /// What a step of a scrub has found.
    Scrubbed(ScrubPage),
    /// Changed extents.
    Diff(DiffPage),
    /// A content root.
    Root(ContentRoot),
    /// A page of digests, in hexadecimal digits.
    MerklePage(String),
    /// An import or export is complete.
    Transferred(Transferred),
    /// What is served.
    Exports(Vec<ExportInfo>),
    /// Where the pool is mounted now.
    Mounted {
        /// The directory.
        dir: PathBuf,
        /// The process that serves it.
        pid: u32,
    },
    /// It is not mounted there any more.
    Unmounted {
        /// The process was there for that alone, and ends now.
        ends: bool,
    },
}

/// Something that is served to clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExportInfo {
    /// `VOL` or `VOL@SNAP`.
    pub name: String,
    /// How to reach it.
    pub uri: String,
    /// Whether it refuses writes.
    pub read_only: bool,
    /// Who has it open now.
    pub clients: Vec<String>,
}

/// Mounts the pool of this process, for [`Verb::Mount`]. How is for the program around the pool to
/// know.
pub trait MountHost: Send + Sync {
    /// Mounts it at `dir`, or, without one, at a place of its own; there once, however often it is
    /// asked. Says where.
    ///
    /// # Errors
    /// `Busy` where something is mounted already, and when this process is about to end.
    fn mount(&self, dir: Option<&Path>) -> Result<PathBuf, Error>;

    /// Devices of this host are about to be served in another way: the process stays for them, and
    /// keeps its memory.
    ///
    /// # Errors
    /// `Busy` when this process is about to end.
    fn keep(&self) -> Result<(), Error>;

    /// Undoes either. Whether the process ends now, as it was there for this mount alone.
    ///
    /// # Errors
    /// `NotFound` when it is not mounted there, `Busy` while something in it is open.
    fn unmount(&self, dir: Option<&Path>) -> Result<bool, Error>;
}

/// A pool that can be managed, here or in another process.
pub trait Manage: Send {
    /// Does `verb`. What takes long says how far it is.
    fn call(&self, verb: Verb, progress: &mut dyn FnMut(Progress)) -> Result<Answer, Error>;

    /// Ends it. A pool of this process is closed with a checkpoint; that of another goes on.
    ///
    /// # Errors
    /// See [`crate::Pool::close`].
    fn close(self: Box<Self>) -> Result<(), Error>;

    /// Whether another process has the pool.
    fn is_remote(&self) -> bool;
}
