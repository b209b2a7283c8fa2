//! What happens to a pool by itself.

use cow_engine as engine;
use serde::{Deserialize, Serialize};

/// Something that happened to a pool and that nobody asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PoolEvent {
    /// Nanoseconds since 1970.
    pub at_ns: u64,
    /// What, for programs: `clock_suspect`, `clock_trusted`, `expired`, `pruned`.
    pub kind: String,
    /// The same in a sentence.
    pub text: String,
}

impl From<engine::PoolEvent> for PoolEvent {
    fn from(event: engine::PoolEvent) -> Self {
        let engine::PoolEvent { at_ns, kind } = event;
        Self { at_ns, kind: kind.name().into(), text: kind.to_string() }
    }
}
