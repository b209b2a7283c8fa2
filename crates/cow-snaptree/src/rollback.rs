//! Planning of rollbacks and of their undo. Design section 14, "Undo".

use crate::error::{TreeError, invalid};
use crate::name::UNDO_PREFIX;
use crate::node::Node;
use crate::plan::{check_targets, push_member};
use crate::tree::Tree;
use cow_format::record::{Record, Replaced, RollbackMember};
use cow_format::{Gen, NodeId, VolumeId, mutant};
use std::collections::BTreeSet;

/// Undo snapshots that a volume keeps.
pub const MAX_UNDO: usize = 3;
/// How long an undo snapshot is kept: 7 days, in nanoseconds.
pub const UNDO_EXPIRY_NS: u64 = 7 * 24 * 3600 * 1_000_000_000;

impl Tree {
    /// Rollback of volumes to their snapshots, `(volume, snapshot)`. What is replaced becomes
    /// `undo.N`, N the rollback generation, unless `discard_current`, or the engine says that
    /// the head is `unchanged` since its parent. Of a volume's undo snapshots the newest three
    /// stay: older ones, those held and the target excepted, are deleted in the same group, by
    /// `NodeDelete` records from which the caller may take nodes that a client has open.
    ///
    /// # Errors
    /// `NotFound`, `Invalid` (a volume twice too), `Limit` (more than [`crate::MAX_TARGETS`] too),
    /// `NoSlots`.
    pub fn plan_rollback(
        &self,
        targets: &[(&str, &str)],
        discard_current: bool,
        time_ns: u64,
        unchanged: impl Fn(NodeId) -> bool,
    ) -> Result<Vec<Record>, TreeError> {
        check_targets(targets.len())?;
        let (mut seen, mut found) = (BTreeSet::new(), Vec::new());
        for &target in targets {
            let (volume, snapshot) = self.find_snapshot(target)?;
            if !seen.insert(volume) {
                return invalid(format!("targets: volume {} twice", target.0));
            }
            let head = self.head(volume).ok_or_else(|| TreeError::NotFound(target.0.to_owned()))?;
            found.push((volume, snapshot, !discard_current && !unchanged(head)));
        }
        self.plan_switch(&found, time_ns)
    }

    /// Back to the newest undo snapshot of a volume. What is replaced is always kept, so that a
    /// second undo brings it back.
    ///
    /// # Errors
    /// `NotFound` (without an undo snapshot too), `Limit`, `NoSlots`.
    pub fn plan_undo(&self, volume: &str, time_ns: u64) -> Result<Vec<Record>, TreeError> {
        let id = self.find_volume(volume)?;
        let newest = self.volume(id).and_then(|volume| volume.undos.last().copied());
        let Some(target) = newest else {
            return Err(TreeError::NotFound(format!("{volume}@{UNDO_PREFIX}*")));
        };
        self.plan_switch(&[(id, target, true)], time_ns)
    }

    /// `(volume, target, keep what is replaced)`.
    fn plan_switch(
        &self,
        targets: &[(VolumeId, NodeId, bool)],
        time_ns: u64,
    ) -> Result<Vec<Record>, TreeError> {
        self.check_room(targets.len(), 0)?;
        let (mut groups, mut bytes, mut pruned) = (vec![Vec::new()], 0, Vec::new());
        for (at, &(volume, target, keep)) in targets.iter().enumerate() {
            let head = self.head(volume).and_then(|head| self.node(head));
            let last = head.map_or(0, |head| head.entry.rollback_gen);
            let Some(rollback_gen) = last.checked_add(1) else {
                return Err(TreeError::Limit("rollbacks of a volume".to_owned()));
            };
            let mut replaced = Replaced::Discarded;
            if keep {
                let name = format!("{UNDO_PREFIX}{rollback_gen}");
                if self.snapshot_by_name(volume, &name).is_some() {
                    return Err(TreeError::Exists(name));
                }
                replaced =
                    Replaced::Kept { name, expiry_ns: time_ns.saturating_add(UNDO_EXPIRY_NS) };
                pruned.extend(self.undos_to_prune(volume, target));
            }
            let new_head = self.next_node(at as u64);
            let member = RollbackMember { volume, new_head, target, replaced, rollback_gen };
            push_member(&mut groups, &mut bytes, member, 80);
        }
        let first_gen = self.next_gens(groups.len())?;
        let mut records: Vec<Record> = groups
            .into_iter()
            .enumerate()
            .map(|(at, members)| Record::Rollback {
                label_gen: Gen(first_gen.0 + at as u32),
                time_ns,
                members,
            })
            .collect();
        records.extend(Self::delete_records(&pruned));
        Ok(records)
    }

    /// The oldest undo snapshots of a volume that must go for one more to come.
    fn undos_to_prune(&self, volume: VolumeId, target: NodeId) -> Vec<NodeId> {
        let Some(volume) = self.volume(volume) else { return Vec::new() };
        let most = MAX_UNDO - usize::from(mutant::is("undotwo"));
        let excess = (volume.undos.len() + 1).saturating_sub(most);
        let held = |node: &Node| node.entry.holds > 0 && !mutant::is("undoheld");
        let free = |id: &NodeId| self.node(*id).is_some_and(|node| !held(node));
        volume.undos.iter().copied().filter(|id| *id != target && free(id)).take(excess).collect()
    }
}
