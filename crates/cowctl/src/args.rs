//! The command line.

mod attach;
mod bench;
mod doctor;
mod mount;
mod pool;
mod prune;
mod roots;
mod scrub;
mod shared;
mod snapshot;
mod transfer;

use crate::units::{object_name, parse_size, property, snapshot_name, volume_name};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

pub use attach::{Attach, AttachAs, Attachments, Detach, Format};
pub use bench::{Bench, Workload};
pub use doctor::Doctor;
pub use mount::{Mount, Umount};
pub use pool::{PoolCommand, PoolCreate, PoolGrow, PoolInfo, PoolSet, PoolTrim};
pub use prune::Prune;
pub use roots::{Root, Verify};
pub use scrub::Scrub;
pub use shared::{Json, Listing};
pub use snapshot::{FreezeGuard, Snapshot};
pub use transfer::{Export, Import};

/// Copy-on-write volumes in one image file: snapshots, rollbacks and clones in constant time.
///
/// Exit codes: 0 done; 1 failure; 2 usage; 3 no such pool, volume or snapshot; 4 refused as things stand; 5 corruption;
/// 6 no space.
#[derive(Debug, Parser)]
#[command(name = "cowctl", version, max_term_width = 100)]
pub struct Cli {
    /// The pool: an image file or a block device
    #[arg(short, long, global = true, env = "COWCTL_POOL", value_name = "PATH")]
    pub pool: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Type {
    Volume,
    Snapshot,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a pool, show it, make it larger
    #[command(subcommand)]
    Pool(PoolCommand),
    /// Make a thin volume
    Create(Create),
    /// Fill a volume from a raw disk image
    Import(Import),
    /// Write a volume or snapshot to a raw disk image
    Export(Export),
    /// Take snapshots, all at one instant
    Snapshot(Snapshot),
    /// Take volumes back to snapshots; what is replaced is kept
    Rollback(Rollback),
    /// Bring back what the last rollback replaced
    Undo(Undo),
    /// Make a writable volume of a snapshot
    Clone(CloneArgs),
    /// Delete volumes and snapshots
    #[command(visible_alias = "destroy")]
    Delete(Delete),
    /// Delete the snapshots that have expired, and those that no `keep` rule of their volume keeps
    Prune(Prune),
    /// Keep a snapshot from being deleted
    Hold(Hold),
    /// Undo a hold
    Release(Hold),
    /// Rename a volume or snapshot
    Rename(Rename),
    /// Change the size of a volume
    Resize(Resize),
    /// Set properties
    Set(Set),
    /// Show properties
    Get(Get),
    /// List volumes and snapshots
    #[command(visible_alias = "ls")]
    List(List),
    /// Draw the tree of snapshots
    Tree(Json),
    /// What each takes, and what deleting them together would free
    Space(Space),
    /// What changed between two states
    Diff(Diff),
    /// The content root: equal for equal content, in whichever pool
    Root(Root),
    /// Compare two volumes or snapshots by their content roots, also across pools
    Verify(Verify),
    /// Serve the volumes and snapshots over NBD
    Serve(Serve),
    /// Make a volume or snapshot a block device of this machine
    Attach(Attach),
    /// End that
    Detach(Detach),
    /// What is attached
    Attachments(Attachments),
    /// Show every volume and snapshot as a file
    Mount(Mount),
    /// End that
    #[command(visible_alias = "unmount")]
    Umount(Umount),
    /// Check the structure of the pool, and every checksum; live on its last checkpoint
    Check(Check),
    /// Read everything and compare it with its checksums, also while the pool is in use
    Scrub(Scrub),
    /// Show what stands on the disk
    Dump(Dump),
    /// What the disk below a directory offers, and whether it keeps what it says it has flushed
    Doctor(Doctor),
    /// How fast a pool is, on a scratch volume, also beside a plain file on the same disk
    Bench(Bench),
    /// The whole story on a real file system, in a temporary directory
    Demo(Demo),
    /// Have what is attached follow its volumes
    #[command(hide = true)]
    AttachFollow,
    /// Be the process that thaws
    #[command(hide = true)]
    FreezeGuard(FreezeGuard),
}

#[derive(Debug, Args)]
pub struct Create {
    /// Its name
    #[arg(value_parser = volume_name)]
    pub volume: String,
    /// Its size
    #[arg(long, value_parser = parse_size)]
    pub size: u64,
    /// What it is for
    #[arg(long)]
    pub description: Option<String>,
    #[command(flatten)]
    pub json: Json,
}

#[derive(Debug, Args)]
pub struct Rollback {
    /// VOL@SNAP
    #[arg(required = true, value_parser = snapshot_name)]
    pub names: Vec<String>,
    /// Only say what would happen
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Do not keep what is replaced
    #[arg(long)]
    pub discard_current: bool,
    /// Even while clients have the volume open for writing: they are cut off
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub json: Json,
}

#[derive(Debug, Args)]
pub struct Undo {
    /// The volume
    #[arg(value_parser = volume_name)]
    pub volume: String,
    /// Even while clients have the volume open for writing: they are cut off
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub json: Json,
}

#[derive(Debug, Args)]
pub struct CloneArgs {
    /// VOL@SNAP
    #[arg(value_parser = snapshot_name)]
    pub source: String,
    /// The new volume
    #[arg(value_parser = volume_name)]
    pub volume: String,
    /// What it is for
    #[arg(long)]
    pub description: Option<String>,
    #[command(flatten)]
    pub json: Json,
}

#[derive(Debug, Args)]
pub struct Delete {
    /// VOL or VOL@SNAP
    #[arg(required = true, value_parser = object_name)]
    pub names: Vec<String>,
    /// Only say what would go, and how much that would free
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// The snapshots of the volumes, too
    #[arg(short = 'r', long)]
    pub recursive: bool,
    /// Wait until the space has come back
    #[arg(long, conflicts_with = "dry_run")]
    pub wait: bool,
    #[command(flatten)]
    pub json: Json,
}

#[derive(Debug, Args)]
pub struct Hold {
    /// VOL@SNAP
    #[arg(value_parser = object_name)]
    pub name: String,
    /// Who holds it
    #[arg(long)]
    pub tag: String,
}

#[derive(Debug, Args)]
pub struct Rename {
    /// VOL or VOL@SNAP
    #[arg(value_parser = object_name)]
    pub old: String,
    /// The new name
    #[arg(value_parser = object_name)]
    pub new: String,
}

#[derive(Debug, Args)]
pub struct Resize {
    /// The volume
    #[arg(value_parser = volume_name)]
    pub volume: String,
    /// Its new size
    #[arg(long, value_parser = parse_size)]
    pub size: u64,
    /// It may become smaller; what lies beyond the new end is lost
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct Set {
    /// VOL or VOL@SNAP
    #[arg(value_parser = object_name)]
    pub name: String,
    /// KEY=VALUE; `KEY=` removes the key
    #[arg(required = true, value_parser = property)]
    pub changes: Vec<(String, Option<String>)>,
}

#[derive(Debug, Args)]
pub struct Get {
    /// VOL or VOL@SNAP
    #[arg(value_parser = object_name)]
    pub name: String,
    /// Only the value of this one
    pub key: Option<String>,
    #[command(flatten)]
    pub json: Json,
}

#[derive(Debug, Args)]
pub struct List {
    /// VOL (with its snapshots) or VOL@SNAP; everything if none is named
    #[arg(value_parser = object_name)]
    pub names: Vec<String>,
    /// Only these types, separated by commas
    #[arg(short = 't', value_name = "TYPES", value_delimiter = ',')]
    pub types: Vec<Type>,
    #[command(flatten)]
    pub listing: Listing,
}

#[derive(Debug, Args)]
pub struct Space {
    /// VOL or VOL@SNAP
    #[arg(value_parser = object_name)]
    pub names: Vec<String>,
    /// Name snapshots whose deletion frees this much: expired ones first, then undo, automatic and
    /// ordinary ones, the oldest first, and none that is not needed. Held ones are never named
    #[arg(long, value_name = "SIZE", value_parser = parse_size, conflicts_with = "names")]
    pub free_up: Option<u64>,
    /// Wait until the sizes of branches, too, are exact
    #[arg(long)]
    pub wait: bool,
    #[command(flatten)]
    pub listing: Listing,
}

#[derive(Debug, Args)]
pub struct Diff {
    /// The older state, VOL@A
    #[arg(value_parser = object_name)]
    pub from: String,
    /// The newer one: VOL, VOL@B or @B; the volume itself if not given
    pub to: Option<String>,
    /// Compare bytes: what was written again with equal bytes is no change
    #[arg(long)]
    pub exact: bool,
    #[command(flatten)]
    pub json: Json,
}

#[derive(Debug, Args)]
pub struct Serve {
    /// Where to listen: unix:PATH or tcp:HOST:PORT (may be repeated); a socket beside the pool if not given
    #[arg(long, value_name = "ADDRESS")]
    pub nbd: Vec<String>,
    /// Permit TCP addresses that others can reach: NBD here has neither passwords nor encryption
    #[arg(long)]
    pub insecure: bool,
    /// Open the pool for reading only
    #[arg(long)]
    pub read_only: bool,
}

#[derive(Debug, Args)]
pub struct Check {
    /// Leave out the data blocks
    #[arg(long)]
    pub metadata_only: bool,
    /// Repair what can be repaired, and say what is lost. Nobody else may have the pool open
    #[arg(long)]
    pub repair: bool,
    /// Only say what a repair would do
    #[arg(short = 'n', long, requires = "repair")]
    pub dry_run: bool,
    #[command(flatten)]
    pub json: Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    Superblock,
    Checkpoint,
    Journal,
    Nodes,
    Map,
}

#[derive(Debug, Args)]
pub struct Dump {
    /// Which structure; all but the maps if none is named
    pub part: Option<Part>,
    /// Whose map: VOL or VOL@SNAP
    #[arg(value_parser = object_name, required_if_eq("part", "map"))]
    pub name: Option<String>,
    #[command(flatten)]
    pub json: Json,
}

#[derive(Debug, Args)]
pub struct Demo {
    /// Make the temporary directory in here
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Leave the files for a look
    #[arg(long)]
    pub keep: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
