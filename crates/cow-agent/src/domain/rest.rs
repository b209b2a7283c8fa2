//! What is done after the answer.

use parking_lot::Mutex;
use std::sync::Arc;
use std::thread;

/// Does the rest of something on a thread of its own; at once where there is none to be had.
pub(super) fn afterwards(rest: impl FnOnce() + Send + 'static) {
    let ours = Arc::new(Mutex::new(Some(rest)));
    let theirs = ours.clone();
    let run = move || {
        let rest = theirs.lock().take();
        if let Some(rest) = rest {
            rest();
        }
    };
    if let Err(error) = thread::Builder::new().name("agent-rest".into()).spawn(run) {
        tracing::warn!(%error, "no thread to be had");
        let rest = ours.lock().take();
        if let Some(rest) = rest {
            rest();
        }
    }
}
