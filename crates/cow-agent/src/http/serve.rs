//! The accept loop: many connections, none of which may harm another.
//!
//! By hand, because what the framework brings has neither a limit of connections nor of the time
//! that a client takes. A connection has one task; its limits are those of [`Limits`]: hyper holds
//! the ones of heads, `guard` those of bodies, `wire` those of answers.

use super::limits::Limits;
use super::wire::{Linger, Wire};
use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower::ServiceExt;

/// How long nothing is accepted after the system had no room for one more connection.
const PAUSE: Duration = Duration::from_millis(100);
/// hyper's own smallest buffer.
const LEAST_BUFFER: usize = 8192;

/// Serves until `shutdown`, and then until the requests that are being carried out are answered,
/// or [`Limits::shutdown_time`] is over.
///
/// # Errors
/// When nothing can be accepted any more.
pub async fn serve(
    listener: TcpListener,
    app: Router,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    serve_within(listener, app, Limits::default(), shutdown).await
}

/// The same, with limits of the caller's choice.
///
/// # Errors
/// When nothing can be accepted any more.
pub async fn serve_within(
    listener: TcpListener,
    app: Router,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let limits = Arc::new(limits);
    let slots = Arc::new(Semaphore::new(limits.connections));
    let (stop, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    let result = loop {
        let (stream, slot) = tokio::select! {
            () = &mut shutdown => break Ok(()),
            accepted = accept(&listener, &slots) => match accepted {
                Ok(accepted) => accepted,
                Err(error) => break Err(error),
            },
        };
        while connections.try_join_next().is_some() {}
        let (app, limits, stopped) = (app.clone(), limits.clone(), stopped.clone());
        connections.spawn(async move {
            connection(stream, app, &limits, stopped).await;
            drop(slot);
        });
    };
    drop(listener);
    stop.send_replace(true);
    let all = async { while connections.join_next().await.is_some() {} };
    if timeout(limits.shutdown_time, all).await.is_err() {
        tracing::warn!(count = connections.len(), "connections are cut off");
        connections.shutdown().await;
    }
    result
}

/// The next connection, as soon as there may be one more.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let slot = slots.clone().acquire_owned().await.map_err(io::Error::other)?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return Ok((stream, slot)),
            Err(error) => match error.kind() {
                // That client has gone already.
                io::ErrorKind::ConnectionAborted
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionRefused => {}
                io::ErrorKind::InvalidInput => return Err(error),
                // No descriptor or no memory is left; others will give some back.
                _ => {
                    tracing::warn!(%error, "nothing is accepted for a moment");
                    sleep(PAUSE).await;
                }
            },
        }
    }
}

async fn connection(
    stream: TcpStream,
    app: Router,
    limits: &Limits,
    mut stopped: watch::Receiver<bool>,
) {
    // Answers are small, and written at once.
    let _ = stream.set_nodelay(true);
    let linger = Linger::default();
    let wire = TokioIo::new(Wire::new(stream, linger.clone(), limits));
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(linger.clone());
        app.clone().oneshot(request)
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time)
        // Twice of what is allowed: so much is answered by `guard`, which asks for the token first.
        .max_headers(2 * limits.head_fields)
        .max_header_size(2 * limits.head_bytes)
        .max_buf_size((2 * limits.head_bytes).max(LEAST_BUFFER) + LEAST_BUFFER)
        // An answer is one write: `wire` looks at its beginning.
        .writev(false);
    let mut connection = pin!(builder.serve_connection(wire, service));
    let stopped = async move {
        // An error means that nobody can say it any more.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stopped => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection has ended");
    }
}
