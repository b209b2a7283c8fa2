//! The host agent: snapshots of virtual servers, over a REST interface, on one pool.
//!
//! ```text
//!   main, quickstart    the command line; embedded defaults
//!   http                the REST interface: an axum application over the domain
//!   domain              servers, snapshots, restores; knows no HTTP
//!   config              what an operator sets
//! ```
//!
//! The domain is an ordinary library of blocking calls over [`cowstore`]; nothing in it knows of
//! requests, and `http` knows of nothing else. All that it keeps is in the pool: a snapshot and
//! what the agent says of it are one commit.
//!
//! Who may call it: its own program, and tests.
#![forbid(unsafe_code)]

pub mod config;
pub mod domain;
pub mod http;
