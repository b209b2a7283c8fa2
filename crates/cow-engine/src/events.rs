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
pub(crate) struct Events(VecDeque<PoolEvent>);

impl Events {
    pub(crate) fn push(&mut self, at_ns: u64, kind: EventKind) {
        if self.0.len() == MAX_EVENTS {
            self.0.pop_front();
        }
        self.0.push_back(PoolEvent { at_ns, kind });
    }

    /// Newest last.
    pub(crate) fn list(&self) -> Vec<PoolEvent> {
        self.0.iter().cloned().collect()
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
        assert_eq!(list.last().map(|event| event.at_ns), Some(3 * MAX_EVENTS as u64 - 1));

        let (names, count) = listed((0..20).map(|n| format!("v@{n}")).collect());
        let text = EventKind::Expired { names, count }.to_string();
        assert!(text.starts_with("expired: v@0, v@1, ") && text.ends_with("v@15 and 4 more"));
    }
}
