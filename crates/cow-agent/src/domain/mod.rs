//! Servers and their snapshots, kept in a pool. Blocking calls; no HTTP.
//!
//! ```text
//!   create, restore, servers    what is asked for
//!   startup                     what a process that died has left behind
//!   agent                       what it knows, and questions
//!   cell, driver, hooks         a server; the commands that reach its machine
//!   catalog, names, token       how all of it stands in the pool; what names may be; who may ask
//!   model, error                words; errors
//!   rest, steps                 after the answer; where a test can stop the process
//! ```

mod agent;
mod catalog;
mod cell;
mod create;
mod driver;
mod error;
mod hooks;
mod model;
mod names;
mod rest;
mod restore;
mod servers;
mod startup;
mod steps;
mod token;

pub use agent::Agent;
pub use error::AgentError;
pub use model::{
    Consistency, DriverSpec, ID_LIMIT, MAX_DESCRIPTION, MAX_NAME, MAX_VOLUME_NAME, MAX_VOLUMES,
    MAX_WAIT, Reclaim, Restored, Server, ServerId, ServerRef, ServerRequest, ServerStatus,
    ServerVolume, Snapshot, SnapshotId, SnapshotRequest, SnapshotStatus, VolumeRequest,
};

#[cfg(test)]
mod tests;
