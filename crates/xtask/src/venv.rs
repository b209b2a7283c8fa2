//! The Python packages that the tests run, in a virtual environment of their own.
//!
//! It stands below the target directory and is made anew when `tests/requirements.txt` has changed.
//! The copy of that file inside of it, written last, says that it is complete.

use crate::process;
use crate::tools::retry;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const REQUIREMENTS: &str = "tests/requirements.txt";
const DIRECTORY: &str = "test-venv";

/// Makes the environment, if it is not there; returns where it is. `None` when it cannot be had and
/// `skip_missing` permits to go without.
pub fn provide(root: &Path, target_dir: &Path, skip_missing: bool) -> Result<Option<PathBuf>> {
    let venv = target_dir.join(DIRECTORY);
    match make(&root.join(REQUIREMENTS), &venv) {
        Ok(()) => Ok(Some(venv)),
        Err(error) if skip_missing => {
            eprintln!("xtask: {error:#}\nxtask: going on without it");
            Ok(None)
        }
        Err(error) => Err(error.context("the tests need it (or skip them: --skip-missing-tools)")),
    }
}

fn make(requirements: &Path, venv: &Path) -> Result<()> {
    let wanted = fs::read(requirements).with_context(|| requirements.display().to_string())?;
    let mark = venv.join("requirements.txt");
    if fs::read(&mark).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    let what = || format!("a Python environment with the packages of {REQUIREMENTS}");
    let create = ["-m", "venv", "--clear"];
    process::run(Command::new("python3").args(create).arg(venv)).with_context(what)?;
    let install = ["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"];
    retry(|| {
        let mut pip = Command::new(venv.join("bin/python3"));
        process::run(pip.args(install).arg("--requirement").arg(requirements))
    })
    .with_context(what)?;
    fs::write(&mark, wanted).with_context(|| mark.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complete_environment_is_left_alone_and_a_missing_list_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let requirements = dir.path().join("requirements.txt");
        assert!(make(&requirements, dir.path()).unwrap_err().to_string().contains("requirements"));
        fs::write(&requirements, "x==1").unwrap();
        let venv = dir.path().join("venv");
        fs::create_dir(&venv).unwrap();
        fs::write(venv.join("requirements.txt"), "x==1").unwrap();
        assert!(make(&requirements, &venv).is_ok());
        assert!(provide(dir.path(), dir.path(), true).unwrap().is_none());
    }
}
