//! A FUSE file system that shows every volume of a pool as a file `VOL` and every snapshot as
//! `VOL@SNAP`, and what it takes to serve block devices to one's own host with it.
//!
//! It knows the kernel's protocol (through `fuser`, without libfuse) and of the storage a
//! [`cowstore::Pool`]. Programs that serve volumes call it; nothing below it may.
//!
//! ```text
//!   mount        a mounted pool, and its end          mountinfo  what is mounted on this machine
//!   fs           the kernel's requests, taken apart
//!   transfer     those that move data: handed to the pool, answered from its reactor
//!   names        those about names and attributes, on a thread of their own
//!   handles      what is open                         errno      errors as the kernel knows them
//!   loops        block devices over files of a mount  freeze     of the file systems on them
//!   protect      not deadlocking with memory reclaim  sys        the unsafe system calls
//! ```
//!
//! # Who waits for whom
//!
//! The event loops never wait for the pool. A request that moves data is submitted and answered by
//! the pool's reactor when it is done, so that as many are in flight as the kernel sends; one about
//! names goes to a thread that may block. A process never opens, looks up or measures a file of its
//! own mount: if it were killed while it waits for itself, nobody would be left to answer. Whoever
//! configures a loop device over a file of the mount is therefore another process than the one
//! that serves it.
#![deny(unsafe_code)]

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

pub use mount::{Ended, Mount, MountOptions, is_dead, release_stale, unmount};
