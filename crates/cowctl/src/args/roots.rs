//! `root` and `verify`.

use super::Json;
use crate::units::object_name;
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct Root {
    /// VOL or VOL@SNAP; of a snapshot it is stored, and read the next time
    #[arg(value_parser = object_name)]
    pub name: String,
    #[command(flatten)]
    pub json: Json,
}

/// Prints offset and length of each run of bytes that differs. Exit codes: 0 equal; 1 different.
#[derive(Debug, Args)]
pub struct Verify {
    /// VOL or VOL@SNAP, or POOL/VOL@SNAP
    pub a: String,
    /// The same
    pub b: String,
    /// The pool of B, if that is another one
    #[arg(long, value_name = "PATH")]
    pub other: Option<PathBuf>,
    #[command(flatten)]
    pub json: Json,
}
