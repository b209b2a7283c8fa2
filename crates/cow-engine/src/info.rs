//! What the engine tells of a pool, its volumes and its snapshots.

use crate::events::PoolEvent;
use cow_format::entry::{Consistency, NodeKind};
use cow_format::{FrameSeq, NodeId, VolumeId};

/// A run of bytes of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Bytes.
    pub len: u64,
    /// Mapped; else it reads as zeros.
    pub mapped: bool,
}

/// What deleting a set would free, as of the last fold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetSize {
    /// Nodes that the set covers (names as `VOL` or `VOL@SNAP`).
    pub names: Vec<String>,
    /// Bytes of data.
    pub data_bytes: u64,
    /// Bytes of map nodes.
    pub metadata_bytes: u64,
    /// Whether `data_bytes` is exact; else a lower bound (a branch point hides more).
    pub exact: bool,
    /// An upper bound of the data bytes; equal where exact.
    pub data_bytes_max: u64,
    /// The frame up to which they count.
    pub as_of: FrameSeq,
}

/// A volume or snapshot.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    /// `VOL` or `VOL@SNAP`.
    pub name: String,
    /// Identity.
    pub node: NodeId,
    /// Volume id.
    pub volume: VolumeId,
    /// Head, user, undo, auto.
    pub kind: NodeKind,
    /// In use, not deleted.
    pub live: bool,
    /// Deleted: how much of its map has been gone through so that it can go, in percent. `None` for
    /// what is in use, and for a branch point, which stays until one branch is left.
    pub reclaimed_percent: Option<u8>,
    /// Size of the volume in bytes.
    pub size_bytes: u64,
    /// Bytes of data that it maps; `None` until a fold has seen it.
    pub referenced_bytes: Option<u64>,
    /// Bytes of data that nothing else maps.
    pub unique_bytes: Option<u64>,
    /// An upper bound of the same; equal where exact.
    pub unique_bytes_max: Option<u64>,
    /// Bytes of map nodes that nothing else needs.
    pub unique_metadata_bytes: Option<u64>,
    /// Whether `unique_bytes` is exact.
    pub exact: bool,
    /// Nanoseconds since 1970.
    pub created_ns: u64,
    /// Nanoseconds since 1970; 0 for never.
    pub expiry_ns: u64,
    /// For a head: the snapshot that it began as, `VOL@SNAP`, if that is still there.
    pub origin: Option<String>,
    /// Snapshot-tree parent (for drawing the tree).
    pub parent: Option<NodeId>,
    /// How it was taken.
    pub consistency: Consistency,
    /// How long the guest had been frozen, in milliseconds; 0 if it was not.
    pub freeze_ms: u32,
    /// Snapshot group; 0 for none.
    pub group: u64,
    /// Number of holds.
    pub holds: u32,
    /// Properties, sorted.
    pub props: Vec<(String, String)>,
    /// Bytes of data that the volume pays for, its snapshots included, as of now (heads).
    pub charged_bytes: u64,
    /// Rollback generation (heads).
    pub rollback_gen: u64,
    /// Open exports: readers and writers.
    pub open_readers: u32,
    /// Open exports that write.
    pub open_writers: u32,
}

/// State of the pool.
#[derive(Clone, Debug, Default)]
pub struct PoolInfo {
    /// Identity.
    pub uuid: [u8; 16],
    /// Format version.
    pub version: u32,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Largest size that it can grow to.
    pub limit_bytes: u64,
    /// Allocated data, as of the last fold.
    pub data_bytes: u64,
    /// Allocated map nodes, blobs, table chunks and fixed areas.
    pub metadata_bytes: u64,
    /// Bytes a user can still write, to a volume for which nothing is kept.
    pub free_bytes: u64,
    /// Bytes that are kept for volumes with a reserve, beside what they have.
    pub reserved_bytes: u64,
    /// Bytes of deleted nodes that are being reclaimed, and freed blocks not yet reusable.
    pub reclaiming_bytes: u64,
    /// Size of the journal ring.
    pub journal_bytes: u64,
    /// Part of it in use.
    pub journal_used_bytes: u64,
    /// Newest durable checkpoint.
    pub checkpoint_seq: u64,
    /// Epoch of this opening.
    pub epoch: u32,
    /// Last durable frame.
    pub durable_seq: u64,
    /// Volumes, snapshots and nodes being deleted.
    pub volumes: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// Nodes being deleted.
    pub deleting: u64,
    /// Why the pool is read-only, when it is.
    pub poisoned: Option<String>,
    /// Why nothing is folded at the moment, when that is so: the pool goes on by itself when the
    /// cause is gone.
    pub stalled: Option<String>,
    /// Why no room for checkpoints is allocated below ahead, where it should be.
    pub room_note: Option<String>,
    /// Blocks that could not be written and are given up.
    pub withheld: u64,
    /// Broken map nodes, kill rows and properties that folds have met.
    pub damage: u64,
    /// Opened without the right to write.
    pub read_only: bool,
    /// Percent of the capacity that new data cannot have; what is on its way back counts as free.
    pub used_percent: u8,
    /// The mark that the pool is at: 80, 90, 95; 0 below.
    pub space_level: u8,
    /// Counters since opening.
    pub stats: Stats,
    /// The wall clock is not believed at the moment: nothing goes by itself.
    pub clock_suspect: bool,
    /// What happened by itself since opening, newest last; at most [`crate::MAX_EVENTS`].
    pub events: Vec<PoolEvent>,
}

/// Counters since opening.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Client reads, and their bytes.
    pub reads: u64,
    /// Bytes read by clients.
    pub read_bytes: u64,
    /// Client writes.
    pub writes: u64,
    /// Bytes written by clients.
    pub write_bytes: u64,
    /// Client flushes.
    pub flushes: u64,
    /// Journal frames written.
    pub frames: u64,
    /// Blocks of those frames.
    pub frame_blocks: u64,
    /// Device flushes.
    pub device_flushes: u64,
    /// Folds that ended in a checkpoint.
    pub folds: u64,
    /// Map nodes written by folds.
    pub map_nodes_written: u64,
    /// Map nodes read from the device.
    pub map_nodes_read: u64,
    /// Blocks freed by folds and walks.
    pub blocks_freed: u64,
    /// Freed blocks that were given back to the file system or device below.
    pub blocks_discarded: u64,
    /// Data blocks that failed their checksum.
    pub checksum_failures: u64,
}
