//! The process that freezes, and thaws whatever becomes of the one that asked for it.
//!
//! It holds no pool, and does little that could go wrong. It thaws when it is told to, when the pipe
//! from the other process closes, and when the time is over. In a session of its own it is not met by
//! signals to a terminal's or a service's process group. If it dies itself the other one thaws.

use super::targets::Target;
use super::words::{Said, Word, say};
use crate::args::FreezeGuard;
use crate::failure::Failure;
use crate::{signals, steps};
use cow_fuse::freeze;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long it stays frozen when the other process has died after it asked for the snapshot: what
/// carries that out is still at it, and the snapshot's label is to be true.
const GRACE: Duration = Duration::from_secs(1);
/// A thaw that fails, as when the device does, is tried again so often.
const THAW_ATTEMPTS: u32 = 50;
const THAW_PAUSE: Duration = Duration::from_millis(100);

enum Event {
    Word(Word),
    /// The other process has closed the pipe: it has died, or knows all that it wants to know.
    Gone,
    Frozen(usize),
    NotFrozen(usize, io::Error),
    /// No further one is going to be frozen.
    Done,
}

/// Does what the words on standard input say, and answers on standard output.
pub fn run(args: &FreezeGuard) -> Result<(), Failure> {
    // It fails for the leader of a group, which a child is not.
    let _ = rustix::process::setsid();
    signals::hold(true)?;
    let limit = Duration::from_secs(args.limit.into());
    let pairs = args.targets.chunks(2);
    let parse = |pair: &[OsString]| Target::parse(pair.first()?, pair.get(1)?);
    let targets: Option<Vec<Target>> = pairs.map(parse).collect();
    let targets = targets.ok_or_else(|| Failure::Usage("MAJOR:MINOR DIR ...".into()))?;
    let (send, events) = channel();
    let words = send.clone();
    spawn("words", move || listen(&words))?;
    let guard = Guard { targets, limit, events };
    let said = guard.prepare().and_then(|dirs| guard.hold(dirs, &send));
    if let Err(said) = said {
        tell(&said);
    }
    tell(&Said::Ended);
    Ok(())
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let thread = thread::Builder::new().name(name.into()).spawn(work);
    thread.map(drop).map_err(|e| Failure::Failed(format!("cannot start a thread: {e}")))
}

/// Nobody may be there to hear it.
fn tell(said: &Said) {
    let _ = say(&mut io::stdout(), said);
}

fn listen(events: &Sender<Event>) {
    for line in io::stdin().lock().lines() {
        let word = line.ok().and_then(|line| serde_json::from_str(&line).ok());
        let Some(word) = word else { break };
        let _ = events.send(Event::Word(word));
    }
    let _ = events.send(Event::Gone);
}

/// Why it ends.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Asked,
    Gone,
    Late,
    /// This one is not frozen.
    Failed(usize, io::ErrorKind, String),
}

/// What has been heard.
struct Watch {
    /// When it ends in any case.
    deadline: Instant,
    /// How many are to be frozen.
    count: usize,
    /// Which are, and are to be thawed.
    frozen: Vec<usize>,
    /// A snapshot may be on its way.
    committed: bool,
    /// None is being frozen any more.
    done: bool,
}

impl Watch {
    fn is_frozen(&self) -> bool {
        self.frozen.len() == self.count
    }

    fn hear(&mut self, event: Event, now: Instant) -> Option<End> {
        match event {
            Event::Word(Word::Commit) => self.committed = true,
            Event::Word(Word::Thaw) => return Some(End::Asked),
            Event::Gone if self.committed => self.deadline = self.deadline.min(now + GRACE),
            Event::Gone => return Some(End::Gone),
            Event::Frozen(index) => self.frozen.push(index),
            Event::NotFrozen(index, error) => {
                return Some(End::Failed(index, error.kind(), error.to_string()));
            }
            Event::Done => self.done = true,
        }
        None
    }
}

struct Guard {
    targets: Vec<Target>,
    limit: Duration,
    events: Receiver<Event>,
}

impl Guard {
    /// Opens all, and writes what is dirty while nobody has to wait for it.
    fn prepare(&self) -> Result<Vec<File>, Said> {
        let open = |target: &Target| {
            let fail = |e| Said::Refused(format!("{}: {e}", target.dir.display()));
            target.open().map_err(fail)
        };
        let dirs: Vec<File> = self.targets.iter().map(open).collect::<Result<_, _>>()?;
        for (dir, target) in dirs.iter().zip(&self.targets) {
            let fail = |e| Said::Failed(format!("{}: {e}", target.dir.display()));
            freeze::sync(dir).map_err(fail)?;
        }
        Ok(dirs)
    }

