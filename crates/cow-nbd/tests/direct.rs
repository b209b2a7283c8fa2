//! What `it` has, with a storage whose thread reads and answers requests by itself (`mem::DIRECT`).
// The lint knows functions marked as tests, not what they call.
#![allow(clippy::expect_used)]

#[path = "it/client.rs"]
mod client;
#[path = "it/handshake.rs"]
mod handshake;
#[path = "it/hostile.rs"]
mod hostile;
#[path = "it/mem.rs"]
mod mem;
#[path = "it/random.rs"]
mod random;
#[path = "it/requests.rs"]
mod requests;
#[path = "it/server.rs"]
mod server;
#[path = "it/switch.rs"]
mod switch;
#[path = "it/tools.rs"]
mod tools;
