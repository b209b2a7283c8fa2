//! `cowctl`: the command line of Cowstore.
//!
//! ```text
//!   args                 the words            units     sizes, times, names
//!   dispatch             from the words to    commands, serve, mount, attach, demo: each verb
//!   signals, notify      what ends a server; what systemd hears of it
//!   answers              whether the process that has the pool is there for others
//!   session              the pool, here or in the process that has it
//!   nbd_devices          what the kernel has of it over NBD
//!   freeze               of the file systems on volumes, around a snapshot
//!   doctor               what the disk below offers, and whether it keeps what it acknowledges
//!   image                its file, for the checker    steps     where tests can stop it
//!   output, progress     what is shown        failure   why not, and the exit code
//! ```
#![forbid(unsafe_code)]

mod answers;
mod args;
mod attach;
mod bench;
mod commands;
mod demo;
mod dispatch;
mod doctor;
mod failure;
mod freeze;
mod image;
mod mount;
mod nbd_devices;
mod notify;
mod output;
mod progress;
mod serve;
mod session;
mod signals;
mod steps;
mod units;

use clap::Parser;
use std::process::ExitCode;
use tracing::Level;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    let level = std::env::var("COWCTL_LOG").ok().and_then(|text| text.parse().ok());
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .with_max_level(level.unwrap_or(Level::WARN))
        .init();
    match dispatch::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_closed_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("cowctl: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}
