//! `attach`, `detach` and `attachments`.

use super::Json;
use crate::units::object_name;
use clap::{Args, ValueEnum};

/// Prints the path of the device, /dev/loopN or /dev/nbdN, and nothing else. The same device is linked at /dev/cow/POOL/VOL, where POOL is
/// the pool's property `label`, or else its file's name without the ending. A snapshot is read-only. The volume stays
/// attached until `detach`: a process in the background serves it, or the `cowctl serve` that has the pool.
#[derive(Debug, Args)]
pub struct Attach {
    /// VOL or VOL@SNAP
    #[arg(value_parser = object_name)]
    pub name: String,
    /// Bytes of a logical block, 512 or 4096; by default 4096 unless what is there needs 512
    #[arg(long, value_name = "BYTES", value_parser = ["512", "4096"])]
    pub sector_size: Option<String>,
    /// As what: a loop device over a file of FUSE, or a device of the kernel's module nbd
    #[arg(long = "as", value_name = "KIND", default_value = "loop", conflicts_with = "print")]
    pub kind: AttachAs,
    /// Attach nothing; print what to paste elsewhere: arguments for QEMU or a disk for libvirt, of the NBD server
    /// (`cowctl serve`), or units for systemd that serve the pool and attach the volume
    #[arg(long, value_name = "FORMAT", conflicts_with = "sector_size")]
    pub print: Option<Format>,
}

/// What a volume becomes on this machine.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum AttachAs {
    /// Needs FUSE and loop devices
    Loop,
    /// Needs the module nbd
    Nbd,
}

/// What `--print` prints.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Format {
    /// The element `disk`
    Libvirt,
    /// Words of a command line, quoted for a shell
    Qemu,
    /// Two units
    Systemd,
}

#[derive(Debug, Args)]
pub struct Detach {
    /// VOL or VOL@SNAP
    #[arg(value_parser = object_name)]
    pub name: String,
}

#[derive(Debug, Args)]
pub struct Attachments {
    /// For scripts: no heads, tabs between the columns
    #[arg(short = 'H')]
    pub scripts: bool,
    #[command(flatten)]
    pub json: Json,
}
