//! `cargo xtask fuzz`: builds the fuzz targets on the stable toolchain, without cargo-fuzz, and runs them.

use crate::process;
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What instruments the code for libFuzzer: edges, counters of them, and what is compared. All of it is
/// there on stable; only AddressSanitizer is not.
const RUSTFLAGS: &[&str] = &[
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];
/// An input that takes longer hangs; a process that takes more has no bound.
const TIMEOUT_SECONDS: u32 = 25;
const MEMORY_MIB: u32 = 2048;

struct Options {
    targets: Vec<String>,
    minutes: u64,
    seconds: u64,
    minimise: bool,
}

fn parse(args: &[String]) -> Result<Options> {
    let mut options = Options { targets: Vec::new(), minutes: 10, seconds: 0, minimise: false };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut number = || -> Result<u64> {
            let value = args.next().with_context(|| format!("{arg} needs a number"))?;
            value.parse().with_context(|| format!("{arg} {value}"))
        };
        match arg.as_str() {
            "--minutes" => options.minutes = number()?,
            "--seconds" => (options.minutes, options.seconds) = (0, number()?),
            "--minimise" => options.minimise = true,
            name if name.starts_with('-') => bail!("unknown option {name}"),
            name => options.targets.push(name.to_owned()),
        }
    }
    Ok(options)
}

/// Runs the targets that are named, or all, one after the other, each for so long; or makes the kept
/// inputs of each as few as cover what they and the found ones cover.
pub fn run(args: &[String]) -> Result<()> {
    let mut options = parse(args)?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let root = root.canonicalize().context("fuzz/")?;
    let all = targets(&root)?;
    if let Some(name) = options.targets.iter().find(|name| !all.contains(name)) {
        bail!("no target {name}; there are {}", all.join(", "));
    }
    if options.targets.is_empty() {
        options.targets = all;
    }
    let programs = build(&root)?;
    let mut failed = Vec::new();
    for target in &options.targets {
        let done = match options.minimise {
            true => minimise(&root, &programs.join(target), target),
            false => fuzz(&root, &programs.join(target), target, &options),
        };
        if let Err(error) = done {
            eprintln!("{target}: {error:#}");
            failed.push(target.as_str());
        }
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

/// The targets are the files.
fn targets(root: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root.join("fuzz_targets")).context("fuzz/fuzz_targets")? {
        let path = entry?.path();
        names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

fn host() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("cannot start rustc")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(line.context("rustc does not say its host")?.to_owned())
}

/// Where the programs are.
fn build(root: &Path) -> Result<PathBuf> {
    let host = host()?;
    let mut cargo = process::cargo();
    // With a target, what runs while others are built is not instrumented.
    cargo.args(["build", "--release", "--bins", "--target", &host]).current_dir(root);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", RUSTFLAGS.join("\x1f"));
    cargo.env("CARGO_TARGET_DIR", root.join("target"));
    process::run(&mut cargo)?;
    Ok(root.join("target").join(host).join("release"))
}

fn fuzz(root: &Path, program: &Path, target: &str, options: &Options) -> Result<()> {
    let [corpus, seeds, artifacts] =
        ["corpus", "seeds", "artifacts"].map(|dir| root.join(dir).join(target));
    for dir in [&corpus, &seeds, &artifacts] {
        fs::create_dir_all(dir).with_context(|| format!("{}", dir.display()))?;
    }
    let mut command = Command::new(program);
    command.args([&corpus, &seeds]).arg(format!("-artifact_prefix={}/", artifacts.display()));
    command.arg(format!("-max_total_time={}", options.minutes * 60 + options.seconds));
    command.arg(format!("-timeout={TIMEOUT_SECONDS}")).arg(format!("-rss_limit_mb={MEMORY_MIB}"));
    command.args(["-max_len=65536", "-print_final_stats=1", "-use_value_profile=1"]);
    process::run(&mut command)
}

/// What is found goes into `seeds`, as little of it as covers as much.
fn minimise(root: &Path, program: &Path, target: &str) -> Result<()> {
    let [corpus, seeds] = ["corpus", "seeds"].map(|dir| root.join(dir).join(target));
    let merged = root.join("corpus").join(format!("{target}.merged"));
    for dir in [&corpus, &seeds, &merged] {
        fs::create_dir_all(dir).with_context(|| format!("{}", dir.display()))?;
    }
    let mut command = Command::new(program);
    command.arg("-merge=1").arg("-max_len=65536").args([&merged, &seeds, &corpus]);
    process::run(&mut command)?;
    let mut kept = 0;
    for entry in fs::read_dir(&merged)? {
        let path = entry?.path();
        if let Some(name) = path.file_name() {
            fs::copy(&path, seeds.join(name))?;
            kept += 1;
        }
    }
    fs::remove_dir_all(&merged)?;
    println!("{target}: {kept} inputs");
    Ok(())
}
