//! What the library says about pools, volumes and snapshots. These types have a JSON form, in
//! which they travel over the control socket and are printed; its keys are part of the contract.

use crate::events::PoolEvent;
use crate::identity::format_uuid;
use cow_engine::{self as engine, PropEdit};
use serde::{Deserialize, Serialize};

/// Marks a volume that an import has not finished, and a snapshot that an export took for
/// itself.
pub const IMPORTING: &str = "cow.importing";
/// What the names of snapshots begin with that an export takes for itself. They have the property too.
pub(crate) const EXPORT_PREFIX: &str = "export.";

/// What a node of the snapshot tree is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeKind {
    /// A volume.
    Head,
    /// A snapshot that somebody took.
    #[default]
    User,
    /// What a rollback replaced.
    Undo,
    /// A snapshot that a program took for itself.
    Auto,
}

impl From<cow_format::entry::NodeKind> for NodeKind {
    fn from(kind: cow_format::entry::NodeKind) -> Self {
        use cow_format::entry::NodeKind as Kind;
        match kind {
            Kind::Head | Kind::Pool => Self::Head,
            Kind::User => Self::User,
            Kind::Undo => Self::Undo,
            Kind::Auto => Self::Auto,
        }
    }
}

impl From<NodeKind> for cow_format::entry::NodeKind {
    fn from(kind: NodeKind) -> Self {
        match kind {
            NodeKind::Head => Self::Head,
            NodeKind::User => Self::User,
            NodeKind::Undo => Self::Undo,
            NodeKind::Auto => Self::Auto,
        }
    }
}

/// How the guest was prepared when a snapshot was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// As after a power cut.
    #[default]
    Crash,
    /// The machine was stopped.
    Stopped,
    /// File systems were frozen.
    Frozen,
    /// Applications were quiesced.
    Quiesced,
    /// A freeze was asked for and failed.
    FreezeFailed,
}

macro_rules! same_variants {
    ($($variant:ident),*) => {
        impl From<cow_format::entry::Consistency> for Consistency {
            fn from(value: cow_format::entry::Consistency) -> Self {
                match value { $(cow_format::entry::Consistency::$variant => Self::$variant),* }
            }
        }

        impl From<Consistency> for cow_format::entry::Consistency {
            fn from(value: Consistency) -> Self {
                match value { $(Consistency::$variant => Self::$variant),* }
            }
        }
    };
}

same_variants!(Crash, Stopped, Frozen, Quiesced, FreezeFailed);

/// How snapshots are taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SnapshotOptions {
    /// [`NodeKind::User`] or [`NodeKind::Auto`].
    pub kind: NodeKind,
    /// How the guest was prepared.
    pub consistency: Consistency,
    /// How long it had been frozen, in milliseconds; 0 if it was not.
    pub freeze_ms: u32,
    /// When they expire, nanoseconds since 1970; 0 for never.
    pub expiry_ns: u64,
    /// Properties of each.
    pub props: Vec<(String, String)>,
    /// Changes of properties of others (volumes, or with an empty name the pool), committed with
    /// the snapshots. Not over the control socket.
    #[serde(skip)]
    pub edits: Vec<PropEdit>,
}

impl From<SnapshotOptions> for engine::SnapOptions {
    fn from(options: SnapshotOptions) -> Self {
        Self {
            kind: options.kind.into(),
            consistency: options.consistency.into(),
            freeze_ms: options.freeze_ms,
            expiry_ns: options.expiry_ns,
            props: options.props,
            edits: options.edits,
        }
    }
}

/// How a rollback treats what it replaces, and whoever uses it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RollbackOptions {
    /// Do not keep what is replaced.
    pub discard_current: bool,
    /// Fence clients that have a volume open for writing, instead of refusing.
    pub force: bool,
    /// Changes of properties, committed with the rollback.
    pub edits: Vec<PropEdit>,
}

/// What is deleted with what is named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// The snapshots of the volumes, too.
    pub recursive: bool,
    /// Nothing; only say what would be freed.
    pub dry_run: bool,
}

