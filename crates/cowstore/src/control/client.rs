//! The client's side.

use super::frame;
use super::wire::{GoOn, Greeting, Hello, ServerMessage};
use crate::error::{Error, file_error};
use crate::identity::Identity;
use crate::manage::{Answer, Manage, Verb};
use crate::options::OpenOptions;
use crate::runtime::{Holder, connect, in_use};
use crate::sys;
use crate::transfer::Progress;
use parking_lot::Mutex;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

const TALK: &str = "talk over the control socket";
/// How long a server may take to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer in parts that is put together.
const ANSWER_MAX_BYTES: usize = 1 << 30;

/// A connection to the process that has a pool open.
#[derive(Debug)]
pub struct ControlClient {
    /// `None` after a failure half-way: what comes next could answer something else.
    stream: Mutex<Option<UnixStream>>,
}

impl ControlClient {
    /// Connects to whoever has the pool at `path` open.
    ///
    /// # Errors
    /// `Busy` when nobody answers for it; `Unsupported` when the process that does speaks
    /// another protocol.
    pub fn connect(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let identity = Identity::read(path)?;
        let holder = Holder::of(&identity).filter(Holder::is_alive);
        let unreachable = |holder| Error::Busy(in_use(path, holder));
        let Some(holder) = holder else { return Err(unreachable(None)) };
        let Some(socket) = &holder.socket else { return Err(unreachable(Some(&holder))) };
        let stream = connect(socket).map_err(|_| unreachable(Some(&holder)))?;
        Self::greet(stream, &identity.uuid_text())
    }

    /// Exchanges hellos on a fresh connection.
    pub(crate) fn greet(stream: UnixStream, uuid: &str) -> Result<Self, Error> {
        let peer = sys::peer_uid(&stream).map_err(|e| lost(&e))?;
        if peer != 0 && peer != sys::effective_uid() {
            let text = format!("the control socket belongs to user {peer}");
            return Err(Error::Unsupported(text));
        }
        let timeout = |time| stream.set_read_timeout(time).map_err(|e| lost(&e));
        timeout(Some(HELLO_TIMEOUT))?;
        let hello = Hello::new(uuid.into(), OpenOptions::default().program());
        frame::write(&stream, &Greeting { hello }, None).map_err(|e| lost(&e))?;
        match frame::Reader::new(&stream).message().map_err(|e| lost(&e))? {
            Some(ServerMessage::Hello(hello)) => hello.check(uuid)?,
            Some(ServerMessage::Error(error)) => return Err(error.into()),
            other => return Err(strange(other.as_ref())),
        }
        timeout(None)?;
        Ok(Self { stream: Mutex::new(Some(stream)) })
    }
}

impl Manage for ControlClient {
    fn call(&self, verb: Verb, progress: &mut dyn FnMut(Progress)) -> Result<Answer, Error> {
        let mut guard = self.stream.lock();
        let stream = guard.take().ok_or_else(|| lost(&io::ErrorKind::NotConnected.into()))?;
        let file = verb.file().map(|file| file.as_fd());
        match frame::write(&stream, &verb, file) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                *guard = Some(stream);
                return Err(Error::Invalid(error.to_string()));
            }
            Err(error) => return Err(lost(&error)),
        }
        drop(verb);
        let result = answer(&stream, progress)?;
        *guard = Some(stream);
        result
    }

    fn close(self: Box<Self>) -> Result<(), Error> {
        Ok(())
    }

    fn is_remote(&self) -> bool {
        true
    }
}

/// Reads up to the answer. The outer error means that the connection is of no more use.
fn answer(
    stream: &UnixStream,
    progress: &mut dyn FnMut(Progress),
) -> Result<Result<Answer, Error>, Error> {
    let mut reader = frame::Reader::new(stream);
    let mut text = String::new();
    loop {
        let message: Option<ServerMessage> = reader.message().map_err(|e| lost(&e))?;
        match message {
            Some(ServerMessage::Progress(told)) => {
                let is_last = told.is_last;
                progress(told);
                if is_last {
                    let go_on = GoOn { go_on: true };
                    frame::write(stream, &go_on, None).map_err(|e| lost(&e))?;
                }
            }
            Some(ServerMessage::Part(part)) if text.len() + part.len() <= ANSWER_MAX_BYTES => {
                text.push_str(&part);
            }
            Some(ServerMessage::Ok(Some(answer))) => return Ok(Ok(answer)),
            Some(ServerMessage::Ok(None)) => {
                return serde_json::from_str(&text).map(Ok).map_err(|e| lost(&e.into()));
            }
            Some(ServerMessage::Error(error)) => return Ok(Err(error.into())),
            other => return Err(strange(other.as_ref())),
        }
    }
}

fn lost(error: &io::Error) -> Error {
    let number = match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::NotConnected => libc::ECONNRESET,
        io::ErrorKind::UnexpectedEof => libc::ECONNRESET,
        _ => error.raw_os_error().unwrap_or(libc::EPROTO),
    };
    file_error(TALK, 0, &io::Error::from_raw_os_error(number))
}

fn strange(message: Option<&ServerMessage>) -> Error {
    match message {
        None => lost(&io::ErrorKind::ConnectionReset.into()),
        Some(_) => Error::Unsupported("the control socket answers something else".into()),
    }
}
