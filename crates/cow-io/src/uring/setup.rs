//! Getting a ring from the kernel: the best flags first, older ones where those are refused.
//!
//! With `SINGLE_ISSUER` a ring belongs to the thread that *enables* it. Rings are therefore
//! created disabled, so that a driver can be opened in one thread and used in another.

use crate::image::Image;
use io_uring::{IoUring, Probe, opcode};
use std::io;
use std::os::fd::AsRawFd;

/// A ring from the kernel, with the image as its registered file 0.
pub(super) struct NewRing {
    pub(super) ring: IoUring,
    /// Whether it must be enabled by the thread that is to use it.
    pub(super) is_disabled: bool,
}

/// What is asked for.
#[derive(Clone, Copy)]
enum Flags {
    /// 6.1: completions are handled when we ask, in our own thread.
    Deferred,
    /// 6.0: one thread, no interruption by completions.
    Single,
    /// 5.19: no interruption by completions.
    Cooperative,
    /// What every kernel has.
    Plain,
}

/// Sets a ring up, and registers the image's file.
pub(super) fn open(image: &Image, entries: u32) -> io::Result<NewRing> {
    let mut refusal = io::Error::from_raw_os_error(libc::EINVAL);
    for flags in [Flags::Deferred, Flags::Single, Flags::Cooperative, Flags::Plain] {
        match build(flags, entries) {
            Ok(new) => {
                require(&new.ring)?;
                let files = [image.file().as_raw_fd()];
                let result = new.ring.submitter().register_files(&files);
                result.map_err(|e| because("registering the file", e))?;
                return Ok(new);
            }
            // Unknown flags are invalid; everything else is a refusal of rings altogether.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => refusal = error,
            Err(error) => return Err(because("io_uring_setup", error)),
        }
    }
    Err(because("io_uring_setup", refusal))
}

fn build(flags: Flags, entries: u32) -> io::Result<NewRing> {
    let mut builder = IoUring::builder();
    builder.setup_clamp();
    let is_disabled = match flags {
        Flags::Deferred | Flags::Single => {
            builder.setup_r_disabled().setup_single_issuer().setup_submit_all();
            builder.setup_coop_taskrun().setup_taskrun_flag();
            if matches!(flags, Flags::Deferred) {
                builder.setup_defer_taskrun();
            }
            true
        }
        Flags::Cooperative => {
            builder.setup_coop_taskrun().setup_taskrun_flag();
            false
        }
        Flags::Plain => false,
    };
    let ring = builder.build(entries.clamp(2, 1 << 15))?;
    Ok(NewRing { ring, is_disabled })
}

/// Refuses kernels that lack what the driver counts on (all of it is in 5.11).
fn require(ring: &IoUring) -> io::Result<()> {
    let unsupported = |what: &str| Err(io::Error::new(io::ErrorKind::Unsupported, what.to_owned()));
    if !ring.params().is_feature_nodrop() {
        return unsupported("io_uring: the kernel drops completions");
    }
    if !ring.params().is_feature_ext_arg() {
        return unsupported("io_uring: the kernel cannot wait with a timeout");
    }
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(|e| because("io_uring probe", e))?;
    let needed = [
        opcode::Read::CODE,
        opcode::Write::CODE,
        opcode::Writev::CODE,
        opcode::Fsync::CODE,
        opcode::Fallocate::CODE,
        opcode::PollAdd::CODE,
    ];
    if !needed.iter().all(|&code| probe.is_supported(code)) {
        return unsupported("io_uring: the kernel lacks an operation");
    }
    Ok(())
}

fn because(what: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}
