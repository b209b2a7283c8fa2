//! `serve`: the pool over NBD, and its control socket.

mod address;

use crate::args::Serve;
use crate::failure::Failure;
use crate::mount::{Hosted, Mounts};
use crate::nbd_devices;
use crate::session::{must_exist, open_options};
use crate::signals;
use crate::{notify, output};
use address::Listen;
use cow_fuse::protect;
use cow_nbd::{PoolExports, Server, ServerError, ServerHandle, exports_of, socket_beside};
use cowstore::control::{ControlServer, Host};
use cowstore::{ExportInfo, Identity, Pool};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};

/// Serves until a signal, or a request over the control socket, ends it.
pub fn run(path: &Path, args: &Serve) -> Result<(), Failure> {
    must_exist(path)?;
    let listen = args.nbd.iter().map(|text| Listen::parse(text)).collect::<Result<Vec<_>, _>>();
    let listen = listen.map_err(Failure::Usage)?;
    let fail = Failure::of(path);
    // It may come to serve block devices to this host; before any thread is started.
    let _ = protect::mark_io_flusher();
    let pool = Pool::open(path, &open_options(args.read_only)).map_err(Failure::opening(path))?;
    let pool = Arc::new(pool);
    let served = serve(&pool, listen, args);
    // Whatever came of it, the pool is closed in good order.
    let closed = pool.shutdown().map_err(&fail);
    served.and(closed)
}

fn serve(pool: &Arc<Pool>, listen: Vec<Listen>, args: &Serve) -> Result<(), Failure> {
    let fail = Failure::of(pool.path());
    let (stop, stopped) = channel();
    signals::watch(stop.clone(), ())?;
    let nbd = Arc::new(OnceLock::new());
    let mounts = Mounts::new(pool, None)?;
    let control =
        ControlServer::start(pool.clone(), host(pool, &nbd, &mounts, stop)).map_err(&fail)?;
    let exports = Arc::new(PoolExports::new(pool.clone()));
    let mut notes = Vec::new();
    let server = start_nbd(pool.path(), control.socket(), listen, args, exports, &mut notes)?;
    let server = Arc::new(server);
    // Nobody else sets it.
    let _ = nbd.set(server.clone());
    for note in &notes {
        eprintln!("cowctl: note: {note}");
    }
    output::line(ready(pool, &server, control.socket(), &notes).to_string())?;
    notify::systemd("READY=1");
    wait(&stopped, &mounts, pool.identity());
    notify::systemd("STOPPING=1");
    server.shutdown();
    control.stop();
    Ok(())
}

/// Ends when it is told to, or told again if something of its mounts is in use, or attached.
fn wait(stopped: &Receiver<()>, mounts: &Mounts, identity: &Identity) {
    let mut asked = 0;
    // The sender is held by a thread that lives as long as the process.
    while stopped.recv().is_ok() {
        asked += 1;
        if mounts.end_all(asked) && (asked > 1 || !nbd_devices::keep_server(identity)) {
            return;
        }
    }
}

/// What the control socket needs to know of the server.
fn host(
    pool: &Arc<Pool>,
    nbd: &Arc<OnceLock<Arc<ServerHandle>>>,
    mounts: &Arc<Mounts>,
    stop: Sender<()>,
) -> Host {
    let (pool, nbd) = (Arc::downgrade(pool), nbd.clone());
    let exports = move || {
        let (Some(pool), Some(server)) = (pool.upgrade(), nbd.get()) else { return Vec::new() };
        exports_of(&pool, server)
    };
    let shutdown = move || {
        // Nobody listens when it is ending already.
        let _ = stop.send(());
    };
    Host {
        exports: Some(Arc::new(exports)),
        shutdown: Some(Arc::new(shutdown)),
        mounts: Some(Arc::new(Hosted(mounts.clone()))),
    }
}

/// Listens where the command line says; else on what the parent process passed; else on a socket
/// beside the pool.
fn start_nbd(
    pool: &Path,
    control: &Path,
    listen: Vec<Listen>,
    args: &Serve,
    exports: Arc<PoolExports>,
    notes: &mut Vec<String>,
) -> Result<ServerHandle, Failure> {
    let mut builder = Server::builder().insecure(args.insecure);
    let inherited = cow_nbd::inherited_listeners().map_err(refused)?;
    let is_silent = listen.is_empty() && inherited.is_empty();
    for listener in inherited {
        builder = builder.fd(listener);
    }
    for place in listen {
        builder = match place {
            Listen::Unix(path) => builder.unix(path),
            Listen::Tcp(addresses) => addresses.into_iter().fold(builder, |b, at| b.tcp(at)),
        };
    }
    if is_silent {
        builder = builder.unix(socket_beside(pool, control, notes));
    }
    builder.start(exports).map_err(refused)
}

fn refused(error: ServerError) -> Failure {
    match error {
        ServerError::InUse { .. } | ServerError::NotASocket { .. } => {
            Failure::Refused(error.to_string())
        }
        ServerError::Insecure { .. } => Failure::Usage(format!("{error} (--insecure)")),
        other => Failure::Failed(other.to_string()),
    }
}

/// The line that says that clients may come.
fn ready(pool: &Pool, server: &ServerHandle, control: &Path, notes: &[String]) -> Value {
    let export = |info: ExportInfo| {
        json!({
            "name": info.name,
            "uri": info.uri,
            "uris": server.uris(&info.name),
            "read_only": info.read_only,
        })
    };
    let exports: Vec<Value> = exports_of(pool, server).into_iter().map(export).collect();
    let uris = server.uris("");
    let body = json!({
        "ready": true,
        "pid": std::process::id(),
        "pool": pool.path().display().to_string(),
        "uuid": pool.identity().uuid_text(),
        "uri": uris.first(),
        "uris": uris,
        "exports": exports,
        "control": control.display().to_string(),
        "read_only": pool.is_read_only(),
        "notes": notes,
    });
    output::with_schema("serve", body)
}
