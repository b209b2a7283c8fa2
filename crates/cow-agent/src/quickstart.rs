//! `cow-agent quickstart`: everything by default, in one directory.
//!
//! The first run makes a pool and in it server 12345 with one volume; each run makes a token and
//! prints where everything is. Beside the REST interface it serves the volumes over NBD, and the
//! pool's control socket, through which `cowctl` works live.

use anyhow::{Context, Result, anyhow};
use clap::Args;
use cow_agent::config::Config;
use cow_agent::domain::{Agent, DriverSpec, ServerId, ServerRequest, VolumeRequest};
use cow_agent::http::{self, AppState};
use cow_nbd::{PoolExports, ServerHandle, exports_of, socket_beside};
use cowstore::control::{ControlServer, Host};
use cowstore::{CreateOptions, OpenOptions, Pool};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::fs::{self, DirBuilder};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;
use tokio::sync::watch;

/// Size of the pool: a sparse file that takes what is written. It can grow.
const POOL_BYTES: u64 = 64 << 30;
/// Its journal, which is written in full when the pool is made.
const JOURNAL_BYTES: u64 = 64 << 20;
const SERVER_ID: ServerId = ServerId(12345);
const SERVER_NAME: &str = "web-server-01";
const VOLUME_NAME: &str = "root";
const VOLUME_BYTES: u64 = 10 << 30;
/// How long the end waits for hooks that run.
const PATIENCE: Duration = Duration::from_secs(20);

