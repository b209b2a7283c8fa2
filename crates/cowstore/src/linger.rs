//! Whether the reactor looks again for a moment before it sleeps. To be put to sleep and woken costs
//! more than many a request; where the next one tends to come within that time, staying awake is
//! cheaper. It is only done for sources, whose requests nobody has to be woken for either, and it is
//! given up where it does not pay: a slow disk, or a client that asks seldom.

use std::time::{Duration, Instant};

/// How long it stays awake.
const LINGER: Duration = Duration::from_micros(50);
/// Vain attempts before it is done seldom.
const PATIENCE: u32 = 8;
/// How often it is tried then: once in so many sleeps.
const SELDOM: u32 = 16;

/// The state of one reactor.
#[derive(Default)]
pub(crate) struct Linger {
    since: Option<Instant>,
    /// Attempts in vain, one after the other.
    in_vain: u32,
    skipped: u32,
}

impl Linger {
    /// Something was done.
    pub(crate) fn worked(&mut self) {
        if self.since.take().is_some() {
            self.in_vain = 0;
        }
        self.skipped = self.skipped.min(SELDOM);
    }

    /// Whether to look again rather than sleep. After a refusal there is a sleep.
    pub(crate) fn stays(&mut self, now: Instant) -> bool {
        match self.since {
            Some(since) if now.saturating_duration_since(since) < LINGER => true,
            Some(_) => {
                self.since = None;
                self.in_vain = self.in_vain.saturating_add(1);
                false
            }
            None if self.in_vain < PATIENCE || self.skipped >= SELDOM => {
                self.skipped = 0;
                self.since = Some(now);
                true
            }
            None => {
                self.skipped += 1;
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attempts out of so many sleeps, none of which pays.
    fn attempts(linger: &mut Linger, sleeps: u32) -> u32 {
        let now = Instant::now();
        let mut attempts = 0;
        for _ in 0..sleeps {
            if linger.stays(now) {
                attempts += 1;
                assert!(linger.stays(now + LINGER / 2), "not over yet");
                assert!(!linger.stays(now + LINGER));
            }
        }
        attempts
    }

    #[test]
    fn it_is_given_up_where_it_does_not_pay() {
        let mut linger = Linger::default();
        let first = attempts(&mut linger, 100);
        assert!((PATIENCE..=PATIENCE + 100 / SELDOM).contains(&first), "{first}");
        // One that pays brings it back.
        while !linger.stays(Instant::now()) {}
        linger.worked();
        assert_eq!(attempts(&mut linger, PATIENCE), PATIENCE);
    }
}
