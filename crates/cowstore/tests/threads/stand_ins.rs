//! What the files under test need and is no matter of threads: an image that takes everything, and an engine that
//! does one flush of the device for each operation.

use crate::op::Op;
use crate::reactor::Machine;
use crate::request::{IoDone, IoRequest};
use cow_engine::{Action, Event, IoId, Op as EngineOp, OpId, Reply};
use std::collections::BTreeMap;

#[derive(Clone)]
pub(crate) struct Image;

impl Op {
    pub(crate) fn new(_: &Image, request: IoRequest) -> Result<Self, IoDone> {
        Ok(Self { tag: request.tag })
    }
}

pub(crate) fn finish(_: &Image, op: Op) -> IoDone {
    IoDone { tag: op.tag, result: Ok(()), buf: None }
}

/// How an [`Echo`] ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// When all is answered, as the engine does.
    InOrder,
    /// At once, and what is in progress is left to the reactor.
    AtOnce,
    /// It panics.
    Panic,
}

/// The engine's stand-in.
pub(crate) struct Echo {
    end: End,
    waiting: BTreeMap<IoId, OpId>,
    next: u64,
    closing: Option<OpId>,
}

impl Echo {
    pub(crate) fn new(end: End) -> Self {
        Self { end, waiting: BTreeMap::new(), next: 0, closing: None }
    }
}

impl Machine for Echo {
    fn step(&mut self, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Op { id, op: EngineOp::Close } => {
                if self.end == End::Panic {
                    // As a panic, but nothing is printed.
                    std::panic::resume_unwind(Box::new("planned"));
                }
                self.closing = Some(id);
            }
            Event::Op { id, .. } => {
                self.next += 1;
                let io = IoId(self.next);
                self.waiting.insert(io, id);
                actions.push(Action::Flush { id: io });
            }
            Event::IoDone { id, .. } => {
                let id = self.waiting.remove(&id).expect("completed once");
                actions.push(Action::Reply { id, result: Ok(Reply::Done) });
            }
            Event::Resume | Event::Tick { .. } => {}
        }
        if self.waiting.is_empty() || self.end == End::AtOnce {
            let closed = self.closing.take().into_iter();
            actions.extend(closed.map(|id| Action::Reply { id, result: Ok(Reply::Done) }));
        }
    }

    fn wants_tick(&self) -> bool {
        false
    }
}
