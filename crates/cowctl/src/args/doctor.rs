//! `doctor`.

use crate::units::run_id;
use clap::Args;
use std::path::PathBuf;

/// Says in plain words what the disk below a directory offers to a pool. Whether it keeps what it says it has flushed
/// only a power cut can tell: start `--before-power-cut` there, cut the power of the machine, and ask with
/// `--after-power-cut N` whether all records up to the last number that you saw are there (exit code 5 if not).
#[derive(Debug, Args)]
pub struct Doctor {
    /// The directory; that of the pool if it is not given, or the current one
    pub dir: Option<PathBuf>,
    /// Write and flush numbered records, and print each number once its flush is acknowledged, until the power is cut
    #[arg(long, requires = "dir")]
    pub before_power_cut: bool,
    /// Whether all records up to this number are there
    #[arg(long, value_name = "N", requires = "dir", conflicts_with = "before_power_cut",
          value_parser = clap::value_parser!(u64).range(1..))]
    pub after_power_cut: Option<u64>,
    /// The run that printed the number
    #[arg(long, value_name = "ID", requires = "after_power_cut", value_parser = run_id)]
    pub run: Option<u64>,
    /// Stop after so many records
    #[arg(long, value_name = "N", requires = "before_power_cut")]
    pub count: Option<u64>,
    /// Answer in JSON: with --before-power-cut an object in each line
    #[arg(long)]
    pub json: bool,
}
