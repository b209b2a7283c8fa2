//! Why a server cannot start.

use std::io;
use std::net::SocketAddr;
use thiserror::Error;

/// Why a server cannot start.
#[derive(Debug, Error)]
pub enum ServerError {
    /// No socket was asked for.
    #[error("no socket to listen on")]
    NoListener,
    /// The socket cannot be made.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// Where.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// Another server listens there.
    #[error("a server is already listening on {address}")]
    InUse {
        /// Where.
        address: String,
    },
    /// Something else than a socket is there, and is left alone.
    #[error("{address} exists and is not a socket")]
    NotASocket {
        /// Where.
        address: String,
    },
    /// Others on the network could connect, which nobody has permitted.
    #[error(
        "{address} can be reached from the network, without encryption or passwords; \
         this must be permitted explicitly"
    )]
    Insecure {
        /// The address.
        address: SocketAddr,
    },
    /// A descriptor from the process that started this one is of no use.
    #[error("inherited descriptor {fd}: {source}")]
    Inherited {
        /// The descriptor.
        fd: i32,
        /// What is wrong with it.
        source: io::Error,
    },
    /// The system has no thread or descriptor for the server.
    #[error("cannot start the server: {0}")]
    Start(#[source] io::Error),
}
