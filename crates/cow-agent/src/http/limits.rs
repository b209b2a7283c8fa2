//! How much one client may ask for, so that it harms nobody else.

use std::time::Duration;

/// What the REST interface allows. The defaults are meant to be kept; tests shorten them.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once; the next ones wait to be accepted.
    pub connections: usize,
    /// Longest time from an idle connection, or the last answer, to the end of the next head. It
    /// is how long a connection may be idle, too.
    pub head_time: Duration,
    /// Bytes of a head: request line and fields.
    pub head_bytes: usize,
    /// Fields of a head.
    pub head_fields: usize,
    /// Bytes of a body.
    pub body_bytes: usize,
    /// Longest time from the end of a head to the end of its body.
    pub body_time: Duration,
    /// Longest time that a client may take to read an answer.
    pub answer_time: Duration,
    /// Longest time that is spent on what a client still sends after its last answer.
    pub linger_time: Duration,
    /// Longest time that answers get when the agent ends.
    pub shutdown_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 512,
            head_time: Duration::from_secs(10),
            head_bytes: 32 << 10,
            head_fields: 100,
            body_bytes: 64 << 10,
            body_time: Duration::from_secs(30),
            answer_time: Duration::from_secs(30),
            linger_time: Duration::from_secs(2),
            shutdown_time: Duration::from_secs(10),
        }
    }
}
