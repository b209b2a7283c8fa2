//! Places where a test can hold the process, to kill it there or to see what others do meanwhile.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

/// Waits here, if `COWCTL_STOP_AT` is this step: having created the file that `COWCTL_STOP_FILE`
/// names, until that is gone. In builds with debug assertions alone.
pub fn reached(step: &str) {
    if !cfg!(debug_assertions) || std::env::var_os("COWCTL_STOP_AT").is_none_or(|at| at != step) {
        return;
    }
    let Some(file) = std::env::var_os("COWCTL_STOP_FILE").map(PathBuf::from) else { return };
    if let Err(error) = std::fs::write(&file, step) {
        tracing::error!(%error, "the file of the stop cannot be written");
    }
    while file.exists() {
        thread::sleep(Duration::from_millis(10));
    }
}
