//! What the agent speaks of: servers, their volumes, their snapshots.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// Identities stay below 2^53, so that every JSON reader keeps them exact.
pub const ID_LIMIT: u64 = 1 << 53;
/// Longest name of a server or snapshot, in characters.
pub const MAX_NAME: usize = 128;
/// Longest name of a volume, in characters.
pub const MAX_VOLUME_NAME: usize = 64;
/// Longest description, in bytes: it is kept in the properties of each volume's snapshot.
pub const MAX_DESCRIPTION: usize = 2048;
/// Most volumes of a server.
pub const MAX_VOLUMES: usize = 16;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// Names a server; never used again.
    ServerId
}
id! {
    /// Names a snapshot of a server; never used again.
    SnapshotId
}

/// What a server is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServerStatus {
    /// It runs.
    Running,
    /// It does not.
    Stopped,
    /// Its start hook runs.
    Starting,
    /// Its stop hook runs.
    Stopping,
    /// It is being taken back to a snapshot.
    Restoring,
}

/// How the agent reaches a server's machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum DriverSpec {
    /// Not at all: starting and stopping it is somebody else's work.
    #[default]
    None,
    /// By commands of the operator's, from this section of the configuration.
    Command {
        /// Name of the section.
        hooks: String,
    },
}

/// A volume that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeRequest {
    /// Its name, unique in the server: 1 to 64 of `[A-Za-z0-9_-]`.
    pub name: String,
    /// Its size in bytes.
    pub size_bytes: u64,
}

/// A server that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerRequest {
    /// Its name: 1 to 128 of `[A-Za-z0-9._-]`.
    pub name: String,
    /// Its volumes, 1 to 16.
    pub volumes: Vec<VolumeRequest>,
    /// How it is reached.
    pub driver: DriverSpec,
}

/// A volume of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerVolume {
    /// Its name in the server.
    pub name: String,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Its name in the pool, which is that of its export too.
    pub export: String,
}

/// A server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Identity.
    pub id: ServerId,
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub status: ServerStatus,
    /// How it is reached.
    pub driver: DriverSpec,
    /// Its volumes, in the order in which they were asked for.
    pub volumes: Vec<ServerVolume>,
    /// Nanoseconds since 1970.
    pub created_ns: u64,
}

/// A server, in the words of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerRef {
    /// Identity.
    pub id: ServerId,
    /// Its name.
    pub name: String,
}

/// A snapshot that is to be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRequest {
    /// Of which server.
    pub server: ServerId,
    /// Its name, which need not be unique: 1 to 128 of `[A-Za-z0-9_-]`.
    pub name: String,
    /// What somebody wanted to remember, at most 2048 bytes; may be empty.
    pub description: String,
}

/// How far a snapshot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotStatus {
    /// Durable; the server is not thawed yet, or its size is not known yet.
    InProgress,
    /// Nothing is left to do.
    Completed,
}

/// How the server was when a snapshot was taken.
pub use cowstore::Consistency;

/// A snapshot of a whole server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Identity.
    pub id: SnapshotId,
    /// Of which server.
    pub server: ServerRef,
    /// Its name.
    pub name: String,
    /// May be empty.
    pub description: String,
    /// How far it is.
    pub status: SnapshotStatus,
    /// Bytes of data that nothing else maps: what deleting it gives back. `None` until known.
    pub unique_bytes: Option<u64>,
    /// Whether `unique_bytes` is exact; else it is a lower bound, which a branch hides more of.
    pub exact: bool,
    /// Bytes of data that it maps.
    pub referenced_bytes: Option<u64>,
    /// Sizes of its volumes together.
    pub logical_bytes: u64,
    /// Nanoseconds since 1970.
    pub created_ns: u64,
    /// How the server was when it was taken.
    pub consistency: Consistency,
}

/// What a restore, or its undo, answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Identity of the snapshot.
    pub snapshot: SnapshotId,
    /// Its name.
    pub name: String,
    /// When it was taken, nanoseconds since 1970.
    pub created_ns: u64,
    /// The server, whose status is `restoring` until it runs again.
    pub server: ServerRef,
}

/// What deleting some snapshots together would free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reclaim {
    /// Which.
    pub ids: Vec<SnapshotId>,
    /// Bytes of data.
    pub freed_bytes: u64,
    /// Bytes of the map.
    pub freed_metadata_bytes: u64,
    /// Whether `freed_bytes` is exact; else it is a lower bound.
    pub exact: bool,
    /// An upper bound of `freed_bytes`; equal where exact.
    pub freed_bytes_max: u64,
}

/// How long a client may wait for a snapshot to be completed.
pub const MAX_WAIT: Duration = Duration::from_secs(60);
