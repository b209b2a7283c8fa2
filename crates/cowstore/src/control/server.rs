//! The server's side: one thread that accepts, one for each client.

use super::compared::Compared;
use super::frame;
use super::wire::{GoOn, Greeting, Hello, ServerMessage, WireError, parse_verb};
use crate::dispatch::{Host, perform};
use crate::error::{Error, os_error};
use crate::manage::Answer;
use crate::pool::Pool;
use crate::runtime::{bind, connect};
use crate::sys;
use crate::transfer::Progress;
use parking_lot::Mutex;
use std::fs::{self, File};
use std::io;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Clients at one time; more are refused.
const CLIENTS_MAX: usize = 64;
/// How long a client may take to say hello, and to read what it asked for.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(30);
/// Longer answers are cut into parts of this many bytes. Escaped as JSON they at most double.
const PART_BYTES: usize = 256 << 10;

/// Serves the control socket of a pool until it is stopped or dropped. Neither may be done
/// inside [`Host::shutdown`], which runs on one of its threads.
pub struct ControlServer {
    shared: Arc<Shared>,
    socket: PathBuf,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    pool: Arc<Pool>,
    host: Host,
    stopping: AtomicBool,
    clients: Mutex<Vec<Client>>,
}

struct Client {
    stream: UnixStream,
    thread: JoinHandle<()>,
}

impl ControlServer {
    /// Makes the socket, announces it in the registry, and serves it.
    ///
    /// # Errors
    /// `Busy` when another process that reads the pool serves it already; `Unsupported` when
    /// there is no runtime directory for it.
    pub fn start(pool: Arc<Pool>, host: Host) -> Result<Self, Error> {
        let Some(registration) = pool.core.registration.clone() else {
            let text = format!("no control socket: {}", pool.core.facts.notes.join("; "));
            return Err(Error::Unsupported(text));
        };
        let socket = registration.socket_path();
        let listener = listen(&socket, pool.is_read_only())?;
        let stopping = AtomicBool::new(false);
        let shared = Arc::new(Shared { pool, host, stopping, clients: Mutex::default() });
        let acceptor = shared.clone();
        let thread = thread::Builder::new()
            .name("cow-control".into())
            .spawn(move || accept(&acceptor, &listener))
            .map_err(|e| os_error("cannot start a thread", &e))?;
        let server = Self { shared, socket: socket.clone(), thread: Some(thread) };
        registration.set_socket(Some(socket))?;
        Ok(server)
    }

    /// Where the socket is.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Takes the socket away, ends all connections, and waits for what they are doing. What
    /// takes long is given up. Drops its hold on the pool.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.shared.stopping.store(true, Ordering::SeqCst);
        if let Some(registration) = &self.shared.pool.core.registration
            && let Err(error) = registration.set_socket(None)
        {
            tracing::debug!(%error, "the registry entry is gone already");
        }
        // Wakes the acceptor, which then sees that it shall end. If it cannot be reached, it
        // has ended.
        let _ = connect(&self.socket);
        let _ = thread.join();
        let _ = fs::remove_file(&self.socket);
        let clients = std::mem::take(&mut *self.shared.clients.lock());
        for client in &clients {
            // Reading only: the answer to what is in progress still goes out.
            let _ = client.stream.shutdown(Shutdown::Read);
        }
        for client in clients {
            let _ = client.thread.join();
        }
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        self.end();
    }
}

/// Binds the socket. One that is there is stale, for the lock on the pool is ours; only among
/// readers there may be another that lives.
fn listen(socket: &Path, shared: bool) -> Result<UnixListener, Error> {
    let fail = |e: io::Error| os_error(socket.display(), &e);
    if shared && connect(socket).is_ok() {
        return Err(Error::Busy(format!("{}: served by another process", socket.display())));
    }
    match fs::remove_file(socket) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(fail(e)),
        _ => {}
    }
    bind(socket).map_err(fail)
}

