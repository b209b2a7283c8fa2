//! What goes into the engine and what comes out: [`Event`] in, [`Action`] out.
//!
//! The engine does no I/O and reads no clock. A driver (threads and io_uring, or the simulator)
//! carries out the actions and feeds what became of them back as events.

use crate::error::Error;
use crate::events::PoolEvent;
use crate::info::{Extent, NodeInfo, PoolInfo, SetSize};
use crate::scrub_state::{ScrubCursor, ScrubStep};
use cow_format::entry::{Consistency, NodeKind};
use cow_format::{Buf, BufSlice, NodeId, Phys};
pub use cow_snaptree::{NewVolume, PropEdit};

/// Names an operation that a client asked for; chosen by the caller, unique while in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OpId(pub u64);

/// Names a device operation; chosen by the engine, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IoId(pub u64);

/// An opened volume or snapshot. Requests through it fail with `Stale` once it was fenced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExportId(pub u64);

/// What a device operation came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoFailure {
    /// The operating system's error number (`EIO` = 5, `ENOSPC` = 28).
    pub errno: i32,
}

/// Something happened.
#[derive(Debug)]
pub enum Event {
    /// A client asks for something.
    Op {
        /// Its name.
        id: OpId,
        /// What is asked.
        op: Op,
    },
    /// A device operation is complete.
    IoDone {
        /// Which.
        id: IoId,
        /// Success, or how it failed.
        result: Result<(), IoFailure>,
        /// The buffer of a read, filled.
        buf: Option<Buf>,
    },
    /// Nothing else waits to be told: what has paused may go on for a while. Should come as long as
    /// [`crate::Engine::is_paused`].
    Resume,
    /// Time went on. Should come at least every 5 ms while [`crate::Engine::wants_tick`].
    Tick {
        /// Monotonic time in nanoseconds, from any origin.
        now_ns: u64,
        /// Wall-clock time, nanoseconds since 1970.
        wall_ns: u64,
    },
}

/// Something to be done.
#[derive(Debug)]
pub enum Action {
    /// Read `buf.block_count()` blocks from `at` into `buf`.
    Read {
        /// Names the operation.
        id: IoId,
        /// First block.
        at: Phys,
        /// To be filled and handed back.
        buf: Buf,
        /// Read from the device, not from a cache (a second try after a mismatch).
        bypass_cache: bool,
    },
    /// Write the slices, one after the other, from `at` on.
    Write {
        /// Names the operation.
        id: IoId,
        /// First block.
        at: Phys,
        /// What to write.
        bufs: Vec<BufSlice>,
        /// Nobody waits for it: it may be kept for a moment, to be written together with what follows
        /// it. No longer than until the next action that is no read, and not while all is idle.
        lazy: bool,
    },
    /// Make durable every write that was *completed* before this action was emitted.
    Flush {
        /// Names the operation.
        id: IoId,
    },
    /// The blocks are free: give them back to what lies below. Failure does no harm.
    Discard {
        /// Names the operation.
        id: IoId,
        /// First block.
        at: Phys,
        /// How many.
        blocks: u64,
    },
    /// Make sure that the file below has room for these blocks.
    Allocate {
        /// Names the operation.
        id: IoId,
        /// First block.
        at: Phys,
        /// How many.
        blocks: u64,
    },
    /// Make the file below `blocks` blocks long, durably.
    Grow {
        /// Names the operation.
        id: IoId,
        /// New length in blocks.
        blocks: u64,
    },
    /// The answer to an operation.
    Reply {
        /// Which.
        id: OpId,
        /// What came of it.
        result: Result<Reply, Error>,
    },
    /// Something happened that a person may want to know; nothing is to be done.
    Tell(PoolEvent),
}

/// How a write is acknowledged (design section 4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AckMode {
    /// When it is accepted, in that order; data and journal go to the device side by side. A flush
    /// makes it durable: a volume is a disk with a volatile write cache.
    #[default]
    Writeback,
    /// When its data write is complete; a flush makes it durable.
    Writethrough,
    /// When its journal frame is written too: survives the death of the process.
    Journaled,
}

/// A snapshot to be taken or rolled back to: names of volume and snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapTarget {
    /// Name of the volume.
    pub volume: String,
    /// Name of the snapshot.
    pub snapshot: String,
}

