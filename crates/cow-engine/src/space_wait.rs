//! What an operation waits for that has no room yet, and when that is of no use any more.

use crate::core::{Core, Pool};
use crate::error::{Error, SpaceKind};
use crate::task::Cx;
use cow_format::{VolumeId, mutant};

/// Publications that an operation waits for before it is refused: one for the kill, one to leave
/// the quarantine, and those of a fold that was already running.
const MAX_ROUNDS: usize = 4;
/// The same while branch points are left to be trimmed. Not without end: what dies below them while
/// that goes on must be looked at again.
const MAX_TRIM_ROUNDS: usize = 64;
/// How often it asks in vain for undo snapshots to go. Folds before the first of them wake it too.
const MAX_ASKS: usize = 2 * MAX_TRIM_ROUNDS;

/// What stands in the way of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lack {
    /// Its volume may have no more.
    Budget,
    /// Free blocks.
    Pool,
    /// Others were here before, and do not have enough yet.
    Turn,
    /// Room in the file system below, for so many blocks of a fold.
    Below(u64),
}

/// What an operation waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// It can look again.
    Nothing,
    /// To be the next.
    Turn,
    /// Room in the file system below.
    Below,
    /// A discard to be complete.
    Discard,
    /// Another operation to need less than it was promised.
    Promise,
    /// A publication.
    Fold,
    /// Undo snapshots to go.
    Room,
}

/// An operation that waits for space, until this is dropped.
pub(crate) struct Wait {
    cx: Cx,
    /// Publications since nothing was being given back.
    rounds: usize,
    /// Undo snapshots that had gone when it looked last, and how often it has asked since.
    made_room: u64,
    asks: usize,
    is_counted: bool,
    ticket: Option<u64>,
    /// Attempts to get room below that had failed when it first asked.
    failures: Option<u64>,
}

impl Wait {
    pub(crate) fn new(cx: &Cx) -> Self {
        let (cx, made_room) = (cx.clone(), cx.core().room.deleted);
        let (rounds, asks, is_counted) = (0, 0, false);
        Self { cx, rounds, made_room, asks, is_counted, ticket: None, failures: None }
    }

    /// Whether it is this one's turn. Those for whom something is kept, and what gives space
    /// back, need not ask.
    pub(crate) fn is_next(&self, core: &Core) -> bool {
        core.space_queue.is_next(self.ticket)
    }

    /// It stands in the queue from now on.
    pub(crate) fn stand(&mut self, core: &mut Core) {
        self.ticket.get_or_insert_with(|| core.space_queue.join());
    }

    /// Waits until it is worth looking again.
    ///
    /// # Errors
    /// `NoSpace`, when that is of no use any more.
    pub(crate) async fn once(&mut self, lack: Lack, volume: Option<VolumeId>) -> Result<(), Error> {
        let step = self.next(lack, volume)?;
        match step {
            Step::Nothing => {}
            Step::Turn => self.cx.wait(|core| &mut core.space_queue.wait).await,
            Step::Below => self.cx.wait(|core| &mut core.below.wait).await,
            Step::Promise => self.cx.wait(|core| &mut core.promise_wait).await,
            Step::Discard | Step::Fold | Step::Room => {
                if !self.is_counted {
                    self.cx.core().punch.waiters += 1;
                    self.is_counted = true;
                }
                self.cx.wait(|core| &mut core.fold_wait).await;
                // What is being given back has its end, and the last of it two publications later.
                let counts = step == Step::Fold && !self.cx.core().reclaim_is_pending();
                self.rounds += usize::from(counts);
            }
        }
        Ok(())
    }

    fn next(&mut self, lack: Lack, volume: Option<VolumeId>) -> Result<Step, Error> {
        let cx = self.cx.clone();
        let mut core = cx.core();
        let map = match lack {
            Lack::Turn => return Ok(Step::Turn),
            Lack::Budget => return core.lacks_blocks(lack, volume, self.rounds),
            Lack::Pool => return self.lacks_pool(&mut core, volume),
            Lack::Below(map) => map,
        };
        // One attempt to get it is worth waiting for.
        let before = *self.failures.get_or_insert(core.below.failures);
        if core.below.failures > before {
            return Err(Error::NoSpace(SpaceKind::Below));
        }
        core.below.asked = core.below.asked.max(map + 1);
        Ok(Step::Below)
    }

