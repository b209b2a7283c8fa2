//! The words of `pool`.

use super::shared::Json;
use crate::units::{parse_size, property};
use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub enum PoolCommand {
    /// Make a pool in a new file, or on a block device
    Create(PoolCreate),
    /// Geometry, space, health
    #[command(visible_alias = "status")]
    Info(PoolInfo),
    /// Make the pool larger
    Grow(PoolGrow),
    /// Give free space back to the file system or device below
    ///
    /// A pool does so by itself with what is freed in it; this is for what it could not give back at
    /// the time, as its process ended, or only single blocks became free. Fails for a pool that was made with --preallocate.
    Trim(PoolTrim),
    /// Set properties of the pool
    Set(PoolSet),
}

#[derive(Debug, Args)]
pub struct PoolSet {
    /// KEY=VALUE; `KEY=` removes the key. `limit:NAME=N`: most snapshots of the volumes whose property `group` is NAME.
    /// `undo-for-space=MARK`, MARK one of 80, 90, 95 and `off`: undo snapshots go, the oldest first, while the pool is so full, in percent
    #[arg(required = true, value_parser = property)]
    pub changes: Vec<(String, Option<String>)>,
}

#[derive(Debug, Args)]
pub struct PoolCreate {
    /// Size of the file; a device is used whole
    #[arg(long, value_parser = parse_size)]
    pub size: Option<u64>,
    /// Reserve all of the space now
    #[arg(long)]
    pub preallocate: bool,
    /// Go over what is there
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub json: Json,
}

#[derive(Debug, Args)]
pub struct PoolInfo {
    /// Exact numbers of bytes
    #[arg(long)]
    pub exact: bool,
    #[command(flatten)]
    pub json: Json,
}

#[derive(Debug, Args)]
pub struct PoolTrim {
    #[command(flatten)]
    pub json: Json,
}

#[derive(Debug, Args)]
pub struct PoolGrow {
    /// The new size
    #[arg(long, value_parser = parse_size)]
    pub size: u64,
    #[command(flatten)]
    pub json: Json,
}
