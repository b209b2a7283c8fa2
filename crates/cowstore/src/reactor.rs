//! The one thread that owns a pool's engine and its I/O driver.
//!
//! ```text
//!  callers ─► Queue ─► step(Op) ─┐                ┌─► completions (callbacks, wakers, waiters)
//!  sources ─────┘                ├─► actions ─────┤
//!  driver ──► wait ─► step(IoDone)                └─► driver.submit ... kick
//! ```
//!
//! The engine is made inside the thread and never leaves it. If it panics, everything in
//! progress and everything that comes later fails with [`Error::Poisoned`]: nobody hangs. The
//! order at the end matters: callers first, then the registry entry, and the driver, with the
//! lock on the image, last.

use crate::bypass::CacheBypass;
use crate::completion::{Completion, mark_reactor_thread};
use crate::error::{Error, closed};
use crate::linger::Linger;
use crate::pace::Pace;
use crate::queue::{Queue, Submission};
use crate::runtime::Registration;
use crate::source::{Source, Sources};
use crate::sync::yield_now;
use cow_engine::{Action, Engine, Event, EventKind, IoFailure, IoId, Op, OpId, PoolEvent, Reply};
use cow_io::{Driver, IoDone, IoOp, IoRequest};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How often the engine hears of time while it wants to.
const TICK: Duration = Duration::from_millis(5);

/// After completions of so much weight what follows from them is begun, and told: else all clients
/// would wait while the device is at work, and the device while they are.
pub(crate) const PORTION: usize = 8;

/// After so much weight of writes that have landed those who ask are heard: some 10 us.
const LANDED: usize = 4 * PORTION;

/// Blocks of a read that take as long to verify as a completion takes otherwise.
const BLOCKS_OF_WEIGHT: usize = 32;

/// What the reactor drives: the engine, or a stand-in for it in tests.
pub(crate) trait Machine {
    fn step(&mut self, event: Event, actions: &mut Vec<Action>);
    fn wants_tick(&self) -> bool;
    /// Whether it goes on with [`Event::Resume`].
    fn is_paused(&self) -> bool {
        false
    }
    /// Whether that must not wait for the sake of others.
    fn is_pressed(&self) -> bool {
        false
    }
    /// How long after the last tick the next one should come while it does not want any.
    fn idle_tick(&self) -> Option<Duration> {
        None
    }
}

impl Machine for Engine {
    fn step(&mut self, event: Event, actions: &mut Vec<Action>) {
        Engine::step(self, event, actions);
    }

    fn wants_tick(&self) -> bool {
        Engine::wants_tick(self)
    }

    fn is_paused(&self) -> bool {
        Engine::is_paused(self)
    }

    fn is_pressed(&self) -> bool {
        Engine::is_pressed(self)
    }

    fn idle_tick(&self) -> Option<Duration> {
        Engine::idle_tick_ns(self).map(Duration::from_nanos)
    }
}

/// Nanoseconds since 1970.
pub(crate) fn wall_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// What a reactor thread is given.
pub(crate) struct Parts {
    pub(crate) queue: Arc<Queue>,
    pub(crate) driver: Box<dyn Driver>,
    pub(crate) bypass: CacheBypass,
    pub(crate) registration: Option<Arc<Registration>>,
    /// The pool's path, for the log.
    pub(crate) path: PathBuf,
}

/// The body of the reactor's thread.
pub(crate) fn run<M: Machine>(parts: Parts, make: impl FnOnce() -> M) {
    mark_reactor_thread();
    let Parts { queue, driver, bypass, registration, path } = parts;
    let (ops, sources) = (Operations::default(), Sources::default());
    let mut desk = Desk { queue, driver, bypass, path, ops, sources };
    let result = catch_unwind(AssertUnwindSafe(|| Reactor::new(make(), &mut desk).run()));
    let error = match result {
        Ok(()) => closed(),
        Err(panic) => {
            let text = panic_text(&*panic);
            tracing::error!("the engine of a pool panicked: {text}");
            Error::Poisoned(format!("internal error: {text}"))
        }
    };
    desk.queue.kill(&error);
    desk.ops.fail_all(&error);
    desk.sources.leave();
    if let Some(registration) = registration {
        registration.remove();
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("unknown")
}

/// What must outlive a panic of the engine.
struct Desk {
    queue: Arc<Queue>,
    driver: Box<dyn Driver>,
    bypass: CacheBypass,
    path: PathBuf,
    ops: Operations,
    sources: Sources,
}

/// The operations in progress; an [`OpId`] is an index here.
#[derive(Default)]
struct Operations {
    slots: Vec<Option<Completion>>,
    free: Vec<usize>,
}

impl Operations {
    fn insert(&mut self, completion: Completion) -> OpId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = Some(completion);
        OpId(slot as u64)
    }

    fn remove(&mut self, id: OpId) -> Option<Completion> {
        let slot = usize::try_from(id.0).ok()?;
        let completion = self.slots.get_mut(slot)?.take()?;
        self.free.push(slot);
        Some(completion)
    }

    fn fail_all(&mut self, error: &Error) {
        self.free.clear();
        for completion in self.slots.drain(..).flatten() {
            completion.complete(Err(error.clone()));
        }
    }
}

