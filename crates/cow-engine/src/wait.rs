//! What tasks wait for: device operations on their way, and lists of those who want to look again.

use crate::api::{Action, IoFailure, IoId};
use cow_format::Buf;
use std::collections::HashMap;

/// Names a task of the engine.
pub(crate) type TaskId = usize;

/// Device operations on their way, and actions to be handed out.
#[derive(Default)]
pub(crate) struct IoTable {
    next: u64,
    pub(crate) waiting: HashMap<IoId, Slot>,
    pub(crate) out: Vec<Action>,
}

pub(crate) struct Slot {
    pub(crate) task: TaskId,
    pub(crate) done: Option<(Result<(), IoFailure>, Option<Buf>)>,
}

impl IoTable {
    pub(crate) fn issue(&mut self, task: TaskId, action: impl FnOnce(IoId) -> Action) -> IoId {
        self.next += 1;
        let id = IoId(self.next);
        self.waiting.insert(id, Slot { task, done: None });
        self.out.push(action(id));
        id
    }

    /// Stores what an operation came to; the task that waits for it.
    pub(crate) fn complete(
        &mut self,
        id: IoId,
        result: Result<(), IoFailure>,
        buf: Option<Buf>,
    ) -> Option<TaskId> {
        let slot = self.waiting.get_mut(&id)?;
        slot.done = Some((result, buf));
        Some(slot.task)
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
