//! Programs of others.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Program, Debian package.
const PACKAGES: &[(&str, &str)] = &[
    ("qemu-img", "qemu-utils"),
    ("qemu-io", "qemu-utils"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("nbdinfo", "libnbd-bin"),
    ("nbdcopy", "libnbd-bin"),
    ("fio", "fio"),
    ("mkfs.ext4", "e2fsprogs"),
    ("mke2fs", "e2fsprogs"),
    ("e2fsck", "e2fsprogs"),
    ("losetup", "util-linux"),
    ("mount", "mount"),
    ("setpriv", "util-linux"),
    ("fusermount3", "fuse3"),
    ("systemd-analyze", "systemd"),
    ("python3", "python3"),
    ("resize2fs", "e2fsprogs"),
    ("dumpe2fs", "e2fsprogs"),
    ("fsfreeze", "util-linux"),
    ("mkfs.xfs", "xfsprogs"),
    ("xfs_repair", "xfsprogs"),
    ("xfs_growfs", "xfsprogs"),
    ("mkfs.btrfs", "btrfs-progs"),
    ("btrfs", "btrfs-progs"),
    ("bash", "bash"),
    ("curl", "curl"),
    ("node", "nodejs"),
    ("python3", "python3"),
];

const SBIN: &str = "/usr/local/sbin:/usr/sbin:/sbin";

fn search_path() -> String {
    format!("{}:{SBIN}", std::env::var("PATH").unwrap_or_default())
}

/// Whether all of `programs` are there. One that is missing fails the test, and names its
/// package, unless `COW_SKIP_MISSING_TOOLS` permits to go without.
#[must_use]
pub fn have(programs: &[&str]) -> bool {
    let path = search_path();
    let is_there = |name: &str| path.split(':').any(|dir| Path::new(dir).join(name).is_file());
    let Some(name) = programs.iter().find(|name| !is_there(name)) else { return true };
    let package = PACKAGES.iter().find(|(program, _)| program == name).map_or("?", |p| p.1);
    let text = format!("{name} is missing: the Debian package {package} brings it");
    assert!(std::env::var_os("COW_SKIP_MISSING_TOOLS").is_some(), "{text}");
    eprintln!("skipped: {text}");
    false
}

/// Where a program is, on the path that has the sbin directories too.
pub fn path_of(program: &str) -> std::path::PathBuf {
    let text = run_ok(&["sh", "-c", &format!("command -v {program}")]);
    text.trim().into()
}

/// A program with its arguments, on the path that has the sbin directories too.
pub fn command(words: &[&str]) -> Command {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).env("PATH", search_path()).stdin(Stdio::null());
    command
}

/// Runs a program to its end.
pub fn run(words: &[&str]) -> Output {
    command(words).output().unwrap_or_else(|e| panic!("{words:?}: {e}"))
}

/// Runs a program, which must succeed; returns what it wrote.
pub fn run_ok(words: &[&str]) -> String {
    let output = run(words);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{words:?}: {}\n{out}{err}", output.status);
    out
}

/// Whether this is root.
pub fn is_root() -> bool {
    run_ok(&["id", "-u"]).trim() == "0"
}

/// Sends a signal, `TERM` or `KILL` or another.
pub fn signal(child: &Child, name: &str) {
    run_ok(&["sh", "-c", &format!("kill -{name} {}", child.id())]);
}

/// Waits for a condition, up to 20 seconds.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The processes that a process has started.
pub fn children(of: u32) -> Vec<u32> {
    let parent = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split(' ').nth(2)?.parse::<u32>().ok()
    };
    let entries = std::fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| parent(*pid) == Some(of)).collect()
}