/// How snapshots are taken.
#[derive(Clone, Debug)]
pub struct SnapOptions {
    /// `User` or `Auto`.
    pub kind: NodeKind,
    /// How the guest was prepared.
    pub consistency: Consistency,
    /// How long it had been frozen, in milliseconds; 0 if it was not.
    pub freeze_ms: u32,
    /// When they expire, nanoseconds since 1970; 0 for never.
    pub expiry_ns: u64,
    /// Properties of each.
    pub props: Vec<(String, String)>,
    /// Changes of properties of others, committed with the snapshots.
    pub edits: Vec<PropEdit>,
}

impl Default for SnapOptions {
    fn default() -> Self {
        Self {
            kind: NodeKind::User,
            consistency: Consistency::Crash,
            freeze_ms: 0,
            expiry_ns: 0,
            props: Vec::new(),
            edits: Vec::new(),
        }
    }
}

/// One side of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiffSide {
    /// `VOL` or `VOL@SNAP`, which may be deleted between two pages.
    Name(String),
    /// Something open, which stays.
    Export(ExportId),
}

/// Which blocks differ between two states of one family. The order of the two makes no difference.
///
/// What is written is in the answer when it was acknowledged before; nothing is folded for it. A
/// volume that is written meanwhile is compared block by block as of some moment before the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiffQuery {
    /// One.
    pub from: DiffSide,
    /// The other.
    pub to: DiffSide,
    /// First byte that is looked at; its whole block is.
    pub offset: u64,
    /// Bytes from there on; what lies beyond the end of both is cut off.
    pub len: u64,
    /// At most so many extents in the answer, which may end earlier.
    pub limit: usize,
    /// Compare bytes: what was written again with equal bytes is no change. Otherwise it is one.
    pub exact: bool,
}

impl DiffQuery {
    /// From the front to the end, by address, in a page of `limit` extents.
    #[must_use]
    pub fn all(from: &str, to: &str, limit: usize) -> Self {
        let [from, to] = [from, to].map(|name| DiffSide::Name(name.into()));
        Self { from, to, offset: 0, len: u64::MAX, limit, exact: false }
    }
}

