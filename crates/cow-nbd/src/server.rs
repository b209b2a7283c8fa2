//! The server: listeners, the thread that accepts, and the handle to it all.
//!
//! Threads: one that accepts for all listeners, and two per connection, which sleep while the storage's
//! thread serves it. Lock order: the table of
//! connections, then a connection's `chosen`, then its queue.

use crate::conn::{Chosen, Conn, ConnectionInfo};
use crate::export::Exports;
use crate::limits::Limits;
use crate::listen::{Endpoint, Listener, SocketFile, Stream};
use crate::queue::Queue;
use crate::session::{self, STACK_BYTES};
use crate::sys;
use crate::uri;
use parking_lot::{Condvar, Mutex};
use std::collections::BTreeMap;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long to wait when the system has no descriptor or thread to spare.
const OUT_OF_RESOURCES_PAUSE: Duration = Duration::from_millis(100);

/// Starts accepting on sockets that exist.
pub(crate) fn launch(
    listeners: Vec<Listener>,
    endpoints: Vec<Endpoint>,
    files: Vec<SocketFile>,
    exports: Arc<dyn Exports>,
    limits: Limits,
) -> io::Result<ServerHandle> {
    for listener in &listeners {
        listener.set_nonblocking()?;
    }
    let (wake, waker) = UnixStream::pair()?;
    let shared =
        Arc::new(Shared { exports, limits, table: Mutex::default(), gone: Condvar::new() });
    let acceptor = {
        let shared = Arc::clone(&shared);
        thread::Builder::new()
            .name("nbd-accept".to_owned())
            .spawn(move || accept_loop(&shared, &listeners, &wake))?
    };
    let running = Running { acceptor, waker, _files: files };
    Ok(ServerHandle { shared, endpoints, running: Mutex::new(Some(running)) })
}

#[derive(Default)]
struct Table {
    conns: BTreeMap<u64, Arc<Conn>>,
    threads: Vec<JoinHandle<()>>,
    next_id: u64,
    stopping: bool,
}

struct Shared {
    exports: Arc<dyn Exports>,
    limits: Limits,
    table: Mutex<Table>,
    /// A connection has ended.
    gone: Condvar,
}

struct Running {
    acceptor: JoinHandle<()>,
    /// Closed to wake the acceptor for the last time.
    waker: UnixStream,
    _files: Vec<SocketFile>,
}

/// A running server. It stops when this is dropped, as with [`ServerHandle::shutdown`].
pub struct ServerHandle {
    shared: Arc<Shared>,
    endpoints: Vec<Endpoint>,
    running: Mutex<Option<Running>>,
}

impl ServerHandle {
    /// The addresses of `export`, one per listener, as clients take them on their command line.
    pub fn uris(&self, export: &str) -> Vec<String> {
        self.endpoints.iter().filter_map(|endpoint| uri::uri(endpoint, export)).collect()
    }

    /// The TCP addresses that the server listens on.
    pub fn tcp_addresses(&self) -> Vec<SocketAddr> {
        self.endpoints
            .iter()
            .filter_map(|endpoint| match endpoint {
                Endpoint::Tcp(address) => Some(*address),
                _ => None,
            })
            .collect()
    }

    /// The connections of this moment, oldest first.
    pub fn connections(&self) -> Vec<ConnectionInfo> {
        self.shared.table.lock().conns.values().map(|conn| conn.info()).collect()
    }

    /// Fences the clients of an export, also those that compare another one with it: when this returns, their connections are closed, their
    /// requests are over and their [`crate::Export`]s are dropped. Returns how many there were.
    /// The name is the canonical one. New clients are not kept away; take the export out of
    /// [`Exports`] first.
    ///
    /// Must not be called from the callback of a request, nor from a thread that calls them.
    pub fn disconnect_export(&self, name: &str) -> usize {
        let mut table = self.shared.table.lock();
        let fenced: Vec<u64> = table
            .conns
            .values()
            .filter(|conn| conn.chosen.lock().uses(name))
            .map(|conn| {
                conn.hang_up(Shutdown::Both);
                conn.id
            })
            .collect();
        while fenced.iter().any(|id| table.conns.contains_key(id)) {
            self.shared.gone.wait(&mut table);
        }
        fenced.len()
    }

