//! A simulated disk as a repair writes to it, and what a crash at any moment of that leaves.

use cow_check::repair::{BlocksMut, WriteError};
use cow_check::{Blocks, ReadError};
use cow_engine::{Action, Event, IoId};
use cow_format::{Buf, BufSlice, Phys};
use cow_sim::checked::View;
use cow_sim::disk::{Crash, SimDisk};
use cow_sim::rng::Rng;

/// What is looked at.
type Probe<'p> = Box<dyn FnMut(SimDisk) + 'p>;

/// See the module.
pub struct Device<'p> {
    pub disk: SimDisk,
    pub writes: u64,
    pub flushes: u64,
    /// The process is killed when it asks for this one.
    pub killed_at_flush: Option<u64>,
    next: u64,
    rng: Rng,
    probe: Option<Probe<'p>>,
}

impl<'p> Device<'p> {
    pub fn new(disk: SimDisk) -> Self {
        let rng = Rng::new(7);
        Self { disk, writes: 0, flushes: 0, killed_at_flush: None, next: 0, rng, probe: None }
    }

    /// Shows `probe` every disk that a crash may leave, between any two steps.
    pub fn probed(disk: SimDisk, probe: impl FnMut(SimDisk) + 'p) -> Self {
        Self { probe: Some(Box::new(probe)), ..Self::new(disk) }
    }

    fn crash_here(&mut self) {
        if let Some(probe) = &mut self.probe {
            for how in Crash::subsets(self.disk.pending_writes(), 32, &mut self.rng) {
                probe(self.disk.crash(how));
            }
        }
    }

    fn run(&mut self, action: impl FnOnce(IoId) -> Action) -> Result<(), WriteError> {
        self.next += 1;
        self.disk.issue(action(IoId(self.next)));
        self.crash_here();
        let Event::IoDone { result, .. } = self.disk.complete(0) else { panic!("no completion") };
        self.crash_here();
        result.map_err(|failure| WriteError { cause: format!("os error {}", failure.errno) })
    }
}

impl Blocks for Device<'_> {
    fn read(&mut self, at: Phys, blocks: usize) -> Result<Buf, ReadError> {
        View(&self.disk).read(at, blocks)
    }

    fn block_count(&self) -> u64 {
        self.disk.blocks()
    }
}

impl BlocksMut for Device<'_> {
    fn write(&mut self, at: Phys, buf: &Buf) -> Result<(), WriteError> {
        self.writes += 1;
        let bytes = BufSlice::whole(Buf::from_bytes(buf));
        self.run(|id| Action::Write { id, at, lazy: false, bufs: vec![bytes] })
    }

    fn flush(&mut self) -> Result<(), WriteError> {
        self.flushes += 1;
        if self.killed_at_flush == Some(self.flushes) {
            return Err(WriteError { cause: "killed".to_owned() });
        }
        self.run(|id| Action::Flush { id })
    }
}