/// A volume or snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// `VOL` or `VOL@SNAP`.
    pub name: String,
    /// Identity, never used again.
    pub node: u64,
    /// Identity of the volume.
    pub volume: u64,
    /// What it is.
    pub kind: NodeKind,
    /// Not deleted.
    pub live: bool,
    /// Deleted: how much of its map has been gone through so that it can go, in percent. `None` for
    /// what is in use, and for a branch point, which stays until one branch is left.
    #[serde(default)]
    pub reclaimed_percent: Option<u8>,
    /// Size of the volume in bytes.
    pub size_bytes: u64,
    /// Bytes of data that it maps; `None` until a fold has seen it.
    pub referenced_bytes: Option<u64>,
    /// Bytes of data that nothing else maps.
    pub unique_bytes: Option<u64>,
    /// An upper bound of the same; equal where exact.
    #[serde(default)]
    pub unique_bytes_max: Option<u64>,
    /// Bytes of map nodes that nothing else needs.
    pub unique_metadata_bytes: Option<u64>,
    /// Whether `unique_bytes` is exact.
    pub exact: bool,
    /// Nanoseconds since 1970.
    pub created_ns: u64,
    /// Nanoseconds since 1970; 0 for never.
    pub expiry_ns: u64,
    /// For a volume: the snapshot that it began as, if that is still there.
    pub origin: Option<String>,
    /// The node above it in the snapshot tree.
    pub parent: Option<u64>,
    /// How it was taken.
    pub consistency: Consistency,
    /// How long the guest had been frozen, in milliseconds; 0 if it was not.
    #[serde(default)]
    pub freeze_ms: u32,
    /// Snapshot group; 0 for none.
    pub group: u64,
    /// Number of holds.
    pub holds: u32,
    /// Properties, sorted.
    pub props: Vec<(String, String)>,
    /// Of a volume: bytes of data that it pays for, its snapshots included.
    #[serde(default)]
    pub charged_bytes: u64,
    /// How often the volume was rolled back.
    pub rollback_gen: u64,
    /// Who has it open, for reading or writing.
    pub open_readers: u32,
    /// Who has it open for writing.
    pub open_writers: u32,
}

impl NodeInfo {
    /// Whether it is a volume, not a snapshot.
    pub fn is_volume(&self) -> bool {
        self.kind == NodeKind::Head
    }

    /// A property.
    pub fn prop(&self, key: &str) -> Option<&str> {
        self.props.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }
}

impl From<engine::NodeInfo> for NodeInfo {
    fn from(info: engine::NodeInfo) -> Self {
        Self {
            name: info.name,
            node: info.node.0,
            volume: info.volume.0,
            kind: info.kind.into(),
            live: info.live,
            reclaimed_percent: info.reclaimed_percent,
            size_bytes: info.size_bytes,
            referenced_bytes: info.referenced_bytes,
            unique_bytes: info.unique_bytes,
            unique_bytes_max: info.unique_bytes_max,
            unique_metadata_bytes: info.unique_metadata_bytes,
            exact: info.exact,
            created_ns: info.created_ns,
            expiry_ns: info.expiry_ns,
            origin: info.origin,
            parent: info.parent.map(|node| node.0),
            consistency: info.consistency.into(),
            freeze_ms: info.freeze_ms,
            group: info.group,
            holds: info.holds,
            props: info.props,
            charged_bytes: info.charged_bytes,
            rollback_gen: info.rollback_gen,
            open_readers: info.open_readers,
            open_writers: info.open_writers,
        }
    }
}

/// What deleting a set would free.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetSize {
    /// What the set covers: names as `VOL` or `VOL@SNAP`.
    pub names: Vec<String>,
    /// Bytes of data.
    pub data_bytes: u64,
    /// Bytes of map nodes.
    pub metadata_bytes: u64,
    /// Whether `data_bytes` is exact; else it is a lower bound.
    pub exact: bool,
    /// An upper bound of `data_bytes`; equal where exact.
    pub data_bytes_max: u64,
    /// The journal frame up to which the figures count.
    pub as_of_seq: u64,
}

impl From<engine::SetSize> for SetSize {
    fn from(size: engine::SetSize) -> Self {
        Self {
            names: size.names,
            data_bytes: size.data_bytes,
            metadata_bytes: size.metadata_bytes,
            exact: size.exact,
            data_bytes_max: size.data_bytes_max,
            as_of_seq: size.as_of.0,
        }
    }
}

/// Properties of a node or of the pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Props {
    /// Key and value, sorted.
    pub props: Vec<(String, String)>,
    /// Tags of holds.
    #[serde(default)]
    pub holds: Vec<String>,
}

/// The snapshot that keeps what a rollback replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its name, `VOL@undo.N`.
    pub name: String,
    /// Its identity.
    pub node: u64,
}

/// A content root. Two volumes have the same one exactly if they have the same size and bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentRoot {
    /// BLAKE3 over content and place, 64 hexadecimal digits.
    pub root: String,
    /// Size of the volume, which is part of it.
    pub size_bytes: u64,
}

/// Changed extents, and where to go on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffPage {
    /// `(offset, length)` in bytes, in order.
    pub extents: Vec<(u64, u64)>,
    /// The offset to ask for next; `None` at the end.
    pub next: Option<u64>,
}

