//! What happens to a pool by itself.

use cow_engine as engine;
use serde::{Deserialize, Serialize};

/// Something that happened to a pool and that nobody asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PoolEvent {
    /// One more than the last event's since opening; the first is 1. Ask for those above one that
    /// is known.
    pub seq: u64,
    /// Nanoseconds since 1970.
    pub at_ns: u64,
    /// What, for programs: `clock_suspect`, `clock_trusted`, `expired`, `pruned`, `made_room`,
    /// `space_low`, `space_back`.
    pub kind: String,
    /// The same in a sentence.
    pub text: String,
    /// How full the pool is, in the two about space.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub space: Option<SpaceLevel>,
}

/// How full a pool is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SpaceLevel {
    /// The highest mark that it is at: 80, 90, 95; 0 for none.
    pub level: u8,
    /// Percent of the capacity that new data cannot have.
    pub percent: u8,
    /// What data and its map can have in all.
    pub capacity_bytes: u64,
    /// What of it can still be written.
    pub free_bytes: u64,
    /// What of it is kept for volumes with a reserve.
    pub reserved_bytes: u64,
    /// The first that one would delete; the oldest few.
    pub undo_snapshots: Vec<String>,
    /// How many undo snapshots there are.
    pub undo_count: u64,
}

impl From<&engine::SpaceLevel> for SpaceLevel {
    fn from(found: &engine::SpaceLevel) -> Self {
        Self {
            level: found.level,
            percent: found.percent,
            capacity_bytes: found.capacity_bytes,
            free_bytes: found.free_bytes,
            reserved_bytes: found.reserved_bytes,
            undo_snapshots: found.undo_snapshots.clone(),
            undo_count: found.undo_count,
        }
    }
}

impl From<engine::PoolEvent> for PoolEvent {
    fn from(event: engine::PoolEvent) -> Self {
        let engine::PoolEvent { seq, at_ns, kind } = event;
        let space = match &kind {
            engine::EventKind::SpaceLow(at) | engine::EventKind::SpaceBack(at) => Some(at.into()),
            _ => None,
        };
        Self { seq, at_ns, kind: kind.name().into(), text: kind.to_string(), space }
    }
}
