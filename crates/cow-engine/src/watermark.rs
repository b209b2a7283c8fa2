//! Watermarks: says when the pool comes to 80, 90 and 95 %, and when it falls below again.
//!
//! What was let go and is not free yet counts as free: it comes back by itself. A mark is left
//! two percent below it, so that a pool at a mark does not say so again and again.

use crate::core::Core;
use crate::events::{EventKind, SpaceLevel, listed};
use cow_format::BLOCK_SIZE;
use cow_snaptree::SPACE_MARKS;

/// So far below a mark, in percent, it is left.
const HYSTERESIS: u8 = 2;

/// The mark of a pool that is `percent` full and was at `level`.
fn next_level(level: u8, percent: u8) -> u8 {
    let reached = SPACE_MARKS.into_iter().find(|&mark| percent >= mark).unwrap_or(0);
    let kept = |mark: u8| mark <= level && percent + HYSTERESIS >= mark;
    let kept = SPACE_MARKS.into_iter().find(|&mark| kept(mark)).unwrap_or(0);
    reached.max(kept)
}

impl Core {
    /// Percent of the capacity that new data cannot have.
    pub(crate) fn percent_used(&self) -> u8 {
        let (capacity, free) = self.fill();
        let used = (capacity - free) * 100;
        used.checked_div(capacity).unwrap_or(100) as u8
    }

    /// Notes it when the pool has come to another mark.
    pub(crate) fn watch_level(&mut self) {
        let writable = self.pool.as_ref().is_some_and(|pool| !pool.read_only);
        if !writable || !self.serving {
            return;
        }
        let (old, percent) = (self.space_level, self.percent_used());
        let level = next_level(old, percent);
        if level == old {
            return;
        }
        self.space_level = level;
        let (capacity, free) = self.fill();
        let block = BLOCK_SIZE as u64;
        let pool = self.pool.as_ref();
        let names = if level > 0 { self.undo_snapshots() } else { Vec::new() };
        let (undo_snapshots, undo_count) = listed(names);
        let found = SpaceLevel {
            level,
            percent,
            capacity_bytes: capacity * block,
            free_bytes: free * block,
            reserved_bytes: pool.map_or(0, |pool| pool.shares.guaranteed() * block),
            undo_snapshots,
            undo_count,
        };
        let kind =
            if level > old { EventKind::SpaceLow(found) } else { EventKind::SpaceBack(found) };
        self.tell(kind);
    }

    /// The undo snapshots that nobody holds, oldest first.
    fn undo_snapshots(&self) -> Vec<String> {
        let Some(pool) = &self.pool else { return Vec::new() };
        let undos = pool.tree.undos_by_age();
        undos.into_iter().filter_map(|id| pool.tree.full_name(id)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_left_below_them() {
        let mut level = 0;
        let seen: Vec<u8> = [79, 80, 79, 78, 77, 94, 95, 93, 92, 89, 87, 78, 77, 100, 0]
            .into_iter()
            .map(|percent| {
                level = next_level(level, percent);
                level
            })
            .collect();
        assert_eq!(seen, [0, 80, 80, 80, 0, 90, 95, 95, 90, 90, 80, 80, 0, 95, 0]);
    }
}
