//! Places where a test can stop the process, to kill it there.

use std::thread;
use std::time::Duration;

/// Stops here for ever, having created the file that `COW_AGENT_STOP_FILE` names, if
/// `COW_AGENT_STOP_AT` is this step. In builds with debug assertions alone.
pub(super) fn reached(step: &str) {
    if !cfg!(debug_assertions) || std::env::var_os("COW_AGENT_STOP_AT").is_none_or(|at| at != step)
    {
        return;
    }
    if let Some(file) = std::env::var_os("COW_AGENT_STOP_FILE")
        && let Err(error) = std::fs::write(&file, step)
    {
        tracing::error!(%error, "the file of the stop cannot be written");
    }
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}