    /// Freezes all, and sees to it that they are thawed.
    fn hold(&self, dirs: Vec<File>, send: &Sender<Event>) -> Result<(), Said> {
        let dirs = Arc::new(dirs);
        let stop = Arc::new(AtomicBool::new(false));
        tell(&Said::Begin);
        let deadline = Instant::now() + self.limit;
        let count = dirs.len();
        let mut watch =
            Watch { deadline, count, frozen: Vec::new(), committed: false, done: false };
        let started = {
            let (dirs, stop, send) = (dirs.clone(), stop.clone(), send.clone());
            spawn("freeze", move || freeze_all(&dirs, &stop, &send))
        };
        started.map_err(|failure| Said::Failed(failure.to_string()))?;
        let end = self.wait(&mut watch);
        stop.store(true, Ordering::Relaxed);
        let seconds = self.limit.as_secs();
        let was_frozen = watch.is_frozen();
        if end == End::Late && !was_frozen {
            // A freeze that is on its way cannot be stopped, and nobody is to wait for it.
            tell(&Said::Failed(format!("it was not frozen within {seconds} s")));
        }
        let mut thawed = Ok(());
        loop {
            thawed = self.thaw(&dirs, &std::mem::take(&mut watch.frozen)).and(thawed);
            if watch.done {
                break;
            }
            if let Ok(event) = self.events.recv() {
                watch.hear(event, deadline);
            }
        }
        tell(&match (end, thawed) {
            (End::Failed(index, kind, text), _) => self.explain(index, kind, &text),
            (End::Asked, Ok(())) if was_frozen => Said::Thawed,
            (_, Err(text)) => Said::Late(text),
            _ => Said::Late(format!("it was thawed after {seconds} s")),
        });
        Ok(())
    }

    /// Says when all are frozen, and waits until there is a reason to thaw.
    fn wait(&self, watch: &mut Watch) -> End {
        loop {
            let left = watch.deadline.saturating_duration_since(Instant::now());
            // Of this channel it has a sender itself: an error is the end of the time.
            let Ok(event) = self.events.recv_timeout(left) else { return End::Late };
            let is_one_more = matches!(event, Event::Frozen(_));
            if let Some(end) = watch.hear(event, Instant::now()) {
                return end;
            }
            if is_one_more && watch.is_frozen() {
                tell(&Said::Frozen);
            }
        }
    }

    fn explain(&self, index: usize, kind: io::ErrorKind, text: &str) -> Said {
        let dir = self.targets.get(index).map(|target| target.dir.display().to_string());
        let dir = dir.unwrap_or_default();
        match kind {
            io::ErrorKind::Unsupported => {
                Said::Refused(format!("{dir}: this file system cannot be frozen"))
            }
            io::ErrorKind::ResourceBusy => {
                Said::Refused(format!("{dir}: somebody else has frozen it already"))
            }
            io::ErrorKind::PermissionDenied => {
                Said::Forbidden(format!("{dir}: to freeze it takes root"))
            }
            _ => Said::Failed(format!("{dir}: {text}")),
        }
    }

    /// Thaws these, all of them whatever comes of one. An error says that one was not frozen any
    /// more, or still is.
    fn thaw(&self, dirs: &[File], indices: &[usize]) -> Result<(), String> {
        let mut result = Ok(());
        for &index in indices.iter().rev() {
            let (Some(dir), Some(target)) = (dirs.get(index), self.targets.get(index)) else {
                continue;
            };
            if let Err(error) = thaw(dir) {
                let dir = target.dir.display();
                result = Err(match error.kind() {
                    io::ErrorKind::InvalidInput => format!("{dir}: somebody else has thawed it"),
                    _ => format!("{dir}: not thawed: {error}; try fsfreeze --unfreeze {dir}"),
                });
            }
        }
        result
    }
}

fn freeze_all(dirs: &[File], stop: &AtomicBool, events: &Sender<Event>) {
    for (index, dir) in dirs.iter().enumerate() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        steps::reached("freezing");
        match freeze::freeze(dir) {
            Ok(()) => {
                let _ = events.send(Event::Frozen(index));
            }
            Err(error) => {
                let _ = events.send(Event::NotFrozen(index, error));
                break;
            }
        }
    }
    let _ = events.send(Event::Done);
}

/// Thaws one, as often as it takes.
pub fn thaw(dir: &File) -> io::Result<()> {
    let mut left = THAW_ATTEMPTS;
    loop {
        match freeze::thaw(dir) {
            Err(error) if error.kind() != io::ErrorKind::InvalidInput && left > 0 => {
                left -= 1;
                thread::sleep(THAW_PAUSE);
            }
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_on_only_for_what_was_asked_for() {
        let now = Instant::now();
        let new = || Watch {
            deadline: now + 10 * GRACE,
            count: 2,
            frozen: Vec::new(),
            committed: false,
            done: false,
        };
        let mut watch = new();
        assert_eq!(watch.hear(Event::Frozen(0), now), None);
        assert!(!watch.is_frozen());
        assert_eq!(watch.hear(Event::Frozen(1), now), None);
        assert!(watch.is_frozen());
        assert_eq!(watch.hear(Event::Gone, now), Some(End::Gone), "no snapshot is under way");

        let mut watch = new();
        assert_eq!(watch.hear(Event::Word(Word::Commit), now), None);
        assert_eq!(watch.hear(Event::Gone, now), None);
        assert_eq!(watch.deadline, now + GRACE);
        let mut watch = Watch { deadline: now + GRACE / 2, ..new() };
        watch.hear(Event::Word(Word::Commit), now);
        watch.hear(Event::Gone, now);
        assert_eq!(watch.deadline, now + GRACE / 2, "no longer than was said");
        assert_eq!(watch.hear(Event::Word(Word::Thaw), now), Some(End::Asked));
    }
}
