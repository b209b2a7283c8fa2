//! What the engine knows of snapshots that expire: an ordered index of them, and the clock.

use crate::clock::ClockGuard;
use cow_format::record::{Record, Replaced};
use cow_format::{NodeId, VolumeId};
use cow_snaptree::Tree;
use std::collections::BTreeSet;

/// While something can expire time is wanted at least so often: 30 seconds.
const IDLE_NS: u64 = 30_000_000_000;
/// And not more often than this: 1 second.
const IDLE_LEAST_NS: u64 = 1_000_000_000;

/// See the module.
#[derive(Default)]
pub(crate) struct Expiry {
    pub(crate) clock: ClockGuard,
    /// Wall time at which a snapshot is to be looked at, and which. May name what is gone.
    pub(crate) due: BTreeSet<(u64, NodeId)>,
    /// Something is being deleted.
    pub(crate) running: bool,
    /// Volumes with rules of their own about which something has changed since these were obeyed.
    pub(crate) unpruned: BTreeSet<VolumeId>,
    /// They are looked at from this monotonic time on.
    pub(crate) prune_at_ns: u64,
    /// Nothing is before this monotonic time.
    pub(crate) rest_until_ns: u64,
    /// The pool is being closed: nothing is any more.
    pub(crate) stopped: bool,
}

impl Expiry {
    /// Enters all that expires in `tree`.
    pub(crate) fn index(&mut self, tree: &Tree) {
        let expiring = tree.iter().filter(|n| n.entry.expiry_ns != 0 && n.is_snapshot());
        self.due = expiring.map(|node| (node.entry.expiry_ns, node.entry.id)).collect();
        let heads = tree.volumes().filter_map(|(_, volume)| tree.node(volume.head));
        let ruled = heads.filter(|head| head.entry.policy);
        self.unpruned = ruled.map(|head| head.entry.volume).collect();
    }

    /// A group was applied to `tree`.
    pub(crate) fn note(&mut self, tree: &Tree, group: &[Record]) {
        for record in group {
            match record {
                Record::SnapCreate { expiry_ns, members, .. } => {
                    for member in members {
                        self.enter(*expiry_ns, tree.snapshot_by_name(member.volume, &member.name));
                        self.note_change(tree, member.volume);
                    }
                }
                Record::Rollback { members, .. } => {
                    for member in members {
                        if let Replaced::Kept { name, expiry_ns } = &member.replaced {
                            self.enter(*expiry_ns, tree.snapshot_by_name(member.volume, name));
                        }
                    }
                }
                Record::NodeDelete { nodes } => {
                    for &id in nodes {
                        let expiry_ns = tree.node(id).map_or(0, |node| node.entry.expiry_ns);
                        self.due.remove(&(expiry_ns, id));
                    }
                }
                Record::SetProps { node, .. }
                | Record::Rename { node, .. }
                | Record::Hold { node, set: false, .. } => {
                    if let Some(node) = tree.node(*node) {
                        self.note_change(tree, node.entry.volume);
                    }
                }
                _ => {}
            }
        }
    }

    /// What the rules of a volume say may be something else now.
    fn note_change(&mut self, tree: &Tree, volume: VolumeId) {
        let head = tree.head(volume).and_then(|head| tree.node(head));
        if head.is_some_and(|head| head.entry.policy) {
            self.unpruned.insert(volume);
        }
    }

    fn enter(&mut self, expiry_ns: u64, snapshot: Option<NodeId>) {
        self.due.extend(snapshot.filter(|_| expiry_ns != 0).map(|id| (expiry_ns, id)));
    }

    /// In how many nanoseconds time is wanted at the latest; none if nothing can go.
    pub(crate) fn idle_tick_ns(&self, now_ns: u64, wall_ns: u64) -> Option<u64> {
        let expires = self.due.first().map(|(at, _)| at.saturating_sub(wall_ns));
        let pruned = !self.unpruned.is_empty();
        let pruned = pruned.then(|| self.prune_at_ns.saturating_sub(now_ns));
        let next = expires.into_iter().chain(pruned).min()?;
        Some(next.clamp(IDLE_LEAST_NS, IDLE_NS))
    }
}
