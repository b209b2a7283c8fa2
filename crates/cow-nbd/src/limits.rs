//! What clients may cost.

use std::time::Duration;

/// What clients may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at the same time; further ones are closed at once.
    pub connections: usize,
    /// Time for the whole negotiation.
    pub handshake_timeout: Duration,
    /// Time that a client which has left, or is made to, gets to take each batch of answers.
    pub drain_timeout: Duration,
    /// Requests in flight per connection.
    pub requests_in_flight: usize,
    /// Bytes of payload in flight per connection. A single request may exceed it.
    pub bytes_in_flight: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            handshake_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(5),
            requests_in_flight: 1024,
            bytes_in_flight: 64 << 20,
        }
    }
}
