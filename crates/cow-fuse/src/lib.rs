//! A FUSE file system that shows every volume of a pool as a file `VOL` and every snapshot as
//! `VOL@SNAP`, and what it takes to serve block devices to one's own host with it.
//!
//! It knows the kernel's protocol (through `fuser`, without libfuse) and of the storage a
//! [`cowstore::Pool`]. Programs that serve volumes call it; nothing below it may.
//!
//! ```text
//!   mount        a mounted pool, and its end          mountinfo  what is mounted on this machine
//!   device       requests as they come from the kernel: reads, writes and flushes go to the pool
//!   ├ wire       the kernel's protocol, as far as these need it
//!   ├ transfer   what moves data: handed to the pool, answered from its reactor
//!   ├ answer     the way back: collected, and written together
//!   └ bridge     all other requests, on their way to fuser
//!   fs           those, taken apart
//!   names        those about names and attributes, on a thread of their own
//!   handles      what is open                         errno      errors as the kernel knows them
//!   loops        block devices over files of a mount  freeze     of the file systems on them
//!   protect      not deadlocking with memory reclaim  sys        the unsafe system calls
//! ```
//!
//! # Who waits for whom
//!
//! The pool's reactor reads the kernel's requests itself ([`cowstore::Source`]) and never waits for
//! any. What moves data is submitted there and answered when it is done, so that as many are in
//! flight as the kernel sends; one about names goes by way of `fuser` to a thread that may block.
//! A process never opens, looks up or measures a file of its own mount: if it were killed while it
//! waits for itself, nobody would be left to answer. Whoever configures a loop device over a file of
//! the mount is therefore another process than the one that serves it.
#![deny(unsafe_code)]

mod answer;
mod bridge;
mod device;
mod errno;
pub mod freeze;
mod fs;
mod handles;
pub mod loops;
mod mount;
pub mod mountinfo;
mod names;
pub mod protect;
#[allow(unsafe_code)] // system calls
mod sys;
mod transfer;
mod wire;

pub use mount::{Ended, Mount, is_dead, release_stale, unmount};
pub use names::inode_of;
