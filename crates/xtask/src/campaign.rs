//! `cargo xtask campaign`: builds the simulator's campaign with its own profile and starts it.

use crate::process;
use anyhow::Result;

/// Runs it; the arguments are its own.
pub fn run(args: &[String]) -> Result<()> {
    let mut cargo = process::cargo();
    cargo.args(["run", "--quiet", "--profile", "campaign", "-p", "cow-sim"]);
    cargo.args(["--example", "campaign", "--"]).args(args);
    process::run(&mut cargo)
}
