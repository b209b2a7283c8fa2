//! The storage's thread at a connection: it reads requests, hands them to itself and sends the answers,
//! so that no thread is woken for any of them, and what comes together goes to the disk and back
//! together.
//!
//! It never waits. A request that others would notice (a large one), that it would have to wait for
//! (no room in the budget), that is rare (block status, a refusal), or that is none any more sends the
//! source home: to the connection's own thread, with what was read of it. What the socket does not
//! take is the writer's ([`crate::queue`]).

use crate::admission::{self, Partial};
use crate::conn::Conn;
use crate::handshake::Deal;
use crate::queue::{DIRECT_COST_BYTES, Reply, Ticket};
use crate::reader::{Ahead, Received};
use crate::wire::{self, Command};
use crate::writer::{self, Frame};
use cowstore::{Message, Source, Taken};
use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Weak};

/// Requests that are read in one go: then they are begun, so that the disk is at work while the next
/// are read.
const BATCH: usize = 8;
/// Calls to receive in one go, however little each brings.
const RECEIVES: usize = 2 * BATCH;
/// Larger requests are copied by the connection's own threads, beside the storage's.
const LARGE_BYTES: u32 = DIRECT_COST_BYTES as u32;

/// What comes back to the connection's own thread.
#[derive(Default)]
pub(crate) struct Home {
    pub(crate) ahead: Ahead,
    pub(crate) partial: Option<Partial>,
    /// There was something that is not for the storage's thread. Otherwise that has no use for the
    /// connection.
    pub(crate) handed: bool,
}

/// Whether the storage's thread would read such a request.
pub(crate) fn takes(command: &Command) -> bool {
    match *command {
        Command::Read { len, .. } | Command::Write { len, .. } => len <= LARGE_BYTES,
        Command::Flush | Command::Trim { .. } | Command::WriteZeroes { .. } => true,
        Command::Cache { .. } | Command::BlockStatus { .. } | Command::Disconnect => false,
    }
}

/// Lends the connection to the storage's thread, and waits until it comes back.
///
/// # Errors
/// When it does not.
pub(crate) fn lend(conn: &Arc<Conn>, deal: &Arc<Deal>, ahead: Ahead) -> io::Result<Home> {
    let (home, back) = mpsc::channel();
    let source = Direct {
        conn: Arc::clone(conn),
        deal: Arc::downgrade(deal),
        structured: deal.structured,
        state: Home { ahead, ..Home::default() },
        home,
        is_drained: false,
        receives: 0,
        batch: Vec::new(),
        frames: Vec::new(),
    };
    deal.export.serve(Box::new(source));
    back.recv().map_err(|_| io::ErrorKind::BrokenPipe.into())
}

struct Direct {
    conn: Arc<Conn>,
    /// The connection's thread, which waits, keeps it: when that goes on, nothing here holds the export.
    deal: Weak<Deal>,
    structured: bool,
    state: Home,
    home: Sender<Home>,
    /// All that had come was received.
    is_drained: bool,
    /// How often it may receive before others have their turn.
    receives: usize,
    /// Kept for their memory; empty between calls.
    batch: Vec<Reply>,
    frames: Vec<Frame>,
}

/// What an attempt to read a request came to.
enum Step {
    /// One was started.
    Started,
    /// More bytes have to come.
    Wait,
    /// Others have their turn.
    Pause,
    /// What comes next is not for this thread.
    Home,
}

impl Direct {
    fn step(&mut self, deal: &Deal) -> Step {
        loop {
            if self.conn.queue.is_closing() {
                return Step::Home;
            }
            if self.state.partial.is_none()
                && let Some(step) = self.next(deal)
            {
                return step;
            }
            let Home { ahead, partial, .. } = &mut self.state;
            let came = partial.as_mut().map_or(0, |partial| ahead.copy_to(partial.missing()));
            if self.is_whole_with(deal, came) {
                return Step::Started;
            }
            if let Some(step) = self.receive(deal) {
                return step;
            }
        }
    }

