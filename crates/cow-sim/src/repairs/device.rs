//! A disk as a repair reads and writes it, one operation after the other; and what a crash leaves
//! between any two steps of that.

use crate::disk::{Crash, SimDisk};
use crate::rng::Rng;
use cow_check::repair::{BlocksMut, WriteError};
use cow_check::{Blocks, ReadError};
use cow_engine::{Action, Event, IoId};
use cow_format::{Buf, BufSlice, Phys};

/// Looks at a crashed disk, and is told how many operations came before.
type Probe<'p> = Box<dyn FnMut(SimDisk, u64) -> Result<(), String> + 'p>;

/// See the module.
pub struct Device<'p> {
    pub disk: SimDisk,
    next: u64,
    rng: Rng,
    subsets: u64,
    changes: Option<u64>,
    probe: Option<Probe<'p>>,
    bug: Option<String>,
}

impl<'p> Device<'p> {
    pub fn new(disk: SimDisk) -> Self {
        let rng = Rng::new(0);
        Self { disk, next: 0, rng, subsets: 0, changes: None, probe: None, bug: None }
    }

    /// Shows `probe` the disks that a crash may leave, between any two steps: `subsets` of what no
    /// flush has covered.
    pub fn probe(
        &mut self,
        subsets: u64,
        seed: u64,
        probe: impl FnMut(SimDisk, u64) -> Result<(), String> + 'p,
    ) {
        (self.subsets, self.rng) = (subsets, Rng::new(seed));
        self.probe = Some(Box::new(probe));
    }

    /// The first fault that the probe has found, and the disk.
    pub fn end(self) -> (Option<String>, SimDisk) {
        (self.bug, self.disk)
    }

    fn crash_here(&mut self) {
        let Some(probe) = self.probe.as_mut().filter(|_| self.bug.is_none()) else { return };
        if self.changes.replace(self.disk.changes()) == Some(self.disk.changes()) {
            return;
        }
        for how in Crash::subsets(self.disk.pending_writes(), self.subsets, &mut self.rng) {
            if let Err(text) = probe(self.disk.crash(how), self.next) {
                self.bug = Some(format!("{how:?}, {text}"));
                return;
            }
        }
    }

    fn run(&mut self, action: impl FnOnce(IoId) -> Action) -> Result<Option<Buf>, String> {
        self.next += 1;
        self.disk.issue(action(IoId(self.next)));
        self.crash_here();
        let Event::IoDone { result, buf, .. } = self.disk.complete(0) else {
            return Err("no completion".to_owned());
        };
        self.crash_here();
        match self.disk.take_bugs().pop() {
            Some(bug) => self.bug = Some(bug),
            None => result.map_err(|failure| format!("os error {}", failure.errno))?,
        }
        Ok(buf)
    }
}

impl Blocks for Device<'_> {
    fn read(&mut self, at: Phys, blocks: usize) -> Result<Buf, ReadError> {
        let buf = Buf::zeroed(blocks);
        let read = self.run(|id| Action::Read { id, at, buf, bypass_cache: true });
        read.map_err(ReadError::new)?.ok_or_else(|| ReadError::new("no buffer"))
    }

    fn block_count(&self) -> u64 {
        self.disk.blocks()
    }
}

impl BlocksMut for Device<'_> {
    fn write(&mut self, at: Phys, buf: &Buf) -> Result<(), WriteError> {
        let bufs = vec![BufSlice::whole(Buf::from_bytes(buf))];
        let written = self.run(|id| Action::Write { id, at, lazy: false, bufs });
        written.map(drop).map_err(|cause| WriteError { cause })
    }

    fn flush(&mut self) -> Result<(), WriteError> {
        let flushed = self.run(|id| Action::Flush { id });
        flushed.map(drop).map_err(|cause| WriteError { cause })
    }
}
