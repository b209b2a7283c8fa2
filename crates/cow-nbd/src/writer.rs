//! Answers: all replies that are ready are sent with as few system calls as possible, data straight
//! from the buffers of the storage. By a thread that waits for the client, or, without waiting, by that
//! of the storage.

use crate::conn::Conn;
use crate::export::Response;
use crate::queue::{About, Answer, Failure, Reply, Rest, Status, Work};
use crate::sys;
use crate::wire::{self, Head, NbdError};
use cowstore::Buf;
use std::borrow::Cow;
use std::io::{self, IoSlice};
use std::net::Shutdown;

/// A single vectored write takes at most this many slices (`IOV_MAX`).
const SLICES_MAX: usize = 1024;
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// A reply in the form in which it is sent.
pub(crate) struct Frame {
    head: Head,
    body: Body,
}

enum Body {
    Empty,
    Data { buf: Buf, skip: usize, len: usize },
    Zeroes(usize),
    Text(Cow<'static, str>),
    Bytes(Vec<u8>),
}

/// Sends replies until none will come. After an error, or when the client has stopped reading for
/// too long, it goes on taking them, so that the requests in flight come to their end.
pub(crate) fn run(conn: &Conn, structured: bool) {
    let mut dead = false;
    let mut batch = Vec::new();
    let mut frames = Vec::new();
    loop {
        let (load, rest) = match conn.queue.take(&mut batch) {
            Work::End => return,
            Work::Replies => (encode_all(&mut batch, structured, &mut frames), Vec::new()),
            Work::Rest(Rest { bytes, requests, cost_bytes, close }) => {
                (Load { requests, cost_bytes, close }, bytes)
            }
        };
        let mut slices = slices(&frames);
        slices.push(IoSlice::new(&rest));
        if !dead && let Err(error) = send(&mut slices, |some| conn.stream.write_vectored(some)) {
            dead = true;
            lose(conn, &error);
        }
        drop(slices);
        frames.clear();
        load.finish(conn);
    }
}

/// Sends `batch` without waiting. What the socket does not take is left to the writer. `frames` is
/// memory that is used again.
pub(crate) fn send_now(
    conn: &Conn,
    structured: bool,
    batch: &mut Vec<Reply>,
    frames: &mut Vec<Frame>,
) {
    let Load { requests, cost_bytes, close } = encode_all(batch, structured, frames);
    let mut slices = slices(frames);
    let mut sent = 0;
    let result = send(&mut slices, |some| {
        sys::send_now(conn.stream.as_fd(), some).inspect(|more| sent += more)
    });
    drop(slices);
    if result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
        let bytes = rest_of(frames, sent);
        frames.clear();
        return conn.queue.leave_rest(Rest { bytes, requests, cost_bytes, close });
    }
    if let Err(error) = result {
        lose(conn, &error);
    }
    frames.clear();
    Load { requests, cost_bytes, close }.finish(conn);
}

/// What `frames` are made of, but for the first `sent` bytes.
fn rest_of(frames: &[Frame], mut sent: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for slice in slices(frames) {
        let skipped = sent.min(slice.len());
        sent -= skipped;
        bytes.extend_from_slice(&slice[skipped..]);
    }
    bytes
}

fn lose(conn: &Conn, error: &io::Error) {
    tracing::debug!(client = %conn.peer, %error, "cannot reply");
    conn.hang_up(Shutdown::Both);
}

/// What a batch takes of the budget of its connection, until it is sent.
struct Load {
    requests: usize,
    cost_bytes: usize,
    /// The connection ends after it.
    close: bool,
}

impl Load {
    fn finish(self, conn: &Conn) {
        if self.close {
            conn.hang_up(Shutdown::Read);
        }
        conn.queue.written(self.requests, self.cost_bytes);
    }
}

fn encode_all(batch: &mut Vec<Reply>, structured: bool, frames: &mut Vec<Frame>) -> Load {
    let requests = batch.len();
    let cost_bytes = batch.iter().map(|reply| reply.cost_bytes).sum();
    let mut close = false;
    for reply in batch.drain(..) {
        close |= matches!(&reply.result, Err(Failure { close: true, .. }));
        encode(reply, structured, frames);
    }
    Load { requests, cost_bytes, close }
}

