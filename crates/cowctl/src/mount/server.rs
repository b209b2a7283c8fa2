//! A process that has a pool open for its mounts, and for what is attached, alone.

use super::host::{Hosted, Mounts, OnEmpty};
use crate::failure::Failure;
use crate::nbd_devices;
use crate::notify;
use crate::output;
use crate::signals;
use cow_nbd::{PoolExports, Server, ServerHandle, exports_of};
use cowstore::control::{ControlServer, Host};
use cowstore::{Pool, runtime};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// How often those who may have kept the process are looked for.
const LOOK: Duration = Duration::from_secs(5);

/// Why it wakes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wake {
    /// A signal, or a request over the control socket.
    Stop,
    /// The last mount has ended.
    Empty,
}

/// Mounts `pool` at `dir` (or where `attach` wants it) and serves it until it is unmounted, or a
/// signal comes; one that comes while something is open there is refused, the second is not. For
/// `attach` it serves NBD too, on a socket beside the control socket; with `nbd` that is what it
/// begins with, and it mounts the pool when that is asked for.
pub fn run(pool: &Arc<Pool>, dir: Option<&Path>, nbd: bool) -> Result<(), Failure> {
    let fail = Failure::of(pool.path());
    let (wake, woken) = channel();
    signals::watch(wake.clone(), Wake::Stop)?;
    let empty = wake.clone();
    // Nobody listens when it is ending already.
    let end = move || {
        let _ = empty.send(Wake::Empty);
    };
    let nbd_server = if dir.is_none() { serve_nbd(pool, nbd)? } else { None };
    let clients = nbd_server.clone();
    let is_busy = move || clients.as_ref().is_some_and(|nbd| !nbd.connections().is_empty());
    let on_empty = OnEmpty { is_busy: Box::new(is_busy), end: Box::new(end) };
    let mounts = Mounts::new(pool, Some(on_empty))?;
    let shutdown = move || {
        let _ = wake.send(Wake::Stop);
    };
    let (weak, served) = (Arc::downgrade(pool), nbd_server.clone());
    let exports = move || match (weak.upgrade(), &served) {
        (Some(pool), Some(server)) => exports_of(&pool, server),
        _ => Vec::new(),
    };
    let host = Host {
        exports: Some(Arc::new(exports)),
        shutdown: Some(Arc::new(shutdown)),
        mounts: Some(Arc::new(Hosted(mounts.clone()))),
    };
    let control = ControlServer::start(pool.clone(), host).map_err(&fail)?;
    let at = match nbd {
        true => nbd_socket(pool)?,
        false => mounts.add(dir).map_err(&fail)?,
    };
    output::line(ready(pool.path(), &at, std::process::id()))?;
    notify::systemd("READY=1");
    let mut asked = 0;
    loop {
        match woken.recv_timeout(LOOK) {
            Ok(Wake::Stop) => asked += 1,
            Err(RecvTimeoutError::Timeout) => {
                mounts.look();
                continue;
            }
            _ => break,
        }
        if mounts.end_all(asked) && (asked > 1 || !nbd_devices::keep_server(pool.identity())) {
            break;
        }
    }
    notify::systemd("STOPPING=1");
    if let Some(server) = nbd_server {
        server.shutdown();
    }
    control.stop();
    Ok(())
}

fn nbd_socket(pool: &Pool) -> Result<PathBuf, Failure> {
    runtime::path_of(pool.identity(), "nbd.sock").map_err(Failure::of(pool.path()))
}

/// Starts the NBD server for what is attached, which is no failure where only a mount is asked for.
fn serve_nbd(pool: &Arc<Pool>, is_asked: bool) -> Result<Option<Arc<ServerHandle>>, Failure> {
    let exports = Arc::new(PoolExports::new(pool.clone()));
    match Server::builder().unix(nbd_socket(pool)?).start(exports) {
        Ok(server) => Ok(Some(Arc::new(server))),
        Err(error) if is_asked => Err(Failure::Failed(error.to_string())),
        Err(error) => {
            tracing::warn!(%error, "no NBD for what is attached");
            Ok(None)
        }
    }
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
