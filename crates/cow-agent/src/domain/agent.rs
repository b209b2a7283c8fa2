//! The agent: what it knows, and the questions that change nothing.

use super::catalog::{self, TOKEN};
use super::cell::ServerCell;
use super::error::AgentError;
use super::model::{Reclaim, Server, ServerId, Snapshot, SnapshotId, SnapshotStatus};
use super::token::{self, TokenHash, Tokens};
use crate::config::Config;
use cowstore::{NodeInfo, Pool};
use parking_lot::{Condvar, Mutex, RwLock};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The identity of the first server of a pool.
pub(super) const FIRST_SERVER: u64 = 1;

/// The identities that come next.
pub(super) struct Counters {
    pub(super) snapshot: u64,
    pub(super) server: u64,
}

/// Servers and snapshots by identity.
#[derive(Default)]
pub(super) struct Index {
    pub(super) servers: BTreeMap<ServerId, Arc<ServerCell>>,
    pub(super) snapshots: BTreeMap<SnapshotId, ServerId>,
}

/// The agent. Its methods block, and may be called from many threads at once.
///
/// Lock order: activity of a server, counters, index, state of a server. No lock but the first
/// two is held over a call to the pool.
pub struct Agent {
    pub(super) pool: Arc<Pool>,
    pub(super) config: Config,
    pub(super) tokens: Tokens,
    /// Held while an identity is taken and committed, so that the counter in the pool never falls.
    pub(super) counters: Mutex<Counters>,
    pub(super) index: RwLock<Index>,
    /// Snapshots that are not completed.
    pub(super) pending: Mutex<BTreeSet<SnapshotId>>,
    pub(super) completed: Condvar,
    /// Longest time from the beginning of a freeze to the beginning of its thaw.
    pub(super) frozen_limit: Duration,
}

impl Agent {
    /// Whether this pool has never had a server.
    pub fn is_new(&self) -> bool {
        self.counters.lock().server == FIRST_SERVER && self.index.read().servers.is_empty()
    }

    /// Whether `token` is the one that this agent gave out last. In constant time.
    pub fn accepts(&self, token: &str) -> bool {
        self.tokens.accepts(token)
    }

    /// Makes a token, which replaces the one before. It is shown here and never again.
    ///
    /// # Errors
    /// When there is no chance to be had, or the pool does not keep its hash.
    pub fn fresh_token(&self) -> Result<String, AgentError> {
        let token = token::fresh().map_err(AgentError::Internal)?;
        let hash = TokenHash::of(&token);
        self.pool.set_props("", &[catalog::set(TOKEN, hash.text())])?;
        self.tokens.set(Some(hash));
        Ok(token)
    }

    /// All servers, by identity.
    pub fn servers(&self) -> Vec<Server> {
        self.index.read().servers.values().map(|cell| cell.describe()).collect()
    }

