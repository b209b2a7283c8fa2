//! A machine on a simulated disk, with simulated time.
//!
//! The world carries out the actions of a [`Machine`] one completion at a time, in an order that
//! its seed chooses, and lets time pass between them. Between two steps the disk stands still:
//! the states between steps are all the states that a crash can find.

use crate::disk::SimDisk;
use crate::rng::Rng;
use cow_engine::{Action, Config, Engine, Error, Event, Op, OpId, Reply};
use std::collections::VecDeque;

/// What the world drives: the engine, or something that behaves like it.
pub trait Machine: Sized {
    /// A machine that has done nothing yet.
    fn start(config: Config) -> Self;
    /// Takes one event; what is to be done is appended to `actions`.
    fn step(&mut self, event: Event, actions: &mut Vec<Action>);
    /// Whether time matters to it now.
    fn wants_tick(&self) -> bool {
        true
    }
    /// Whether it goes on with [`Event::Resume`].
    fn is_paused(&self) -> bool {
        false
    }
    /// Examines what it has written, without it.
    ///
    /// # Errors
    /// What is wrong.
    fn check(_disk: &SimDisk) -> Result<(), String> {
        Ok(())
    }
}

impl Machine for Engine {
    fn start(config: Config) -> Self {
        Self::new(config)
    }

    fn step(&mut self, event: Event, actions: &mut Vec<Action>) {
        Self::step(self, event, actions);
    }

    fn wants_tick(&self) -> bool {
        Self::wants_tick(self)
    }

    fn is_paused(&self) -> bool {
        Self::is_paused(self)
    }

    fn check(disk: &SimDisk) -> Result<(), String> {
        crate::checked::check_disk(disk)
    }
}

impl World<Engine> {
    /// See [`Engine::is_pressed`].
    #[must_use]
    pub fn is_pressed(&self) -> bool {
        self.machine.is_pressed()
    }

    /// See [`Engine::idle_tick_ns`].
    #[must_use]
    pub fn idle_tick_ns(&self) -> Option<u64> {
        self.machine.idle_tick_ns()
    }
}

/// Steps without an answer after which a run counts as hung.
const STEP_BUDGET: u64 = 2_000_000;
/// Ticks in a row, nothing being in flight, after which a run counts as stuck.
const IDLE_BUDGET: u64 = 2_000;
/// Wall time at which machines begin whose [`Config`] says none, nanoseconds since 1970.
pub const WALL_START_NS: u64 = 1_750_000_000_000_000_000;

/// The order in which a device completes what is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Random,
    OldestFirst,
    NewestFirst,
}

/// See the module.
pub struct World<M> {
    disk: SimDisk,
    machine: M,
    rng: Rng,
    order: Order,
    now_ns: u64,
    /// Wall time when `now_ns` was 0, had the clock never been set.
    wall_start_ns: u64,
    next_op: u64,
    replies: VecDeque<(OpId, Result<Reply, Error>)>,
    actions: Vec<Action>,
    steps: u64,
    idle: u64,
    resumed: u64,
    still: bool,
    seed: u64,
}

impl<M: Machine> World<M> {
    /// A machine that begins on `disk`; the first operation must be [`Op::Open`].
    #[must_use]
    pub fn new(disk: SimDisk, config: &Config, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let order = match rng.below(6) {
            0 => Order::OldestFirst,
            1 => Order::NewestFirst,
            _ => Order::Random,
        };
        let device_blocks = disk.blocks();
        let wall_start_ns = if config.wall_ns == 0 { WALL_START_NS } else { config.wall_ns };
        let config = Config { device_blocks, wall_ns: wall_start_ns, ..config.clone() };
        Self {
            disk,
            machine: M::start(config),
            rng,
            order,
            now_ns: 0,
            wall_start_ns,
            next_op: 0,
            replies: VecDeque::new(),
            actions: Vec::new(),
            steps: 0,
            idle: 0,
            resumed: 0,
            still: false,
            seed,
        }
    }

    /// The disk.
    #[must_use]
    pub fn disk(&self) -> &SimDisk {
        &self.disk
    }

    /// The disk, to set faults or to damage it.
    pub fn disk_mut(&mut self) -> &mut SimDisk {
        &mut self.disk
    }

    /// Simulated time since the start.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// Hands an operation to the machine. Its reply comes from [`Self::take_reply`].
    pub fn start_op(&mut self, op: Op) -> OpId {
        self.next_op += 1;
        let id = OpId(self.next_op);
        self.step(Event::Op { id, op });
        id
    }

    /// The next reply, in the order in which they were given.
    pub fn take_reply(&mut self) -> Option<(OpId, Result<Reply, Error>)> {
        let reply = self.replies.pop_front();
        if reply.is_some() {
            (self.steps, self.idle) = (0, 0);
        }
        reply
    }

