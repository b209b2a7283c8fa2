//! Taking and deleting snapshots.
//!
//! ```text
//!  without freeze   commit ─ answer ─ size
//!  with freeze      intent ─ freeze ─ commit ─ answer ─ thaw ─ no intent ─ size
//! ```
//!
//! A server is frozen for less than ten seconds: the freeze hook has its own limit, and a commit
//! that takes longer than what is left (the pool may have to wait for space) is not waited for.
//! The server is thawed then, and what that commit made is replaced by a snapshot whose label does
//! not speak of a freeze.

use super::agent::{Agent, missing};
use super::catalog::{self, DESCRIPTION, Intent, NAME, NEXT_SNAPSHOT, SERVER, SNAPSHOT};
use super::cell::{Activity, Busy, ServerCell};
use super::error::AgentError;
use super::model::{ID_LIMIT, Snapshot, SnapshotId, SnapshotRequest, SnapshotStatus};
use super::names;
use super::rest::afterwards;
use super::steps;
use cowstore::{Consistency, DeleteOptions, Error as StoreError, NodeKind, SnapshotOptions};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

impl Agent {
    /// Takes a snapshot of all volumes of a server at one instant. Returns when it is durable, with
    /// status `InProgress`.
    ///
    /// # Errors
    /// `Invalid`, `NotFound` (the server), `Limit`, `State` (it is being restored), `NoSpace`.
    pub fn create_snapshot(
        self: &Arc<Self>,
        request: &SnapshotRequest,
    ) -> Result<Snapshot, AgentError> {
        names::check_snapshot(request)?;
        let cell = self.cell(request.server)?;
        cell.check_quiet()?;
        if !cell.is_running() || !cell.can_freeze() {
            let consistency = self.undisturbed(&cell)?;
            let id = self.commit(&cell, request, consistency, None)?;
            steps::reached("create.committed");
            let answer = self.begun(&cell, id)?;
            let agent = self.clone();
            afterwards(move || agent.complete(&cell, id));
            return Ok(answer);
        }
        let busy = cell.begin(Activity::Freezing)?;
        self.check_limit(&cell)?;
        self.pool.set_props(cell.first(), &cell.intent(Some(Intent::Freeze)).changes)?;
        steps::reached("create.intent");
        let committed = self.commit_frozen(&cell, request);
        let answer = committed.and_then(|id| self.begun(&cell, id).map(|answer| (id, answer)));
        let agent = self.clone();
        let id = answer.as_ref().ok().map(|(id, _)| *id);
        afterwards(move || {
            agent.thaw(&busy);
            if let Some(id) = id {
                agent.complete(&cell, id);
            }
        });
        answer.map(|(_, answer)| answer)
    }

    /// How a server is that nothing is done to.
    fn undisturbed(&self, cell: &ServerCell) -> Result<Consistency, AgentError> {
        if cell.is_running() {
            return Ok(Consistency::Crash);
        }
        // What is said to be stopped may have been started by somebody else.
        let heads = self.pool.describe(&cell.exports(), false)?;
        let is_used = heads.iter().any(|head| head.open_writers > 0);
        Ok(if is_used { Consistency::Crash } else { Consistency::Stopped })
    }

    /// Refuses what the engine would refuse, before the server is frozen for it.
    fn check_limit(&self, cell: &ServerCell) -> Result<(), AgentError> {
        let prefix = format!("{}@", cell.first());
        let nodes = self.pool.list(false)?;
        let limit = nodes
            .iter()
            .find(|node| node.name == cell.first())
            .and_then(|head| catalog::number(head, catalog::LIMIT));
        let counts = |node: &&cowstore::NodeInfo| {
            node.live && node.kind == NodeKind::User && node.name.starts_with(&prefix)
        };
        let count = nodes.iter().filter(counts).count() as u64;
        match limit {
            Some(limit) if count >= limit => Err(over_limit(cell, &format!("{limit} snapshots"))),
            _ => Ok(()),
        }
    }

    /// Freezes and commits. The caller thaws, whatever came of it.
    fn commit_frozen(
        self: &Arc<Self>,
        cell: &Arc<ServerCell>,
        request: &SnapshotRequest,
    ) -> Result<SnapshotId, AgentError> {
        let begun = Instant::now();
        let consistency = match cell.run_freeze() {
            Ok(()) => Consistency::Frozen,
            Err(error) => {
                tracing::warn!(server = %cell.id, error, "a snapshot is taken without a freeze");
                Consistency::FreezeFailed
            }
        };
        steps::reached("create.frozen");
        let (send, receive) = channel();
        let (agent, owner, wanted) = (self.clone(), cell.clone(), request.clone());
        afterwards(move || {
            // Nobody listens any more when it took too long; then it is asked for below.
            let frozen_since = (consistency == Consistency::Frozen).then_some(begun);
            let _ = send.send(agent.commit(&owner, &wanted, consistency, frozen_since));
        });
        let left = self.frozen_limit.saturating_sub(begun.elapsed());
        let lost = || AgentError::Internal("the commit of a snapshot has ended".into());
        let committed = match receive.recv_timeout(left) {
            Ok(result) => result,
            Err(RecvTimeoutError::Disconnected) => Err(lost()),
            Err(RecvTimeoutError::Timeout) => {
                tracing::warn!(server = %cell.id, "the pool took too long: thawing");
                if let Err(error) = cell.run_thaw() {
                    tracing::error!(server = %cell.id, error, "not thawed");
                }
                let late = receive.recv().map_err(|_| lost())?;
                self.relabel(cell, request, late)
            }
        };
        steps::reached("create.committed");
        committed
    }

