//! Snapshots whose time has come are deleted: by an ordinary `NodeDelete` that the engine sequences
//! itself, a few hundred at a time.
//!
//! Which come next is an ordered index beside the tree, so that a tick costs one look at its front.
//! Each is looked at again in the step that deletes it. What is held or open stays, and is looked at
//! once more a minute later. Nothing is deleted in the first minute after opening either, so that
//! a command which opens a pool for a moment, perhaps to see what would go, deletes nothing.

use crate::clock::{Change, ClockGuard};
use crate::core::Core;
use crate::error::Error;
use crate::events::{EventKind, listed};
use crate::task::Cx;
use crate::verbs::commit;
use cow_format::NodeId;
use cow_format::record::Record;
use cow_journal::Reserve;
use cow_snaptree::TreeError;
use std::cell::RefCell;
use std::collections::HashSet;

/// Nodes that one group deletes.
pub(crate) const STEP: usize = 256;
/// After opening, after a failure, and for what may not go yet: 1 minute.
pub(crate) const REST_NS: u64 = 60_000_000_000;

impl Core {
    /// The newest checkpoint is known, and with it the last time that is.
    pub(crate) fn begin_clock(&mut self) {
        let Some(pool) = &self.pool else { return };
        let (clock, change) = ClockGuard::begin(self.now_ns, self.wall_ns, pool.cp.time_ns);
        self.expiry.clock = clock;
        self.note_clock(change);
    }

    /// The pool was opened.
    pub(crate) fn begin_expiry(&mut self) {
        let Self { pool: Some(pool), expiry, room, now_ns, .. } = self else { return };
        expiry.index(&pool.tree);
        expiry.rest_until_ns = now_ns.saturating_add(REST_NS);
        room.rest_until_ns = expiry.rest_until_ns;
    }

    /// Time went on.
    pub(crate) fn look_at_clock(&mut self) {
        if self.pool.is_some() {
            let change = self.expiry.clock.look(self.now_ns, self.wall_ns);
            self.note_clock(change);
        }
    }

    fn note_clock(&mut self, change: Option<Change>) {
        let kind = match change {
            None => return,
            Some(Change::Suspect(ahead_ns)) => EventKind::ClockSuspect { ahead_ns },
            Some(Change::Trusted) => EventKind::ClockTrusted,
        };
        self.tell(kind);
    }

    /// Whether something is to be deleted now; then it counts as begun.
    pub(crate) fn expiry_due(&mut self) -> bool {
        let (now_ns, wall_ns) = (self.now_ns, self.wall_ns);
        let expiry = &self.expiry;
        let rests = expiry.running || now_ns < expiry.rest_until_ns;
        let due = expiry.due.first().is_some_and(|&(at, _)| at <= wall_ns);
        let begins = due && !rests && self.may_expire();
        self.expiry.running |= begins;
        begins
    }

    pub(crate) fn may_expire(&self) -> bool {
        let writable = self.pool.as_ref().is_some_and(|pool| !pool.read_only);
        let fit = self.serving && writable && self.poisoned.is_none() && !self.expiry.stopped;
        fit && !self.expiry.clock.is_suspect()
    }

    /// In how many nanoseconds after the last tick one is wanted though nothing is in progress;
    /// none if time can change nothing.
    pub(crate) fn idle_tick_ns(&self) -> Option<u64> {
        let can = self.may_expire() || self.expiry.clock.is_suspect();
        self.expiry.idle_tick_ns(self.now_ns, self.wall_ns).filter(|_| can)
    }

    /// Snapshots that a client has open.
    pub(crate) fn open_snapshots(&self) -> HashSet<NodeId> {
        self.exports.values().filter_map(|export| export.snapshot).collect()
    }

    /// Plans the next step: records, and the names of what they delete. `NotFound` when nothing
    /// is left to be done now.
    fn plan_expiry(&mut self) -> Result<(Vec<Record>, Vec<String>), TreeError> {
        let nothing = || TreeError::NotFound("a snapshot that has expired".into());
        let (may, wall_ns, open) = (self.may_expire(), self.wall_ns, self.open_snapshots());
        let Self { pool: Some(pool), expiry, .. } = self else { return Err(nothing()) };
        let mut step = Vec::new();
        while may && step.is_empty() {
            let upto = (wall_ns, NodeId(u64::MAX));
            let due: Vec<_> = expiry.due.range(..=upto).take(STEP).copied().collect();
            if due.is_empty() {
                break;
            }
            for (at, id) in due {
                let node = pool.tree.node(id).filter(|node| node.is_snapshot());
                // One that was renamed, and is no undo snapshot any more, does not expire.
                let entry = node.map(|node| &node.entry).filter(|entry| entry.expiry_ns != 0);
                let next = match entry {
                    None => None,
                    Some(entry) if entry.holds > 0 || open.contains(&id) => {
                        Some(wall_ns.saturating_add(REST_NS))
                    }
                    Some(entry) if entry.expiry_ns > wall_ns => Some(entry.expiry_ns),
                    Some(_) => {
                        // It leaves the index when the record is applied.
                        step.push(id);
                        Some(at)
                    }
                };
                if next != Some(at) {
                    expiry.due.remove(&(at, id));
                    expiry.due.extend(next.map(|next| (next, id)));
                }
            }
        }
        if step.is_empty() {
            return Err(nothing());
        }
        let names = step.iter().filter_map(|&id| pool.tree.full_name(id)).collect();
        Ok((pool.tree.plan_delete_nodes(&step)?, names))
    }
}

/// Deletes all that has expired, step by step.
pub(crate) async fn expire(cx: Cx) {
    let names = RefCell::new(Vec::new());
    loop {
        let done = commit(&cx, None, Reserve::Privileged, &|core| {
            let (records, step) = core.plan_expiry()?;
            names.replace(step);
            Ok(records)
        })
        .await;
        let mut core = cx.core();
        match done {
            Ok(_) => {
                let (names, count) = listed(names.take());
                core.tell(EventKind::Expired { names, count });
                core.fold.soon = true;
                continue;
            }
            Err(Error::NotFound(_)) => {}
            // A full or broken pool: perhaps it can be done later.
            Err(_) => core.expiry.rest_until_ns = core.now_ns.saturating_add(REST_NS),
        }
        core.expiry.running = false;
        return;
    }
}
