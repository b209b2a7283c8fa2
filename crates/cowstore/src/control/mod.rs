//! The control socket of a pool: how other processes manage a pool that one has open.
//!
//! A unix stream socket beside the holder's registry entry ([`crate::runtime`]), mode 0600; the
//! peer must be the same user, or root, which the kernel tells (`SO_PEERCRED`).
//!
//! ```text
//!   frame  := length u32 little-endian (at most 1 MiB) | that many bytes of JSON
//!
//!   client                                   server
//!   {"hello":{"protocol","version","uuid"}} ─►
//!                                          ◄─ {"hello":{...}}  or  {"error":{...}}
//!   {"verb":"snapshot",...} (+ descriptor) ─►
//!                                          ◄─ {"progress":{...}}   any number
//!                                          ◄─ {"progress":{"is_last":true,...}}
//!   {"go_on":true}                         ─►   once, to this one
//!                                          ◄─ {"part":"..."}       of an answer that is longer
//!                                          ◄─ {"ok":...}  or  {"error":{...}}
//!   the next verb ...
//! ```
//!
//! The protocol number changes when an old peer could misunderstand; then both refuse and name
//! both numbers. Otherwise the protocol grows: unknown fields are ignored, unknown verbs are
//! answered with `unsupported`. A long answer is cut into `part`s, pieces of its JSON text; the
//! last frame is then `{"ok":null}`.
//!
//! A file (of an import or export) is passed as a descriptor (`SCM_RIGHTS`) with the frame of
//! its verb. The client has opened it, so its permissions count. When the client goes away, what
//! it asked for is given up: before an import or export is made to count, the client must say
//! `go_on`, for a stream may have ended only because its writer and the client were both killed.

mod client;
mod compared;
mod frame;
mod server;
mod wire;

pub use crate::dispatch::Host;
pub use client::ControlClient;
pub use frame::Reader as FrameReader;
pub use server::ControlServer;
pub use wire::parse_verb;

/// The number of this protocol.
pub const PROTOCOL: u32 = 1;
/// Longest frame in bytes, its length not counted.
pub const FRAME_MAX_BYTES: usize = 1 << 20;
