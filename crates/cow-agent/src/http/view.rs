//! Servers and snapshots as clients see them: the shapes of the contract.

use super::state::AppState;
use crate::domain::{
    Consistency, DriverSpec, Reclaim, Restored, Server, ServerRef, ServerStatus, Snapshot,
    SnapshotStatus,
};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

const NS_PER_SECOND: u64 = 1_000_000_000;

/// A point in time as clients see it: RFC 3339, UTC, whole seconds.
fn time(ns: u64) -> String {
    let seconds = i64::try_from(ns / NS_PER_SECOND).unwrap_or(i64::MAX);
    // Nanoseconds in 64 bits end in 2554; a timestamp goes on to 9999.
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX).to_string()
}

/// Bytes in MiB, rounded up.
fn mb(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

/// A server, in the words of a snapshot.
#[derive(Serialize, ToSchema)]
#[schema(as = ServerName)]
pub(super) struct ServerRefView {
    /// Identity.
    #[schema(maximum = 9007199254740991u64, example = 12345)]
    id: u64,
    /// Its name.
    #[schema(example = "web-server-01")]
    name: String,
}

impl From<ServerRef> for ServerRefView {
    fn from(server: ServerRef) -> Self {
        Self { id: server.id.0, name: server.name }
    }
}

/// How far a snapshot is.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = SnapshotStatus)]
enum SnapshotStatusView {
    /// It is taken; its size is not known yet, or its server not thawed yet.
    InProgress,
    /// Nothing is left to do.
    Completed,
}

/// How a server was when a snapshot of it was taken.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = Consistency)]
enum ConsistencyView {
    /// As after a power cut.
    Crash,
    /// It was stopped.
    Stopped,
    /// Its file systems were frozen.
    Frozen,
    /// Its applications were quiesced.
    Quiesced,
    /// It should have been frozen, and that failed: as after a power cut.
    FreezeFailed,
}

/// A snapshot: a copy of all volumes of a server at one instant.
#[derive(Serialize, ToSchema)]
#[schema(as = Snapshot)]
pub(super) struct SnapshotView {
    /// Identity; never used again.
    #[schema(maximum = 9007199254740991u64, example = 801)]
    id: u64,
    server: ServerRefView,
    /// Its name, which need not be unique.
    #[schema(example = "pre-migration-snapshot")]
    name: String,
    #[schema(inline)]
    status: SnapshotStatusView,
    /// What deleting it gives back: MiB, rounded up, of data that nothing else refers to.
    #[schema(required, example = 5120)]
    size_mb: Option<u64>,
    /// When it was taken.
    #[schema(format = DateTime, example = "2025-01-15T18:30:00Z")]
    created_at: String,
    /// What somebody wanted to remember.
    #[schema(example = "Before major migration")]
    description: String,
    /// MiB, rounded up, of all data that it refers to.
    #[schema(required, example = 20480)]
    referenced_mb: Option<u64>,
    /// MiB, rounded up, of its volumes.
    #[schema(example = 40960)]
    logical_mb: u64,
    /// Whether `size_mb` is exact; else it is at least that.
    exact: bool,
    #[schema(inline)]
    consistency: ConsistencyView,
}

impl From<Snapshot> for SnapshotView {
    fn from(snapshot: Snapshot) -> Self {
        Self {
            id: snapshot.id.0,
            server: snapshot.server.into(),
            name: snapshot.name,
            status: match snapshot.status {
                SnapshotStatus::InProgress => SnapshotStatusView::InProgress,
                SnapshotStatus::Completed => SnapshotStatusView::Completed,
            },
            size_mb: snapshot.unique_bytes.map(mb),
            created_at: time(snapshot.created_ns),
            description: snapshot.description,
            referenced_mb: snapshot.referenced_bytes.map(mb),
            logical_mb: mb(snapshot.logical_bytes),
            exact: snapshot.exact,
            consistency: match snapshot.consistency {
                Consistency::Crash => ConsistencyView::Crash,
                Consistency::Stopped => ConsistencyView::Stopped,
                Consistency::Frozen => ConsistencyView::Frozen,
                Consistency::Quiesced => ConsistencyView::Quiesced,
                Consistency::FreezeFailed => ConsistencyView::FreezeFailed,
            },
        }
    }
}

/// Snapshots, newest first.
#[derive(Serialize, ToSchema)]
pub(super) struct SnapshotList {
    /// How many.
    #[schema(example = 1)]
    count: usize,
    results: Vec<SnapshotView>,
}

impl From<Vec<Snapshot>> for SnapshotList {
    fn from(snapshots: Vec<Snapshot>) -> Self {
        Self {
            count: snapshots.len(),
            results: snapshots.into_iter().map(SnapshotView::from).collect(),
        }
    }
}

/// A snapshot that has just been taken.
#[derive(Serialize, ToSchema)]
pub(super) struct CreatedSnapshot {
    #[serde(flatten)]
    snapshot: SnapshotView,
    /// For people.
    #[schema(value_type = String, example = "Snapshot is being created.")]
    message: &'static str,
}

impl From<Snapshot> for CreatedSnapshot {
    fn from(snapshot: Snapshot) -> Self {
        let message = match snapshot.status {
            SnapshotStatus::InProgress => {
                "Snapshot is being created. Its data is safe already; its size follows."
            }
            SnapshotStatus::Completed => "Snapshot has been created.",
        };
        Self { snapshot: snapshot.into(), message }
    }
}

/// A snapshot, in the words of a restore.
#[derive(Serialize, ToSchema)]
struct SnapshotName {
    /// Identity.
    #[schema(maximum = 9007199254740991u64, example = 801)]
    id: u64,
    /// Its name.
    #[schema(example = "pre-migration-snapshot")]
    name: String,
    /// When it was taken.
    #[schema(format = DateTime, example = "2025-01-15T18:30:00Z")]
    created_at: String,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Restoring {
    Restoring,
}

/// A server that is being restored.
#[derive(Serialize, ToSchema)]
struct RestoringServer {
    /// Identity.
    #[schema(maximum = 9007199254740991u64, example = 12345)]
    id: u64,
    /// Its name.
    #[schema(example = "web-server-01")]
    name: String,
    #[schema(inline)]
    status: Restoring,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Success {
    Success,
}

/// A restore, or the undo of one: durable, while the server may still be starting.
#[derive(Serialize, ToSchema)]
pub(super) struct RestoreAnswer {
    #[schema(inline)]
    status: Success,
    /// For people.
    #[schema(value_type = String, example = "Server is being restored from snapshot.")]
    message: &'static str,
    snapshot: SnapshotName,
    server: RestoringServer,
}

impl RestoreAnswer {
    pub(super) fn new(restored: Restored, message: &'static str) -> Self {
        let (id, name) = (restored.snapshot.0, restored.name);
        let snapshot = SnapshotName { id, name, created_at: time(restored.created_ns) };
        let (id, name) = (restored.server.id.0, restored.server.name);
        let server = RestoringServer { id, name, status: Restoring::Restoring };
        Self { status: Success::Success, message, snapshot, server }
    }
}

/// What deleting exactly these snapshots together would free.
#[derive(Serialize, ToSchema)]
#[schema(as = Reclaim)]
pub(super) struct ReclaimView {
    /// Which.
    #[schema(example = json!([801, 798]))]
    ids: Vec<u64>,
    /// Bytes of data.
    freed_bytes: u64,
    /// The same in MiB, rounded up.
    freed_mb: u64,
    /// Bytes of the map beside them.
    freed_metadata_bytes: u64,
    /// Whether `freed_bytes` is exact; else it is at least that.
    exact: bool,
    /// An upper bound of `freed_bytes`; equal where it is exact.
    freed_bytes_max: u64,
}

impl From<Reclaim> for ReclaimView {
    fn from(reclaim: Reclaim) -> Self {
        Self {
            ids: reclaim.ids.iter().map(|id| id.0).collect(),
            freed_bytes: reclaim.freed_bytes,
            freed_mb: mb(reclaim.freed_bytes),
            freed_metadata_bytes: reclaim.freed_metadata_bytes,
            exact: reclaim.exact,
            freed_bytes_max: reclaim.freed_bytes_max,
        }
    }
}

/// What a server is doing.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ServerStatus)]
enum ServerStatusView {
    Running,
    Stopped,
    Starting,
    Stopping,
    Restoring,
}

/// How a server's machine is reached.
#[derive(Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schema(as = Driver)]
pub(super) enum DriverView {
    /// Not at all: starting and stopping it is somebody else's work.
    None,
    /// By commands from this section of the agent's configuration.
    Command {
        /// Name of the section.
        hooks: String,
    },
}

impl From<DriverSpec> for DriverView {
    fn from(driver: DriverSpec) -> Self {
        match driver {
            DriverSpec::None => Self::None,
            DriverSpec::Command { hooks } => Self::Command { hooks },
        }
    }
}

/// A volume of a server.
#[derive(Serialize, ToSchema)]
#[schema(as = Volume)]
struct VolumeView {
    /// Its name.
    #[schema(example = "root")]
    name: String,
    /// Its size in bytes.
    #[schema(maximum = 9007199254740991u64, example = 10737418240u64)]
    size_bytes: u64,
    /// Its NBD URI; null where it is not exported.
    #[schema(required, example = "nbd+unix:///12345-root?socket=/run/cowstore/nbd.sock")]
    nbd: Option<String>,
}

/// A server and its volumes.
#[derive(Serialize, ToSchema)]
#[schema(as = Server)]
pub(super) struct ServerView {
    /// Identity; never used again.
    #[schema(maximum = 9007199254740991u64, example = 12345)]
    pub(super) id: u64,
    /// Its name.
    #[schema(example = "web-server-01")]
    name: String,
    #[schema(inline)]
    status: ServerStatusView,
    driver: DriverView,
    /// Its volumes, in the order in which they were asked for.
    volumes: Vec<VolumeView>,
    /// When it was made.
    #[schema(format = DateTime, example = "2025-01-08T12:00:00Z")]
    created_at: String,
}

impl ServerView {
    pub(super) fn new(server: Server, state: &AppState) -> Self {
        let volumes = server.volumes.into_iter().map(|volume| VolumeView {
            name: volume.name,
            size_bytes: volume.size_bytes,
            nbd: (state.export_uri)(&volume.export),
        });
        Self {
            id: server.id.0,
            name: server.name,
            status: match server.status {
                ServerStatus::Running => ServerStatusView::Running,
                ServerStatus::Stopped => ServerStatusView::Stopped,
                ServerStatus::Starting => ServerStatusView::Starting,
                ServerStatus::Stopping => ServerStatusView::Stopping,
                ServerStatus::Restoring => ServerStatusView::Restoring,
            },
            driver: server.driver.into(),
            volumes: volumes.collect(),
            created_at: time(server.created_ns),
        }
    }
}

/// Servers, by identity.
#[derive(Serialize, ToSchema)]
pub(super) struct ServerList {
    /// How many.
    #[schema(example = 1)]
    count: usize,
    results: Vec<ServerView>,
}

impl ServerList {
    pub(super) fn new(servers: Vec<Server>, state: &AppState) -> Self {
        let view = |server| ServerView::new(server, state);
        Self { count: servers.len(), results: servers.into_iter().map(view).collect() }
    }
}
