//! The signals that end a server.

use crate::failure::Failure;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::sync::mpsc::Sender;
use std::thread;

/// Sends a copy of `message` for each signal that asks this process to end, as long as anybody
/// takes them.
pub fn watch<M: Clone + Send + 'static>(stop: Sender<M>, message: M) -> Result<(), Failure> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])
        .map_err(|e| Failure::Failed(format!("cannot catch signals: {e}")))?;
    let watch = move || {
        // The second signal finds nobody waiting, and does no harm.
        while signals.forever().next().is_some() && stop.send(message.clone()).is_ok() {}
    };
    let thread = thread::Builder::new().name("signals".into()).spawn(watch);
    thread.map(|_| ()).map_err(|e| Failure::Failed(format!("cannot start a thread: {e}")))
}