    /// The pool lacks blocks: what was let go comes back first, then undo snapshots may go, each of
    /// which is worth as many publications as the wait itself.
    fn lacks_pool(&mut self, core: &mut Core, volume: Option<VolumeId>) -> Result<Step, Error> {
        if self.made_room != core.room.deleted {
            (self.made_room, self.rounds, self.asks) = (core.room.deleted, 0, 0);
        }
        let found = core.lacks_blocks(Lack::Pool, volume, self.rounds);
        let refused = matches!(found, Err(Error::NoSpace(SpaceKind::Pool)));
        if refused && self.asks < MAX_ASKS && core.ask_for_room() {
            self.asks += 1;
            return Ok(Step::Room);
        }
        found
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let mut core = self.cx.core();
        if self.is_counted {
            core.punch.waiters -= 1;
        }
        if let Some(ticket) = self.ticket {
            core.space_queue.leave(ticket);
            core.notify(|core| &mut core.space_queue.wait);
        }
    }
}

impl Core {
    /// What is worth waiting for when blocks are missing, after so many publications.
    fn lacks_blocks(
        &mut self,
        lack: Lack,
        volume: Option<VolumeId>,
        rounds: usize,
    ) -> Result<Step, Error> {
        let budget = lack == Lack::Budget;
        if !budget && self.free_unpunched() {
            return Ok(Step::Nothing);
        }
        if self.fold.is_stalled() {
            return Err(Error::NoSpace(SpaceKind::Below));
        }
        // What is being discarded is free before long.
        if !budget && self.is_punching() {
            return Ok(Step::Discard);
        }
        let (is_worth_it, refusal) = match volume.filter(|_| budget) {
            Some(volume) => (self.charge_may_fall(volume, rounds), SpaceKind::Budget),
            None => (self.space_may_come(volume, rounds), SpaceKind::Pool),
        };
        if !is_worth_it {
            return Err(Error::NoSpace(refusal));
        }
        // A fold with nothing to do would be over at once. Who belongs to no volume may hold
        // promises itself.
        if volume.is_some() && self.waits_for_promises() {
            return Ok(Step::Promise);
        }
        self.break_views();
        self.fold.wanted = true;
        self.fold.trim_everything = true;
        Ok(Step::Fold)
    }

    /// Whether an operation that lacks blocks after so many publications should wait for another.
    fn space_may_come(&self, volume: Option<VolumeId>, rounds: usize) -> bool {
        let Some(pool) = &self.pool else { return false };
        let most = if self.trim_is_pending() { MAX_TRIM_ROUNDS } else { MAX_ROUNDS };
        let most = if mutant::is("enospcsoon") { 1 } else { most };
        let reserved = volume.is_some_and(|volume| pool.shares.guarantee(volume).is_some());
        let covered = reserved && (self.fold.running || self.covers_guarantees());
        self.free_is_pending() && (rounds < most || self.reclaim_is_pending() || covered)
    }

    /// The same of one that the budget of its volume has no room for.
    fn charge_may_fall(&self, volume: VolumeId, rounds: usize) -> bool {
        let Some(pool) = &self.pool else { return false };
        let trimming = self.trim_is_pending() && pool.is_trimming(volume);
        let most = if trimming { MAX_TRIM_ROUNDS } else { MAX_ROUNDS };
        let may_fall = self.fold.running || trimming || pool.shares.is_unsettled(volume);
        self.reclaim_is_pending() && pool.is_reclaiming(volume) || rounds < most && may_fall
    }

    /// Nothing but operations in progress could give space back.
    fn waits_for_promises(&self) -> bool {
        let idle = |pool: &Pool| {
            pool.active.is_empty()
                && pool.alloc.pending_blocks() == 0
                && (pool.promised > 0 || pool.shares.has_flights())
        };
        !self.fold.running
            && !self.reclaim_is_pending()
            && !self.trim_is_pending()
            && self.pool.as_ref().is_some_and(idle)
    }
}
