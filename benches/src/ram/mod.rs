//! The engine of a pool on a device in memory, whose driver carries every action out at once.
//!
//! Time is simulated: it goes on by 10 µs with each operation, and by whole ticks when nothing
//! else can. A refusal ends the bench with a panic: what would be timed is not what was meant.

mod device;

use crate::FILLER;
use cow_engine::mkfs::mkfs;
use cow_engine::{Action, Config, Engine, Error, Event, ExportId, IoFailure, Op, OpId, Reply};
use cow_format::geometry::LayoutOptions;
use cow_format::{BLOCK_SIZE, Buf};
use device::Device;
use std::collections::VecDeque;

const MIB_BLOCKS: usize = (1 << 20) / BLOCK_SIZE;
const TICK_NS: u64 = 5_000_000;
const OP_NS: u64 = 10_000;
const WALL_NS: u64 = 1_750_000_000_000_000_000;
/// Ticks without an answer after which the engine counts as stuck.
const MAX_IDLE_TICKS: usize = 100_000;
const ENOSPC: i32 = 28;

/// An open pool.
pub struct Ram {
    device: Device,
    engine: Engine,
    actions: Vec<Action>,
    todo: VecDeque<Action>,
    answers: Vec<(OpId, Result<Reply, Error>)>,
    next_op: u64,
    now_ns: u64,
    told_ns: u64,
}

impl Ram {
    /// Makes a pool of `gib` GiB and opens it.
    ///
    /// # Panics
    /// When the engine refuses.
    pub fn new(gib: u64) -> Self {
        Self::on(Device::whole(gib << 18), None)
    }

    /// Makes a pool of `mib` MiB with a journal of 4 MiB, which is quickly read, and opens it.
    ///
    /// # Panics
    /// When the engine refuses.
    pub fn small(mib: u64) -> Self {
        Self::on(Device::whole(mib << 8), Some(1024))
    }

    /// Makes a pool of `gib` GiB, whose data takes no memory as long as it is [`FILLER`], and opens it.
    ///
    /// # Panics
    /// When the engine refuses.
    pub fn thin(gib: u64) -> Self {
        Self::on(Device::thin(gib << 18), None)
    }

    fn on(mut device: Device, journal_blocks: Option<u64>) -> Self {
        let options = LayoutOptions {
            blocks: device.blocks(),
            journal_blocks,
            limit_blocks: None,
            max_chunks: None,
            preallocated: false,
        };
        let made = match mkfs([7; 16], &options, WALL_NS) {
            Ok(made) => made,
            Err(option) => panic!("mkfs refuses {option}"),
        };
        for (at, buf) in made.writes.iter().chain(&made.superblocks) {
            device.write(*at, buf);
        }
        let mut ram = Self {
            engine: engine(&device, 0),
            device,
            actions: Vec::new(),
            todo: VecDeque::new(),
            answers: Vec::new(),
            next_op: 0,
            now_ns: 0,
            told_ns: 0,
        };
        ram.open_pool();
        ram
    }

    /// Closes the pool; the next [`Ram::open_pool`] finds it as a new process would.
    ///
    /// # Panics
    /// As [`Ram::finish`].
    pub fn close_pool(&mut self) {
        self.run(Op::Close);
        self.kill();
    }

    /// The process dies, and with it all that is in memory. The device has what it was given.
    pub fn kill(&mut self) {
        self.todo.clear();
        self.answers.clear();
        self.engine = engine(&self.device, self.now_ns);
    }

    /// Opens it.
    ///
    /// # Panics
    /// As [`Ram::finish`].
    pub fn open_pool(&mut self) {
        self.run(Op::Open { read_only: false });
    }

    /// Hands in an operation; its device operations wait for [`Ram::finish`].
    pub fn submit(&mut self, op: Op) -> OpId {
        self.next_op += 1;
        self.now_ns += OP_NS;
        if self.now_ns - self.told_ns >= TICK_NS {
            self.tick();
        }
        let id = OpId(self.next_op);
        self.step(Event::Op { id, op });
        id
    }