    /// So much of a payload has come, if one is awaited. Submits the write once that is all.
    fn is_whole_with(&mut self, deal: &Deal, came: usize) -> bool {
        let Some(mut partial) = self.state.partial.take() else { return false };
        let whole = partial.came(came);
        if whole {
            partial.submit(deal);
        } else {
            self.state.partial = Some(partial);
        }
        whole
    }

    /// Looks at the next request; None if more of it has to be received.
    fn next(&mut self, deal: &Deal) -> Option<Step> {
        let bytes = self.state.ahead.bytes().first_chunk::<{ wire::REQUEST_HEADER_BYTES }>()?;
        // Whatever is wrong with it is found again at home.
        let Ok(header) = wire::parse_request(bytes) else { return Some(Step::Home) };
        let terms = admission::terms(deal);
        let command = wire::check_request(&header, &terms).ok().filter(takes);
        let Some(command) = command else { return Some(Step::Home) };
        let (about, cost_bytes) = admission::cost(&command, deal);
        if !self.conn.queue.try_acquire(cost_bytes) {
            return Some(Step::Home);
        }
        self.state.ahead.consume(wire::REQUEST_HEADER_BYTES);
        let ticket = Ticket::new(&self.conn.queue, header.cookie, about, cost_bytes);
        if let Command::Write { offset, len: len @ 1.., fua } = command {
            self.state.partial = Some(Partial::new(deal, ticket, (offset, len), fua));
            return None;
        }
        match admission::request(command, &header, deal) {
            Some(request) => {
                let done = Box::new(move |result| ticket.complete(result));
                deal.export.submit(request, done);
            }
            None => admission::done(ticket),
        }
        Some(Step::Started)
    }

    /// Receives what there is; None if the next request may have come whole.
    fn receive(&mut self, deal: &Deal) -> Option<Step> {
        let Home { ahead, partial, .. } = &mut self.state;
        let payload = partial.as_mut().map_or(&mut [][..], Partial::missing);
        if self.is_drained {
            return Some(Step::Wait);
        }
        if self.receives == 0 {
            return Some(Step::Pause);
        }
        self.receives -= 1;
        match ahead.receive(&self.conn, payload) {
            Ok(Received { is_end: true, .. }) => Some(Step::Home),
            Ok(Received { of_payload, is_all, .. }) => {
                self.is_drained = is_all;
                self.is_whole_with(deal, of_payload).then_some(Step::Started)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Some(Step::Wait),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => None,
            Err(_) => Some(Step::Home),
        }
    }
}

impl Source for Direct {
    fn file(&self) -> io::Result<OwnedFd> {
        self.conn.stream.as_fd().try_clone_to_owned()
    }

    fn take(&mut self) -> Taken {
        let Some(deal) = self.deal.upgrade() else { return Taken::End };
        (self.is_drained, self.receives) = (false, RECEIVES);
        for _ in 0..BATCH {
            match self.step(&deal) {
                Step::Started => {}
                Step::Pause => return Taken::Some,
                Step::Wait => return Taken::All,
                Step::Home => {
                    self.state.handed = true;
                    return Taken::End;
                }
            }
        }
        Taken::Some
    }

    /// Nothing is left for the driver: a stream takes a part of what it is given, and the rest must
    /// follow it.
    fn answers(&mut self, _: &mut Vec<Message>) {
        while self.conn.queue.take_direct(&mut self.batch) {
            writer::send_now(&self.conn, self.structured, &mut self.batch, &mut self.frames);
        }
    }

    fn leave(self: Box<Self>) {}
}

impl Drop for Direct {
    fn drop(&mut self) {
        self.conn.queue.end_direct();
        // The connection's thread waits for it.
        let _ = self.home.send(mem::take(&mut self.state));
    }
}