    /// Stops: no connection is accepted and no request is read any more; what is in flight is
    /// finished and answered; then the connections are closed, the threads joined, and the socket
    /// files that the server made are removed. A second call does nothing.
    ///
    /// Must not be called from the callback of a request, nor from a thread that calls them.
    pub fn shutdown(&self) {
        let mut running = self.running.lock();
        let Some(Running { acceptor, waker, _files }) = running.take() else { return };
        {
            let mut table = self.shared.table.lock();
            table.stopping = true;
            for conn in table.conns.values() {
                conn.hang_up(Shutdown::Read);
            }
        }
        drop(waker);
        join(acceptor);
        let threads = std::mem::take(&mut self.shared.table.lock().threads);
        threads.into_iter().for_each(join);
    }
}

impl Drop for ServerHandle {
    fn drop(&mut self) {
        self.shutdown();
    }
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        tracing::error!("a thread of the server panicked");
    }
}

fn accept_loop(shared: &Arc<Shared>, listeners: &[Listener], wake: &UnixStream) {
    let mut fds = vec![wake.as_fd()];
    fds.extend(listeners.iter().map(Listener::as_fd));
    loop {
        let ready = match sys::wait_readable(&fds, None) {
            Ok(ready) => ready,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return tracing::error!(%error, "cannot wait for clients"),
        };
        if ready.first() != Some(&false) {
            return;
        }
        for (listener, _) in listeners.iter().zip(&ready[1..]).filter(|(_, ready)| **ready) {
            let admitted = listener.accept().and_then(|(stream, peer)| admit(shared, stream, peer));
            match admitted {
                Ok(()) => {}
                Err(error) if is_clients_fault(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot take a client");
                    if sys::wait_readable(&fds[..1], Some(OUT_OF_RESOURCES_PAUSE)).is_err() {
                        continue;
                    }
                }
            }
        }
    }
}

/// Errors of one client that must not slow down the others.
fn is_clients_fault(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock
            | io::ErrorKind::Interrupted
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::NotConnected
    )
}

/// Gives a client its thread, unless there are too many.
fn admit(shared: &Arc<Shared>, stream: Stream, peer: String) -> io::Result<()> {
    let mut table = shared.table.lock();
    for index in (0..table.threads.len()).rev() {
        if table.threads[index].is_finished() {
            join(table.threads.swap_remove(index));
        }
    }
    if table.stopping || table.conns.len() >= shared.limits.connections {
        tracing::debug!(client = %peer, "turned away: too many connections");
        return Ok(());
    }
    let id = table.next_id;
    table.next_id += 1;
    let limits = &shared.limits;
    let queue = Queue::new(limits.requests_in_flight, limits.bytes_in_flight);
    let chosen = Mutex::new(Chosen::default());
    let conn = Arc::new(Conn { id, peer, stream, queue: Arc::new(queue), chosen });
    table.conns.insert(id, Arc::clone(&conn));
    let of_thread = Arc::clone(shared);
    let thread = thread::Builder::new().name("nbd-client".to_owned()).stack_size(STACK_BYTES);
    // `Leave` is made by the thread itself: if there is no thread, it must not run in here, where
    // the table is locked.
    let spawned = thread.spawn(move || {
        let leave = Leave { shared: of_thread, id };
        session::run(&conn, &*leave.shared.exports, &leave.shared.limits);
        drop(conn);
    });
    match spawned {
        Ok(thread) => table.threads.push(thread),
        Err(error) => {
            table.conns.remove(&id);
            return Err(error);
        }
    }
    Ok(())
}

/// Takes a connection off the table, also when its thread unwinds.
struct Leave {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.shared.table.lock().conns.remove(&self.id);
        self.shared.gone.notify_all();
    }
}
