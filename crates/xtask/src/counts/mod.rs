//! `cargo xtask counts`: instructions of the steps of the hot path, counted by callgrind in the build that
//! the tests have anyway, beside those that are committed (`benches/counts.json`).

mod compare;

use crate::metadata::Metadata;
use crate::{process, tools};
use anyhow::{Context, Result, bail};
use compare::{Counts, compare};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const FILE: &str = "benches/counts.json";
const TARGET: &str = "counts";

pub fn run(args: &[String]) -> Result<()> {
    let (mut record, mut skip_missing) = (false, std::env::var_os("CI").is_none());
    for arg in args {
        match arg.as_str() {
            "--record" => record = true,
            "--skip-missing-tools" => skip_missing = true,
            _ => bail!("counts: unknown option {arg}"),
        }
    }
    let path = tools::search_path()?;
    if !tools::on_path(&path, "valgrind") {
        let text = "instructions were not counted: valgrind is missing (apt-get install valgrind)";
        if record || !skip_missing {
            bail!(text);
        }
        println!("xtask: skipped: {text}");
        return Ok(());
    }
    let metadata = Metadata::load_members(Path::new("."))?;
    let found = count(&metadata, &path)?;
    let file = metadata.root.join(FILE);
    if record {
        fs::write(&file, found.to_text()).with_context(|| file.display().to_string())?;
        println!("xtask: {} counts recorded in {FILE}", found.steps.len());
        return Ok(());
    }
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let report = compare(&Counts::parse(&text).context(FILE)?, &found);
    print!("{}", report.text);
    if !report.failed.is_empty() {
        bail!("{}\n(if it must be so: cargo xtask counts --record)", report.failed.join("\n"));
    }
    Ok(())
}

fn count(metadata: &Metadata, path: &OsString) -> Result<Counts> {
    let program = program(metadata)?;
    let dir = metadata.target_dir.join("counts");
    // Of an earlier run.
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    let mut valgrind = Command::new("valgrind");
    valgrind
        .args(["--tool=callgrind", "--toggle-collect=*counted_call*"])
        .args(["--dump-before=*step_ends*", "--combine-dumps=no"])
        .arg(format!("--callgrind-out-file={}", dir.join("out").display()))
        .arg(&program)
        .args(["--exact", "counted", "--ignored", "--nocapture", "--test-threads=1"])
        .env("PATH", path);
    eprintln!("+ {}", process::show(&valgrind));
    let output = valgrind.output().context("cannot start valgrind")?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("the steps failed below valgrind ({}):\n{errors}", output.status);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = |key: &'static str| {
        // The test runner's own words may stand before the first.
        text.lines().filter_map(move |line| line.split_once(key).map(|(_, rest)| rest.trim()))
    };
    let mut steps = BTreeMap::new();
    for (at, line) in lines("step ").enumerate() {
        let (name, calls) = line.split_once(' ').context("a step without a number of calls")?;
        let dump = dir.join(format!("out.{}", at + 1));
        steps.insert(name.to_owned(), total(&dump)? / calls.parse::<u64>()?.max(1));
    }
    if steps.is_empty() || steps.values().any(|count| *count == 0) {
        bail!("nothing was counted: {steps:?}");
    }
    let cpu = lines("cpu ").next().context("no line with the processor's features")?;
    Ok(Counts { environment: environment(&metadata.root, cpu)?, steps })
}

/// The built test, from the build that `xtask test` makes: the same features, so nothing is compiled again.
fn program(metadata: &Metadata) -> Result<PathBuf> {
    let mut build = process::cargo();
    build.args(["build", "--workspace", "--bins", "--tests", "--examples"]);
    build.arg("--message-format=json-render-diagnostics").current_dir(&metadata.root);
    build.stderr(std::process::Stdio::inherit());
    let output = build.output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("the steps do not build");
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let of_target = |line: &str| {
        let json: serde_json::Value = serde_json::from_str(line).ok()?;
        let wanted = json["target"]["name"] == TARGET && json["target"]["kind"][0] == "test";
        Some(PathBuf::from(json["executable"].as_str().filter(|_| wanted)?))
    };
    text.lines().find_map(of_target).context("cargo built no test `counts`")
}

/// All instructions in a file that callgrind has written.
fn total(dump: &Path) -> Result<u64> {
    let text = fs::read_to_string(dump).with_context(|| dump.display().to_string())?;
    let line = text.lines().find_map(|line| line.strip_prefix("summary: "));
    let count = line.with_context(|| format!("{}: no summary", dump.display()))?;
    Ok(count.trim().parse()?)
}

/// All that the counts depend on beside the code. The C library is part of it: it copies and allocates.
fn environment(root: &Path, cpu: &str) -> Result<BTreeMap<String, String>> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| OsString::from("rustc"));
    let manifest = fs::read_to_string(root.join("Cargo.toml")).context("Cargo.toml")?;
    let pairs = [
        ("rustc", first_line(Command::new(rustc).arg("--version"))?),
        ("libc", first_line(Command::new("ldd").arg("--version"))?),
        ("cpu", cpu.to_owned()),
        ("profile", profile(&manifest)),
    ];
    Ok(pairs.map(|(key, value)| (key.to_owned(), value)).into())
}

fn first_line(command: &mut Command) -> Result<String> {
    let shown = process::show(command);
    let output = command.output().with_context(|| format!("cannot start `{shown}`"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// The settings of the test profile, of dependencies too.
fn profile(manifest: &str) -> String {
    let (mut words, mut inside) = (Vec::new(), false);
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line.starts_with("[profile.dev") || line.starts_with("[profile.test");
        }
        if inside && !line.is_empty() && !line.starts_with('#') {
            words.push(line);
        }
    }
    words.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_is_that_of_the_tests_and_nothing_else() {
        let manifest = "[a]\nx = 1\n[profile.dev]\n# why\nopt-level = 1\n\n[profile.dev.package.\"*\"]\n\
            opt-level = 2\n[profile.release]\nlto = true\n";
        let expected = "[profile.dev]; opt-level = 1; [profile.dev.package.\"*\"]; opt-level = 2";
        assert_eq!(profile(manifest), expected);
    }
}
