//! Whether the process that has a pool answers at all. One that is stopped, or waits for its disk,
//! answers nothing of its mounts either, and whoever asks the kernel for one of those waits with it.

use crate::failure::Failure;
use cowstore::control::ControlClient;
use cowstore::runtime::Holder;
use cowstore::{Error, Identity, Manage, Verb};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long it may take to answer what costs it nothing.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether it is stopped, and after how many times in a row it is not waited
/// for any longer.
const LOOK: Duration = Duration::from_millis(200);
const STOPPED_MAX: u32 = 5;
/// How often it is asked while something is waited for.
const PAUSE: Duration = Duration::from_secs(1);

/// Whether the process that has the pool at `path`, if one has, answers.
///
/// # Errors
/// What there is to do when it does not.
pub fn must_answer(path: &Path) -> Result<(), Failure> {
    let (answered, heard) = channel();
    let pool: PathBuf = path.into();
    let ask = move || {
        let asked = match ControlClient::connect(&pool) {
            // Of the pool, not of the socket alone: it takes the thread that serves the mounts, too.
            Ok(client) => client.call(Verb::Info { exact: false }, &mut |_| {}).map(drop),
            Err(error) => Err(error),
        };
        // Nobody waits for it any more when it is late.
        let _ = answered.send(asked);
    };
    in_background(ask)?;
    let begun = Instant::now();
    let mut stopped = 0;
    loop {
        match heard.recv_timeout(LOOK) {
            Err(RecvTimeoutError::Timeout) => {
                stopped = if is_stopped(path) { stopped + 1 } else { 0 };
                if stopped >= STOPPED_MAX || begun.elapsed() > PATIENCE {
                    return Err(silent(path));
                }
            }
            Ok(Err(Error::Io { errno, .. })) if is_timeout(errno) => return Err(silent(path)),
            // Any other error is for the one to find out who needs an answer.
            _ => return Ok(()),
        }
    }
}

/// Whether the process that has the pool at `path` is stopped at this moment.
pub fn is_stopped(path: &Path) -> bool {
    holder(path).is_some_and(|holder| state(holder.pid) == Some('T'))
}

fn holder(path: &Path) -> Option<Holder> {
    Holder::of(&Identity::read(path).ok()?)
}

/// Asks now, and from then on as long as this process lives, which ends with an error if there is no
/// answer. For commands that wait for mounts: some of that cannot be given up otherwise.
pub fn watch(path: &Path) -> Result<(), Failure> {
    must_answer(path)?;
    let path: PathBuf = path.into();
    in_background(move || {
        loop {
            thread::sleep(PAUSE);
            if let Err(failure) = must_answer(&path) {
                eprintln!("cowctl: {failure}");
                process::exit(failure.exit_code().into());
            }
        }
    })
}

fn in_background(run: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let started = thread::Builder::new().name("cow-answers".into()).spawn(run);
    started.map(drop).map_err(|e| Failure::Failed(format!("cannot start a thread: {e}")))
}

/// As of a server that says no hello.
fn is_timeout(errno: i32) -> bool {
    let kind = io::Error::from_raw_os_error(errno).kind();
    matches!(kind, io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn silent(path: &Path) -> Failure {
    let path_text = path.display();
    let Some(Holder { program, pid, .. }) = holder(path) else {
        return Failure::Refused(format!("{path_text}: the process that has it does not answer"));
    };
    let (what, remedy) = match state(pid) {
        Some('T') => ("is stopped and ", format!("kill -CONT {pid} lets it go on, ")),
        _ => ("", String::new()),
    };
    Failure::Refused(format!(
        "{path_text}: {program} (pid {pid}) {what}does not answer; {remedy}kill -KILL {pid} ends it, and then all I/O \
         of what it has mounted or attached fails"
    ))
}

/// The letter that the kernel has for what a process does.
fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}
