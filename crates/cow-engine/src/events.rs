//! What happened to a pool that nobody asked for: a short list, newest last, that
//! [`crate::PoolInfo`] carries.

use std::collections::VecDeque;
use std::fmt;

/// Events that are kept; older ones are forgotten.
pub const MAX_EVENTS: usize = 64;
/// Names that an event lists.
const LISTED: usize = 16;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolEvent {
    /// One more than the last event's since opening; the first is 1.
    pub seq: u64,
    /// Wall-clock time, nanoseconds since 1970.
    pub at_ns: u64,
    /// What.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The wall clock is more than a day ahead of what is trusted: nothing expires until it has
    /// gone evenly for ten minutes.
    ClockSuspect {
        /// So many nanoseconds ahead.
        ahead_ns: u64,
    },
    /// The wall clock is trusted again.
    ClockTrusted,
    /// Snapshots were deleted because their time had come.
    Expired {
        /// Names as `VOL@SNAP`, the first few.
        names: Vec<String>,
        /// How many.
        count: u64,
    },
    /// Snapshots were deleted because no `keep` rule of their volume keeps them.
    Pruned {
        /// Names as `VOL@SNAP`, the first few.
        names: Vec<String>,
        /// How many.
        count: u64,
    },
    /// An undo snapshot was deleted for want of space.
    MadeRoom {
        /// Its name, `VOL@SNAP`.
        name: String,
        /// How full the pool was, in percent.
        percent: u8,
    },
    /// The pool has come to 80, 90 or 95 %.
    SpaceLow(SpaceLevel),
    /// It has fallen clearly below such a mark again.
    SpaceBack(SpaceLevel),
}

/// How full a pool is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpaceLevel {
    /// The highest mark that it is at: 80, 90, 95; 0 for none.
    pub level: u8,
    /// Percent of the capacity that new data cannot have.
    pub percent: u8,
    /// Bytes that data and its map can have in all.
    pub capacity_bytes: u64,
    /// Bytes of it that can still be written, with what is on its way back.
    pub free_bytes: u64,
    /// Bytes of it that are kept for volumes with a reserve.
    pub reserved_bytes: u64,
    /// When it is at a mark: undo snapshots, the first that one would delete; the oldest few.
    pub undo_snapshots: Vec<String>,
    /// How many there are.
    pub undo_count: u64,
}

impl EventKind {
    /// A short name for programs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::ClockSuspect { .. } => "clock_suspect",
            Self::ClockTrusted => "clock_trusted",
            Self::Expired { .. } => "expired",
            Self::Pruned { .. } => "pruned",
            Self::MadeRoom { .. } => "made_room",
            Self::SpaceLow(_) => "space_low",
            Self::SpaceBack(_) => "space_back",
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClockSuspect { ahead_ns } => {
                let hours = ahead_ns / 3_600_000_000_000;
                write!(
                    f,
                    "the clock is {hours} hours ahead of what is known: \
                     nothing expires until it has gone evenly for ten minutes"
                )
            }
            Self::ClockTrusted => f.write_str("the clock has gone evenly: snapshots expire again"),
            Self::Expired { names, count } => write_names(f, "expired", names, *count),
            Self::Pruned { names, count } => write_names(f, "pruned", names, *count),
            Self::MadeRoom { name, percent } => {
                write!(f, "deleted for want of space: {name}; the pool was {percent} % full")
            }
            Self::SpaceLow(at) => {
                write!(f, "the pool is {} % full, {} bytes are left", at.percent, at.free_bytes)?;
                if at.undo_count == 0 {
                    return Ok(());
                }
                write_names(f, "; undo snapshots could go first", &at.undo_snapshots, at.undo_count)
            }
            Self::SpaceBack(at) => {
                let SpaceLevel { percent, free_bytes, .. } = at;
                write!(f, "the pool is {percent} % full again, {free_bytes} bytes are left")
            }
        }
    }
}

fn write_names(
    f: &mut fmt::Formatter<'_>,
    what: &str,
    names: &[String],
    count: u64,
) -> fmt::Result {
    write!(f, "{what}: {}", names.join(", "))?;
    match count.saturating_sub(names.len() as u64) {
        0 => Ok(()),
        more => write!(f, " and {more} more"),
    }
}

/// The first few of `names`, and how many there are.
pub(crate) fn listed(mut names: Vec<String>) -> (Vec<String>, u64) {
    let count = names.len() as u64;
    names.truncate(LISTED);
    (names, count)
}

/// The newest events of a pool.
#[derive(Debug, Default)]
pub(crate) struct Events {
    list: VecDeque<PoolEvent>,
    last: u64,
}

impl Events {
    pub(crate) fn push(&mut self, at_ns: u64, kind: EventKind) -> PoolEvent {
        self.last += 1;
        if self.list.len() == MAX_EVENTS {
            self.list.pop_front();
        }
        let event = PoolEvent { seq: self.last, at_ns, kind };
        self.list.push_back(event.clone());
        event
    }

    /// Newest last.
    pub(crate) fn list(&self) -> Vec<PoolEvent> {
        self.list.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_bounded_and_long_ones_are_cut() {
        let mut events = Events::default();
        for at_ns in 0..3 * MAX_EVENTS as u64 {
            events.push(at_ns, EventKind::ClockTrusted);
        }
        let list = events.list();
        assert_eq!(list.len(), MAX_EVENTS);
        assert!(
            list.iter()
                .map(|event| event.seq)
                .eq(2 * MAX_EVENTS as u64 + 1..=3 * MAX_EVENTS as u64)
        );
        assert_eq!(list.last().map(|event| event.at_ns), Some(3 * MAX_EVENTS as u64 - 1));

        let (names, count) = listed((0..20).map(|n| format!("v@{n}")).collect());
        let text = EventKind::Expired { names, count }.to_string();
        assert!(text.starts_with("expired: v@0, v@1, ") && text.ends_with("v@15 and 4 more"));
    }
}
