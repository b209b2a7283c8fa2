//! The server as clients see it: raw sockets that break every rule, and the tools that people use.
// The lint knows functions marked as tests, not what they call.
#![allow(clippy::expect_used)]

mod client;
mod handshake;
mod hostile;
mod mem;
mod random;
mod requests;
mod server;
mod switch;
mod tools;
