//! A connection, in between hyper and the socket.
//!
//! Three things are done here that hyper leaves to its user:
//!
//! * A client that does not read is cut off: from the first write that blocks, the rest of the
//!   answer must be taken within a limit.
//! * A client whose request is answered before all of it was read can read that answer. A socket
//!   that is closed while bytes are unread is reset, and a reset takes away what was sent; so
//!   the connection is closed in two steps, and what comes in between is thrown away.
//! * A head that hyper refuses by itself (too large, or no HTTP at all) is answered with a problem,
//!   as everything else is: hyper would answer with a bare status. It never gives out such an
//!   answer otherwise, since all errors of ours have a body.

use super::limits::Limits;
use super::problem::{MEDIA_TYPE, Problem};
use axum::http::StatusCode;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

/// Most bytes that are thrown away at the end of a connection.
const MOST_UNREAD: usize = 16 << 20;

/// Whether a connection is to be closed in two steps.
#[derive(Clone, Default)]
pub(super) struct Linger(Arc<AtomicBool>);

impl Linger {
    /// The client may still be sending when its connection is closed.
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// See the module.
pub(super) struct Wire {
    stream: TcpStream,
    linger: Linger,
    answer_time: Duration,
    linger_time: Duration,
    /// Runs while an answer is not taken.
    stalled: Option<Pin<Box<Sleep>>>,
    /// What is written instead of the bytes that hyper offers, and how much of it has been.
    instead: Option<(Vec<u8>, usize)>,
    /// Runs after the last answer; and how many bytes may still come.
    ending: Option<(Pin<Box<Sleep>>, usize)>,
}

impl Wire {
    pub(super) fn new(stream: TcpStream, linger: Linger, limits: &Limits) -> Self {
        Self {
            stream,
            linger,
            answer_time: limits.answer_time,
            linger_time: limits.linger_time,
            stalled: None,
            instead: None,
            ending: None,
        }
    }

    /// Writes, or writes something else and says that `bytes` were written.
    fn write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.instead.is_none()
            && let Some(status) = bare_refusal(bytes)
        {
            self.linger.set();
            self.instead = Some((refusal(status), 0));
        }
        let Some((other, written)) = &mut self.instead else {
            return Pin::new(&mut self.stream).poll_write(cx, bytes);
        };
        while let Some(rest) = other.get(*written..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => *written += count,
            }
        }
        self.instead = None;
        Poll::Ready(Ok(bytes.len()))
    }

    /// Throws away what still comes, until nothing does or a limit is reached.
    fn drain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let linger_time = self.linger_time;
        let (end, left) =
            self.ending.get_or_insert_with(|| (Box::pin(sleep(linger_time)), MOST_UNREAD));
        let mut bytes = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() && *left > 0 => {
                    *left = left.saturating_sub(buffer.filled().len());
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return end.as_mut().poll(cx),
            }
            // A client that sends faster than this reads has a time limit, too.
            if end.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
        }
    }
}

/// The status of an answer that consists of a status and nothing else, and is a refusal.
fn bare_refusal(bytes: &[u8]) -> Option<StatusCode> {
    let head = std::str::from_utf8(bytes).ok()?;
    let status: StatusCode = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let is_bare = head.ends_with("\r\n\r\n") && head.contains("\r\ncontent-length: 0\r\n");
    (status.is_client_error() && is_bare).then_some(status)
}

fn refusal(status: StatusCode) -> Vec<u8> {
    let detail = match status {
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
            "the head is too large, or has too many fields"
        }
        StatusCode::URI_TOO_LONG => "the path and query are too long",
        _ => "this is not an HTTP request",
    };
    let text = Problem::new(status, detail).text();
    let (length, reason) = (text.len(), status.canonical_reason().unwrap_or_default());
    let (code, media_type) = (status.as_str(), MEDIA_TYPE);
    format!(
        "HTTP/1.1 {code} {reason}\r\ncontent-type: {media_type}\r\ncontent-length: {length}\r\n\
         connection: close\r\n\r\n{text}"
    )
    .into_bytes()
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = this.write(cx, bytes);
        if result.is_pending() {
            let answer_time = this.answer_time;
            let stalled = this.stalled.get_or_insert_with(|| Box::pin(sleep(answer_time)));
            ready!(stalled.as_mut().poll(cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        result
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Everything that there was to write has been written.
        this.stalled = None;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ending.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        }
        if this.linger.is_set() {
            ready!(this.drain(cx));
        }
        Poll::Ready(Ok(()))
    }
}