/// The state of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PoolInfo {
    /// Identity.
    pub uuid: String,
    /// Where it was opened.
    pub path: String,
    /// `io_uring` or `threads`.
    pub driver: String,
    /// Whether the page cache is bypassed.
    pub direct_io: bool,
    /// Whether buffers are registered with the kernel.
    pub fixed_buffers: bool,
    /// Reads and writes of the device that used such buffers, since opening.
    pub fixed_transfers: u64,
    /// What a person should know: why I/O is buffered, why io_uring is not used, or no fixed
    /// buffers.
    pub notes: Vec<String>,
    /// Format version.
    pub version: u32,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Largest size that it can grow to.
    pub limit_bytes: u64,
    /// Data plus metadata.
    pub used_bytes: u64,
    /// Allocated data, as of the last fold.
    pub data_bytes: u64,
    /// Allocated map nodes, tables and fixed areas.
    pub metadata_bytes: u64,
    /// What can still be written, to a volume without a reserve.
    pub free_bytes: u64,
    /// What is kept for volumes with a reserve, beside what they have.
    pub reserved_bytes: u64,
    /// Percent of the capacity that new data cannot have; what is on its way back counts as free.
    pub used_percent: u8,
    /// The mark that the pool is at: 80, 90, 95; 0 below.
    pub space_level: u8,
    /// Of deleted volumes and snapshots, on its way back.
    pub reclaiming_bytes: u64,
    /// Size of the journal.
    pub journal_bytes: u64,
    /// Part of it in use.
    pub journal_used_bytes: u64,
    /// Newest durable checkpoint.
    pub checkpoint_seq: u64,
    /// Raised at every opening for writing.
    pub epoch: u32,
    /// Last durable journal frame.
    pub durable_seq: u64,
    /// Volumes.
    pub volumes: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// Volumes and snapshots being deleted.
    pub deleting: u64,
    /// Why nothing more is written, if so.
    pub poisoned: Option<String>,
    /// Why no checkpoint is made at the moment, if so. It goes on by itself.
    pub stalled: Option<String>,
    /// Blocks that could not be written and are given up.
    pub withheld: u64,
    /// Broken map nodes, kill rows and properties that were met.
    pub damage: u64,
    /// Opened for reading only.
    pub read_only: bool,
    /// Counters since opening.
    pub stats: Stats,
    /// The wall clock is not believed at the moment: nothing expires or is pruned by itself.
    pub clock_suspect: bool,
    /// What happened by itself since opening, newest last; the newest 64.
    pub events: Vec<PoolEvent>,
}

impl From<engine::PoolInfo> for PoolInfo {
    fn from(info: engine::PoolInfo) -> Self {
        Self {
            uuid: format_uuid(&info.uuid),
            version: info.version,
            size_bytes: info.size_bytes,
            limit_bytes: info.limit_bytes,
            used_bytes: info.data_bytes.saturating_add(info.metadata_bytes),
            data_bytes: info.data_bytes,
            metadata_bytes: info.metadata_bytes,
            free_bytes: info.free_bytes,
            reserved_bytes: info.reserved_bytes,
            used_percent: info.used_percent,
            space_level: info.space_level,
            reclaiming_bytes: info.reclaiming_bytes,
            journal_bytes: info.journal_bytes,
            journal_used_bytes: info.journal_used_bytes,
            checkpoint_seq: info.checkpoint_seq,
            epoch: info.epoch,
            durable_seq: info.durable_seq,
            volumes: info.volumes,
            snapshots: info.snapshots,
            deleting: info.deleting,
            poisoned: info.poisoned,
            stalled: info.stalled,
            notes: info.room_note.into_iter().collect(),
            withheld: info.withheld,
            damage: info.damage,
            read_only: info.read_only,
            stats: info.stats.into(),
            clock_suspect: info.clock_suspect,
            events: info.events.into_iter().map(PoolEvent::from).collect(),
            ..Self::default()
        }
    }
}

macro_rules! stats {
    ($($(#[$doc:meta])* $field:ident,)*) => {
        /// Counters since a pool was opened.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct Stats {
            $($(#[$doc])* pub $field: u64,)*
        }

        impl From<engine::Stats> for Stats {
            fn from(stats: engine::Stats) -> Self {
                Self { $($field: stats.$field,)* }
            }
        }
    };
}

stats! {
    /// Client reads.
    reads,
    /// Bytes read by clients.
    read_bytes,
    /// Client writes.
    writes,
    /// Bytes written by clients.
    write_bytes,
    /// Client flushes.
    flushes,
    /// Journal frames written.
    frames,
    /// Blocks of those frames.
    frame_blocks,
    /// Device flushes.
    device_flushes,
    /// Folds that ended in a checkpoint.
    folds,
    /// Map nodes written by folds.
    map_nodes_written,
    /// Map nodes read from the device.
    map_nodes_read,
    /// Blocks freed by folds and walks.
    blocks_freed,
    /// Freed blocks that were given back to the file system or device below.
    blocks_discarded,
    /// Data blocks that failed their checksum.
    checksum_failures,
}