    /// Replaces a snapshot that says it was frozen, and perhaps was not.
    fn relabel(
        &self,
        cell: &ServerCell,
        request: &SnapshotRequest,
        late: Result<SnapshotId, AgentError>,
    ) -> Result<SnapshotId, AgentError> {
        let id = late?;
        let names: Vec<String> =
            cell.exports().iter().map(|volume| format!("{volume}@{id}")).collect();
        self.pool.delete(&names, DeleteOptions::default())?;
        self.forget(id);
        self.commit(cell, request, Consistency::FreezeFailed, None)
    }

    /// Takes an identity and commits: the snapshots, what the API says of them, and the counter.
    fn commit(
        &self,
        cell: &ServerCell,
        request: &SnapshotRequest,
        consistency: Consistency,
        frozen_since: Option<Instant>,
    ) -> Result<SnapshotId, AgentError> {
        let mut counters = self.counters.lock();
        let id = SnapshotId(counters.snapshot);
        if id.0 >= ID_LIMIT - 1 {
            return Err(AgentError::Limit("no identity is left for a snapshot".into()));
        }
        let names: Vec<String> =
            cell.exports().iter().map(|volume| format!("{volume}@{id}")).collect();
        let prop = |key: &str, value: String| (key.to_owned(), value);
        let options = SnapshotOptions {
            kind: NodeKind::User,
            consistency,
            freeze_ms: frozen_since.map_or(0, |since| frozen_ms(since.elapsed())),
            expiry_ns: 0,
            props: vec![
                prop(SNAPSHOT, id.to_string()),
                prop(SERVER, cell.id.to_string()),
                prop(NAME, request.name.clone()),
                prop(DESCRIPTION, request.description.clone()),
            ],
            edits: vec![catalog::edit("", vec![catalog::set(NEXT_SNAPSHOT, id.0 + 1)])],
        };
        self.pending.lock().insert(id);
        let taken = self.pool.snapshot(&names, options).map_err(|error| match error {
            StoreError::Limit(what) => over_limit(cell, &what),
            other => other.into(),
        });
        match taken {
            Ok(_) => {
                counters.snapshot = id.0 + 1;
                self.index.write().snapshots.insert(id, cell.id);
                Ok(id)
            }
            Err(error) => {
                self.pending.lock().remove(&id);
                Err(error)
            }
        }
    }

    /// What is answered as soon as it is durable.
    fn begun(&self, cell: &ServerCell, id: SnapshotId) -> Result<Snapshot, AgentError> {
        let nodes = self.members(cell, id, false)?;
        let mut snapshot = self.joined(cell, id, &nodes);
        snapshot.status = SnapshotStatus::InProgress;
        snapshot.unique_bytes = None;
        Ok(snapshot)
    }

    /// Thaws the server, and says so durably.
    pub(super) fn thaw(&self, busy: &Busy) {
        let cell = &busy.cell;
        match cell.run_thaw() {
            // The next start of this program tries again.
            Err(error) => tracing::error!(server = %cell.id, error, "not thawed"),
            Ok(()) => {
                steps::reached("create.thawed");
                let clear = self.pool.set_props(cell.first(), &cell.intent(None).changes);
                if let Err(error) = clear {
                    tracing::warn!(server = %cell.id, %error, "it will be thawed once more");
                }
            }
        }
    }

    /// Has the size of a snapshot made known, and calls it completed.
    fn complete(&self, cell: &ServerCell, id: SnapshotId) {
        // A size that cannot be known yet keeps it in progress by itself.
        if let Err(error) = self.members(cell, id, true) {
            tracing::debug!(%id, %error, "a snapshot has gone before it was completed");
        }
        self.forget(id);
    }

    fn forget(&self, id: SnapshotId) {
        self.pending.lock().remove(&id);
        self.completed.notify_all();
    }

    /// Deletes a snapshot for good. Its space comes back in the background.
    ///
    /// # Errors
    /// `NotFound`; `Busy` while a client has it open, or it is held.
    pub fn delete_snapshot(&self, id: SnapshotId) -> Result<(), AgentError> {
        let cell = self.owner(id)?;
        // Not while it is being gone back to.
        let _busy = cell.begin(Activity::Deleting)?;
        steps::reached("delete.begin");
        let nodes = self.members(&cell, id, false)?;
        let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
        match self.pool.delete(&names, DeleteOptions::default()) {
            Ok(_) => {}
            Err(StoreError::NotFound(_)) => return Err(missing(id)),
            Err(error) => return Err(error.into()),
        }
        steps::reached("delete.committed");
        self.index.write().snapshots.remove(&id);
        Ok(())
    }
}

/// What the label says of a freeze that has lasted so long; never nothing.
fn frozen_ms(lasted: Duration) -> u32 {
    u32::try_from(lasted.as_millis()).unwrap_or(u32::MAX).max(1)
}

fn over_limit(cell: &ServerCell, what: &str) -> AgentError {
    let id = cell.id;
    AgentError::Limit(format!("the limit of snapshots of server {id} is reached: {what}"))
}
