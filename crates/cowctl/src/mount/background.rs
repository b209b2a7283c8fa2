//! A server in the background: this program once more, away from the terminal.

use crate::failure::Failure;
use cowstore::{Identity, runtime};
use serde_json::Value;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Starts `cowctl mount [DIR] --child` on the pool, or the same with `--nbd`, and waits until it is ready; where
/// it is mounted, or its socket, and the process.
/// Later it writes to `<key>.log` in the directory of the registry.
pub fn start(
    pool: &Path,
    dir: Option<&Path>,
    read_only: bool,
    nbd: bool,
) -> Result<(PathBuf, u32), Failure> {
    let identity = Identity::read(pool).map_err(Failure::of(pool))?;
    let log = runtime::path_of(&identity, "log").map_err(Failure::of(pool))?;
    let file = File::options().create(true).append(true).mode(0o600).open(&log);
    let file = file.and_then(|file| file.set_len(0).map(|()| file)).map_err(Failure::file(&log))?;
    let cannot = |e: std::io::Error| Failure::Failed(format!("cannot start a server: {e}"));
    let mut command = Command::new(std::env::current_exe().map_err(cannot)?);
    command.arg("-p").arg(std::path::absolute(pool).map_err(cannot)?).arg("mount").args(dir);
    command.arg("--child").args(read_only.then_some("--read-only"));
    command.args(nbd.then_some("--nbd"));
    // It shall keep no directory from being unmounted.
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file);
    let mut child = command.spawn().map_err(cannot)?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).map_err(cannot)?;
    }
    let ready: Option<Value> = serde_json::from_str(&line).ok();
    if let Some(dir) = ready.as_ref().and_then(|ready| ready["dir"].as_str()) {
        return Ok((dir.into(), child.id()));
    }
    let status = child.wait().map_err(cannot)?;
    let said = fs::read_to_string(&log).unwrap_or_default();
    let said = said.trim().trim_start_matches("cowctl: ").to_owned();
    Err(match status.code() {
        Some(2) => Failure::Usage(said),
        Some(3) => Failure::NotFound(said),
        Some(4) => Failure::Refused(said),
        Some(5) => Failure::Corrupt(said),
        Some(6) => Failure::NoSpace(said),
        _ => Failure::Failed(if said.is_empty() { format!("the server: {status}") } else { said }),
    })
}

/// Leaves the terminal, as the child.
pub fn detach() {
    // It fails for the leader of a group, which a child is not.
    let _ = rustix::process::setsid();
}
