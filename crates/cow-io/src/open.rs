//! The choice of a driver.

use crate::arena::Arena;
use crate::driver::Driver;
use crate::image::Image;
use crate::threads::ThreadDriver;
use crate::uring::UringDriver;
use std::io;

/// Which driver to open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DriverChoice {
    /// io_uring, and threads where the kernel refuses it.
    #[default]
    Auto,
    /// io_uring, or an error.
    Uring,
    /// A pool of threads.
    Threads,
}

/// The sizes of a driver.
#[derive(Clone, Debug)]
pub struct DriverOptions {
    /// How many requests the ring has under way at once; more wait in the driver. Rounded up to
    /// a power of two.
    pub ring_entries: u32,
    /// How many threads the pool has, and so how many requests it has under way at once.
    pub threads: usize,
    /// How large the arena is that [`Driver::buffers`] come from, in bytes. What it has no room
    /// for is ordinary memory; all is, if this is less than 2 MiB.
    pub buffer_bytes: usize,
    /// Whether the ring registers the arena's buffers with the kernel.
    pub fixed_buffers: bool,
}

impl Default for DriverOptions {
    fn default() -> Self {
        Self { ring_entries: 256, threads: 4, buffer_bytes: 64 << 20, fixed_buffers: true }
    }
}

/// Opens a driver on `image`.
///
/// # Errors
/// With [`DriverChoice::Uring`] what the kernel says against it; else only a lack of threads.
pub fn open_driver(
    image: Image,
    choice: DriverChoice,
    options: &DriverOptions,
) -> io::Result<Box<dyn Driver>> {
    let arena = Arena::new(options.buffer_bytes).unwrap_or_else(|error| {
        tracing::warn!(%error, "no arena for buffers, using ordinary memory");
        None
    });
    let mut reason = None;
    if choice != DriverChoice::Threads {
        match UringDriver::open(image.clone(), options.ring_entries) {
            Ok(mut driver) => {
                if let Some(arena) = arena {
                    driver.use_arena(&arena, options.fixed_buffers);
                }
                return Ok(Box::new(driver));
            }
            Err(error) if choice == DriverChoice::Uring => return Err(error),
            Err(error) => {
                tracing::warn!(%error, "io_uring is not available, using threads");
                reason = Some(error.to_string());
            }
        }
    }
    let mut driver = ThreadDriver::open(image, options.threads, reason)?;
    if let Some(arena) = arena {
        driver.use_arena(&arena);
    }
    Ok(Box::new(driver))
}
