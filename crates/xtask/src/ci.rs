//! `cargo xtask ci`: all that must hold before a merge. Each step runs even if one before it failed.

use crate::metadata::Metadata;
use crate::{counts, process, testrun, tidy};
use anyhow::{Result, bail};
use std::path::Path;
use std::time::{Duration, Instant};

pub fn run(args: &[String]) -> Result<()> {
    let root = Metadata::load_members(Path::new("."))?.root;
    let cargo = |words: &[&str]| process::run(process::cargo().args(words).current_dir(&root));
    let mut steps = Steps::default();
    steps.step("test", || testrun::run(args));
    let skip = |arg: &&String| *arg == "--skip-missing-tools";
    let counts_args: Vec<String> = args.iter().filter(skip).cloned().collect();
    steps.step("counts", || counts::run(&counts_args));
    steps.step("fmt", || cargo(&["fmt", "--all", "--check"]));
    // Dependencies are checked, not compiled again; build scripts and macros are those of the tests.
    steps.step("clippy", || {
        cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])
    });
    steps.step("tidy", tidy::run);
    steps.finish()
}

#[derive(Default)]
struct Steps {
    done: Vec<(&'static str, Duration, bool)>,
}

impl Steps {
    fn step(&mut self, name: &'static str, action: impl FnOnce() -> Result<()>) {
        eprintln!("== {name}");
        let start = Instant::now();
        let result = action();
        if let Err(error) = &result {
            eprintln!("xtask: {name}: {error:#}");
        }
        self.done.push((name, start.elapsed(), result.is_ok()));
    }

    fn finish(self) -> Result<()> {
        println!();
        for (name, time, ok) in &self.done {
            println!(
                "{name:<8} {:>7.1} s  {}",
                time.as_secs_f64(),
                if *ok { "ok" } else { "FAILED" }
            );
        }
        let failed: Vec<_> = self.done.iter().filter(|(_, _, ok)| !ok).map(|step| step.0).collect();
        if !failed.is_empty() {
            bail!("failed: {}", failed.join(", "));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_does_not_stop_the_next_and_is_named_at_the_end() {
        let mut steps = Steps::default();
        let mut ran = false;
        steps.step("first", || bail!("broken"));
        steps.step("second", || {
            ran = true;
            Ok(())
        });
        assert!(ran);
        assert_eq!(steps.finish().unwrap_err().to_string(), "failed: first");
    }
}
