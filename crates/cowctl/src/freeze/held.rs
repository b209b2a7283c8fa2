//! The guard, as the process sees it that takes the snapshot.

use super::guard::thaw;
use super::targets::Target;
use super::words::{Said, Word, say};
use crate::failure::Failure;
use crate::signals;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long a thaw is waited for that the guard has been told to do.
const THAW_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the guard may take to end: it has only to close what it has open.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// What became of a freeze that was asked for.
pub enum Frozen {
    /// All are frozen, and were not before this instant.
    Since(Instant),
    /// They are not, and why.
    Failed(String),
}

/// File systems that are frozen, or are about to be. When this is dropped they are thawed, and also
/// when this process dies.
pub struct Held {
    /// `None` at the end.
    words: Option<ChildStdin>,
    said: Receiver<Said>,
    /// The guard has still to do, and is not waited for.
    is_slow: bool,
    /// A signal has come.
    interrupted: Option<Arc<AtomicBool>>,
}

impl Held {
    /// Starts the guard. It first writes what is dirty, for as long as that takes.
    pub fn start(targets: &[Target], limit_seconds: u32) -> Result<Self, Failure> {
        let cannot = |e: std::io::Error| Failure::Failed(format!("cannot start the guard: {e}"));
        let open = |target: &Target| target.open().map_err(Failure::file(&target.dir));
        let dirs: Vec<File> = targets.iter().map(open).collect::<Result<_, _>>()?;
        let mut command = Command::new(std::env::current_exe().map_err(cannot)?);
        command.arg("freeze-guard").arg(limit_seconds.to_string());
        command.args(targets.iter().flat_map(Target::words));
        command.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(cannot)?;
        let (Some(words), Some(lines)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Failure::Failed("cannot start the guard: no pipe".into()));
        };
        let (send, said) = channel();
        let relay = move || {
            listen(BufReader::new(lines), &dirs, &send);
            drop(dirs);
            let _ = child.wait();
            drop(send);
        };
        // Without it the guard is told to end by the pipe.
        thread::Builder::new().name("guard".into()).spawn(relay).map_err(cannot)?;
        Ok(Self { words: Some(words), said, is_slow: false, interrupted: None })
    }

    /// Waits until all are frozen, or it is known that they will not be.
    ///
    /// # Errors
    /// When it cannot be done, or a signal came: then no snapshot is wanted.
    pub fn frozen(&mut self) -> Result<Frozen, Failure> {
        let mut begun = Instant::now();
        loop {
            match self.said.recv() {
                Ok(Said::Begin) => {
                    begun = Instant::now();
                    self.interrupted = Some(signals::hold(false)?);
                }
                Ok(Said::Frozen) => return Ok(Frozen::Since(begun)),
                Ok(Said::Refused(text)) => return Err(Failure::Refused(text)),
                Ok(Said::Forbidden(text)) => return Err(Failure::Failed(text)),
                Ok(Said::Failed(text) | Said::Late(text)) => {
                    self.is_slow = true;
                    return Ok(Frozen::Failed(text));
                }
                Ok(Said::Thawed | Said::Ended) | Err(_) => {
                    return Ok(Frozen::Failed("its guard has died".into()));
                }
            }
        }
    }

    /// Whether this process was asked to end.
    pub fn is_interrupted(&self) -> bool {
        self.interrupted.as_ref().is_some_and(|came| came.load(Ordering::Relaxed))
    }

    /// From here on the snapshot may come about even if this process dies.
    pub fn commit(&mut self) {
        self.say(Word::Commit);
    }

    /// Has them thawed, and waits for it. An error says why they may not have been frozen until
    /// then.
    pub fn thaw(mut self) -> Result<(), String> {
        self.say(Word::Thaw);
        loop {
            match self.said.recv_timeout(THAW_TIMEOUT) {
                Ok(Said::Thawed) => return Ok(()),
                Ok(Said::Late(text) | Said::Failed(text)) => return Err(text),
                Ok(Said::Begin | Said::Frozen | Said::Refused(_) | Said::Forbidden(_)) => {}
                Ok(Said::Ended) | Err(RecvTimeoutError::Disconnected) => {
                    return Err("its guard has died".into());
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.is_slow = true;
                    return Err("its thaw takes long".into());
                }
            }
        }
    }
}

impl Held {
    fn say(&mut self, word: Word) {
        // A guard that is gone is noticed by what it does not say.
        let _ = self.words.as_mut().map(|words| say(words, &word));
    }
}

/// The guard ends too, so that nothing keeps the directories open when the command has ended.
impl Drop for Held {
    fn drop(&mut self) {
        self.words = None;
        let deadline = Instant::now() + END_TIMEOUT;
        let left = || deadline.saturating_duration_since(Instant::now());
        while !self.is_slow && self.said.recv_timeout(left()).is_ok() {}
    }
}

/// Passes on what the guard says. If it dies too early, this process thaws in its place.
fn listen(lines: impl BufRead, dirs: &[File], said: &Sender<Said>) {
    let mut has_begun = false;
    for line in lines.lines() {
        let Some(word) = line.ok().and_then(|line| serde_json::from_str(&line).ok()) else { break };
        has_begun |= word == Said::Begin;
        if word == Said::Ended {
            return;
        }
        let _ = said.send(word);
    }
    if has_begun {
        // Which of them it had frozen is not known; the others are not harmed.
        for dir in dirs.iter().rev() {
            let _ = thaw(dir);
        }
    }
    let _ = said.send(Said::Late("its guard has died".into()));
}
