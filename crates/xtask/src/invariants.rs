//! `cargo xtask invariants`: plants every fault, runs what should find it, and writes docs/invariants.md.

use crate::process;
use anyhow::{Result, bail};

/// With `--only NAME` one fault is tried, and nothing is written.
pub fn run(args: &[String]) -> Result<()> {
    let mut cargo = process::cargo();
    cargo.args(["test", "-p", "cow-sim", "--test", "mutants", "--"]);
    cargo.args(["--ignored", "--exact", "all_are_tried_and_written_down", "--nocapture"]);
    match args {
        [] => drop(cargo.env_remove("COW_SIM_MUTANT")),
        [only, name] if only == "--only" => drop(cargo.env("COW_SIM_MUTANT", name)),
        _ => bail!("usage: cargo xtask invariants [--only MUTANT]"),
    }
    process::run(&mut cargo)
}
