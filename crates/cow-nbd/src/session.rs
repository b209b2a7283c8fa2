//! The life of one connection: negotiation, then requests until the client leaves.
//!
//! The thread that runs [`run`] reads; a second one, inside its scope, writes. Where the storage's
//! thread can do both by itself, it does ([`crate::direct`]), and these two wait. When reading ends,
//! for whatever reason, requests in flight come to their end and are answered as long as the
//! client takes the answers; then the export is dropped.

use crate::admission::{self, Partial};
use crate::conn::{Conn, Inbound};
use crate::direct::{self, Home};
use crate::export::{Exports, Response};
use crate::handshake::{self, Deal};
use crate::limits::Limits;
use crate::queue::{About, Ticket};
use crate::reader::Reader;
use crate::status;
use crate::wire::{self, Command, Refusal, RequestHeader};
use crate::writer;
use std::io::{self, Read};
use std::net::Shutdown;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

/// A refused write of more than this is not worth reading to the end.
const DISCARD_MAX_BYTES: u32 = 256 << 20;
/// Neither thread of a connection recurses or keeps buffers on its stack.
pub(crate) const STACK_BYTES: usize = 256 << 10;
/// After so many requests that the storage's thread could have read, it reads again.
const CALM: u32 = 32;

/// Serves one client to the end.
pub(crate) fn run(conn: &Arc<Conn>, exports: &dyn Exports, limits: &Limits) {
    let deadline = Instant::now() + limits.handshake_timeout;
    let mut reader = Reader::new(Inbound::new(conn, deadline));
    let deal = match handshake::negotiate(conn, exports, &mut reader) {
        Ok(deal) => Arc::new(deal),
        Err(error) => {
            tracing::debug!(client = %conn.peer, %error, "negotiation ended");
            return conn.stream.shutdown(Shutdown::Both);
        }
    };
    if let Err(error) = reader.inbound().lift_deadline() {
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
fn transmit(conn: &Arc<Conn>, deal: &Arc<Deal>, reader: &mut Reader<'_>) {
    let mut thread = Serving { conn, deal, reader, calm: CALM, alone: false };
    if let Err(error) = thread.serve() {
        tracing::debug!(client = %conn.peer, %error, "connection ended");
    }
}

/// The thread of a connection, negotiation behind it.
struct Serving<'a, 'b> {
    conn: &'a Arc<Conn>,
    deal: &'a Arc<Deal>,
    reader: &'a mut Reader<'b>,
    /// Requests, one after the other, that need not have been read here.
    calm: u32,
    /// The storage's thread has no use for the connection.
    alone: bool,
}

impl Serving<'_, '_> {
    fn serve(&mut self) -> io::Result<()> {
        loop {
            if self.calm >= CALM && !self.alone {
                self.calm = 0;
                self.lend()?;
            } else if !self.request()? {
                return Ok(());
            }
        }
    }

    /// Has the storage's thread read requests until it comes upon one that is not for it.
    fn lend(&mut self) -> io::Result<()> {
        let ahead = self.reader.take_ahead();
        let Home { ahead, partial, handed } = direct::lend(self.conn, self.deal, ahead)?;
        self.alone = !handed;
        self.reader.give_ahead(ahead);
        partial.map_or(Ok(()), |partial| self.finish(partial))
    }

    /// Reads what is missing of a payload.
    fn finish(&mut self, mut partial: Partial) -> io::Result<()> {
        if let Err(error) = self.reader.read_exact(partial.missing()) {
            partial.abandon();
            return Err(error);
        }
        partial.submit(self.deal);
        Ok(())
    }

    /// Reads one request and starts it; false if it is the last.
    fn request(&mut self) -> io::Result<bool> {
        let mut bytes = [0; wire::REQUEST_HEADER_BYTES];
        self.reader.read_exact(&mut bytes)?;
        let header = wire::parse_request(&bytes)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        match wire::check_request(&header, &admission::terms(self.deal)) {
            Ok(Command::Disconnect) => Ok(false),
            Ok(command) => {
                let is_calm = direct::takes(&command);
                self.calm = if is_calm { self.calm.saturating_add(1) } else { 0 };
                self.start(&header, command)
            }
            Err(refusal) => self.refuse(&header, refusal),
        }
    }

    /// Answers a refused request, having read what belongs to it.
    fn refuse(&mut self, header: &RequestHeader, refusal: Refusal) -> io::Result<bool> {
        // The kind decides the form of the answer: an error in any case, so `Other` serves for all.
        let Some(ticket) = self.admit(header.cookie, About::Other, 0) else { return Ok(false) };
        let payload = header.payload_bytes();
        let close = payload > DISCARD_MAX_BYTES;
        if !close && payload > 0 {
            let wanted = u64::from(payload);
            match io::copy(&mut self.reader.take(wanted), &mut io::sink()) {
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

    fn admit(&self, cookie: u64, about: About, cost_bytes: usize) -> Option<Ticket> {
        let queue = &self.conn.queue;
        queue.acquire(cost_bytes).then(|| Ticket::new(queue, cookie, about, cost_bytes))
    }

    /// Waits for room, reads the payload if there is one, and hands the request to the storage.
    fn start(&mut self, header: &RequestHeader, command: Command) -> io::Result<bool> {
        let (about, cost_bytes) = admission::cost(&command, self.deal);
        let Some(ticket) = self.admit(header.cookie, about, cost_bytes) else { return Ok(false) };
        if let Command::BlockStatus { offset, len, req_one } = command {
            let deal = self.deal;
            status::start(&*deal.export, &deal.contexts, (offset, len, req_one), ticket);
            return Ok(true);
        }
        if let Command::Write { offset, len: len @ 1.., fua } = command {
            let partial = Partial::new(self.deal, ticket, (offset, len), fua);
            return self.finish(partial).map(|()| true);
        }
        // Fenced meanwhile. The fence waits for this thread in any case; this spares the storage a
        // request whose answer nobody will get.
        if self.conn.queue.is_closing() {
            ticket.abandon();
            return Ok(false);
        }
        match admission::request(command, header, self.deal) {
            Some(request) => {
                let done = Box::new(move |result| ticket.complete(result));
                self.deal.export.submit(request, done);
            }
            None => ticket.complete(Ok(Response::Done)),
        }
        Ok(true)
    }
}
