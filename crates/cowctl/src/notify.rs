//! Tells systemd how the service is, if it wants to know.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Sends `state` to where `NOTIFY_SOCKET` points. A service manager that does not listen is no
/// reason to fail.
pub fn systemd(state: &str) {
    let Some(target) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let address = match target.as_bytes().split_first() {
        Some((b'@', name)) => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(&target),
    };
    let sent = address.and_then(|address| {
        UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(|_| ())
    });
    if let Err(error) = sent {
        tracing::debug!(%error, "the service manager was not told {state}");
    }
}
