//! The REST interface: an axum application over the domain.
//!
//! ```text
//!   serve              connections, and what one of them may take
//!   wire               one connection, between hyper and its socket
//!   guard              token, limits: before every handler
//!   api                the routes, and the document that describes them
//!   snapshots servers  the handlers
//!   answers            which problems they may answer with
//!   view               the shapes of their answers
//!   json input         bodies; paths, queries, preferences
//!   state              what the handlers work with
//!   problem limits     errors; numbers
//! ```
//!
//! Arrows point down this list. Handlers ask the agent on threads that may block, and nothing that
//! a client sends becomes a path: identities are numbers, names are checked by the domain, and no
//! file is served.

mod answers;
mod api;
mod guard;
mod input;
mod json;
mod limits;
mod problem;
mod serve;
mod servers;
mod snapshots;
mod state;
mod view;
mod wire;

pub use limits::Limits;
pub use serve::{serve, serve_within};
pub use state::{AppState, ExportUri};

use axum::Router;
use axum::middleware::from_fn_with_state;
use guard::Guard;
use std::sync::Arc;

/// The application.
pub fn app(state: AppState) -> Router {
    app_within(state, Limits::default())
}

/// The same, with limits of the caller's choice.
pub fn app_within(state: AppState, limits: Limits) -> Router {
    let guard = Guard { state: state.clone(), limits: Arc::new(limits) };
    let (router, _) = api::routes().split_for_parts();
    let router = router
        .fallback(guard::no_resource)
        .method_not_allowed_fallback(guard::no_method)
        .with_state(state);
    // Around the router, not in it: a router adds the methods of a path to whatever answers for it.
    Router::new().fallback_service(router).layer(from_fn_with_state(guard, guard::guard))
}

#[cfg(test)]
mod tests;
