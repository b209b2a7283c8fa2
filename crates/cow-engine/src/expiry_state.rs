//! What the engine knows of snapshots that expire: an ordered index of them, and the clock.

use crate::clock::ClockGuard;
use cow_format::NodeId;
use cow_format::record::{Record, Replaced};
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
    /// Nothing is before this monotonic time.
    pub(crate) rest_until_ns: u64,
    /// The pool is being closed: nothing is any more.
    pub(crate) stopped: bool,
}

impl Expiry {
    /// Enters all that expires in `tree`.
    pub(crate) fn index(&mut self, tree: &Tree) {
        let expiring = tree.iter().filter(|n| n.is_snapshot() && n.entry.expiry_ns != 0);
        self.due = expiring.map(|node| (node.entry.expiry_ns, node.entry.id)).collect();
    }

    /// A group was applied to `tree`.
    pub(crate) fn note(&mut self, tree: &Tree, group: &[Record]) {
        for record in group {
            match record {
                Record::SnapCreate { expiry_ns, members, .. } => {
                    for member in members {
                        self.enter(*expiry_ns, tree.snapshot_by_name(member.volume, &member.name));
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
                _ => {}
            }
        }
    }

    fn enter(&mut self, expiry_ns: u64, snapshot: Option<NodeId>) {
        self.due.extend(snapshot.filter(|_| expiry_ns != 0).map(|id| (expiry_ns, id)));
    }

    /// In how many nanoseconds time is wanted at the latest; none if nothing can expire.
    pub(crate) fn idle_tick_ns(&self, wall_ns: u64) -> Option<u64> {
        let (at, _) = self.due.first()?;
        Some(at.saturating_sub(wall_ns).clamp(IDLE_LEAST_NS, IDLE_NS))
    }
}
