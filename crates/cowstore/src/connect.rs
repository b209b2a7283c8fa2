//! A pool to be managed, wherever it is open: [`open_manage`].

use crate::control::ControlClient;
use crate::error::Error;
use crate::manage::Manage;
use crate::options::OpenOptions;
use crate::pool::Pool;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// How long [`open_manage`] tries to reach a pool whose holder does not answer: it may be about
/// to start, or to end.
const PATIENCE: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(50);

/// Opens the pool at `path`, or, when another process has it, connects to that.
///
/// # Errors
/// `Busy` when another process has it and cannot be talked to.
pub fn open_manage(
    path: impl AsRef<Path>,
    options: &OpenOptions,
) -> Result<Box<dyn Manage>, Error> {
    let path = path.as_ref();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let busy = match Pool::open(path, options) {
            Ok(pool) => return Ok(Box::new(pool)),
            Err(Error::Busy(text)) => Error::Busy(text),
            Err(other) => return Err(other),
        };
        match ControlClient::connect(path) {
            Ok(client) => return Ok(Box::new(client)),
            // It answers, and says no: waiting does not help.
            Err(error @ Error::Unsupported(_)) => return Err(error),
            Err(_) if Instant::now() < deadline => thread::sleep(PAUSE),
            Err(_) => return Err(busy),
        }
    }
}
