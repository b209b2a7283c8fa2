//! `mount` and `umount`.

use clap::Args;
use std::path::PathBuf;

/// Every volume becomes a file VOL, every snapshot a file VOL@SNAP. If a `cowctl serve` has the pool, that process
/// mounts it and this one is done; else this one serves the mount until `umount` or a signal.
#[derive(Debug, Args)]
pub struct Mount {
    /// An empty directory
    pub dir: Option<PathBuf>,
    /// Serve it from a process in the background
    #[arg(long)]
    pub background: bool,
    /// Open the pool for reading only
    #[arg(long)]
    pub read_only: bool,
    /// Be that process
    #[arg(long, hide = true)]
    pub child: bool,
    /// Serve NBD for `attach`, and mount it when that is asked for
    #[arg(long, hide = true)]
    pub nbd: bool,
}

#[derive(Debug, Args)]
pub struct Umount {
    /// Where the pool is mounted
    pub dir: PathBuf,
}
