//! Where to listen.

use cow_nbd::SOCKET_PATH_MAX;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

/// A place to listen at.
#[derive(Debug, PartialEq, Eq)]
pub enum Listen {
    /// A unix socket.
    Unix(PathBuf),
    /// TCP: one address for each that the name stands for.
    Tcp(Vec<SocketAddr>),
}

impl Listen {
    /// Parses `unix:PATH` or `tcp:HOST:PORT`.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            if path.len() > SOCKET_PATH_MAX {
                return Err(format!(
                    "{path}: the path of a unix socket has at most {SOCKET_PATH_MAX} bytes"
                ));
            }
            return Ok(Self::Unix(path.into()));
        }
        let Some(address) = text.strip_prefix("tcp:") else {
            return Err(format!("{text:?}: an address is unix:PATH or tcp:HOST:PORT"));
        };
        let found = address.to_socket_addrs().map_err(|e| format!("tcp:{address}: {e}"))?;
        let found: Vec<_> = found.collect();
        if found.is_empty() {
            return Err(format!("tcp:{address}: no such host"));
        }
        Ok(Self::Tcp(found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_parsed() {
        assert_eq!(Listen::parse("unix:/a b"), Ok(Listen::Unix("/a b".into())));
        let local = Listen::Tcp(vec!["127.0.0.1:10809".parse().unwrap()]);
        assert_eq!(Listen::parse("tcp:127.0.0.1:10809"), Ok(local));
        assert!(matches!(Listen::parse("tcp:[::1]:0"), Ok(Listen::Tcp(_))));
        for bad in ["", "unix:", "/a", "tcp:", "tcp:127.0.0.1", "tcp:127.0.0.1:99999", "udp:a:1"] {
            assert!(Listen::parse(bad).is_err(), "{bad}");
        }
        assert!(Listen::parse(&format!("unix:/{}", "x".repeat(107))).is_err());
    }
}
