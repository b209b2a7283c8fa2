//! The life of one connection: negotiation, then requests until the client leaves.
//!
//! The thread that runs [`run`] reads; a second one, inside its scope, writes. When reading ends,
//! for whatever reason, requests in flight come to their end and are answered as long as the
//! client takes the answers; then the export is dropped.

use crate::conn::{Conn, Inbound};
use crate::export::{Exports, Request, Response};
use crate::handshake::{self, Deal};
use crate::limits::Limits;
use crate::queue::{About, Ticket};
use crate::status;
use crate::wire::{self, Command, Refusal, RequestHeader, Terms};
use crate::writer;
use std::io::{self, BufReader, Read};
use std::net::Shutdown;
use std::thread;
use std::time::Instant;

/// Read-ahead: many headers per system call. At most this much of a payload is copied once more
/// on its way to its buffer; the rest is read straight into it.
const READ_AHEAD_BYTES: usize = 4096;
/// A refused write of more than this is not worth reading to the end.
const DISCARD_MAX_BYTES: u32 = 256 << 20;
/// What a block status counts for with each context: the memory that its answer usually takes.
const BLOCK_STATUS_COST_BYTES: usize = 64 << 10;
/// Neither thread of a connection recurses or keeps buffers on its stack.
pub(crate) const STACK_BYTES: usize = 256 << 10;

type Reader<'a> = BufReader<Inbound<'a>>;

/// Serves one client to the end.
pub(crate) fn run(conn: &Conn, exports: &dyn Exports, limits: &Limits) {
    let deadline = Instant::now() + limits.handshake_timeout;
    let mut reader = BufReader::with_capacity(READ_AHEAD_BYTES, Inbound::new(conn, deadline));
    let deal = match handshake::negotiate(conn, exports, &mut reader) {
        Ok(deal) => deal,
        Err(error) => {
            tracing::debug!(client = %conn.peer, %error, "negotiation ended");
            return conn.stream.shutdown(Shutdown::Both);
        }
    };
    if let Err(error) = reader.get_mut().lift_deadline() {
        tracing::debug!(client = %conn.peer, %error, "cannot use the socket");
        return;
    }
    thread::scope(|scope| {
        let structured = deal.structured;
        let _finish = FinishOnDrop(conn, limits);
        let spawned = thread::Builder::new()
            .name("nbd-reply".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, move || writer::run(conn, structured));
        match spawned {
            Ok(_) => transmit(conn, &deal, &mut reader),
            Err(error) => tracing::warn!(%error, "no thread for a client"),
        }
    });
    // First what it had open, then the socket: who sees that the client has gone may delete that.
    drop(deal);
    conn.stream.shutdown(Shutdown::Both);
}

/// Ends a connection also when the thread unwinds: the writer would wait for ever otherwise, and
/// the scope for the writer.
struct FinishOnDrop<'a>(&'a Conn, &'a Limits);

impl Drop for FinishOnDrop<'_> {
    fn drop(&mut self) {
        let Self(conn, limits) = self;
        conn.queue.finish();
        if !conn.queue.wait_idle(limits.drain_timeout) {
            conn.stream.shutdown(Shutdown::Both);
            conn.queue.wait_idle(std::time::Duration::MAX);
        }
    }
}

/// Reads requests until the client leaves, is told to, or cannot be understood.
fn transmit(conn: &Conn, deal: &Deal, reader: &mut Reader<'_>) {
    let terms = Terms {
        size_bytes: deal.export.size_bytes(),
        read_only: deal.export.read_only(),
        structured: deal.structured,
        block_status: !deal.contexts.is_empty(),
    };
    loop {
        match request(conn, deal, &terms, reader) {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                return tracing::debug!(client = %conn.peer, %error, "connection ended");
            }
        }
    }
}

