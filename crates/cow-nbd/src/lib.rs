//! An NBD server for copy-on-write volumes, written after the protocol document of the NBD
//! project.
//!
//! The room between the network and the storage: it knows sockets, threads and the protocol, and
//! of the storage only the traits [`Exports`] and [`Export`], and how a pool has them
//! ([`PoolExports`]). Programs that serve volumes call it; nothing below it may.
//!
//! ```text
//!   wire        bytes ⇄ values; no I/O, what a fuzzer calls
//!   handshake   negotiation of one client          session  its requests
//!   admission   what a request costs               reader   what was read ahead
//!   direct      the requests, read and answered by the storage's thread
//!   queue       what is in flight on a connection  writer   its replies
//!   context     meta contexts that were selected   status   a block status of all of them
//!   listen      sockets                            config   what a server shall be
//!   limits      what clients may cost              error    why it cannot start
//!   server      accepting, and the handle to it all      pool   a pool as what is served
//!   sys         the unsafe system calls              beside where a socket is by default
//!   device      the other end: block devices of this machine over connections
//! ```
//!
//! What a client can do to others is bounded everywhere: the time for negotiation, the length of
//! options, requests and payloads in flight, the number of connections. See [`Limits`].
//!
//! ```no_run
//! # fn run(exports: std::sync::Arc<dyn cow_nbd::Exports>) -> Result<(), cow_nbd::ServerError> {
//! let server = cow_nbd::Server::builder().unix("nbd.sock").start(exports)?;
//! println!("{:?}", server.uris("vol"));
//! server.shutdown();
//! # Ok(())
//! # }
//! ```
#![deny(unsafe_code)]

mod admission;
mod beside;
mod config;
mod conn;
mod context;
pub mod device;
mod direct;
mod error;
mod export;
mod handshake;
mod limits;
#[allow(unsafe_code)] // taking over the descriptors that systemd passes
mod listen;
mod pool;
mod queue;
mod reader;
mod server;
mod session;
mod status;
mod sync;
#[allow(unsafe_code)] // system calls
mod sys;
mod uri;
pub mod wire;
mod writer;

pub use beside::{SOCKET_PATH_MAX, socket_beside};
pub use config::{Server, ServerBuilder};
pub use conn::ConnectionInfo;
pub use error::ServerError;
pub use export::{
    Base, Change, Completion, Export, ExportError, Exports, Extent, Request, Response,
};
pub use limits::Limits;
pub use listen::{Listener, inherited_listeners};
pub use pool::{PoolExports, exports_of};
pub use server::ServerHandle;