struct Reactor<'a, M> {
    machine: M,
    desk: &'a mut Desk,
    actions: Vec<Action>,
    start: Instant,
    last_tick: Instant,
    closing: Option<OpId>,
    closed: bool,
    pace: Pace,
    linger: Linger,
}

impl<'a, M: Machine> Reactor<'a, M> {
    fn new(machine: M, desk: &'a mut Desk) -> Self {
        let now = Instant::now();
        Self {
            machine,
            desk,
            actions: Vec::new(),
            start: now,
            last_tick: now,
            closing: None,
            closed: false,
            pace: Pace::default(),
            linger: Linger::default(),
        }
    }

    fn run(&mut self) {
        let mut taken = Vec::new();
        let mut done = Vec::new();
        let mut arrived = Vec::new();
        loop {
            // What they read goes through the queue, so it comes first.
            let Desk { sources, driver, .. } = &mut *self.desk;
            let more = sources.take(&mut **driver);
            if !self.desk.queue.take(&mut taken, &mut arrived) || self.closed {
                return;
            }
            let mut is_new = self.welcome(&mut arrived);
            let idle = taken.is_empty();
            if !taken.is_empty() {
                self.linger.worked();
                self.tell_time();
            }
            for submission in taken.drain(..) {
                self.begin(submission);
            }
            self.carry_out();
            let timeout = self.pass_time();
            if self.closed {
                return;
            }
            self.answer();
            self.desk.driver.kick();
            if self.resume() {
                // Nor does what was asked for meanwhile wait for what has landed.
                self.hear(&mut taken, &mut arrived);
                is_new |= self.welcome(&mut arrived);
                self.answer();
                self.desk.driver.kick();
            } else if idle && self.machine.is_paused() {
                // Background work rests and nobody asks: who else wants the processor takes it now
                // rather than in the middle of a turn.
                yield_now();
            }
            if self.closed {
                return;
            }
            let busy = more || is_new || self.machine.is_paused();
            let lingers =
                !busy && !self.desk.sources.is_empty() && self.linger.stays(Instant::now());
            if lingers {
                // Whoever else wants the processor, among them those whom it waits for.
                yield_now();
            }
            let sleeps = !busy && !lingers && self.desk.queue.prepare_sleep();
            let timeout = if sleeps { timeout } else { Some(Duration::ZERO) };
            self.desk.driver.wait(&mut done, timeout);
            if !done.is_empty() {
                self.linger.worked();
            }
            let (mut left, mut portion, mut landed) = (done.len(), 0, 0);
            let mut has_read = false;
            for completion in done.drain(..) {
                portion += weight(&completion);
                has_read |= completion.buf.is_some();
                self.finish_io(completion);
                left -= 1;
                if left > 0 && portion >= PORTION {
                    self.carry_out();
                    // Who was just told may have asked for more, which the device could be at. That
                    // the reactor shall end is seen at the next turn. After writes only once: who writes
                    // was told long ago and would always have more, so that what has landed would wait
                    // here, and count as under way.
                    let is_late = landed < LANDED && landed + portion >= LANDED;
                    landed += portion;
                    if has_read || is_late {
                        self.hear(&mut taken, &mut arrived);
                    }
                    (portion, has_read) = (0, false);
                    self.answer();
                    self.desk.driver.kick();
                }
            }
            self.carry_out();
        }
    }

    /// Takes new sources over; whether there are any. They are to be read from before a sleep.
    fn welcome(&mut self, arrived: &mut Vec<Box<dyn Source>>) -> bool {
        let Desk { sources, driver, .. } = &mut *self.desk;
        let is_new = !arrived.is_empty();
        for source in arrived.drain(..) {
            sources.add(source, &mut **driver);
        }
        is_new
    }

    /// Begins what was asked for since the turn began.
    fn hear(&mut self, taken: &mut Vec<Submission>, arrived: &mut Vec<Box<dyn Source>>) {
        self.desk.queue.take(taken, arrived);
        for submission in taken.drain(..) {
            self.begin(submission);
        }
        self.carry_out();
    }

    fn begin(&mut self, submission: Submission) {
        let Submission { op, completion } = submission;
        let closes = matches!(op, Op::Close);
        self.pace.hear();
        let id = self.desk.ops.insert(completion);
        if closes {
            self.closing = Some(id);
        }
        self.machine.step(Event::Op { id, op }, &mut self.actions);
    }

