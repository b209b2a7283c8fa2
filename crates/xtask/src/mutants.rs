//! `cargo xtask mutants`: changes the code in every small way that cargo-mutants knows, and lists the changes that
//! no test of the crate notices.

use crate::{process, tools};
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};

/// What is changed: a crate, and the parts of it that are about journal, allocator, snapshot tree, fold and
/// recovery. Each is tried with the tests of its own crate.
const TARGETS: &[(&str, &[&str])] = &[
    ("cow-journal", &["crates/cow-journal/src/**"]),
    ("cow-alloc", &["crates/cow-alloc/src/**"]),
    ("cow-snaptree", &["crates/cow-snaptree/src/**"]),
    (
        "cow-engine",
        &[
            "crates/cow-engine/src/fold/**",
            "crates/cow-engine/src/recover.rs",
            "crates/cow-engine/src/recover/**",
        ],
    ),
];

/// Crates whose tests are in another one, with the arguments of `cargo test` that choose those: the engine is
/// tested by the simulator, of which these take seconds; all of it takes too long for each change.
const TESTED_BY: &[(&str, &str, &[&str])] =
    &[("cow-engine", "cow-sim", &["--test=exploration", "--test=known_bugs"])];
/// A test that takes longer has noticed.
const TIMEOUT_SECONDS: &str = "20";
/// What cargo-mutants exits with when mutants were missed, or only caught by the timeout.
const MISSED: i32 = 2;
const TIMED_OUT: i32 = 3;

#[derive(Debug, PartialEq, Eq)]
struct Options {
    shard: Option<String>,
    crates: Vec<String>,
    output: PathBuf,
    list: bool,
}

fn parse(args: &[String]) -> Result<Options> {
    let output = PathBuf::from("target/mutants");
    let mut options = Options { shard: None, crates: Vec::new(), output, list: false };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--shard" => options.shard = Some(shard(value()?)?),
            "--crate" => {
                let name = value()?;
                let known: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
                ensure!(known.contains(&name.as_str()), "--crate {name}: one of {known:?}");
                options.crates.push(name.clone());
            }
            "--output" => options.output = PathBuf::from(value()?),
            "--list" => options.list = true,
            _ => bail!("unknown option {arg}"),
        }
    }
    Ok(options)
}

/// `K/N`, from 1/N to N/N; cargo-mutants counts from 0.
fn shard(text: &str) -> Result<String> {
    let wrong = || format!("--shard {text}: K/N with K from 1 to N");
    let (k, n) = text.split_once('/').with_context(wrong)?;
    let (k, n): (u32, u32) = (k.parse().with_context(wrong)?, n.parse().with_context(wrong)?);
    ensure!((1..=n).contains(&k), wrong());
    Ok(format!("{}/{n}", k - 1))
}

/// Tries them crate by crate. What was caught in an earlier run with the same directory is not tried again, so a
/// run that was cut off goes on where it was.
pub fn run(args: &[String]) -> Result<()> {
    let options = parse(args)?;
    let path = tools::search_path()?;
    if !tools::on_path(&path, "cargo-mutants") {
        bail!("there is no cargo-mutants; install it with: cargo install cargo-mutants --locked");
    }
    let (mut survivors, mut failed) = (Vec::new(), Vec::new());
    for (name, files) in TARGETS {
        if !options.crates.is_empty() && !options.crates.iter().any(|wanted| wanted == name) {
            continue;
        }
        let dir = options.output.join(directory(name, options.shard.as_deref()));
        fs::create_dir_all(&dir).with_context(|| format!("{}", dir.display()))?;
        if !try_crate(name, files, &dir, &options)? {
            failed.push(*name);
        }
        if !options.list {
            survivors.extend(missed(&dir)?);
        }
    }
    ensure!(failed.is_empty(), "not tried to the end: {}", failed.join(", "));
    survivors.iter().for_each(|line| println!("survived: {line}"));
    ensure!(survivors.is_empty(), "{} changes are noticed by no test", survivors.len());
    Ok(())
}

/// Shards have a directory each, so that they may run on several machines and be put together.
fn directory(name: &str, shard: Option<&str>) -> String {
    match shard {
        Some(shard) => format!("{name}-{}", shard.replace('/', "-of-")),
        None => name.to_owned(),
    }
}

/// Whether all mutants of the crate were tried.
fn try_crate(name: &str, files: &[&str], dir: &Path, options: &Options) -> Result<bool> {
    let mut cargo = process::cargo();
    cargo.args(["mutants", "--package", name, "--no-shuffle"]);
    for file in files {
        cargo.args(["--file", file]);
    }
    cargo.args(["--exclude", "**/tests.rs", "--exclude", "**/tests/**"]);
    if let Some((_, package, tests)) = TESTED_BY.iter().find(|(of, ..)| *of == name) {
        cargo.args(["--test-package", package]);
        cargo.args(tests.iter().map(|arg| format!("--cargo-test-arg={arg}")));
    }
    if let Some(shard) = &options.shard {
        cargo.args(["--shard", shard]);
    }
    if options.list {
        cargo.arg("--list");
        return process::run(&mut cargo).map(|()| true);
    }
    cargo.args(["--timeout", TIMEOUT_SECONDS, "--iterate", "--no-times"]);
    cargo.args(["--output".as_ref(), dir.as_os_str()]);
    eprintln!("+ {}", process::show(&cargo));
    let status = cargo.status().context("cannot start cargo mutants")?;
    Ok(status.success() || matches!(status.code(), Some(MISSED | TIMED_OUT)))
}

/// The mutants that the last run has missed. Those of earlier runs are tried in each.
fn missed(dir: &Path) -> Result<Vec<String>> {
    let file = dir.join("mutants.out/missed.txt");
    match fs::read_to_string(&file) {
        Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("{}", file.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str]) -> Result<Options> {
        parse(&args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn shards_count_from_one_and_have_directories_of_their_own() {
        let options = parsed(&["--shard", "4/4", "--crate", "cow-alloc", "--output", "o"]).unwrap();
        assert_eq!(options.shard.as_deref(), Some("3/4"));
        assert_eq!(directory("cow-alloc", options.shard.as_deref()), "cow-alloc-3-of-4");
        assert_eq!((options.crates.len(), options.output), (1, PathBuf::from("o")));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (args, named) in [
            (vec!["--shard", "0/4"], "--shard 0/4"),
            (vec!["--shard", "5/4"], "--shard 5/4"),
            (vec!["--shard", "x"], "--shard x"),
            (vec!["--shard"], "--shard needs"),
            (vec!["--crate", "cow-none"], "--crate cow-none"),
            (vec!["--fast"], "--fast"),
        ] {
            let error = format!("{:#}", parsed(&args).unwrap_err());
            assert!(error.contains(named), "{error}");
        }
    }
}