/// The words of the command line.
#[derive(Args)]
pub struct Quickstart {
    /// Where everything is kept [default: cowstore in the user's data directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Where the REST interface listens; port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// A configuration: limits, first identity, hooks
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Serves until a signal ends it.
pub fn run(options: &Quickstart) -> Result<()> {
    let config = match &options.config {
        Some(path) => Config::read(path).map_err(|text| anyhow!("configuration: {text}"))?,
        None => Config::default(),
    };
    let dir = match &options.dir {
        Some(dir) => dir.clone(),
        None => default_dir()?,
    };
    DirBuilder::new().recursive(true).mode(0o700).create(&dir).context(dir_text(&dir))?;
    let (stop, stopped) = watch::channel(false);
    watch_signals(stop.clone())?;
    let pool = Arc::new(open_pool(&dir.join("pool.cow"))?);
    let served = serve(&pool, config, options.listen, stop, stopped);
    // Whatever came of it, the pool is closed in good order.
    let closed = pool.shutdown().map_err(|error| anyhow!("the pool: {error}"));
    served.and(closed)
}

fn dir_text(dir: &Path) -> String {
    format!("the directory {}", dir.display())
}

fn default_dir() -> Result<PathBuf> {
    let absolute = |key: &str| {
        let path = PathBuf::from(std::env::var_os(key)?);
        path.is_absolute().then_some(path)
    };
    let data = absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")));
    Ok(data.context("neither XDG_DATA_HOME nor HOME is set: say --dir")?.join("cowstore"))
}

/// Opens the pool, or makes it. It gets its name when it is complete, so that whoever dies while
/// making it leaves nothing behind that could be taken for a pool.
fn open_pool(path: &Path) -> Result<Pool> {
    let open = OpenOptions { program: Some("cow-agent".into()), ..OpenOptions::default() };
    let fail = |error: cowstore::Error| anyhow!("{}: {error}", path.display());
    if !path.try_exists().context(dir_text(path))? {
        let unfinished = path.with_extension("new");
        let options = CreateOptions {
            size_bytes: Some(POOL_BYTES),
            journal_bytes: Some(JOURNAL_BYTES),
            force: true,
            open: open.clone(),
            ..CreateOptions::default()
        };
        Pool::create(&unfinished, &options).and_then(Pool::close).map_err(fail)?;
        fs::rename(&unfinished, path).context(dir_text(path))?;
        let parent = path.parent().unwrap_or(Path::new("."));
        fs::File::open(parent).and_then(|dir| dir.sync_all()).context(dir_text(parent))?;
    }
    Pool::open(path, &open).map_err(fail)
}

fn serve(
    pool: &Arc<Pool>,
    config: Config,
    listen: SocketAddr,
    stop: watch::Sender<bool>,
    stopped: watch::Receiver<bool>,
) -> Result<()> {
    let agent = Agent::open(pool.clone(), config)?;
    if agent.is_new() {
        agent.create_server_as(Some(SERVER_ID), &first_server())?;
    }
    let nbd = Arc::new(OnceLock::new());
    let control = ControlServer::start(pool.clone(), host(pool, &nbd, stop))
        .map_err(|error| anyhow!("the control socket: {error}"))?;
    let mut notes = Vec::new();
    let socket = socket_beside(pool.path(), control.socket(), &mut notes);
    let exports = Arc::new(PoolExports::new(pool.clone()));
    let server = Arc::new(cow_nbd::Server::builder().unix(socket).start(exports)?);
    // Nobody else sets it.
    let _ = nbd.set(server.clone());
    if !listen.ip().to_canonical().is_loopback() {
        notes.push(format!("{listen} is reached by others, without encryption: use a proxy"));
    }
    for note in &notes {
        eprintln!("cow-agent: note: {note}");
    }
    let uris = server.clone();
    let state = AppState {
        agent: agent.clone(),
        export_uri: Arc::new(move |name: &str| uris.uris(name).into_iter().next()),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("no threads for the REST interface")?;
    let result = runtime.block_on(serve_http(&agent, &server, listen, state, stopped));
    agent.finish(PATIENCE);
    // Handlers that still run must not see a closed pool end under them.
    runtime.shutdown_timeout(Duration::from_secs(5));
    server.shutdown();
    control.stop();
    result
}

async fn serve_http(
    agent: &Agent,
    nbd: &ServerHandle,
    listen: SocketAddr,
    state: AppState,
    mut stopped: watch::Receiver<bool>,
) -> Result<()> {
    let listener = tokio::net::TcpListener::bind(listen)
        .await
        .with_context(|| format!("cannot listen at {listen}"))?;
    let address = listener.local_addr().context("the address of the REST interface")?;
    let ready = serde_json::json!({
        "url": format!("http://{address}"),
        "token": agent.fresh_token()?,
        "nbd": nbd.uris("").into_iter().next().unwrap_or_default(),
    });
    let mut out = std::io::stdout().lock();
    writeln!(out, "{ready}").and_then(|()| out.flush()).context("standard output")?;
    drop(out);
    let end = async move {
        // An error means that nobody can stop it any more: it ends too.
        let _ = stopped.wait_for(|stop| *stop).await;
    };
    http::serve(listener, http::app(state), end).await.context("the REST interface")
}

fn first_server() -> ServerRequest {
    let volume = VolumeRequest { name: VOLUME_NAME.into(), size_bytes: VOLUME_BYTES };
    ServerRequest { name: SERVER_NAME.into(), volumes: vec![volume], driver: DriverSpec::None }
}

/// What the control socket needs to know.
fn host(
    pool: &Arc<Pool>,
    nbd: &Arc<OnceLock<Arc<ServerHandle>>>,
    stop: watch::Sender<bool>,
) -> Host {
    let (pool, nbd) = (Arc::downgrade(pool), nbd.clone());
    let exports = move || {
        let (Some(pool), Some(server)) = (pool.upgrade(), nbd.get()) else { return Vec::new() };
        exports_of(&pool, server)
    };
    let shutdown = move || {
        stop.send_replace(true);
    };
    Host { exports: Some(Arc::new(exports)), shutdown: Some(Arc::new(shutdown)), ..Host::default() }
}

fn watch_signals(stop: watch::Sender<bool>) -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("signals")?;
    let watch = move || {
        // The second signal finds it ending, and does no harm.
        for _ in signals.forever() {
            stop.send_replace(true);
        }
    };
    thread::Builder::new().name("signals".into()).spawn(watch).context("a thread").map(drop)
}
