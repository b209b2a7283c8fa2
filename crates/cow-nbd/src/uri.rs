//! Addresses in the form that NBD clients take on their command line.

use crate::listen::Endpoint;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;

/// The URI of `export` at `endpoint`, if clients can reach it by a URI at all.
pub(crate) fn uri(endpoint: &Endpoint, export: &str) -> Option<String> {
    let name = escape(export.as_bytes(), b"@");
    match endpoint {
        Endpoint::Unix(path) => {
            let path = escape(path.as_os_str().as_bytes(), b"/");
            Some(format!("nbd+unix:///{name}?socket={path}"))
        }
        Endpoint::Tcp(address) => Some(format!("nbd://{}/{name}", reachable(*address))),
        Endpoint::Unnamed => None,
    }
}

/// A socket bound to every address is shown with one that works on this host.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn escape(bytes: &[u8], allowed: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for &byte in bytes {
        let plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if plain || allowed.contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unix_paths_and_names_are_escaped() {
        let endpoint = Endpoint::Unix("/run/a b/n&d?.sock".into());
        assert_eq!(
            uri(&endpoint, "vol 1@sn/ap").as_deref(),
            Some("nbd+unix:///vol%201@sn%2Fap?socket=/run/a%20b/n%26d%3F.sock")
        );
    }

    #[test]
    fn tcp_addresses_have_a_port_and_brackets() {
        let uri_at = |text: &str| uri(&Endpoint::Tcp(text.parse().expect("address")), "v");
        assert_eq!(uri_at("127.0.0.1:10809").as_deref(), Some("nbd://127.0.0.1:10809/v"));
        assert_eq!(uri_at("[::1]:7").as_deref(), Some("nbd://[::1]:7/v"));
        assert_eq!(uri_at("0.0.0.0:7").as_deref(), Some("nbd://127.0.0.1:7/v"));
    }
}
