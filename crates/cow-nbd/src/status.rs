//! One block status request, asked of every context of the connection and answered when the last
//! of them has said something.

use crate::context::Context;
use crate::export::{Completion, Export, ExportError, Request, Response};
use crate::queue::{Status, Ticket};
use crate::wire::{self, STATE_DIRTY, STATE_HOLE, STATE_ZERO};
use parking_lot::Mutex;
use std::sync::Arc;

struct State {
    /// Taken by the answer, which the first error is as well. Whoever drops it without one answers
    /// with an error.
    ticket: Option<Ticket>,
    parts: Vec<Status>,
}

struct Gather {
    state: Mutex<State>,
    contexts: usize,
    len: u32,
    req_one: bool,
}

/// Asks all `contexts` of `len` bytes from `offset` on; what comes of it completes `ticket`.
pub(crate) fn start(
    export: &dyn Export,
    contexts: &[Context],
    (offset, len, req_one): (u64, u32, bool),
    ticket: Ticket,
) {
    let state = Mutex::new(State { ticket: Some(ticket), parts: Vec::new() });
    let gather = Arc::new(Gather { state, contexts: contexts.len(), len, req_one });
    for context in contexts {
        let (gather, id) = (Arc::clone(&gather), context.id);
        let done: Completion = Box::new(move |result| gather.add(id, result));
        match &context.base {
            Some(base) => base.changes(offset, len, done),
            None => export.submit(Request::BlockStatus { offset, len }, done),
        }
    }
}

impl Gather {
    fn add(&self, context_id: u32, result: Result<Response, ExportError>) {
        let part = result.and_then(|response| self.payload(response));
        let mut state = self.state.lock();
        let outcome = match part {
            Ok(payload) => {
                state.parts.push(Status { context_id, payload });
                if state.parts.len() < self.contexts {
                    return;
                }
                let mut parts = std::mem::take(&mut state.parts);
                parts.sort_by_key(|status| status.context_id);
                Ok(parts)
            }
            Err(error) => Err(error),
        };
        let ticket = state.ticket.take();
        // The queue's lock is not taken under this one.
        drop(state);
        if let Some(ticket) = ticket {
            ticket.complete_status(outcome);
        }
    }

    /// An answer that does not fit is the storage's fault.
    fn payload(&self, response: Response) -> Result<Vec<u8>, ExportError> {
        let (len, req_one) = (self.len, self.req_one);
        let payload = match response {
            Response::Extents(extents) => {
                let status = |hole, zero| {
                    (if hole { STATE_HOLE } else { 0 }) | if zero { STATE_ZERO } else { 0 }
                };
                let extents = extents
                    .into_iter()
                    .map(|extent| (extent.len, status(extent.hole, extent.zero)));
                wire::status_payload(extents, len, req_one)
            }
            Response::Changes(changes) => {
                let status = |dirty| if dirty { STATE_DIRTY } else { 0 };
                let changes = changes.into_iter().map(|change| (change.len, status(change.dirty)));
                wire::status_payload(changes, len, req_one)
            }
            _ => Vec::new(),
        };
        if payload.is_empty() {
            tracing::error!("the storage's response does not fit a block status request");
            return Err(ExportError::Failed("bad response of the storage".into()));
        }
        Ok(payload)
    }
}
