//! What the engine knows of discards below while none, or one, is in progress.

use crate::wait::WaitList;
use cow_format::Phys;

/// What the engine knows of discards.
#[derive(Default)]
pub(crate) struct PunchState {
    /// The layer below cannot: not asked again in this opening.
    pub(crate) off: bool,
    /// A task is at it.
    pub(crate) running: bool,
    /// Operations that wait for space: nothing is discarded meanwhile.
    pub(crate) waiters: usize,
    /// Requests of clients that there had been at the last tick, and when there was a new one.
    pub(crate) heard: u64,
    pub(crate) heard_ns: u64,
    /// The pool is being closed.
    pub(crate) ending: bool,
    /// What the mutant `punchearly` discards: blocks that are in quarantine.
    pub(crate) early: Vec<(Phys, u64)>,
    /// Who wants to know how far it is waits here.
    pub(crate) wait: WaitList,
}
