//! What tasks wait for: device operations on their way, and lists of those who want to look again.

use crate::api::{Action, IoFailure, IoId, OpId};
use crate::mapping::Mappings;
use cow_format::{Buf, IdMap, Lba, NodeId, Phys};

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
pub(crate) enum Waiter {
    /// A task, which asks for the outcome.
    Task(TaskId),
    /// The table of data in flight: the run that begins at this block. No task is woken for it.
    Data(Phys),
    /// A client's read: no task either.
    Read(Box<PlainRead>),
}

/// A read whose data is on its way.
pub(crate) struct PlainRead {
    pub(crate) id: OpId,
    /// Its pin.
    pub(crate) epoch: u64,
    pub(crate) node: NodeId,
    pub(crate) first: Lba,
    pub(crate) mappings: Mappings,
    /// The bytes that were asked for, in the blocks.
    pub(crate) skip: usize,
    pub(crate) len: u64,
}

/// What follows from a completion.
pub(crate) enum Followup {
    Wake(TaskId),
    /// The run that begins at this block was written, or not.
    Landed(Phys, Result<(), IoFailure>),
    /// A read has its data, if there is a buffer.
    Read(Box<PlainRead>, Option<Buf>),
}

impl IoTable {
    pub(crate) fn issue(&mut self, waiter: Waiter, action: impl FnOnce(IoId) -> Action) -> IoId {
        self.next += 1;
        let id = IoId(self.next);
        self.waiting.insert(id, Slot { waiter, done: None });
        self.out.push(action(id));
        id
    }

    /// Stores what an operation came to, if a task will ask for that; what follows.
    pub(crate) fn complete(
        &mut self,
        id: IoId,
        result: Result<(), IoFailure>,
        buf: Option<Buf>,
    ) -> Option<Followup> {
        let slot = self.waiting.get_mut(&id)?;
        if let Waiter::Task(task) = slot.waiter {
            slot.done = Some((result, buf));
            return Some(Followup::Wake(task));
        }
        Some(match self.waiting.remove(&id)?.waiter {
            Waiter::Task(task) => Followup::Wake(task),
            Waiter::Data(at) => Followup::Landed(at, result),
            Waiter::Read(read) => Followup::Read(read, buf.filter(|_| result.is_ok())),
        })
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
