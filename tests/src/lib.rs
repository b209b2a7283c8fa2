//! Shared helpers of the end-to-end tests: real processes, a directory of their own for each
//! test, and what it takes to look at them. For tests alone: what goes wrong here panics.
#![allow(clippy::unwrap_used, clippy::expect_used)]
#![forbid(unsafe_code)]

mod agent;
mod attached;
pub mod control;
mod dump;
mod guest;
pub mod hooked;
pub mod http;
mod images;
mod load;
mod mounted;
mod nbd;
pub mod numbered;
mod place;
pub mod postgres;
pub mod seeds;
mod server;
pub mod shim;
mod tools;

pub use agent::{Agent, configure, quickstart, resembles};
pub use attached::{Attached, MountedFs, have_loops};
pub use dump::leaf_of;
pub use guest::{Guest, GuestFiles, Initramfs};
pub use images::{file_hash, hash, pattern, sparse_image};
pub use load::{Load, write_synced};
pub use mounted::{Mounted, have_fuse};
pub use nbd::Client;
pub use place::{Outcome, Place, cowctl};
pub use server::Server;
pub use tools::{children, have, is_root, path_of, run, run_ok, signal, wait_until};
