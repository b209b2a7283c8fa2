//! A process that has a pool open for its mounts alone.

use super::host::{Hosted, Mounts};
use crate::failure::Failure;
use crate::notify;
use crate::output;
use crate::signals;
use cowstore::Pool;
use cowstore::control::{ControlServer, Host};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;

/// Why it wakes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wake {
    /// A signal, or a request over the control socket.
    Stop,
    /// The last mount has ended.
    Empty,
}

/// Mounts `pool` at `dir` (or where `attach` wants it) and serves it until it is unmounted, or a
/// signal comes; one that comes while something is open there is refused, the second is not.
pub fn run(pool: &Arc<Pool>, dir: Option<&Path>) -> Result<(), Failure> {
    let fail = Failure::of(pool.path());
    let (wake, woken) = channel();
    signals::watch(wake.clone(), Wake::Stop)?;
    let empty = wake.clone();
    // Nobody listens when it is ending already.
    let on_empty = move || {
        let _ = empty.send(Wake::Empty);
    };
    let mounts = Mounts::new(pool, Some(Box::new(on_empty)));
    let shutdown = move || {
        let _ = wake.send(Wake::Stop);
    };
    let host = Host {
        shutdown: Some(Arc::new(shutdown)),
        mounts: Some(Arc::new(Hosted(mounts.clone()))),
        ..Host::default()
    };
    let control = ControlServer::start(pool.clone(), host).map_err(&fail)?;
    let dir = mounts.add(dir).map_err(&fail)?;
    output::line(ready(pool.path(), &dir, std::process::id()))?;
    notify::systemd("READY=1");
    let mut asked = 0;
    while let Ok(Wake::Stop) = woken.recv() {
        asked += 1;
        if mounts.end_all(asked) {
            break;
        }
    }
    notify::systemd("STOPPING=1");
    control.stop();
    Ok(())
}

/// The line that says that it is mounted.
pub fn ready(pool: &Path, dir: &Path, pid: u32) -> String {
    let body = json!({
        "ready": true,
        "pid": pid,
        "pool": pool.display().to_string(),
        "dir": dir.display().to_string(),
    });
    output::with_schema("mount", body).to_string()
}
