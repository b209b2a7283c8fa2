//! Devices over volumes of this process follow what becomes of those, whoever changes them.
//!
//! To have a device take over a new size makes the kernel ask for it, and a process that waits for
//! itself could not be killed: so another process, this program once more, does that.

use crate::failure::Failure;
use cowstore::Pool;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;

/// Follows the changes of `pool` as long as it is there. `may_be_attached` is asked each time: where
/// nothing is attached nothing is done.
pub fn start(
    pool: &Arc<Pool>,
    may_be_attached: impl Fn() -> bool + Send + 'static,
) -> Result<(), Failure> {
    let (tell, told) = channel();
    // The receiver is gone only when the process ends.
    pool.on_change(move |_| tell.send(()).unwrap_or_default());
    let path: PathBuf = pool.path().into();
    let run = move || {
        while told.recv().is_ok() {
            // One look sees all that has changed until then.
            while told.try_recv().is_ok() {}
            if may_be_attached() {
                follow(&path);
            }
        }
    };
    let started = thread::Builder::new().name("cow-follow".into()).spawn(run);
    started.map(drop).map_err(|e| Failure::Failed(format!("cannot start a thread: {e}")))
}

fn follow(pool: &Path) {
    let run = |program| {
        let mut command = Command::new(program);
        command.arg("-p").arg(pool).arg("attach-follow");
        command.stdin(Stdio::null()).stdout(Stdio::null()).status()
    };
    match std::env::current_exe().and_then(run) {
        Ok(status) if status.success() => {}
        Ok(status) => tracing::warn!(%status, "what is attached may not have followed a change"),
        Err(error) => tracing::warn!(%error, "what is attached has not followed a change"),
    }
}
