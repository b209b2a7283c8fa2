//! The words of `prune`.

use super::Json;
use crate::units::volume_name;
use clap::Args;

const RULES: &str = "A volume keeps what at least one rule in its property `keep` keeps, for example after

  cowctl set VOL keep=last=7,hourly=24,daily=7,weekly=4,monthly=12,yearly=3

the newest 7 snapshots, the newest one of each of the last 24 hours that have any, and so on for days (UTC), weeks (from Monday), \
months and years. Without the property it keeps all of them. What is held or open stays, and what has a time of its own stays \
until then. A pool that is being served prunes by itself, at most once a minute.";

#[derive(Debug, Args)]
#[command(after_help = RULES)]
pub struct Prune {
    /// The volumes; all of them if none is named
    #[arg(value_parser = volume_name)]
    pub volumes: Vec<String>,
    /// Only say what would go, and how much that would free
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub json: Json,
}
