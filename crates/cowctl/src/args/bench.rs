//! `bench`.

use crate::units::parse_size;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// What is done to the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// Writes at random places
    Randwrite,
    /// Reads at random places
    Randread,
    /// Writes one after the other
    #[value(alias = "seqwrite")]
    Write,
    /// Reads one after the other
    #[value(alias = "seqread")]
    Read,
    /// Reads and writes at random places
    #[value(alias = "rw")]
    Randrw,
}

/// Puts load on a scratch volume, in this process, with no export between: in a temporary pool in DIR, which is
/// preallocated and written over once, or in the pool of -p, which nobody else may have open. What it made is gone
/// afterwards. Nothing else in the pool is touched.
///
/// The load is a number of lanes (queue depth times jobs), each of which does one thing after the other. Before it begins
/// the volume is written in whole. Time counts until what is under way at the end is done and, for writes, flushed.
#[derive(Debug, Args)]
pub struct Bench {
    /// Make a temporary pool in this directory
    pub dir: Option<PathBuf>,
    /// The load
    #[arg(long, value_enum, default_value = "randwrite")]
    pub rw: Workload,
    /// Bytes of each read and write, a multiple of 4096
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "4k")]
    pub bs: u64,
    /// Requests that each job has under way
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub qd: u32,
    /// Jobs; of a sequential load each has a part of the volume for itself
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub jobs: u32,
    /// Each lane flushes after so many of its writes; 0 for never
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub fdatasync: u64,
    /// Percent of reads in randrw
    #[arg(long, value_name = "PERCENT", default_value_t = 70,
          value_parser = clap::value_parser!(u8).range(0..=100))]
    pub rwmixread: u8,
    /// Size of the volume that is worked on
    #[arg(long, value_parser = parse_size, default_value = "1G")]
    pub size: u64,
    /// Seconds of each round
    #[arg(long, value_name = "S", default_value_t = 10)]
    pub runtime: u64,
    /// Seconds of the same load before, which do not count
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub ramp: u64,
    /// Reads and writes of each round, in place of a time
    #[arg(long, value_name = "N", conflicts_with_all = ["runtime", "ramp"])]
    pub ops: Option<u64>,
    /// Rounds; of each, what is compared takes turns. 3 with --vs-raw or --snapshot, 1 without
    #[arg(long, value_name = "N")]
    pub rounds: Option<u32>,
    /// Do not write the volume before: each round writes once over a new one, and ends when it is full
    #[arg(long)]
    pub fresh: bool,
    /// The same load also right after a snapshot of the volume
    #[arg(long, conflicts_with = "fresh")]
    pub snapshot: bool,
    /// The same load also on a plain file beside the pool, preallocated and written in whole
    #[arg(long)]
    pub vs_raw: bool,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
}
