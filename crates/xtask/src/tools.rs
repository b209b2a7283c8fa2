//! The real programs that the tests drive, and the Debian packages that bring them.

use crate::process;
use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Program, Debian package.
const TOOLS: &[(&str, &str)] = &[
    ("qemu-img", "qemu-utils"),
    ("qemu-io", "qemu-utils"),
    ("qemu-nbd", "qemu-utils"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("nbdinfo", "libnbd-bin"),
    ("nbdcopy", "libnbd-bin"),
    ("nbdkit", "nbdkit"),
    ("fio", "fio"),
    ("mkfs.ext4", "e2fsprogs"),
    ("e2fsck", "e2fsprogs"),
    ("debugfs", "e2fsprogs"),
    ("losetup", "util-linux"),
    ("fsfreeze", "util-linux"),
    ("fusermount3", "fuse3"),
    ("systemd-analyze", "systemd"),
    ("mkfs.xfs", "xfsprogs"),
    ("mkfs.btrfs", "btrfs-progs"),
    ("valgrind", "valgrind"),
    ("curl", "curl"),
    ("node", "nodejs"),
    ("python3", "python3"),
];

/// Debian keeps these off the path of ordinary users, though much in them serves everybody.
const SBIN: &[&str] = &["/usr/local/sbin", "/usr/sbin", "/sbin"];

const ATTEMPTS: u64 = 3;

/// The search path with the sbin directories on it; the tests run with it too.
pub fn search_path() -> Result<OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    for dir in SBIN.iter().map(PathBuf::from) {
        if !dirs.contains(&dir) {
            dirs.push(dir);
        }
    }
    std::env::join_paths(dirs).context("PATH")
}

/// What the standard library of Debian's Python lacks: a program cannot be looked for, so a module
/// is imported.
const PYTHON_VENV: Tool = ("python3 -m ensurepip", "python3-venv");

/// Debian keeps the server's programs off every path, in a directory for each version.
const POSTGRES: Tool = ("a PostgreSQL server", "postgresql");
const POSTGRES_DIR: &str = "/usr/lib/postgresql";

/// Makes every tool available, or says which packages a person has to install.
/// Returns whether anything is still missing, which only `skip_missing` permits.
pub fn provide(skip_missing: bool) -> Result<bool> {
    let path = search_path()?;
    let missing = missing_tools(&path);
    if missing.is_empty() {
        return Ok(false);
    }
    let advice = advice(&missing);
    if skip_missing {
        eprintln!("xtask: {advice}\nxtask: going on without them");
        return Ok(true);
    }
    if !is_root() || !on_path(&path, "apt-get") {
        bail!("{advice}\n(or skip the tests that need them: --skip-missing-tools)");
    }
    install(&packages(&missing)).context(advice)?;
    let missing = missing_tools(&path);
    if !missing.is_empty() {
        bail!("the packages are installed, yet there is no {}", names(&missing));
    }
    Ok(false)
}

type Tool = (&'static str, &'static str);

fn missing_tools(path: &OsString) -> Vec<Tool> {
    let absent = |tool: &Tool| !on_path(path, tool.0);
    let mut missing: Vec<Tool> = TOOLS.iter().copied().filter(absent).collect();
    if !can_make_venvs() {
        missing.push(PYTHON_VENV);
    }
    if !has_postgres() {
        missing.push(POSTGRES);
    }
    missing
}

fn has_postgres() -> bool {
    let versions = Path::new(POSTGRES_DIR).read_dir().into_iter().flatten().flatten();
    versions.map(|entry| entry.path().join("bin/postgres")).any(|server| is_executable(&server))
}

fn can_make_venvs() -> bool {
    let mut python = Command::new("python3");
    python.args(["-c", "import ensurepip, venv"]).stdin(Stdio::null());
    python.stdout(Stdio::null()).stderr(Stdio::null());
    python.status().is_ok_and(|status| status.success())
}

pub fn on_path(path: &OsString, program: &str) -> bool {
    std::env::split_paths(path).any(|dir| is_executable(&dir.join(program)))
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

pub fn is_root() -> bool {
    Path::new("/proc/self").metadata().is_ok_and(|m| m.uid() == 0)
}

fn packages(tools: &[Tool]) -> Vec<&'static str> {
    let mut packages: Vec<_> = tools.iter().map(|(_, package)| *package).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

fn names(tools: &[Tool]) -> String {
    tools.iter().map(|(program, _)| *program).collect::<Vec<_>>().join(", ")
}

fn advice(missing: &[Tool]) -> String {
    format!(
        "the tests need {}; install with: apt-get install {}",
        names(missing),
        packages(missing).join(" ")
    )
}

fn install(packages: &[&str]) -> Result<()> {
    retry(|| process::run(apt_get().arg("update")))?;
    retry(|| {
        process::run(apt_get().args(["install", "-y", "--no-install-recommends"]).args(packages))
    })
}

pub fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    // Another installation may hold the lock for a while.
    command.args(["-q", "-o", "DPkg::Lock::Timeout=120"]);
    command
}

pub fn retry<T>(mut action: impl FnMut() -> Result<T>) -> Result<T> {
    for attempt in 1..ATTEMPTS {
        match action() {
            Ok(done) => return Ok(done),
            Err(error) => eprintln!("xtask: {error:#}; trying again"),
        }
        std::thread::sleep(Duration::from_secs(3 * attempt));
    }
    action()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advice_names_each_missing_program_and_each_package_once() {
        let missing = [("qemu-img", "qemu-utils"), ("qemu-io", "qemu-utils"), ("fio", "fio")];
        assert_eq!(
            advice(&missing),
            "the tests need qemu-img, qemu-io, fio; install with: apt-get install fio qemu-utils"
        );
    }

    #[test]
    fn an_empty_path_has_every_tool_missing() {
        let empty = tempfile::tempdir().unwrap();
        let missing = missing_tools(&empty.path().as_os_str().to_owned());
        assert_eq!(missing[..TOOLS.len()], *TOOLS);
    }
}
