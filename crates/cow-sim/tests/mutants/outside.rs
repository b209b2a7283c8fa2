//! Faults that a test finds which knows nothing of them: it is run by cargo with the fault planted from
//! outside, and must fail.

use crate::report::Found;
use crate::table::{Killer, Mutant};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

/// The command that runs a test, and nothing else.
fn command(killer: Killer) -> Option<Command> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.stdin(Stdio::null()).env_remove("COW_SIM_MUTANT").arg("test");
    let name = match killer {
        Killer::Test(target, name) | Killer::Planted(target, name) => {
            cargo.args(["-p", "cow-sim", "--test", target]);
            name
        }
        Killer::Threads(name) => {
            cargo.args(["-p", "cowstore", "--test", "threads", "--", "--exact"]);
            cargo.args([&format!("checks::{name}"), "--nocapture"]);
            return Some(cargo);
        }
        Killer::Unit(package, name) => {
            let feature = if package == "cow-format" { "mutants" } else { "cow-format/mutants" };
            cargo.args(["-p", package, "--lib", "--features", feature]);
            name
        }
        _ => return None,
    };
    cargo.args(["--", "--exact", name, "--nocapture"]);
    Some(cargo)
}

/// Its output, and whether it passed; not whether it was built and run at all.
fn run(mut command: Command, planted: &str) -> Result<(bool, String), String> {
    command.env("COW_MUTANT", planted);
    let Output { stdout, stderr, .. } = command.output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&stdout) + String::from_utf8_lossy(&stderr);
    if text.contains("test result: ok. 1 passed") {
        Ok((true, text.into_owned()))
    } else if text.contains("test result: FAILED. 0 passed; 1 failed") {
        Ok((false, text.into_owned()))
    } else {
        Err(format!("{command:?} ran no test: {text}"))
    }
}

/// Runs every test outside without a fault; what does not pass.
pub fn fail_unplanted(killers: impl Iterator<Item = Killer>) -> Vec<String> {
    let mut seen = Vec::new();
    let mut failed = Vec::new();
    for killer in killers.filter(|killer| !killer.is_here()) {
        let what = killer.to_string();
        let Some(command) = command(killer) else { continue };
        if seen.contains(&what) {
            continue;
        }
        match run(command, "") {
            Ok((true, _)) => {}
            Ok((false, text)) => failed.push(format!("{what} fails without a fault: {text}")),
            Err(text) => failed.push(text),
        }
        seen.push(what);
    }
    failed
}

/// Runs the test that should find a fault.
pub fn find(mutant: &Mutant) -> Result<Found, String> {
    let Some(command) = command(mutant.killer) else {
        return Err(format!("{} is no test of another file", mutant.killer));
    };
    let planted = if mutant.killer.plants_itself() { "" } else { mutant.name };
    let begun = Instant::now();
    let (passed, text) = run(command, planted)?;
    let seconds = begun.elapsed().as_secs_f64();
    if passed != mutant.killer.plants_itself() {
        return Err(format!("{} lives on in {}: {}", mutant.name, mutant.killer, mutant.breaks));
    }
    // Such as "difflayer: seed 0: ...", where the test plants it, or the reason of a panic.
    let own = format!("{}:", mutant.name);
    let lines: Vec<&str> = text.lines().collect();
    let reason = lines.iter().position(|line| line.contains("panicked at"));
    let told = lines.iter().find(|line| line.starts_with(&own)).copied();
    let line = told.or_else(|| lines.get(reason? + 1).copied()).unwrap_or_default();
    let seed = line
        .split_once("seed ")
        .and_then(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok());
    Ok(Found { seed, seconds, line: line.chars().take(120).collect() })
}