    /// One step: completes a device operation or lets time pass.
    ///
    /// # Errors
    /// When the run is stuck or hung.
    pub fn pump(&mut self) -> Result<(), String> {
        self.steps += 1;
        if self.steps > STEP_BUDGET {
            return Err(format!("hung: no reply in {STEP_BUDGET} steps, seed {}", self.seed));
        }
        let count = self.disk.in_flight();
        if self.machine.is_paused() && (count == 0 || self.rng.one_in(2)) {
            self.idle = 0;
            self.resume();
            return Ok(());
        }
        if count == 0 || !self.still && self.rng.one_in(24) {
            return self.tick(count);
        }
        let due = self.disk.due().count();
        if due == 0 {
            return self.wait();
        }
        let nth = match self.order {
            _ if self.rng.one_in(4) => self.rng.index(due),
            Order::Random => self.rng.index(due),
            Order::OldestFirst => 0,
            Order::NewestFirst => due - 1,
        };
        let index = self.disk.due().nth(nth).unwrap_or_default();
        self.idle = 0;
        let took_ns = self.rng.range(5_000, 90_000);
        self.set_time(self.now_ns + took_ns);
        if self.disk.falls_short(index) {
            return Ok(());
        }
        let event = self.disk.complete(index);
        self.step(event);
        Ok(())
    }

    /// Completes operation `index` of those in flight (0 is the oldest).
    pub fn complete(&mut self, index: usize) {
        self.set_time(self.now_ns + 50_000);
        let event = self.disk.complete(index);
        self.step(event);
    }

    /// Lets what has stopped for the sake of others go on.
    pub fn resume(&mut self) {
        self.resumed += 1;
        self.step(Event::Resume);
    }

    fn tick(&mut self, in_flight: usize) -> Result<(), String> {
        if in_flight == 0 {
            self.idle += 1;
            if self.idle > IDLE_BUDGET {
                let seed = self.seed;
                return Err(format!("stuck: nothing in flight and no reply, seed {seed}"));
            }
        }
        let most_us = match self.idle {
            0 => 500,
            1..20 => 5_000,
            20..60 => 100_000,
            _ => 2_000_000,
        };
        let micros = self.rng.range(1, most_us);
        self.pass(micros * 1_000);
        Ok(())
    }

    /// All that is in flight takes long: time passes, perhaps until the first of it may complete.
    fn wait(&mut self) -> Result<(), String> {
        self.idle = 0;
        let until = self.disk.next_due_ns().unwrap_or_default().saturating_sub(self.now_ns);
        let part = self.rng.range(1, until.max(1) + 1);
        let ns = if self.rng.one_in(2) { until } else { part };
        self.pass(ns);
        Ok(())
    }

    fn set_time(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
        self.disk.at_time(now_ns);
    }

    /// Lets `ns` pass, and tells the machine.
    pub fn pass(&mut self, ns: u64) {
        self.set_time(self.now_ns + ns);
        let (now_ns, wall_ns) = (self.now_ns, self.wall_ns());
        self.step(Event::Tick { now_ns, wall_ns });
    }

    /// Wall time, nanoseconds since 1970.
    #[must_use]
    pub fn wall_ns(&self) -> u64 {
        self.wall_start_ns + self.now_ns
    }

    /// From now on the machine hears of time only when nothing is in flight: what waits for it, like
    /// the next bit of reclaim, does not begin.
    pub fn stand_still(&mut self) {
        self.still = true;
    }

    /// Somebody sets the wall clock ahead; the machine learns it with the next tick.
    pub fn set_clock_ahead(&mut self, ns: u64) {
        self.wall_start_ns += ns;
    }

    /// Whether nothing is in flight on the device.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.disk.in_flight() == 0
    }

    /// Whether the machine says that time matters to it.
    #[must_use]
    pub fn wants_tick(&self) -> bool {
        self.machine.wants_tick()
    }

    /// Whether background work has stopped for the sake of others.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.machine.is_paused()
    }

    /// How often it has gone on.
    #[must_use]
    pub fn resumed(&self) -> u64 {
        self.resumed
    }

    /// Pumps until nothing is in flight, and nothing has stopped for the sake of others.
    ///
    /// # Errors
    /// When the run is stuck or hung.
    pub fn run_until_idle(&mut self) -> Result<(), String> {
        while !self.is_idle() || self.machine.is_paused() {
            self.pump()?;
        }
        Ok(())
    }

    /// Runs one operation; replies to others wait in the queue.
    ///
    /// # Errors
    /// When the run is stuck or hung.
    pub fn run_op(&mut self, op: Op) -> Result<Result<Reply, Error>, String> {
        let id = self.start_op(op);
        loop {
            if let Some(index) = self.replies.iter().position(|(of, _)| *of == id)
                && let Some((_, result)) = self.replies.remove(index)
            {
                (self.steps, self.idle) = (0, 0);
                return Ok(result);
            }
            self.pump()?;
        }
    }

    fn step(&mut self, event: Event) {
        let mut actions = std::mem::take(&mut self.actions);
        self.machine.step(event, &mut actions);
        for action in actions.drain(..) {
            match action {
                Action::Reply { id, result } => self.replies.push_back((id, result)),
                Action::Tell(_) => {}
                device => self.disk.issue(device),
            }
        }
        self.actions = actions;
    }
}
