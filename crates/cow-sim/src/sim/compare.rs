//! All that clients can see, compared in the middle of a run.

use super::{Sim, Stop};
use crate::sim::observe::observe_written;
use crate::world::Machine;
use std::collections::BTreeSet;

impl<M: Machine> Sim<M> {
    /// Waits for what is in progress and compares all that clients can see with what was
    /// acknowledged, durable or not: the list, sizes, properties, what is mapped, and that the
    /// blocks of `written` read as zeros where they are not. A fold may be under way meanwhile.
    ///
    /// # Errors
    /// Crashed, or something that cannot be.
    pub fn compare(&mut self, written: &BTreeSet<u64>) -> Result<(), Stop> {
        self.drain()?;
        let before = self.world.disk().done();
        let observed = observe_written(&mut self.world, written)?;
        // Looking must not bring the crash nearer, or none would fall between two commands.
        let looking = self.world.disk().done() - before;
        self.fuse = self.fuse.map(|fuse| fuse + looking);
        self.look()?;
        self.oracle.judge_live(&observed)?;
        Ok(())
    }
}
