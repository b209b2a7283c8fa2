//! `scrub`.

use super::shared::Json;
use crate::units::parse_size;
use clap::Args;

/// Reads every data block and map node of all volumes and snapshots, each once, and names what is damaged (exit code 5).
/// Interrupted or killed, the next one goes on where it was. While clients are at work it leaves most of the time to them.
#[derive(Debug, Args)]
pub struct Scrub {
    /// At most so many bytes a second
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub rate: Option<u64>,
    /// From the beginning, whatever an interrupted one has left
    #[arg(long)]
    pub restart: bool,
    /// Only say how far an interrupted one is, and what it has found
    #[arg(long, conflicts_with_all = ["rate", "restart"])]
    pub status: bool,
    #[command(flatten)]
    pub json: Json,
}