    fn finish_io(&mut self, done: IoDone) {
        let IoDone { tag, result, buf } = done;
        let result = result.map_err(|error| IoFailure { errno: error.errno });
        self.machine.step(Event::IoDone { id: IoId(tag), result, buf }, &mut self.actions);
    }

    /// Everybody who came before has been heard, and what they wait for is on its way: background
    /// work has its turn, unless it rests. Whether it had.
    fn resume(&mut self) -> bool {
        if !self.machine.is_paused() {
            return false;
        }
        let begun = Instant::now();
        if self.pace.rests(begun) && !self.machine.is_pressed() {
            return false;
        }
        self.machine.step(Event::Resume, &mut self.actions);
        self.carry_out();
        self.answer();
        self.desk.driver.kick();
        self.pace.worked(begun, Instant::now());
        true
    }

    /// What has come up for the sources goes to the kernel with what is submitted.
    fn answer(&mut self) {
        let Desk { sources, driver, .. } = &mut *self.desk;
        sources.answer(&mut **driver);
    }

    /// What comes after a sleep must not be done at the time before it: a snapshot carries it.
    fn tell_time(&mut self) {
        let now = Instant::now();
        if now.duration_since(self.last_tick) >= TICK {
            self.tick(now);
        }
    }

    /// Ticks if it is time to. Returns how long the reactor may sleep.
    fn pass_time(&mut self) -> Option<Duration> {
        let now = Instant::now();
        if now.duration_since(self.last_tick) >= self.tick_every()? {
            self.tick(now);
            self.carry_out();
        }
        Some((self.last_tick + self.tick_every()?).saturating_duration_since(now))
    }

    fn tick_every(&self) -> Option<Duration> {
        if self.machine.wants_tick() { Some(TICK) } else { self.machine.idle_tick() }
    }

    fn tick(&mut self, now: Instant) {
        self.last_tick = now;
        let now_ns = u64::try_from(now.duration_since(self.start).as_nanos()).unwrap_or(u64::MAX);
        self.machine.step(Event::Tick { now_ns, wall_ns: wall_ns() }, &mut self.actions);
    }

    fn carry_out(&mut self) {
        for action in self.actions.drain(..) {
            let (id, op) = match action {
                Action::Reply { id, result } => {
                    if self.closing == Some(id) {
                        self.closed = true;
                    }
                    reply(&mut self.desk.ops, id, result);
                    continue;
                }
                Action::Tell(event) => {
                    log(&self.desk.path, &event);
                    continue;
                }
                Action::Read { id, at, buf, bypass_cache } => {
                    let offset = at.byte_offset();
                    if bypass_cache {
                        self.desk.bypass.forget(offset, buf.len() as u64);
                    }
                    (id, IoOp::Read { offset, buf })
                }
                Action::Write { id, at, bufs, lazy } => {
                    let op = IoOp::Write { offset: at.byte_offset(), bufs };
                    if lazy {
                        self.desk.driver.submit_lazily(IoRequest { tag: id.0, op });
                        continue;
                    }
                    (id, op)
                }
                Action::Flush { id } => (id, IoOp::Flush),
                Action::Discard { id, at, blocks } => {
                    (id, IoOp::Discard { offset: at.byte_offset(), len: bytes(blocks) })
                }
                Action::Allocate { id, at, blocks } => {
                    (id, IoOp::Allocate { offset: at.byte_offset(), len: bytes(blocks) })
                }
                Action::Grow { id, blocks } => (id, IoOp::Grow { len: bytes(blocks) }),
            };
            self.desk.driver.submit(IoRequest { tag: id.0, op });
        }
    }
}

/// How much work a completion is.
fn weight(done: &IoDone) -> usize {
    1 + done.buf.as_ref().map_or(0, |buf| buf.block_count() / BLOCKS_OF_WEIGHT)
}

/// What somebody may have to act on is a warning.
fn log(path: &Path, event: &PoolEvent) {
    let (pool, text) = (path.display(), event.kind.to_string());
    match event.kind {
        EventKind::SpaceLow(_) | EventKind::ClockSuspect { .. } => tracing::warn!(%pool, "{text}"),
        _ => tracing::info!(%pool, "{text}"),
    }
}

fn bytes(blocks: u64) -> u64 {
    blocks.saturating_mul(cow_format::BLOCK_SIZE as u64)
}

fn reply(ops: &mut Operations, id: OpId, result: Result<Reply, Error>) {
    match ops.remove(id) {
        Some(completion) => completion.complete(result),
        None => tracing::error!(?id, "the engine answered an operation that nobody asked for"),
    }
}
