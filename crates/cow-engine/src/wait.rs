//! What tasks wait for: device operations on their way, and lists of those who want to look again.

use crate::api::{Action, IoFailure, IoId};
use cow_format::{Buf, IdMap, Phys};

/// Names a task of the engine.
pub(crate) type TaskId = usize;

/// Device operations on their way, and actions to be handed out.
#[derive(Default)]
pub(crate) struct IoTable {
    next: u64,
    pub(crate) waiting: IdMap<IoId, Slot>,
    pub(crate) out: Vec<Action>,
}

pub(crate) struct Slot {
    pub(crate) waiter: Waiter,
    pub(crate) done: Option<(Result<(), IoFailure>, Option<Buf>)>,
}

/// Who is told of the completion of a device operation.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Waiter {
    /// A task, which asks for the outcome.
    Task(TaskId),
    /// The table of data in flight: the run that begins at this block. No task is woken for it.
    Data(Phys),
}

impl IoTable {
    pub(crate) fn issue(&mut self, waiter: Waiter, action: impl FnOnce(IoId) -> Action) -> IoId {
        self.next += 1;
        let id = IoId(self.next);
        self.waiting.insert(id, Slot { waiter, done: None });
        self.out.push(action(id));
        id
    }

    /// Stores what an operation came to, if a task will ask for that; who waits for it.
    pub(crate) fn complete(
        &mut self,
        id: IoId,
        result: Result<(), IoFailure>,
        buf: Option<Buf>,
    ) -> Option<Waiter> {
        let slot = self.waiting.get_mut(&id)?;
        let waiter = slot.waiter;
        match waiter {
            Waiter::Task(_) => slot.done = Some((result, buf)),
            Waiter::Data(_) => drop(self.waiting.remove(&id)),
        }
        Some(waiter)
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.waiting.len()
    }
}

/// Tasks that wait for some state to change. They look again when woken.
#[derive(Default)]
pub(crate) struct WaitList(pub(crate) Vec<TaskId>);

impl WaitList {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn drain_into(&mut self, ready: &mut Vec<TaskId>) {
        ready.append(&mut self.0);
    }
}
