//! Taking a server back to a snapshot, and bringing back what that replaced.
//!
//! ```text
//!  intent ─ stop ─ rollback (one commit, fences all clients) ─ answer ─ start ─ no intent
//! ```
//!
//! Without hooks, or while the server is stopped, only the rollback is left of it. It keeps what it
//! replaces as undo snapshots of the engine, and notes in its own commit which of them belong to
//! this restore, so that the restore can be undone, and the undo again.

use super::agent::Agent;
use super::catalog::{self, Back, Intent};
use super::cell::{Activity, Busy, ServerCell};
use super::error::AgentError;
use super::model::{Restored, Snapshot, SnapshotId};
use super::rest::afterwards;
use super::steps;
use cowstore::{Kept, NodeInfo, PropEdit, RollbackOptions};
use std::sync::Arc;

impl Agent {
    /// Takes a server back to a snapshot: stops it if it runs, fences the clients of its volumes,
    /// rolls all of them back at one instant, keeps what that replaces, and starts it again.
    /// Returns when the rollback is durable, while it is still being started.
    ///
    /// # Errors
    /// `NotFound`; `State` when it is being restored already, cannot be stopped, or the snapshot
    /// does not have all of its volumes.
    pub fn restore(self: &Arc<Self>, id: SnapshotId) -> Result<Restored, AgentError> {
        let busy = self.owner(id)?.begin(Activity::Restoring)?;
        let cell = busy.cell.clone();
        let members = self.members(&cell, id, false)?;
        let heads = self.heads(&cell)?;
        let mut targets = Vec::new();
        for volume in &cell.volumes {
            let name = format!("{}@{id}", volume.export);
            if !members.iter().any(|member| member.name == name) {
                let volume = &volume.name;
                let text = format!("snapshot {id} has no copy of volume {volume} any more");
                return Err(AgentError::State(text));
            }
            targets.push(name);
        }
        let snapshot = self.joined(&cell, id, &members);
        self.go_back(busy, &heads, &targets, snapshot)
    }

    /// Brings back what the last restore of this snapshot replaced. That again is undone by a
    /// second call.
    ///
    /// # Errors
    /// `NotFound` for an unknown snapshot; `State` when there is nothing to bring back (any more),
    /// and as for [`Agent::restore`].
    pub fn undo(self: &Arc<Self>, id: SnapshotId) -> Result<Restored, AgentError> {
        let busy = self.owner(id)?.begin(Activity::Restoring)?;
        let cell = busy.cell.clone();
        let members = self.members(&cell, id, false)?;
        let heads = self.heads(&cell)?;
        let nothing = || {
            AgentError::State(format!("no restore of snapshot {id} is there to be undone any more"))
        };
        let nodes = self.pool.list(false)?;
        let targets: Option<Vec<String>> =
            heads.iter().map(|head| replaced_by(head, id, &nodes)).collect();
        let targets = targets.ok_or_else(nothing)?;
        let snapshot = self.joined(&cell, id, &members);
        self.go_back(busy, &heads, &targets, snapshot)
    }

    /// The heads of a server's volumes, all of them, in order.
    fn heads(&self, cell: &ServerCell) -> Result<Vec<NodeInfo>, AgentError> {
        let heads = self.pool.describe(&cell.exports(), false)?;
        if heads.len() != cell.volumes.len() {
            let id = cell.id;
            return Err(AgentError::State(format!("server {id} has lost a volume")));
        }
        Ok(heads)
    }

    fn go_back(
        self: &Arc<Self>,
        busy: Busy,
        heads: &[NodeInfo],
        targets: &[String],
        snapshot: Snapshot,
    ) -> Result<Restored, AgentError> {
        let cell = busy.cell.clone();
        let must_start = cell.is_running() && cell.has_machine();
        if must_start {
            self.pool.set_props(cell.first(), &cell.intent(Some(Intent::Restore)).changes)?;
            steps::reached("restore.intent");
            if let Err(error) = cell.run_stop() {
                // Perhaps it has stopped halfway: it is brought up again, as it was.
                self.start_again(busy);
                let id = cell.id;
                return Err(AgentError::State(format!("server {id} cannot be stopped: {error}")));
            }
            steps::reached("restore.stopped");
        }
        let edits = notes(heads, snapshot.id);
        // Whoever still has a volume open is fenced: what he writes after this gets an error.
        let options = RollbackOptions { discard_current: false, force: true, edits };
        let kept = match self.pool.rollback(targets, options) {
            Ok(kept) => kept,
            Err(error) => {
                if must_start {
                    self.start_again(busy);
                }
                return Err(error.into());
            }
        };
        steps::reached("restore.committed");
        self.check_notes(heads, &kept, snapshot.id);
        if must_start {
            self.start_again(busy);
        }
        let Snapshot { id, name, created_ns, server, .. } = snapshot;
        Ok(Restored { snapshot: id, name, created_ns, server })
    }

