//! Writes that nobody waits for, joined to one until there is enough of it: what a write costs below
//! hardly depends on its length, and random writes get places that follow one another.

use crate::op::Op;
use std::time::{Duration, Instant};

/// As many bytes are written without further delay.
const ENOUGH_BYTES: u64 = 256 << 10;
/// Nothing is kept longer while the reactor is awake; it is kept no longer at all when that sleeps.
const MOMENT: Duration = Duration::from_micros(250);

/// At most one write.
pub(super) struct Held {
    write: Option<(Op, Instant)>,
    moment: Duration,
}

impl Default for Held {
    fn default() -> Self {
        Self { write: None, moment: MOMENT }
    }
}

impl Held {
    /// Keeps a write; returns one that is kept no longer.
    pub(super) fn keep(&mut self, op: Op) -> Option<Op> {
        let Some((mut held, since)) = self.write.take() else { return self.begin(op) };
        match held.join(op) {
            Ok(()) if held.left() < ENOUGH_BYTES => {
                self.write = Some((held, since));
                None
            }
            Ok(()) => Some(held),
            Err(op) => {
                self.write = Some((op, Instant::now()));
                Some(held)
            }
        }
    }

    fn begin(&mut self, op: Op) -> Option<Op> {
        if op.left() >= ENOUGH_BYTES {
            return Some(op);
        }
        self.write = Some((op, Instant::now()));
        None
    }

    /// Whether it was kept long enough.
    pub(super) fn is_due(&self) -> bool {
        self.write.as_ref().is_some_and(|(_, since)| since.elapsed() >= self.moment)
    }

    pub(super) fn take(&mut self) -> Option<Op> {
        self.write.take().map(|(op, _)| op)
    }

    /// Nothing is due before it was kept so long.
    #[cfg(test)]
    pub(super) fn set_moment(&mut self, moment: Duration) {
        self.moment = moment;
    }
}
