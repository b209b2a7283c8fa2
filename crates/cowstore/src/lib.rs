//! cowstore: a pool of virtual disks with constant-time snapshots, embedded in your program.
//!
//! A [`Pool`] is one file or block device. In it are volumes; a [`Volume`] is read and written at
//! any offset and length, by blocking calls, by futures (of no particular runtime), or by
//! [`Export::submit`] with a callback, which is what servers use. Snapshots, clones, rollbacks and
//! deletes take constant time, whatever the size.
//!
//! ```
//! # fn main() -> Result<(), cowstore::Error> {
//! # let dir = std::env::temp_dir().join(format!("cowstore-doc-lib-{}", std::process::id()));
//! # std::fs::create_dir_all(&dir).unwrap();
//! use cowstore::{CreateOptions, Pool, RollbackOptions, SnapshotOptions};
//!
//! let pool = Pool::create(dir.join("pool.cow"), &CreateOptions::with_size(256 << 20))?;
//! pool.create_volume("vm", 10 << 30, &[])?;
//! {
//!     let vm = pool.volume("vm")?;
//!     vm.write_at(b"good", 1_000_000)?;
//!     pool.snapshot(&["vm@good"], SnapshotOptions::default())?;
//!     vm.write_at(b"evil", 1_000_000)?;
//! }
//! pool.rollback(&["vm@good"], RollbackOptions::default())?;
//!
//! let mut bytes = [0; 4];
//! pool.volume("vm")?.read_at(&mut bytes, 1_000_000)?;
//! assert_eq!(&bytes, b"good");
//! pool.undo("vm", false)?; // a rollback destroys nothing
//! pool.volume("vm")?.read_at(&mut bytes, 1_000_000)?;
//! assert_eq!(&bytes, b"evil");
//! pool.close()?;
//! # std::fs::remove_dir_all(&dir).unwrap();
//! # Ok(())
//! # }
//! ```
//!
//! # What is promised
//!
//! A write is durable after the next flush; a crash loses no acknowledged flush, and of what was
//! not flushed it leaves a prefix, over all volumes of the pool. Snapshots, rollbacks and all
//! other verbs are durable when they return. Data that is not what was written is never
//! returned: that is [`Error::Corrupt`].
//!
//! # Several processes
//!
//! One process writes a pool, or several read it. Others reach the one that has it open through
//! its control socket ([`control`]); [`open_manage`] hides the difference. [`transfer`] moves raw
//! disk images in and out.
//!
//! # The house
//!
//! ```text
//!   connect                       a pool, here or in another process
//!   control, dispatch, manage     verbs over a socket; carried out; what they are
//!   transfer                      import and export
//!   pool, verbs, diff, volume     what callers hold
//!   roots                         content roots, and comparing by them
//!   scrub, scrub_page             everything read and compared with its checksums, step by step
//!   pieces, handle, core          large requests, exports, and what they share
//!   queue, completion             the way to the reactor and back
//!   reactor, bypass               cow-engine over cow-io, on one thread
//!   create, runtime, identity     files: making a pool, who has one, who it is
//!   options, types, events, error, sys    what the others speak in
//! ```
//!
//! Who may call it: front ends and programs. Below it are `cow-engine`, which decides, and
//! `cow-io`, which does.
#![deny(unsafe_code)]

mod bypass;
mod completion;
mod connect;
pub mod control;
mod core;
mod create;
mod diff;
mod dispatch;
mod error;
mod events;
#[cfg(test)]
mod fake;
mod handle;
mod identity;
mod linger;
mod manage;
mod options;
mod pace;
mod pieces;
mod pool;
mod queue;
mod reactor;
#[cfg(test)]
mod reactor_tests;
mod roots;
pub mod runtime;
mod scrub;
mod scrub_page;
mod source;
mod sync;
#[allow(unsafe_code)] // system calls
mod sys;
#[cfg(test)]
mod tests;
pub mod transfer;
mod types;
mod verbs;
mod volume;

#[cfg(test)]
extern crate self as cowstore;

pub use crate::core::{OpFuture, VolumeChange};
pub use connect::open_manage;
pub use cow_engine::{AckMode, DiffQuery, DiffSide, Extent, NewVolume, Op, PropEdit, Reply};
pub use cow_format::{BLOCK_SIZE, Buf, BufPool, BufSlice, NodeId};
pub use cow_io::{DirectMode, DriverChoice, DriverOptions, Message};
pub use diff::{Change, Changes, DiffOptions};
pub use error::{Error, SpaceKind};
pub use events::{PoolEvent, SpaceLevel};
pub use identity::Identity;
pub use manage::{Answer, ExportInfo, Manage, MountHost, Verb};
pub use options::{CreateOptions, Memory, OpenOptions};
pub use pieces::IoFuture;
pub use pool::Pool;
pub use roots::{Compared, verify};
pub use scrub::{SCRUB, ScrubOptions, scrub, scrub_kept};
pub use scrub_page::{Damage, ScrubPage, Scrubbed};
pub use source::{Source, Taken};
pub use types::{
    Consistency, ContentRoot, DeleteOptions, DiffPage, Kept, NodeInfo, NodeKind, PoolInfo, Props,
    RollbackOptions, SetSize, SnapshotOptions, Stats,
};
pub use volume::{Export, Request, Response, Snapshot, Volume};
