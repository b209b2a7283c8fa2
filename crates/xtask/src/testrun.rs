//! `cargo xtask test`: the clients, one build, every test, one line of summary.
//!
//! The build selects bins, tests and examples of the whole workspace in one call, so that features
//! are resolved once: `cargo build --bins` alone would resolve them without the dev-dependencies and
//! compile some libraries a second time for the tests. `cargo test` then finds everything built.

use crate::metadata::Metadata;
use crate::process;
use crate::summary::Summary;
use crate::{guest, tools, venv};
use anyhow::{Context, Result, bail};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

pub fn run(args: &[String]) -> Result<()> {
    // After `--` the words are the test runner's.
    let ours = args.iter().position(|arg| arg == "--").unwrap_or(args.len());
    let (mut cargo_args, runner_args) = (args[..ours].to_vec(), &args[ours..]);
    let skip_missing = cargo_args.iter().any(|arg| arg == "--skip-missing-tools");
    cargo_args.retain(|arg| arg != "--skip-missing-tools");

    let missing = tools::provide(skip_missing)?;
    let metadata = Metadata::load_members(Path::new("."))?;
    let venv = venv::provide(&metadata.root, &metadata.target_dir, skip_missing)?;
    let guest = guest::provide(&metadata.target_dir, skip_missing)?;

    let mut build = process::cargo();
    build.args(["build", "--workspace", "--bins", "--tests", "--examples"]);
    process::run(build.current_dir(&metadata.root)).context("no test was run")?;

    let mut test = process::cargo();
    test.args(["test", "--no-fail-fast"]);
    if !cargo_args.iter().any(|arg| arg.starts_with("-p") || arg.starts_with("--package")) {
        test.arg("--workspace");
    }
    test.args(&cargo_args).args(runner_args).current_dir(&metadata.root);
    test.env("COW_BIN_DIR", metadata.target_dir.join("debug")).env("PATH", tools::search_path()?);
    if let Some(venv) = &venv {
        test.env("COW_TEST_VENV", venv);
    }
    if let Some(guest) = &guest {
        test.env("COW_TEST_GUEST", guest);
    }
    if missing || venv.is_none() || (skip_missing && guest.is_none()) {
        test.env("COW_SKIP_MISSING_TOOLS", "1");
    }
    let (status, summary) = pass_through(&mut test)?;
    report(status, &summary)
}

/// Runs `command`, copies its output as it comes and totals it.
fn pass_through(command: &mut Command) -> Result<(ExitStatus, Summary)> {
    let shown = process::show(command);
    eprintln!("+ {shown}");
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{shown}`"))?;
    let mut output = child.stdout.take().context("no pipe")?;
    let mut summary = Summary::default();
    let mut piece = vec![0; 1 << 16];
    let mut stdout = std::io::stdout();
    loop {
        let len = output.read(&mut piece)?;
        if len == 0 {
            break;
        }
        stdout.write_all(&piece[..len])?;
        stdout.flush()?;
        summary.feed(&piece[..len]);
    }
    Ok((child.wait()?, summary))
}

/// A failure that no test owns up to still counts as one: the line must never read as a success.
fn report(status: ExitStatus, summary: &Summary) -> Result<()> {
    let mut failed = summary.failed + summary.died();
    if summary.died() > 0 {
        eprintln!("xtask: {} test binary(s) died before a result", summary.died());
    }
    if !status.success() && failed == 0 {
        eprintln!("xtask: cargo test failed without a failed test ({status})");
        failed = 1;
    }
    if summary.ignored > 0 {
        println!("{} ignored", summary.ignored);
    }
    println!("{} passed, {failed} failed", summary.passed);
    if failed > 0 {
        bail!("tests failed");
    }
    Ok(())
}
