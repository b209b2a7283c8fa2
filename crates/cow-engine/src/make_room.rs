//! Undo snapshots that go for want of space, where the pool's property `undo-for-space` says so:
//! the oldest first and one at a time, by an ordinary `NodeDelete`, as long as the pool is at the
//! mark.
//!
//! Before each the folds are waited for that bring back what was let go already, with all that the
//! snapshot before has freed: none goes for space that comes by itself. What is held or open
//! stays. As with what expires, nothing goes in the first minute after opening; but an operation
//! that would be refused for want of space does not wait for that minute.
//! [Decision 25](../../../docs/decisions/0025-undo-snapshots-for-space.md).

use crate::core::Core;
use crate::error::Error;
use crate::events::EventKind;
use crate::expiry::REST_NS;
use crate::fold::fold_now;
use crate::loading::load_props;
use crate::task::Cx;
use crate::verbs::commit;
use cow_format::NodeId;
use cow_format::record::Record;
use cow_journal::Reserve;
use cow_snaptree::{POOL_NODE, SPACE_MARKS, TreeError};
use std::cell::RefCell;

/// After a look that came to nothing: 30 seconds.
const PAUSE_NS: u64 = 30_000_000_000;
/// Folds in which trims alone give something back, before the next one goes all the same: what dies
/// below branch points meanwhile is looked at anew, so they may have no end.
const MAX_TRIM_ROUNDS: usize = 64;
/// How often a fold that came in between is waited for.
const MAX_TRIES: usize = 8;
/// An idle pool is woken no sooner than after 1 second.
const TICK_NS: u64 = 1_000_000_000;

fn nothing() -> TreeError {
    TreeError::NotFound("an undo snapshot that could go".into())
}

impl Core {
    fn may_make_room(&self) -> bool {
        let writable = self.pool.as_ref().is_some_and(|pool| !pool.read_only);
        self.serving && writable && self.poisoned.is_none() && !self.expiry.stopped
    }

    /// Whether the pool is as full as the property says. Where that is not in memory, the lowest
    /// mark stands for it.
    fn is_short(&self) -> bool {
        let Some(pool) = &self.pool else { return false };
        let lowest = SPACE_MARKS.into_iter().min();
        let mark = pool.tree.undo_for_space().unwrap_or(lowest);
        mark.is_some_and(|mark| self.percent_used() >= mark)
    }

    /// The oldest undo snapshot that may go.
    fn next_undo(&self) -> Option<NodeId> {
        let pool = self.pool.as_ref()?;
        let open = self.open_snapshots();
        pool.tree.undos_by_age().into_iter().find(|id| !open.contains(id))
    }

    /// Whether a task is to begin now; then it counts as begun.
    fn room_due(&mut self) -> bool {
        let (room, now_ns) = (&self.room, self.now_ns);
        let rests = now_ns < room.rest_until_ns && !room.asked;
        let due = self.space_level > 0 && !room.running && !rests && now_ns >= room.failed_until_ns;
        let begins = due && self.may_make_room() && self.is_short();
        self.room.running |= begins;
        begins
    }

    /// An operation would be refused for want of space: whether undo snapshots may go first. Then
    /// it is worth waiting for a fold.
    pub(crate) fn ask_for_room(&mut self) -> bool {
        let can = self.room.running
            || self.now_ns >= self.room.failed_until_ns
                && self.may_make_room()
                && self.is_short()
                && self.next_undo().is_some();
        self.room.asked |= can;
        can
    }

    /// In how many nanoseconds after the last tick one is wanted though nothing is in progress:
    /// when the first minute is over.
    pub(crate) fn room_tick_ns(&self) -> Option<u64> {
        let waits = !self.room.looked && self.space_level > 0 && self.may_make_room();
        let left = self.room.rest_until_ns.saturating_sub(self.now_ns);
        (waits && self.is_short()).then_some(left.max(TICK_NS))
    }

    /// Plans the deletion of the next one: records, its name, how full the pool is.
    fn plan_room(&mut self) -> Result<(Vec<Record>, (String, u8)), TreeError> {
        // What the running fold frees is not known yet, and may be enough.
        if self.fold.running {
            return Err(TreeError::Busy("a fold is running".into()));
        }
        let may = self.may_make_room();
        let percent = self.percent_used();
        let next = self.next_undo();
        let pool = self.pool.as_ref().filter(|_| may).ok_or_else(nothing)?;
        let mark = pool.tree.undo_for_space()?.ok_or_else(nothing)?;
        let id = next.filter(|_| percent >= mark).ok_or_else(nothing)?;
        let name = pool.tree.full_name(id).ok_or_else(nothing)?;
        Ok((pool.tree.plan_delete_nodes(&[id])?, (name, percent)))
    }
}

/// Begins to make room if that is due.
pub(crate) fn start_if_due(cx: &Cx) {
    if !cx.core().room_due() {
        return;
    }
    let task_cx = cx.clone();
    cx.spawn(async move {
        let ended = make_room(&task_cx).await;
        let mut core = task_cx.core();
        let now_ns = core.now_ns;
        let room = &mut core.room;
        (room.running, room.asked, room.looked) = (false, false, true);
        room.rest_until_ns = now_ns.saturating_add(PAUSE_NS);
        if !matches!(ended, Error::NotFound(_)) {
            room.failed_until_ns = now_ns.saturating_add(REST_NS);
        }
        // Who waits for it looks again, perhaps in vain.
        core.notify(|core| &mut core.fold_wait);
    });
}

/// Deletes one after the other; why it ends.
async fn make_room(cx: &Cx) -> Error {
    let mut tries = 0;
    loop {
        match delete_next(cx).await {
            Ok(()) => tries = 0,
            Err(Error::Busy(_)) if tries < MAX_TRIES => tries += 1,
            Err(error) => return error,
        }
    }
}

async fn delete_next(cx: &Cx) -> Result<(), Error> {
    if cx.core().pool()?.tree.node(POOL_NODE).is_some() {
        load_props(cx, POOL_NODE).await?;
    }
    {
        let core = cx.core();
        if !core.may_make_room() || !core.is_short() || core.next_undo().is_none() {
            return Err(nothing().into());
        }
    }
    settle(cx).await?;
    let gone = RefCell::new(None);
    commit(cx, None, Reserve::Privileged, &|core| {
        let (records, what) = core.plan_room()?;
        gone.replace(Some(what));
        Ok(records)
    })
    .await?;
    let mut core = cx.core();
    core.room.deleted += 1;
    if let Some((name, percent)) = gone.take() {
        core.tell(EventKind::MadeRoom { name, percent });
    }
    Ok(())
}

/// Folds until nothing that was let go is on its way back.
async fn settle(cx: &Cx) -> Result<(), Error> {
    let mut rounds = 0;
    loop {
        cx.core().fold.trim_everything = true;
        fold_now(cx).await?;
        let core = cx.core();
        let (walks, trims) = (core.reclaim_is_pending(), core.trim_is_pending());
        let goes_on = walks || trims && rounds < MAX_TRIM_ROUNDS;
        if !goes_on || !core.may_make_room() {
            return Ok(());
        }
        rounds += usize::from(!walks);
    }
}
