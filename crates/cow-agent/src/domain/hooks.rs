//! Running the operator's commands.
//!
//! A hook is not trusted to end, to be silent or to clean up: it has a time limit, it runs in a
//! process group of its own that is killed as a whole, and of its output the end is kept and the
//! rest is read and dropped, so that a full pipe never stops it.

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Bytes of output that an error quotes.
const QUOTED: usize = 512;
/// How long the output of a hook that has ended is waited for.
const DRAIN: Duration = Duration::from_millis(200);

/// Runs `words` with `env` added to a clean environment, for at most `limit`.
///
/// # Errors
/// What went wrong, with the end of what it printed.
pub(super) fn run(words: &[String], env: &[(&str, String)], limit: Duration) -> Result<(), String> {
    let Some((program, args)) = words.split_first() else { return Ok(()) };
    let mut command = Command::new(program);
    command.args(args).env_clear().envs(env.iter().map(|(key, value)| (key, value)));
    command.env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().map_err(|error| format!("{program}: {error}"))?;
    let tail = Arc::new(Mutex::new(Tail::default()));
    if let Some(out) = child.stdout.take() {
        follow(out, &tail);
    }
    if let Some(err) = child.stderr.take() {
        follow(err, &tail);
    }
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let ended = pid.map_or(Ok(false), |pid| wait(pid, limit));
    // Before it is reaped: until then its number is nobody else's.
    if let Some(pid) = pid {
        // Most often nobody is left in the group.
        let _ = kill_process_group(pid, Signal::KILL);
    }
    let status = child.wait();
    let said = |tail: &Mutex<Tail>| {
        let ended = Instant::now();
        while tail.lock().readers > 0 && ended.elapsed() < DRAIN {
            thread::sleep(Duration::from_millis(2));
        }
        tail.lock().text()
    };
    match (ended, status) {
        (Ok(true), Ok(status)) if status.success() => Ok(()),
        (Ok(true), Ok(status)) => Err(format!("{program}: {}{}", ending(status), said(&tail))),
        (Ok(false), Ok(_)) => {
            let seconds = limit.as_secs_f32();
            Err(format!("{program}: not done after {seconds} s{}", said(&tail)))
        }
        (Err(error), _) | (_, Err(error)) => Err(format!("{program}: {error}")),
    }
}

/// Waits for the end, without reaping, or for the limit (`false`).
fn wait(pid: Pid, limit: Duration) -> std::io::Result<bool> {
    let begun = Instant::now();
    let mut pause = Duration::from_millis(1);
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    loop {
        if waitid(WaitId::Pid(pid), look)?.is_some() {
            return Ok(true);
        }
        let left = limit.saturating_sub(begun.elapsed());
        if left.is_zero() {
            return Ok(false);
        }
        thread::sleep(pause.min(left));
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// The end of what was printed.
#[derive(Default)]
struct Tail {
    bytes: Vec<u8>,
    readers: usize,
}

impl Tail {
    fn push(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(piece);
        let excess = self.bytes.len().saturating_sub(QUOTED);
        self.bytes.drain(..excess);
    }

    fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let plain = plain.trim();
        if plain.is_empty() { String::new() } else { format!(": {plain}") }
    }
}

/// Reads a pipe to its end on a thread of its own.
fn follow(mut pipe: impl Read + Send + 'static, tail: &Arc<Mutex<Tail>>) {
    tail.lock().readers += 1;
    let kept = tail.clone();
    let read = move || {
        let mut piece = [0; 4096];
        while let Ok(len @ 1..) = pipe.read(&mut piece) {
            kept.lock().push(&piece[..len]);
        }
        kept.lock().readers -= 1;
    };
    if thread::Builder::new().name("hook-output".into()).spawn(read).is_err() {
        // The pipe is closed then, and the hook may notice.
        tail.lock().readers -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, limit_ms: u64) -> Result<(), String> {
        let words = ["sh", "-c", script].map(String::from);
        run(&words, &[("COW_X", "y z".into())], Duration::from_millis(limit_ms))
    }

    #[test]
    fn a_hook_is_judged_by_its_exit_code_and_quoted() {
        assert_eq!(run(&[], &[], Duration::ZERO), Ok(()));
        assert_eq!(sh("test \"$COW_X\" = 'y z' && test -z \"$HOME\"", 20_000), Ok(()));
        let failed = sh("echo no such domain >&2; exit 3", 20_000).unwrap_err();
        assert!(failed.contains("exit code 3") && failed.contains("no such domain"), "{failed}");
        assert!(sh("kill -9 $$", 20_000).unwrap_err().contains("signal 9"));
        let missing = run(&["/nowhere/hook".into()], &[], Duration::from_secs(1)).unwrap_err();
        assert!(missing.contains("/nowhere/hook"), "{missing}");
    }

    #[test]
    fn a_hook_that_hangs_is_killed_with_all_that_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let pid_file = dir.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}; wait", pid_file.display());
        let failed = sh(&script, 500).unwrap_err();
        assert!(failed.contains("not done after 0.5 s"), "{failed}");
        let pid: u32 = std::fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
        let gone = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
            // A killed child of nobody stays for a moment as a zombie.
            stat.map_or(true, |stat| stat.contains(") Z "))
        };
        while !gone() {
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_flood_of_output_is_read_and_dropped() {
        let failed = sh("head -c 20000000 /dev/zero; echo the end; exit 1", 60_000).unwrap_err();
        assert!(failed.ends_with("the end") && failed.len() < 2 * QUOTED, "{failed}");
    }
}
