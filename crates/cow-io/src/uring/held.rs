//! Writes that nobody waits for, kept until there is enough of them. Random writes get places that
//! follow one another, as far as the pool has such: those become one write, and what one costs below
//! hardly depends on its length. Several that are submitted together are at least announced to the
//! device together.

use crate::op::Op;
use std::mem;
use std::time::{Duration, Instant};

/// As many bytes are written without further delay.
const ENOUGH_BYTES: u64 = 256 << 10;
/// Nothing is kept longer while the reactor is awake; it is kept no longer at all when that sleeps.
const MOMENT: Duration = Duration::from_micros(250);

/// The writes, in their order.
pub(super) struct Held {
    writes: Vec<Op>,
    bytes: u64,
    since: Instant,
    moment: Duration,
}

impl Default for Held {
    fn default() -> Self {
        Self { writes: Vec::new(), bytes: 0, since: Instant::now(), moment: MOMENT }
    }
}

impl Held {
    /// Keeps a write. Whether there is enough.
    pub(super) fn keep(&mut self, op: Op) -> bool {
        if self.writes.is_empty() {
            self.since = Instant::now();
        }
        self.bytes += op.left();
        let apart = match self.writes.last_mut() {
            Some(last) => last.join(op).err(),
            None => Some(op),
        };
        self.writes.extend(apart);
        self.bytes >= ENOUGH_BYTES
    }

    /// Whether the first was kept long enough.
    pub(super) fn is_due(&self) -> bool {
        !self.writes.is_empty() && self.since.elapsed() >= self.moment
    }

    pub(super) fn take(&mut self) -> Vec<Op> {
        self.bytes = 0;
        mem::take(&mut self.writes)
    }

    /// Nothing is due before it was kept so long.
    #[cfg(test)]
    pub(super) fn set_moment(&mut self, moment: Duration) {
        self.moment = moment;
    }
}
