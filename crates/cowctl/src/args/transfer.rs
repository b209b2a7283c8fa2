//! `import` and `export`.

use super::shared::Json;
use crate::units::{object_name, parse_size, volume_name};
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct Import {
    /// The raw image; - for standard input
    pub file: PathBuf,
    /// The volume
    #[arg(value_parser = volume_name)]
    pub volume: String,
    /// Make the volume larger than the image
    #[arg(long, value_parser = parse_size, conflicts_with = "into")]
    pub size: Option<u64>,
    /// Fill a volume that exists
    #[arg(long)]
    pub into: bool,
    /// Take the file as it is, even if it looks like qcow2 or another container
    #[arg(long)]
    pub raw: bool,
    /// What the volume is for
    #[arg(long, conflicts_with = "into")]
    pub description: Option<String>,
    #[command(flatten)]
    pub json: Json,
}

#[derive(Debug, Args)]
pub struct Export {
    /// VOL or VOL@SNAP
    #[arg(value_parser = object_name)]
    pub name: String,
    /// The file to be made; - for standard output
    pub file: PathBuf,
    /// Replace a file that exists
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub json: Json,
}
