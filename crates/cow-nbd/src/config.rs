//! What a server shall be: its sockets and limits, checked before anything starts.

use crate::error::ServerError;
use crate::export::Exports;
use crate::limits::Limits;
use crate::listen::{self, Endpoint, Listener};
use crate::server::{self, ServerHandle};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

/// What a server shall be.
#[derive(Debug, Default)]
pub struct ServerBuilder {
    unix: Vec<PathBuf>,
    tcp: Vec<SocketAddr>,
    inherited: Vec<Listener>,
    insecure: bool,
    limits: Limits,
}

/// An NBD server.
pub struct Server;

impl Server {
    /// Describes a server to be started.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }
}

impl ServerBuilder {
    /// Listens on a Unix socket at `path`, for the user that runs the server alone.
    #[must_use]
    pub fn unix(mut self, path: impl Into<PathBuf>) -> Self {
        self.unix.push(path.into());
        self
    }

    /// Listens on a TCP address; port 0 takes a free one.
    #[must_use]
    pub fn tcp(mut self, address: SocketAddr) -> Self {
        self.tcp.push(address);
        self
    }

    /// Listens on a socket that somebody else has made; see [`crate::inherited_listeners`].
    #[must_use]
    pub fn fd(mut self, listener: impl Into<Listener>) -> Self {
        self.inherited.push(listener.into());
        self
    }

    /// Permits TCP addresses that other hosts can reach. There is no encryption and no password.
    #[must_use]
    pub fn insecure(mut self, permitted: bool) -> Self {
        self.insecure = permitted;
        self
    }

    /// Replaces all limits.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Starts the server.
    ///
    /// # Errors
    /// When a socket cannot be made or is not permitted; nothing is left behind then.
    pub fn start(self, exports: Arc<dyn Exports>) -> Result<ServerHandle, ServerError> {
        let mut listeners = Vec::new();
        let mut endpoints = Vec::new();
        let mut files = Vec::new();
        for listener in self.inherited {
            endpoints.push(listener.endpoint().map_err(ServerError::Start)?);
            listeners.push(listener);
        }
        for &address in &self.tcp {
            check_reachable(address, self.insecure)?;
            let listener = TcpListener::bind(address)
                .map_err(|source| ServerError::Bind { address: address.to_string(), source })?;
            let listener = Listener::from(listener);
            endpoints.push(listener.endpoint().map_err(ServerError::Start)?);
            listeners.push(listener);
        }
        for endpoint in &endpoints {
            if let Endpoint::Tcp(address) = endpoint {
                check_reachable(*address, self.insecure)?;
            }
        }
        for path in &self.unix {
            let (listener, path, file) = listen::bind_unix(path)?;
            listeners.push(listener.into());
            endpoints.push(Endpoint::Unix(path));
            files.push(file);
        }
        if listeners.is_empty() {
            return Err(ServerError::NoListener);
        }
        server::launch(listeners, endpoints, files, exports, self.limits)
            .map_err(ServerError::Start)
    }
}

fn check_reachable(address: SocketAddr, insecure: bool) -> Result<(), ServerError> {
    if insecure || address.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    Err(ServerError::Insecure { address })
}