/// What clients ask for. Offsets and lengths are bytes of the volume, of any alignment.
#[derive(Debug)]
pub enum Op {
    /// First of all: recover and serve. Reply: `Done`.
    Open {
        /// Write nothing at all, not even for recovery.
        read_only: bool,
    },
    /// Finish everything, checkpoint, flush. Reply: `Done`; nothing may follow.
    Close,
    /// Opens `VOL` or `VOL@SNAP`. Reply: `Export`. While open it cannot be deleted.
    OpenExport {
        /// `VOL` or `VOL@SNAP`.
        name: String,
        /// For writing (volumes only).
        write: bool,
    },
    /// Ends an export. Reply: `Done`.
    CloseExport {
        /// Which.
        export: ExportId,
    },
    /// Reply: `Data`.
    Read {
        /// Where from.
        export: ExportId,
        /// First byte.
        offset: u64,
        /// Bytes, at most 64 MiB.
        len: u64,
    },
    /// Reply: `Done`. `data` holds the bytes from its front; its tail is not looked at.
    Write {
        /// Where to.
        export: ExportId,
        /// First byte.
        offset: u64,
        /// Bytes, at most `data.len()`.
        len: u64,
        /// The bytes.
        data: Buf,
        /// Durable before the reply.
        fua: bool,
    },
    /// Everything acknowledged before is durable. Pool-wide. Reply: `Done`.
    Flush {
        /// Through which export.
        export: ExportId,
    },
    /// The whole blocks inside the range read as zeros and their space comes back; where there is
    /// no room to note it, nothing happens. Reply: `Done`.
    Discard {
        /// Where.
        export: ExportId,
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
        /// Durable before the reply.
        fua: bool,
    },
    /// The range reads as zeros. Reply: `Done`.
    WriteZeroes {
        /// Where.
        export: ExportId,
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
        /// Durable before the reply.
        fua: bool,
    },
    /// What is mapped. Reply: `Extents`, covering the range from its front; perhaps not all.
    Extents {
        /// Where.
        export: ExportId,
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Thin volumes, all or none. Durable. Reply: `Nodes`, as asked.
    CreateVolumes {
        /// The volumes.
        volumes: Vec<NewVolume>,
        /// Changes of properties of others, committed with them.
        edits: Vec<PropEdit>,
    },
    /// Snapshots of one or more volumes at one instant. Durable. A volume that has a property
    /// `limit` never has more of kind `User` than it says. Reply: `Nodes`, as asked.
    Snapshot {
        /// The names.
        targets: Vec<SnapTarget>,
        /// How.
        options: SnapOptions,
    },
    /// Back to snapshots, atomically. Durable. Reply: `RolledBack`.
    Rollback {
        /// The names.
        targets: Vec<SnapTarget>,
        /// Do not keep what is replaced.
        discard_current: bool,
        /// Fence clients that have a volume open for writing instead of refusing.
        force: bool,
        /// Changes of properties, committed with it.
        edits: Vec<PropEdit>,
    },
    /// Back to what the last rollback of the volume replaced. Durable. Reply: `RolledBack`.
    Undo {
        /// Name of the volume.
        volume: String,
        /// Fence clients instead of refusing.
        force: bool,
    },
    /// A volume that begins as a snapshot. Durable. Reply: `Node`.
    Clone {
        /// The snapshot.
        source: SnapTarget,
        /// Name of the volume.
        name: String,
        /// Its properties.
        props: Vec<(String, String)>,
    },
    /// Deletes volumes and snapshots. Durable; space comes back in the background.
    /// Reply: `Deleted`.
    Delete {
        /// `VOL` or `VOL@SNAP`.
        names: Vec<String>,
        /// The snapshots of named volumes go too.
        recursive: bool,
        /// Only say what would be freed (exact as of now: folds first).
        dry_run: bool,
    },
    /// Deletes what has expired, and what no rule in the property `keep` of its volume keeps; never
    /// what is held or open. Durable. Reply: `Deleted`.
    Prune {
        /// The volumes; all if empty.
        volumes: Vec<String>,
        /// Only say what would be deleted, and freed (exact as of now: folds first).
        dry_run: bool,
    },
    /// Reply: `Done`. Durable.
    Rename {
        /// `VOL` or `VOL@SNAP`.
        name: String,
        /// The new name: of the volume, or of the snapshot without its volume.
        to: String,
    },
    /// Reply: `Done`. Durable.
    Resize {
        /// The volume.
        volume: String,
        /// New size in bytes.
        size_bytes: u64,
        /// Allow it to become smaller.
        shrink: bool,
    },
    /// Changes properties of `VOL`, `VOL@SNAP` or (empty name) the pool. Durable. Reply: `Done`.
    SetProps {
        /// Whose.
        name: String,
        /// `None` removes.
        changes: Vec<(String, Option<String>)>,
    },
    /// Reply: `Props`.
    GetProps {
        /// Whose.
        name: String,
    },
    /// Sets or releases a hold. Durable. Reply: `Done`.
    Hold {
        /// Whose.
        name: String,
        /// Its tag.
        tag: String,
        /// Set, or release.
        set: bool,
    },
    /// All volumes and snapshots. Reply: `List`.
    List {
        /// Fold what is pending first, so that sizes are exact.
        exact: bool,
    },
    /// Like `List`, of what has the property `prop`: volumes, and those snapshots whose own names begin
    /// with `prefix`. No other snapshot is looked at. Reply: `List`.
    ListMarked {
        /// The property.
        prop: String,
        /// What the names of snapshots begin with.
        prefix: String,
    },
    /// Like `List`, of these alone; names that nothing has are left out. Reply: `List`.
    Describe {
        /// `VOL` or `VOL@SNAP`.
        names: Vec<String>,
        /// Fold what is pending first, so that sizes are exact.
        exact: bool,
    },
    /// What deleting exactly these together would free. Folds first. Reply: `SetSize`.
    SetSize {
        /// `VOL` or `VOL@SNAP`.
        names: Vec<String>,
        /// Read maps where branches leave bounds, so that the answer is exact. Without it the answer
        /// comes at once.
        wait: bool,
    },
    /// Snapshots whose deletion together frees so much, by the rule of `cow_snaptree`'s `free_up.rs`;
    /// never held ones, nor those that a client has open. All that there are if they free less.
    /// Folds first. Reply: `SetSize`.
    FreeUp {
        /// Bytes of data.
        bytes: u64,
    },
    /// The state of the pool. Reply: `Info`.
    Info {
        /// Fold what is pending first.
        exact: bool,
    },
    /// Changed extents between two states of one family. Reply: `Diff`.
    Diff(DiffQuery),
    /// The content root: of `VOL@SNAP`, or of `VOL` at a moment after the call. Computed if need be,
    /// and then kept in the next checkpoint for a snapshot. Reply: `Root`.
    Root {
        /// `VOL` or `VOL@SNAP`.
        name: String,
    },
    /// A page of the hashes that the root is made of. Reply: `MerklePage`.
    MerklePage {
        /// `VOL` or `VOL@SNAP`.
        name: String,
        /// Its level, from 1.
        level: u8,
        /// Which of its level.
        index: u64,
    },
    /// A larger pool. Reply: `Done`.
    GrowPool {
        /// Its new size in blocks.
        blocks: u64,
    },
    /// Fold now and checkpoint. Reply: `Done` when it is durable.
    Checkpoint,
    /// Waits until reclaim has come to rest. Reply: `Done`.
    WaitReclaim,
    /// Waits for the same, and gives all that is free then back to the file system or device below,
    /// whether or not that was done before. Reply: `Trimmed`.
    TrimPool,
    /// Reads on in a scrub, some `blocks` blocks from `cursor`. The first step folds what is pending.
    /// Reply: `Scrubbed`.
    Scrub {
        /// Where the step before it ended; the default at the beginning.
        cursor: ScrubCursor,
        /// About so many; there are bounds.
        blocks: u64,
    },
}

impl Op {
    /// One new volume.
    #[must_use]
    pub fn create_volume(
        name: impl Into<String>,
        size_bytes: u64,
        props: Vec<(String, String)>,
    ) -> Self {
        let new = NewVolume { name: name.into(), size_bytes, props };
        Self::CreateVolumes { volumes: vec![new], edits: Vec::new() }
    }
}

/// Answers.
#[derive(Debug)]
pub enum Reply {
    /// Done.
    Done,
    /// Bytes `skip .. skip + len` of `buf`.
    Data {
        /// Whole blocks.
        buf: Buf,
        /// Where the answer begins in it.
        skip: usize,
    },
    /// An opened export.
    Export {
        /// Its name.
        export: ExportId,
        /// Size in bytes.
        size_bytes: u64,
        /// The snapshot-tree node.
        node: NodeId,
        /// Whether it refuses writes.
        read_only: bool,
        /// Rollback generation of the volume.
        rollback_gen: u64,
    },
    /// Extents from the front of the range on.
    Extents(Vec<Extent>),
    /// A new node.
    Node(NodeId),
    /// New nodes, in the order asked.
    Nodes(Vec<NodeId>),
    /// For each volume the name and node of the snapshot that keeps what was replaced, if any.
    RolledBack(Vec<Option<(String, NodeId)>>),
    /// What a delete frees.
    Deleted(SetSize),
    /// Volumes and snapshots.
    List(Vec<NodeInfo>),
    /// Sizes of a set.
    SetSize(SetSize),
    /// Properties and hold tags.
    Props {
        /// Key and value, sorted.
        props: Vec<(String, String)>,
        /// Tags of holds.
        holds: Vec<String>,
    },
    /// State of the pool.
    Info(Box<PoolInfo>),
    /// What was given back to the layer below.
    Trimmed {
        /// Bytes, those included that it had back before.
        bytes: u64,
    },
    /// A step of a scrub.
    Scrubbed(ScrubStep),
    /// A content root, and the size that is part of it.
    Root {
        /// Its 32 bytes.
        root: [u8; 32],
        /// Size of the volume in bytes.
        size_bytes: u64,
    },
    /// The 4096 bytes of a page of digests.
    MerklePage(Vec<u8>),
    /// Changed extents in order, and where to go on if not all was looked at.
    Diff {
        /// `(offset, length)` in bytes. What cannot be read counts as changed.
        extents: Vec<(u64, u64)>,
        /// The next offset, beyond all of `extents`; `None` at the end.
        next: Option<u64>,
    },
}