fn slices(frames: &[Frame]) -> Vec<IoSlice<'_>> {
    let mut slices = Vec::with_capacity(frames.len() * 2 + 1);
    for frame in frames {
        slices.push(IoSlice::new(frame.head.as_bytes()));
        match &frame.body {
            Body::Empty => {}
            // `encode` has checked the range.
            Body::Data { buf, skip, len } => slices.push(IoSlice::new(&buf[*skip..*skip + *len])),
            Body::Zeroes(len) => {
                let whole = len / ZEROES.len();
                slices.extend((0..whole).map(|_| IoSlice::new(&ZEROES)));
                slices.push(IoSlice::new(&ZEROES[..len % ZEROES.len()]));
            }
            Body::Text(text) => slices.push(IoSlice::new(text.as_bytes())),
            Body::Bytes(bytes) => slices.push(IoSlice::new(bytes)),
        }
    }
    slices
}

/// Has `write` send all of `slices`.
fn send(
    slices: &mut [IoSlice<'_>],
    mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
) -> io::Result<()> {
    let mut rest = slices;
    // Empty slices at the front are skipped by advancing by nothing.
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        let most = rest.len().min(SLICES_MAX);
        match write(&rest[..most]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(sent) => IoSlice::advance_slices(&mut rest, sent),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn encode(reply: Reply, structured: bool, frames: &mut Vec<Frame>) {
    let Reply { cookie, about, result, .. } = reply;
    frames.push(match (about, result) {
        (_, Err(failure)) => error(cookie, failure.error, failure.message, structured),
        (_, Ok(Answer::Status(statuses))) => return block_status(cookie, statuses, frames),
        (About::Read { offset, len }, Ok(Answer::Response(response))) => {
            read(cookie, offset, len, response, structured)
        }
        (About::WriteZeroes { .. } | About::Other, Ok(_)) => {
            Frame { head: wire::simple_head(cookie, None), body: Body::Empty }
        }
    });
}

fn error(cookie: u64, error: NbdError, message: Cow<'static, str>, structured: bool) -> Frame {
    if !structured {
        return Frame { head: wire::simple_head(cookie, Some(error)), body: Body::Empty };
    }
    let message = match wire::error_payload(&message) {
        cut if cut.len() < message.len() => Cow::Owned(cut.to_owned()),
        _ => message,
    };
    Frame { head: wire::error_head(cookie, error, &message), body: Body::Text(message) }
}

/// The storage has answered something that does not fit the request. That is its fault, and the
/// client must not be served what might be somebody else's bytes.
fn misfit(cookie: u64, structured: bool) -> Frame {
    tracing::error!(cookie, "the storage's response does not fit the request");
    error(cookie, NbdError::Io, "bad response of the storage".into(), structured)
}

fn read(cookie: u64, offset: u64, len: u32, response: Response, structured: bool) -> Frame {
    let wanted = len as usize;
    match response {
        Response::Zeroes if structured => {
            Frame { head: wire::offset_hole_head(cookie, offset, len), body: Body::Empty }
        }
        Response::Zeroes => {
            Frame { head: wire::simple_head(cookie, None), body: Body::Zeroes(wanted) }
        }
        // A read of nothing; a data chunk must have at least one byte.
        Response::Done if len == 0 => {
            let head = if structured {
                wire::structured_none_head(cookie)
            } else {
                wire::simple_head(cookie, None)
            };
            Frame { head, body: Body::Empty }
        }
        Response::Data { buf, skip, len: found }
            if found == wanted && skip.checked_add(found).is_some_and(|end| end <= buf.len()) =>
        {
            let head = if structured {
                wire::offset_data_head(cookie, offset, len)
            } else {
                wire::simple_head(cookie, None)
            };
            Frame { head, body: Body::Data { buf, skip, len: found } }
        }
        _ => misfit(cookie, structured),
    }
}

/// A chunk for each context, the last of which ends the reply.
fn block_status(cookie: u64, statuses: Vec<Status>, frames: &mut Vec<Frame>) {
    let last = statuses.len().saturating_sub(1);
    for (index, Status { context_id, payload }) in statuses.into_iter().enumerate() {
        let head = wire::block_status_head(cookie, context_id, index == last, payload.len());
        frames.push(Frame { head, body: Body::Bytes(payload) });
    }
}
