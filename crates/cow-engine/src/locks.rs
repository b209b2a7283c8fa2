//! Order among overlapping writes. A write that covers only part of a block reads, merges and
//! writes it back; what another write puts there in between must not be lost. So such a write is
//! *exclusive* on its blocks: it waits for all earlier overlapping writes, and later ones wait for
//! it. Waiting is always for an earlier ticket, so there is no deadlock. Whole-block writes never
//! wait for each other.

use crate::range_locks::Held;
use crate::task::Cx;
use cow_format::VolumeId;

/// A range that is held; given back when dropped.
pub(crate) struct RangeGuard {
    cx: Cx,
    ticket: u64,
}

impl Drop for RangeGuard {
    fn drop(&mut self) {
        let mut core = self.cx.core();
        if let Some(held) = core.locks.held.remove(&self.ticket) {
            core.locks.exclusive -= usize::from(held.exclusive);
        }
        core.notify(|core| &mut core.lock_wait);
    }
}

/// Waits for the turn of a write to blocks `first .. end`.
pub(crate) async fn lock_range(
    cx: &Cx,
    volume: VolumeId,
    first: u64,
    end: u64,
    exclusive: bool,
) -> RangeGuard {
    let ticket = {
        let locks = &mut cx.core().locks;
        locks.next += 1;
        locks.held.insert(locks.next, Held { volume, first, end, exclusive });
        locks.exclusive += usize::from(exclusive);
        locks.next
    };
    let guard = RangeGuard { cx: cx.clone(), ticket };
    while cx.core().locks.must_wait(ticket) {
        cx.wait(|core| &mut core.lock_wait).await;
    }
    guard
}
