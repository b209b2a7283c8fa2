//! What a guest of the tests boots from: Debian's kernel for clouds and a static busybox, downloaded
//! and unpacked below the target directory. Nothing of it is installed.
//!
//! A list of the packages, written last, says that it is complete; what is complete is kept, for a
//! newer kernel shows nothing new.

use crate::process;
use crate::tools::{apt_get, is_root, on_path, retry, search_path};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Depends on the kernel of the day. The guest is a PC, whatever its host is.
const KERNEL: &str = "linux-image-cloud-amd64";
const BUSYBOX: &str = "busybox-static";
const DIRECTORY: &str = "test-guest";
const MARK: &str = "packages.txt";

/// Makes the directory, if it is not there; returns where it is. `None` when it cannot be had and
/// `skip_missing` permits to go without, or where the host is no PC.
pub fn provide(target_dir: &Path, skip_missing: bool) -> Result<Option<PathBuf>> {
    if cfg!(not(target_arch = "x86_64")) {
        return Ok(None);
    }
    let dir = target_dir.join(DIRECTORY);
    if dir.join(MARK).is_file() {
        return Ok(Some(dir));
    }
    match make(&dir) {
        Ok(()) => Ok(Some(dir)),
        Err(error) if skip_missing => {
            eprintln!("xtask: {error:#}\nxtask: going on without it");
            Ok(None)
        }
        Err(error) => Err(error.context("the tests need it (or skip them: --skip-missing-tools)")),
    }
}

fn make(dir: &Path) -> Result<()> {
    let what = || format!("the packages {KERNEL} and {BUSYBOX}, which a guest boots from");
    let path = search_path()?;
    for program in ["apt-get", "apt-cache", "dpkg-deb"] {
        if !on_path(&path, program) {
            bail!("there is no {program}, which brings {}", what());
        }
    }
    let _ = fs::remove_dir_all(dir);
    fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    let packages = retry(|| {
        let found = download(dir);
        if found.is_err() && is_root() {
            // What apt knows of is too old, or nothing at all.
            process::run(apt_get().arg("update"))?;
        }
        found
    });
    let packages = packages.with_context(what)?;
    for entry in fs::read_dir(dir)? {
        let file = entry?.path();
        if file.extension().is_some_and(|ending| ending == "deb") {
            process::run(Command::new("dpkg-deb").arg("--extract").arg(&file).arg(dir))?;
            fs::remove_file(&file)?;
        }
    }
    let mark = dir.join(MARK);
    fs::write(&mark, packages.join("\n") + "\n").with_context(|| mark.display().to_string())
}

/// Downloads the packages to `dir`; returns their names.
fn download(dir: &Path) -> Result<Vec<String>> {
    let mut depends = Command::new("apt-cache");
    depends.args(["depends", KERNEL]).env("LC_ALL", "C").stdin(Stdio::null());
    let output = depends.output().context("cannot start apt-cache")?;
    let packages = [kernel_of(&String::from_utf8_lossy(&output.stdout))?, BUSYBOX.to_owned()];
    let mut download = apt_get();
    download.arg("download").args(&packages).current_dir(dir);
    process::run(&mut download)?;
    Ok(packages.into())
}

/// The package with the kernel itself, among what `apt-cache depends` says.
fn kernel_of(text: &str) -> Result<String> {
    let mut depends = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    let found = depends.find(|name| name.starts_with("linux-image-"));
    found.map(str::to_owned).with_context(|| format!("apt knows no package that {KERNEL} needs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_what_its_package_depends_on() {
        let text = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-9-cloud-amd64\n";
        assert_eq!(kernel_of(text).unwrap(), "linux-image-6.1.0-9-cloud-amd64");
        assert!(kernel_of("").unwrap_err().to_string().contains(KERNEL));
    }

    #[test]
    fn what_is_complete_is_left_alone() {
        let target = tempfile::tempdir().unwrap();
        let dir = target.path().join(DIRECTORY);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join(MARK), "x\n").unwrap();
        let found = provide(target.path(), false).unwrap();
        assert!(found.is_none_or(|found| found == dir));
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    }
}