fn accept(shared: &Arc<Shared>, listener: &UnixListener) {
    loop {
        let accepted = listener.accept();
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        match accepted {
            Ok((stream, _)) => admit(shared, stream),
            Err(error) => {
                // Out of descriptors, most likely: it may pass.
                tracing::warn!(%error, "the control socket cannot accept");
                thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

fn admit(shared: &Arc<Shared>, stream: UnixStream) {
    let mut clients = shared.clients.lock();
    clients.retain(|client| !client.thread.is_finished());
    let refusal = match sys::peer_uid(&stream) {
        Ok(uid) if uid != 0 && uid != sys::effective_uid() => {
            Some(Error::Unsupported(format!("user {uid} may not manage this pool")))
        }
        Ok(_) if clients.len() >= CLIENTS_MAX => {
            Some(Error::Limit(format!("{CLIENTS_MAX} control connections")))
        }
        Ok(_) => None,
        Err(_) => return,
    };
    let timeouts = stream
        .set_read_timeout(Some(CLIENT_TIMEOUT))
        .and_then(|()| stream.set_write_timeout(Some(CLIENT_TIMEOUT)));
    let Ok(copy) = timeouts.and_then(|()| stream.try_clone()) else { return };
    if let Some(error) = refusal {
        // It is told why, if it listens.
        let _ = frame::write(&stream, &ServerMessage::Error(WireError::from(&error)), None);
        return;
    }
    let server = shared.clone();
    let thread = thread::Builder::new().name("cow-control".into()).spawn(move || {
        if let Err(error) = serve(&server, &stream) {
            tracing::debug!(%error, "a control connection failed");
        }
        let _ = stream.shutdown(Shutdown::Both);
    });
    if let Ok(thread) = thread {
        clients.push(Client { stream: copy, thread });
    }
}

/// One client, from hello to its end.
fn serve(shared: &Shared, stream: &UnixStream) -> io::Result<()> {
    let mut reader = frame::Reader::new(stream);
    let facts = &shared.pool.core.facts;
    let uuid = facts.identity.uuid_text();
    let Some(greeting) = reader.message::<Greeting>()? else { return Ok(()) };
    if let Err(error) = greeting.hello.check(&uuid) {
        return send(stream, &ServerMessage::Error(WireError::from(&error)));
    }
    send(stream, &ServerMessage::Hello(Hello::new(uuid, facts.program.clone())))?;
    stream.set_read_timeout(None)?;
    let mut compared = Compared::default();
    while let Some(bytes) = reader.bytes()? {
        let file = reader.take_file().map(File::from);
        match answer(shared, stream, &mut reader, &bytes, file, &mut compared) {
            Ok(answer) => send_answer(stream, answer)?,
            Err(error) => send(stream, &ServerMessage::Error(WireError::from(&error)))?,
        }
    }
    Ok(())
}

/// Does what one frame asks for.
fn answer(
    shared: &Shared,
    stream: &UnixStream,
    reader: &mut frame::Reader<'_>,
    bytes: &[u8],
    file: Option<File>,
    compared: &mut Compared,
) -> Result<Answer, Error> {
    let mut verb = parse_verb(bytes)?;
    verb.set_file(file);
    compared.hold(&shared.pool, &verb)?;
    let gone = AtomicBool::new(false);
    let mut progress = |told: Progress| {
        let is_last = told.is_last;
        let sent = send(stream, &ServerMessage::Progress(told));
        if sent.is_err() || (is_last && !goes_on(stream, reader)) {
            gone.store(true, Ordering::Relaxed);
        }
    };
    let cancelled = || gone.load(Ordering::Relaxed) || shared.stopping.load(Ordering::Relaxed);
    let answer = perform(&shared.pool, &shared.host, verb, &mut progress, &cancelled)?;
    if matches!(&answer, Answer::Diff(page) if page.next.is_none()) {
        compared.0 = None;
    }
    Ok(answer)
}

/// Whether the client still wants what it asked for.
fn goes_on(stream: &UnixStream, reader: &mut frame::Reader<'_>) -> bool {
    let message = stream
        .set_read_timeout(Some(CLIENT_TIMEOUT))
        .and_then(|()| reader.message::<GoOn>())
        .and_then(|message| stream.set_read_timeout(None).map(|()| message));
    message.is_ok_and(|message| message.is_some_and(|GoOn { go_on }| go_on))
}

fn send(stream: &UnixStream, message: &ServerMessage) -> io::Result<()> {
    frame::write(stream, message, None)
}

/// Sends an answer, in parts if it is long.
fn send_answer(stream: &UnixStream, answer: Answer) -> io::Result<()> {
    let text = serde_json::to_string(&answer)?;
    if text.len() <= PART_BYTES {
        return send(stream, &ServerMessage::Ok(Some(answer)));
    }
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let mut at = rest.len().min(PART_BYTES);
        while !rest.is_char_boundary(at) {
            at -= 1;
        }
        let (part, more) = rest.split_at(at);
        send(stream, &ServerMessage::Part(part.into()))?;
        rest = more;
    }
    send(stream, &ServerMessage::Ok(None))
}