    /// Carries actions out until `count` operations are answered; takes their answers.
    ///
    /// # Panics
    /// When an operation is refused, or never answered.
    pub fn finish(&mut self, count: usize) -> Vec<(OpId, Reply)> {
        let mut idle = 0;
        while self.answers.len() < count {
            if let Some(action) = self.todo.pop_front() {
                self.carry_out(action);
                continue;
            }
            if self.engine.is_paused() {
                self.step(Event::Resume);
                continue;
            }
            idle += 1;
            assert!(idle <= MAX_IDLE_TICKS, "stuck: no answer");
            self.now_ns += TICK_NS;
            self.tick();
        }
        let accept = |(id, result)| match result {
            Ok(reply) => (id, reply),
            Err(error) => panic!("operation {id:?} was refused: {error}"),
        };
        self.answers.drain(..).map(accept).collect()
    }

    /// Runs one operation.
    ///
    /// # Panics
    /// As [`Ram::finish`].
    pub fn run(&mut self, op: Op) -> Reply {
        self.submit(op);
        match self.finish(1).pop() {
            Some((_, reply)) => reply,
            None => panic!("no answer"),
        }
    }

    /// Creates a volume of `size_bytes`.
    ///
    /// # Panics
    /// As [`Ram::finish`].
    pub fn volume(&mut self, name: &str, size_bytes: u64) {
        self.run(Op::create_volume(name, size_bytes, Vec::new()));
    }

    /// Opens a volume for writing.
    ///
    /// # Panics
    /// As [`Ram::finish`].
    pub fn open(&mut self, name: &str) -> ExportId {
        match self.run(Op::OpenExport { name: name.into(), write: true }) {
            Reply::Export { export, .. } => export,
            other => panic!("opening {name} gave {other:?}"),
        }
    }

    /// Maps the first `mib` MiB and folds that.
    ///
    /// # Panics
    /// As [`Ram::finish`].
    pub fn fill(&mut self, export: ExportId, mib: u64) {
        let piece = crate::block(FILLER).repeat(MIB_BLOCKS);
        for at in 0..mib {
            let data = Buf::from_bytes(&piece);
            let (offset, len) = (at << 20, data.len() as u64);
            self.run(Op::Write { export, offset, len, data, fua: false });
        }
        self.run(Op::Checkpoint);
    }

    fn tick(&mut self) {
        self.told_ns = self.now_ns;
        let (now_ns, wall_ns) = (self.now_ns, WALL_NS + self.now_ns);
        self.step(Event::Tick { now_ns, wall_ns });
    }

    fn step(&mut self, event: Event) {
        self.engine.step(event, &mut self.actions);
        self.todo.extend(self.actions.drain(..));
    }

    fn carry_out(&mut self, action: Action) {
        let (id, result, buf) = match action {
            Action::Reply { id, result } => return self.answers.push((id, result)),
            Action::Tell(_) => return,
            Action::Read { id, at, mut buf, .. } => {
                self.device.read(at, &mut buf);
                (id, Ok(()), Some(buf))
            }
            Action::Write { id, mut at, bufs, .. } => {
                for slice in &bufs {
                    self.device.write(at, slice);
                    at = at.offset(slice.block_count() as u64);
                }
                (id, Ok(()), None)
            }
            Action::Grow { id, .. } => (id, Err(IoFailure { errno: ENOSPC }), None),
            Action::Flush { id } | Action::Discard { id, .. } | Action::Allocate { id, .. } => {
                (id, Ok(()), None)
            }
        };
        self.step(Event::IoDone { id, result, buf });
    }
}

fn engine(device: &Device, now_ns: u64) -> Engine {
    let wall_ns = WALL_NS + now_ns;
    Engine::new(Config { device_blocks: device.blocks(), wall_ns, ..Config::default() })
}
