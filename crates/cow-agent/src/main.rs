//! `cow-agent`: the host agent's program.
#![forbid(unsafe_code)]

mod quickstart;

use clap::{Parser, Subcommand};
use quickstart::Quickstart;
use std::process::ExitCode;
use tracing::Level;

/// Snapshots of virtual servers, over a REST interface.
#[derive(Parser)]
#[command(name = "cow-agent", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve from one directory, which is set up at the first run: a pool, a server, a token.
    Quickstart(Quickstart),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let level = std::env::var("COW_AGENT_LOG").ok().and_then(|text| text.parse().ok());
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .with_max_level(level.unwrap_or(Level::WARN))
        .init();
    let Command::Quickstart(options) = cli.command;
    match quickstart::run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cow-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}
