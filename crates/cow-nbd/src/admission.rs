//! What a request is worth before the storage sees it: its terms, its cost, its payload. The same whoever
//! reads it.

use crate::export::{Request, Response};
use crate::handshake::Deal;
use crate::queue::{About, Ticket};
use crate::wire::{Command, RequestHeader, Terms};
use cowstore::Buf;

/// What a block status counts for with each context: the memory that its answer usually takes.
const BLOCK_STATUS_COST_BYTES: usize = 64 << 10;

/// What was agreed upon. The export may have grown since the client came; some learn of that in
/// another way.
pub(crate) fn terms(deal: &Deal) -> Terms {
    Terms {
        size_bytes: deal.export.size_bytes(),
        read_only: deal.export.read_only(),
        structured: deal.structured,
        block_status: !deal.contexts.is_empty(),
    }
}

/// What the answer must know of a request, and the bytes that it counts for.
pub(crate) fn cost(command: &Command, deal: &Deal) -> (About, usize) {
    match *command {
        Command::Read { offset, len } => (About::Read { offset, len }, len as usize),
        Command::Write { len, .. } => (About::Other, len as usize),
        Command::BlockStatus { .. } => {
            (About::Other, BLOCK_STATUS_COST_BYTES * deal.contexts.len())
        }
        Command::WriteZeroes { fast, .. } => (About::WriteZeroes { fast }, 0),
        _ => (About::Other, 0),
    }
}

/// The request without a payload that the storage is to carry out. None if there is nothing to do: a
/// range of no bytes, or stable storage for what cannot be written.
pub(crate) fn request(command: Command, header: &RequestHeader, deal: &Deal) -> Option<Request> {
    match command {
        Command::Flush if deal.export.read_only() => None,
        Command::Flush => Some(Request::Flush),
        _ if header.len == 0 => None,
        Command::Read { offset, len } => Some(Request::Read { offset, len }),
        Command::Trim { offset, len, fua } => Some(Request::Trim { offset, len, fua }),
        Command::WriteZeroes { offset, len, no_hole, fast, fua } => {
            Some(Request::WriteZeroes { offset, len, no_hole, fast, fua })
        }
        Command::Cache { offset, len } => Some(Request::Cache { offset, len }),
        Command::Write { .. } | Command::BlockStatus { .. } | Command::Disconnect => None,
    }
}

/// A write whose payload is on its way. Dropped, it is answered with an error.
pub(crate) struct Partial {
    ticket: Ticket,
    offset: u64,
    data: Buf,
    filled: usize,
    len: u32,
    fua: bool,
}

impl Partial {
    pub(crate) fn new(deal: &Deal, ticket: Ticket, (offset, len): (u64, u32), fua: bool) -> Self {
        let data = deal.export.buffer(len as usize);
        Self { ticket, offset, data, filled: 0, len, fua }
    }

    /// Where the rest of the payload belongs.
    pub(crate) fn missing(&mut self) -> &mut [u8] {
        &mut self.data[self.filled..self.len as usize]
    }

    /// So much more has come. Whether that is all.
    pub(crate) fn came(&mut self, bytes: usize) -> bool {
        self.filled += bytes;
        self.filled >= self.len as usize
    }

    /// Hands it, complete, to the storage.
    pub(crate) fn submit(self, deal: &Deal) {
        let Self { ticket, offset, data, len, fua, .. } = self;
        let request = Request::Write { offset, data, len, fua };
        deal.export.submit(request, Box::new(move |result| ticket.complete(result)));
    }

    /// The client is gone.
    pub(crate) fn abandon(self) {
        self.ticket.abandon();
    }
}

/// Answers a request that there is nothing to do for.
pub(crate) fn done(ticket: Ticket) {
    ticket.complete(Ok(Response::Done));
}
