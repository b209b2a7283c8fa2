//! `doctor`: what the disk below offers, and whether it keeps what it says it has flushed.
//!
//! ```text
//!   look     what can be seen without harm             scratch  tries it out on a file of its own
//!   before   numbered records, until the power is cut  after    which of them are there
//!   record   what they look like
//! ```

mod after;
mod before;
mod look;
mod record;
mod scratch;

use crate::args::Doctor;
use crate::failure::Failure;
use record::RunId;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Does what was asked for.
pub fn run(pool: Option<&Path>, args: &Doctor) -> Result<(), Failure> {
    let dir = match (&args.dir, pool) {
        (Some(dir), _) => dir.clone(),
        (None, Some(pool)) => beside(pool),
        (None, None) => ".".into(),
    };
    must_be_directory(&dir)?;
    match args.after_power_cut {
        Some(last) => after::run(&dir, last, args.run.map(RunId), args.json),
        None if args.before_power_cut => before::run(&dir, args.count, args.json),
        None => look::run(&dir, args.json),
    }
}

fn beside(pool: &Path) -> PathBuf {
    let parent = pool.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new(".")).to_owned()
}

fn must_be_directory(dir: &Path) -> Result<(), Failure> {
    match fs::metadata(dir) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(Failure::Usage(format!("{}: not a directory", dir.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Failure::NotFound(format!("{}: no such directory", dir.display())))
        }
        Err(error) => Err(Failure::file(dir)(error)),
    }
}

/// What the kernel calls the time since this machine was started; empty if it does not say.
fn boot() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}
