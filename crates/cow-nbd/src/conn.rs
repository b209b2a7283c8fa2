//! One client: its socket, what is in flight on it, and what others may know of it.

use crate::listen::Stream;
use crate::queue::Queue;
use parking_lot::Mutex;
use std::io::{self, Read};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A connection as the server sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// A number that no other connection of this server has had.
    pub id: u64,
    /// The address of the client; for Unix sockets its process and user.
    pub client: String,
    /// The export it has chosen, or looks at while it negotiates.
    pub export: Option<String>,
    /// Whether that export is read-only; none while it is being opened.
    pub read_only: Option<bool>,
    /// What that export is compared with; open as long as the connection.
    pub bases: Vec<String>,
}

#[derive(Default)]
pub(crate) struct Chosen {
    pub(crate) export: Option<String>,
    pub(crate) read_only: Option<bool>,
    pub(crate) bases: Vec<String>,
}

impl Chosen {
    /// Whether it has `name` open, to serve it or to compare with it.
    pub(crate) fn uses(&self, name: &str) -> bool {
        self.export.as_deref() == Some(name) || self.bases.iter().any(|base| base == name)
    }
}

/// The parts of a connection that its two threads and the server share.
pub(crate) struct Conn {
    pub(crate) id: u64,
    pub(crate) peer: String,
    pub(crate) stream: Stream,
    pub(crate) queue: Arc<Queue>,
    pub(crate) chosen: Mutex<Chosen>,
}

impl Conn {
    /// Takes no further request and ends `how` of the socket. Any thread may call it.
    pub(crate) fn hang_up(&self, how: Shutdown) {
        self.queue.close();
        self.stream.shutdown(how);
    }

    pub(crate) fn info(&self) -> ConnectionInfo {
        let chosen = self.chosen.lock();
        ConnectionInfo {
            id: self.id,
            client: self.peer.clone(),
            export: chosen.export.clone(),
            read_only: chosen.read_only,
            bases: chosen.bases.clone(),
        }
    }
}

/// The reading side. During negotiation there is a deadline for all of it together: a client that
/// sends a byte now and then does not get more time than one that is silent.
pub(crate) struct Inbound<'a> {
    conn: &'a Conn,
    deadline: Option<Instant>,
}

impl<'a> Inbound<'a> {
    pub(crate) fn new(conn: &'a Conn, deadline: Instant) -> Self {
        Self { conn, deadline: Some(deadline) }
    }

    /// Negotiation is over; from now on the client may be silent as long as it likes.
    pub(crate) fn lift_deadline(&mut self) -> io::Result<()> {
        self.deadline = None;
        self.conn.stream.set_timeouts(None)
    }

    /// Allows the next call to take what is left of the time.
    pub(crate) fn arm(&self) -> io::Result<()> {
        let Some(deadline) = self.deadline else { return Ok(()) };
        let left = deadline.saturating_duration_since(Instant::now());
        if left < Duration::from_millis(1) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.conn.stream.set_timeouts(Some(left))
    }
}

impl Read for Inbound<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.conn.queue.is_closing() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        self.arm()?;
        self.conn.stream.read(buf)
    }
}