    /// Starts a server that ran before, after the answer.
    fn start_again(self: &Arc<Self>, busy: Busy) {
        let agent = self.clone();
        afterwards(move || agent.bring_up(&busy));
    }

    /// Starts a server, and notes what came of it.
    pub(super) fn bring_up(&self, busy: &Busy) {
        let cell = &busy.cell;
        let result = cell.run_start();
        if let Err(error) = &result {
            tracing::error!(server = %cell.id, error, "not started");
        }
        steps::reached("restore.started");
        if let Err(error) = self.settle(cell, result.is_ok()) {
            tracing::warn!(server = %cell.id, %error, "its state is not kept");
        }
    }

    /// Notes, durably, that a server runs or does not, and that nothing is under way.
    pub(super) fn settle(&self, cell: &ServerCell, is_running: bool) -> Result<(), AgentError> {
        cell.set_running(is_running);
        let edit = cell.settled(is_running);
        Ok(self.pool.set_props(&edit.name, &edit.changes)?)
    }

    /// The notes of a restore foretold the names of what it kept. If somebody else has rolled a
    /// volume back in the same moment they are wrong, and are written again.
    fn check_notes(&self, heads: &[NodeInfo], kept: &[Option<Kept>], id: SnapshotId) {
        for (head, kept) in heads.iter().zip(kept) {
            let Some(kept) = kept else { continue };
            let foretold = format!("{}@undo.{}", head.name, head.rollback_gen + 1);
            let number = kept.name.rsplit_once('.').and_then(|(_, number)| number.parse().ok());
            let Some(generation) = number.filter(|_| kept.name != foretold) else { continue };
            let back = Back { snapshot: id, generation, parent: head.parent.unwrap_or(0) };
            if let Err(error) = self.pool.set_props(&head.name, &[back.added(head)]) {
                tracing::warn!(%error, volume = head.name, "what was replaced cannot be noted");
            }
        }
    }
}

/// The notes of a restore on the volumes of a server.
fn notes(heads: &[NodeInfo], snapshot: SnapshotId) -> Vec<PropEdit> {
    let note = |head: &NodeInfo| {
        let generation = head.rollback_gen + 1;
        let back = Back { snapshot, generation, parent: head.parent.unwrap_or(0) };
        catalog::edit(&head.name, vec![back.added(head)])
    };
    heads.iter().map(note).collect()
}

/// The snapshot that holds what the last restore of `id` replaced in the volume of `head`: the
/// engine's undo snapshot, or, where it made none since nothing had changed, the snapshot that the
/// head was equal to.
fn replaced_by(head: &NodeInfo, id: SnapshotId, nodes: &[NodeInfo]) -> Option<String> {
    let back = Back::of(head).into_iter().rev().find(|back| back.snapshot == id)?;
    let undo = format!("{}@undo.{}", head.name, back.generation);
    let of_volume = |node: &&NodeInfo| node.live && !node.is_volume() && node.volume == head.volume;
    let mut snapshots = nodes.iter().filter(of_volume);
    let found = snapshots.clone().find(|node| node.name == undo);
    let found = found.or_else(|| snapshots.find(|node| node.node == back.parent));
    found.map(|node| node.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cowstore::NodeKind;

    fn node(name: &str, number: u64, kind: NodeKind) -> NodeInfo {
        let name = name.to_owned();
        NodeInfo { name, node: number, volume: 1, kind, live: true, ..NodeInfo::default() }
    }

    #[test]
    fn what_a_restore_replaced_is_found_by_its_generation_or_its_parent() {
        let mut head = node("v", 20, NodeKind::Head);
        head.props = vec![(catalog::BACK.into(), "801:1:9 802:2:10 801:3:11".into())];
        let mut nodes = vec![
            node("v@801", 10, NodeKind::User),
            node("v@undo.1", 12, NodeKind::Undo),
            node("v@undo.3", 13, NodeKind::Undo),
            NodeInfo { volume: 2, ..node("w@undo.2", 14, NodeKind::Undo) },
        ];
        let found = |nodes: &[NodeInfo], id| replaced_by(&head, SnapshotId(id), nodes);
        assert_eq!(found(&nodes, 801).as_deref(), Some("v@undo.3"), "the last restore counts");
        assert_eq!(found(&nodes, 802).as_deref(), Some("v@801"), "nothing had changed");
        assert_eq!(found(&nodes, 803), None);
        nodes.retain(|node| node.name != "v@undo.3");
        assert_eq!(found(&nodes, 801), None, "not what an older restore replaced");
    }
}
