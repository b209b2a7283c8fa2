//! cow-io: block I/O on one image, a file or a block device, behind one trait.
//!
//! Everything that the engine wants done to its image goes through a [`Driver`], as an
//! [`IoRequest`] that comes back as an [`IoDone`]. There are two drivers with the same
//! semantics: io_uring, and a pool of threads for where io_uring is refused (many containers).
//! Tools that have no event loop use the synchronous helpers of [`Image`].
//!
//! Who may call it: the reactor of `cowstore`, and the tools. The core crates may not.
//!
//! ```text
//!  open ── Driver (driver)
//!       ├─ arena                                 memory for buffers
//!       ├─ uring ── op, setup, fixed             one ring, one reactor thread
//!       │       └── watches, outgoing ── message files that requests come from, and answers
//!       ├─ threads ─┐
//!       │           pool ── blocking, op
//!       └ notify               (also the io_uring driver's helper for calls that must block)
//!  Image (image, create, direct, lock) ── sys
//!  its synchronous helpers (sync) ── blocking ── sys
//! ```
//!
//! # What is promised
//!
//! * Memory in flight belongs to the driver until its completion is taken. Dropping a driver
//!   waits for whatever the kernel still holds; requests not yet started are dropped.
//! * Short transfers, `EINTR`, `EAGAIN` and `EBUSY` are dealt with inside, but a *flush is never
//!   retried*: after a failed `fdatasync` the kernel may have marked lost pages clean, and a
//!   second call would report a success that is not one.
//! * A flush covers the writes whose completions were taken before it was submitted, and no
//!   others. Requests run in any order.
//!
//! # Buffers
//!
//! A request may be made of any [`cow_format::Buf`]. Those of [`Driver::buffers`] come from an
//! arena (`arena`) that the io_uring driver registers with the kernel (`uring::fixed`), which
//! then need not look up and pin their pages for each operation. What does not fit into the
//! arena is ordinary memory, and what is not registered goes with the plain opcodes; neither
//! makes a difference but in time.

#[cfg(not(target_os = "linux"))]
compile_error!("cow-io needs Linux: direct I/O, flock on devices, io_uring");

mod arena;
mod blocking;
mod create;
mod direct;
mod driver;
mod error;
mod image;
mod lock;
mod message;
mod notify;
mod op;
mod open;
mod pool;
mod primitives;
mod request;
mod sync;
mod sys;
mod threads;
mod uring;
mod vector;

pub use create::CreateOptions;
pub use direct::DirectMode;
pub use driver::{Driver, WatchId};
pub use error::{ImageError, IoError, OpKind};
pub use image::{Image, OpenOptions};
pub use message::Message;
pub use notify::Notifier;
pub use open::{DriverChoice, DriverOptions, open_driver};
pub use request::{IoDone, IoOp, IoRequest};
