//! How much of the reactor's time background work gets while clients ask for something.
//!
//! A fold has thousands of nodes to go through. It pauses after a few, and goes on once everybody
//! else has been heard; but if it went on each time, half of the thread's time would be its own, and
//! what clients wait for would be late by as much. So it rests, as a multiple of the time it took.
//! The thread stays awake meanwhile: a rest is some 100 us, hardly more than sleeping and being woken
//! by the next client costs both.

use std::time::Instant;

/// Background work rests so many times as long as it has worked.
const REST: u32 = 6;

#[derive(Default)]
pub(crate) struct Pace {
    /// Somebody has asked for something since the last piece of work.
    heard: bool,
    rests_until: Option<Instant>,
}

impl Pace {
    /// A client asks for something.
    pub(crate) fn hear(&mut self) {
        self.heard = true;
    }

    /// Whether background work rests at `now`.
    pub(crate) fn rests(&self, now: Instant) -> bool {
        self.rests_until.is_some_and(|until| now < until)
    }

    /// A piece of background work was done from `begun` to `ended`. It is followed by a rest if
    /// somebody was heard since the piece before it.
    pub(crate) fn worked(&mut self, begun: Instant, ended: Instant) {
        let rest = ended.saturating_duration_since(begun) * REST;
        self.rests_until = self.heard.then(|| ended + rest);
        self.heard = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const PIECE: Duration = Duration::from_micros(50);

    #[test]
    fn work_rests_six_times_as_long_as_it_took_if_somebody_was_heard() {
        let start = Instant::now();
        let mut pace = Pace::default();
        assert!(!pace.rests(start));
        pace.hear();
        let ended = start + PIECE;
        pace.worked(start, ended);
        assert!(pace.rests(ended));
        assert!(pace.rests(ended + PIECE * 6 - Duration::from_nanos(1)));
        assert!(!pace.rests(ended + PIECE * 6));
    }

    #[test]
    fn work_that_nobody_is_kept_from_does_not_rest() {
        let start = Instant::now();
        let mut pace = Pace::default();
        pace.hear();
        pace.worked(start, start + PIECE);
        // One rest, for those who were heard before; then nobody comes.
        let again = start + PIECE * 7;
        pace.worked(again, again + PIECE);
        assert!(!pace.rests(again + PIECE));
        // Whoever comes meanwhile is heard before the next piece in any case.
        pace.hear();
        assert!(!pace.rests(again + PIECE));
        pace.worked(again + PIECE, again + PIECE * 2);
        assert!(pace.rests(again + PIECE * 2));
    }
}
