//! The signals that ask a process to end.

use crate::failure::Failure;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
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

/// From now on the first of them only sets the flag. The second ends the process, unless `always`.
pub fn hold(always: bool) -> Result<Arc<AtomicBool>, Failure> {
    let came = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // In this order: the default is taken when the flag was set before.
        let second = if always {
            Ok(())
        } else {
            flag::register_conditional_default(signal, came.clone()).map(drop)
        };
        second
            .and_then(|()| flag::register(signal, came.clone()))
            .map_err(|e| Failure::Failed(format!("cannot catch signals: {e}")))?;
    }
    Ok(came)
}
