//! `snapshot`, and freezing file systems around it.

use super::Json;
use crate::units::snapshot_name;
use clap::{ArgAction, Args};
use std::ffi::OsString;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct Snapshot {
    /// VOL@SNAP
    #[arg(required = true, value_parser = snapshot_name)]
    pub names: Vec<String>,
    /// What it is for
    #[arg(long)]
    pub description: Option<String>,
    #[command(flatten)]
    pub freeze: Freeze,
    #[command(flatten)]
    pub json: Json,
}

#[derive(Debug, Args)]
pub struct Freeze {
    /// Freeze the file systems on the volumes meanwhile, so that the snapshots need no repair: those that are mounted of
    /// attached volumes, or the one that is mounted at DIR (may be repeated). If a freeze fails or takes too long, the
    /// snapshots are taken all the same, are labelled `freeze_failed`, and the exit code is 1
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true, action = ArgAction::Append)]
    pub freeze: Option<Vec<PathBuf>>,
    /// Seconds after which they are thawed in any case
    #[arg(long, value_name = "SECONDS", default_value_t = 10, requires = "freeze",
          value_parser = clap::value_parser!(u32).range(1..=600))]
    pub freeze_timeout: u32,
}

#[derive(Debug, Args)]
pub struct FreezeGuard {
    /// Seconds
    pub limit: u32,
    /// For each file system: the number of its device, MAJOR:MINOR, and a directory where it is mounted
    #[arg(required = true, num_args = 2..)]
    pub targets: Vec<OsString>,
}