    /// One server.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn server(&self, id: ServerId) -> Result<Server, AgentError> {
        Ok(self.cell(id)?.describe())
    }

    pub(super) fn cell(&self, id: ServerId) -> Result<Arc<ServerCell>, AgentError> {
        let found = self.index.read().servers.get(&id).cloned();
        found.ok_or_else(|| AgentError::NotFound(format!("server {id}")))
    }

    /// Snapshots, newest first, of one server (an unknown one has none) or of all. Sizes are those
    /// of now: what is pending is folded first.
    ///
    /// # Errors
    /// When the pool cannot be read.
    pub fn snapshots(&self, server: Option<ServerId>) -> Result<Vec<Snapshot>, AgentError> {
        let of = |node: &NodeInfo| catalog::snapshot_of(node).zip(catalog::server_of(node));
        let mut members: BTreeMap<SnapshotId, (ServerId, Vec<NodeInfo>)> = BTreeMap::new();
        for node in self.listed()? {
            let Some((id, owner)) = of(&node).filter(|_| node.live && !node.is_volume()) else {
                continue;
            };
            if server.is_none_or(|server| server == owner) {
                members.entry(id).or_insert_with(|| (owner, Vec::new())).1.push(node);
            }
        }
        let mut snapshots: Vec<Snapshot> = members
            .into_iter()
            .filter_map(|(id, (owner, nodes))| {
                Some(self.joined(&*self.cell(owner).ok()?, id, &nodes))
            })
            .collect();
        snapshots.sort_by_key(|snapshot| std::cmp::Reverse((snapshot.created_ns, snapshot.id)));
        Ok(snapshots)
    }

    /// All nodes, with sizes of now; of the last fold where none is possible (no room for one, or
    /// the pool writes nothing more).
    fn listed(&self) -> Result<Vec<NodeInfo>, AgentError> {
        match self.pool.list(true) {
            Ok(nodes) => Ok(nodes),
            Err(error) => {
                tracing::warn!(%error, "sizes are those of the last fold");
                Ok(self.pool.list(false)?)
            }
        }
    }

    /// One snapshot.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn snapshot(&self, id: SnapshotId) -> Result<Snapshot, AgentError> {
        let cell = self.owner(id)?;
        let nodes = self.members(&cell, id, true)?;
        Ok(self.joined(&cell, id, &nodes))
    }

    /// The server that a snapshot is of.
    pub(super) fn owner(&self, id: SnapshotId) -> Result<Arc<ServerCell>, AgentError> {
        let index = self.index.read();
        let cell = index.snapshots.get(&id).and_then(|server| index.servers.get(server));
        cell.cloned().ok_or_else(|| missing(id))
    }

    /// The snapshots of volumes that make a snapshot of a server, in the order of its volumes.
    pub(super) fn members(
        &self,
        cell: &ServerCell,
        id: SnapshotId,
        exact: bool,
    ) -> Result<Vec<NodeInfo>, AgentError> {
        let names: Vec<String> =
            cell.exports().iter().map(|volume| format!("{volume}@{id}")).collect();
        let nodes = match self.pool.describe(&names, exact) {
            Err(_) if exact => self.pool.describe(&names, false)?,
            result => result?,
        };
        if nodes.is_empty() {
            return Err(missing(id));
        }
        Ok(nodes)
    }

    /// A snapshot of a server from those of its volumes, of which there is at least one.
    pub(super) fn joined(&self, cell: &ServerCell, id: SnapshotId, nodes: &[NodeInfo]) -> Snapshot {
        let sum = |of: fn(&NodeInfo) -> Option<u64>| -> Option<u64> { nodes.iter().map(of).sum() };
        let text = |key| nodes.first().and_then(|node| node.prop(key)).unwrap_or_default();
        let is_pending = self.pending.lock().contains(&id);
        let unique_bytes = sum(|node| node.unique_bytes).filter(|_| !is_pending);
        let status = match unique_bytes {
            Some(_) => SnapshotStatus::Completed,
            None => SnapshotStatus::InProgress,
        };
        Snapshot {
            id,
            server: cell.reference(),
            name: text(catalog::NAME).to_owned(),
            description: text(catalog::DESCRIPTION).to_owned(),
            status,
            unique_bytes,
            exact: nodes.iter().all(|node| node.exact),
            referenced_bytes: sum(|node| node.referenced_bytes),
            logical_bytes: nodes.iter().map(|node| node.size_bytes).sum(),
            created_ns: nodes.iter().map(|node| node.created_ns).max().unwrap_or(0),
            consistency: nodes.first().map(|node| node.consistency).unwrap_or_default(),
        }
    }

    /// Waits until a snapshot is completed, but no longer than `limit`; it as it is then.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn wait_completed(&self, id: SnapshotId, limit: Duration) -> Result<Snapshot, AgentError> {
        let deadline = Instant::now() + limit;
        let mut pending = self.pending.lock();
        while pending.contains(&id) {
            if self.completed.wait_until(&mut pending, deadline).timed_out() {
                break;
            }
        }
        drop(pending);
        self.snapshot(id)
    }

    /// What deleting exactly these snapshots together would free.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for none, or one twice.
    pub fn reclaim(&self, ids: &[SnapshotId]) -> Result<Reclaim, AgentError> {
        if ids.is_empty() {
            return Err(AgentError::invalid("ids", "names no snapshot"));
        }
        let mut names = Vec::new();
        for (at, &id) in ids.iter().enumerate() {
            if ids[..at].contains(&id) {
                return Err(AgentError::invalid("ids", format!("names snapshot {id} twice")));
            }
            let cell = self.owner(id)?;
            names.extend(self.members(&cell, id, false)?.into_iter().map(|node| node.name));
        }
        let size = self.pool.exact_size(&names)?;
        Ok(Reclaim {
            ids: ids.to_vec(),
            freed_bytes: size.data_bytes,
            freed_metadata_bytes: size.metadata_bytes,
            exact: size.exact,
            freed_bytes_max: size.data_bytes_max,
        })
    }

    /// Waits until no server is being worked on, but no longer than `limit`.
    pub fn finish(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let cells: Vec<_> = self.index.read().servers.values().cloned().collect();
        for cell in cells {
            if !cell.wait_idle(deadline) {
                tracing::warn!(server = %cell.id, "still being worked on");
            }
        }
        let mut pending = self.pending.lock();
        while !pending.is_empty() {
            if self.completed.wait_until(&mut pending, deadline).timed_out() {
                return;
            }
        }
    }
}

pub(super) fn missing(id: SnapshotId) -> AgentError {
    AgentError::NotFound(format!("snapshot {id}"))
}
