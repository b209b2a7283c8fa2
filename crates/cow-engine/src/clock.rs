//! Whether the wall clock may be believed. Design section 14, "Expiry".
//!
//! A clock that is suddenly a day or more ahead is more likely wrong than right, and what expires
//! is gone for good. So wall time is held against monotonic time: their difference, the *offset*,
//! is constant but for small corrections. One that is more than [`JUMP_NS`] above the trusted one
//! makes the clock suspect, until it has kept the same offset for [`CONFIRM_NS`]. At open the
//! trusted offset is that of the newest checkpoint's time, if wall time is further ahead of it.
//!
//! A checkpoint that is made meanwhile says the time that is trusted, not the one that is
//! suspect: else opening the pool once more would be enough to make anything believed.

/// How far ahead of what is trusted the clock may be: 24 hours.
const JUMP_NS: i128 = 24 * 3600 * SECOND_NS;
/// How long it must then go evenly: 10 minutes.
const CONFIRM_NS: u64 = 600_000_000_000;
/// Corrections up to this are even enough: 1 minute.
const TOLERANCE_NS: i128 = 60 * SECOND_NS;
const SECOND_NS: i128 = 1_000_000_000;

/// What one look at both clocks has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The clock is suspect from now on: it is so many nanoseconds ahead.
    Suspect(u64),
    /// It is trusted again.
    Trusted,
}

/// See the module. Offsets are wall minus monotonic time, in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ClockGuard {
    trusted: i128,
    seen: i128,
    /// Monotonic time since which the offset is `seen`.
    since_ns: u64,
    suspect: bool,
}

impl ClockGuard {
    /// The first look, when the last that is known of wall time is `known_ns`.
    pub(crate) fn begin(now_ns: u64, wall_ns: u64, known_ns: u64) -> (Self, Option<Change>) {
        let seen = i128::from(wall_ns) - i128::from(now_ns);
        let known = i128::from(known_ns) - i128::from(now_ns);
        let suspect = seen - known > JUMP_NS;
        let trusted = if suspect { known } else { seen };
        let guard = Self { trusted, seen, since_ns: now_ns, suspect };
        (guard, suspect.then(|| Change::Suspect(guard.ahead_ns())))
    }

    /// One more look.
    pub(crate) fn look(&mut self, now_ns: u64, wall_ns: u64) -> Option<Change> {
        let offset = i128::from(wall_ns) - i128::from(now_ns);
        if (offset - self.seen).abs() > TOLERANCE_NS {
            (self.seen, self.since_ns) = (offset, now_ns);
        }
        if !self.suspect && offset - self.trusted > JUMP_NS {
            self.suspect = true;
            return Some(Change::Suspect(self.ahead_ns()));
        }
        if now_ns.saturating_sub(self.since_ns) < CONFIRM_NS {
            return None;
        }
        // A new stretch begins, so that a clock that is merely slow or fast never is suspect.
        (self.trusted, self.seen, self.since_ns) = (offset, offset, now_ns);
        std::mem::take(&mut self.suspect).then_some(Change::Trusted)
    }

    /// Whether nothing may be deleted for what the clock says.
    pub(crate) fn is_suspect(&self) -> bool {
        self.suspect
    }

    /// Wall time as far as it is trusted.
    pub(crate) fn trusted_wall_ns(&self, now_ns: u64, wall_ns: u64) -> u64 {
        if !self.suspect {
            return wall_ns;
        }
        u64::try_from(self.trusted + i128::from(now_ns)).unwrap_or(wall_ns)
    }

    fn ahead_ns(&self) -> u64 {
        u64::try_from(self.seen - self.trusted).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000_000_000;
    const DAY: u64 = 24 * 60 * MINUTE;
    const WALL: u64 = 20_000 * DAY;

    fn begun() -> ClockGuard {
        let (guard, change) = ClockGuard::begin(0, WALL, WALL - DAY);
        assert_eq!(change, None);
        guard
    }

    #[test]
    fn a_jump_of_more_than_a_day_is_suspect_until_it_has_lasted() {
        let mut guard = begun();
        assert_eq!(guard.look(MINUTE, WALL + MINUTE + DAY), None, "a day is believed");
        let mut guard2 = begun();
        let ahead = DAY + 2 * MINUTE;
        assert_eq!(guard2.look(MINUTE, WALL + MINUTE + ahead), Some(Change::Suspect(ahead)));
        for minute in 2..11 {
            assert_eq!(guard2.look(minute * MINUTE, WALL + minute * MINUTE + ahead), None);
            assert!(guard2.is_suspect());
            assert_eq!(guard2.trusted_wall_ns(minute * MINUTE, 0), WALL + minute * MINUTE);
        }
        let now = 11 * MINUTE;
        assert_eq!(guard2.look(now, WALL + now + ahead), Some(Change::Trusted));
        assert_eq!(guard2.trusted_wall_ns(now, WALL + now + ahead), WALL + now + ahead);
        assert_eq!(guard.look(MINUTE, WALL + MINUTE), None, "back is no jump ahead");
    }

    #[test]
    fn one_that_goes_on_jumping_is_not_confirmed() {
        let mut guard = begun();
        let mut changes = Vec::new();
        for minute in 1..60 {
            let jumps = minute / 5 * DAY;
            changes.extend(guard.look(minute * MINUTE, WALL + minute * MINUTE + 2 * DAY + jumps));
        }
        assert_eq!(changes, [Change::Suspect(2 * DAY)]);
    }

    #[test]
    fn small_steps_in_short_time_add_up() {
        let mut guard = begun();
        let step = DAY / 4;
        let look =
            |guard: &mut ClockGuard, n: u64| guard.look(n * MINUTE, WALL + n * (MINUTE + step));
        assert_eq!((1..=4).find_map(|n| look(&mut guard, n)), None);
        assert_eq!(look(&mut guard, 5), Some(Change::Suspect(5 * step)));
    }

    #[test]
    fn a_clock_that_is_merely_fast_is_believed() {
        let mut guard = begun();
        for minute in 1..200_000 {
            let now = minute * MINUTE;
            assert_eq!(guard.look(now, WALL + now + now / 100), None, "minute {minute}");
        }
    }

    #[test]
    fn at_open_the_newest_checkpoint_counts() {
        let (guard, change) = ClockGuard::begin(7, WALL, WALL - DAY - 1);
        assert_eq!(change, Some(Change::Suspect(DAY + 1)));
        assert!(guard.is_suspect());
        assert_eq!(guard.trusted_wall_ns(7, WALL), WALL - DAY - 1);
        let (guard, change) = ClockGuard::begin(7, WALL, WALL + 300 * DAY);
        assert_eq!((guard.is_suspect(), change), (false, None), "a clock that was set back");
    }
}