/// Reads one request and starts it; false if it is the last.
fn request(conn: &Conn, deal: &Deal, terms: &Terms, reader: &mut Reader<'_>) -> io::Result<bool> {
    let mut bytes = [0; wire::REQUEST_HEADER_BYTES];
    reader.read_exact(&mut bytes)?;
    let header = wire::parse_request(&bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    // It may have grown since the client came; some learn of that in another way.
    let terms = &Terms { size_bytes: deal.export.size_bytes(), ..*terms };
    match wire::check_request(&header, terms) {
        Ok(Command::Disconnect) => Ok(false),
        Ok(command) => start(conn, deal, terms, &header, command, reader),
        Err(refusal) => refuse(conn, &header, refusal, reader),
    }
}

/// Answers a refused request, having read what belongs to it.
fn refuse(
    conn: &Conn,
    header: &RequestHeader,
    refusal: Refusal,
    reader: &mut Reader<'_>,
) -> io::Result<bool> {
    // The kind decides the form of the answer: an error in any case, so `Other` serves for all.
    let Some(ticket) = admit(conn, header.cookie, About::Other, 0) else { return Ok(false) };
    let payload = header.payload_bytes();
    let close = payload > DISCARD_MAX_BYTES;
    if !close && payload > 0 {
        let wanted = u64::from(payload);
        match io::copy(&mut reader.take(wanted), &mut io::sink()) {
            Ok(skipped) if skipped == wanted => {}
            _ => {
                ticket.abandon();
                return Ok(false);
            }
        }
    }
    ticket.refuse(refusal.error, refusal.reason, close);
    Ok(!close)
}

fn admit(conn: &Conn, cookie: u64, about: About, cost_bytes: usize) -> Option<Ticket> {
    conn.queue.acquire(cost_bytes).then(|| Ticket::new(&conn.queue, cookie, about, cost_bytes))
}

/// Waits for room, reads the payload if there is one, and hands the request to the storage.
fn start(
    conn: &Conn,
    deal: &Deal,
    terms: &Terms,
    header: &RequestHeader,
    command: Command,
    reader: &mut Reader<'_>,
) -> io::Result<bool> {
    let (about, cost_bytes) = match command {
        Command::Read { offset, len } => (About::Read { offset, len }, len as usize),
        Command::Write { len, .. } => (About::Other, len as usize),
        Command::BlockStatus { .. } => {
            (About::Other, BLOCK_STATUS_COST_BYTES * deal.contexts.len())
        }
        Command::WriteZeroes { fast, .. } => (About::WriteZeroes { fast }, 0),
        _ => (About::Other, 0),
    };
    let Some(ticket) = admit(conn, header.cookie, about, cost_bytes) else { return Ok(false) };
    let request = match command {
        // Nothing to do: a range of no bytes, or stable storage for what cannot be written.
        Command::Flush if terms.read_only => None,
        Command::Flush => Some(Request::Flush),
        _ if header.len == 0 => None,
        Command::Read { offset, len } => Some(Request::Read { offset, len }),
        Command::Write { offset, len, fua } => {
            let mut data = deal.export.buffer(len as usize);
            if let Err(error) = reader.read_exact(&mut data[..len as usize]) {
                ticket.abandon();
                return Err(error);
            }
            Some(Request::Write { offset, data, len, fua })
        }
        Command::Trim { offset, len, fua } => Some(Request::Trim { offset, len, fua }),
        Command::WriteZeroes { offset, len, no_hole, fast, fua } => {
            Some(Request::WriteZeroes { offset, len, no_hole, fast, fua })
        }
        Command::Cache { offset, len } => Some(Request::Cache { offset, len }),
        Command::BlockStatus { offset, len, req_one } => {
            status::start(&*deal.export, &deal.contexts, (offset, len, req_one), ticket);
            return Ok(true);
        }
        Command::Disconnect => None,
    };
    // Fenced while the payload was on its way. The fence waits for this thread in any case; this
    // spares the storage a request whose answer nobody will get.
    if conn.queue.is_closing() {
        ticket.abandon();
        return Ok(false);
    }
    match request {
        Some(request) => {
            deal.export.submit(request, Box::new(move |result| ticket.complete(result)));
        }
        None => ticket.complete(Ok(Response::Done)),
    }
    Ok(true)
}
