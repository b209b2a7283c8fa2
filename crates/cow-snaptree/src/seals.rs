//! Whether content roots of snapshots are computed unasked: the property `roots`.

use crate::error::{TreeError, invalid};
use crate::tree::{POOL_NODE, Tree};
use cow_format::NodeId;

/// `on` or `off`, of a volume, or of the pool for volumes that do not say.
pub const ROOTS: &str = "roots";

/// Checks what is to be set on a volume or the pool.
pub(crate) fn check_roots(key: &str, value: Option<&String>) -> Result<(), TreeError> {
    match value {
        Some(value) if key == ROOTS && !matches!(value.as_str(), "on" | "off") => {
            invalid(format!("{ROOTS}: {value:?} is neither on nor off"))
        }
        _ => Ok(()),
    }
}

impl Tree {
    /// What a node's property `roots` says, as far as its properties are in memory.
    fn roots_of(&self, id: NodeId) -> Option<bool> {
        let value = self.node(id)?.props.as_deref()?.map.get(ROOTS)?;
        Some(value == "on")
    }

    /// Whether the content root of a snapshot is to be computed unasked. A volume whose properties
    /// are not in memory, as they are once a snapshot was taken of it, does as the pool says.
    pub fn seals(&self, snapshot: NodeId) -> bool {
        let volume = self.node(snapshot).and_then(|node| self.volume(node.entry.volume));
        let own = volume.and_then(|volume| self.roots_of(volume.head));
        own.or_else(|| self.roots_of(POOL_NODE)).unwrap_or(false)
    }

    /// Whether that may be so for any.
    pub fn seals_any(&self) -> bool {
        let on = |id| self.roots_of(id) == Some(true);
        on(POOL_NODE) || self.volumes().any(|(_, volume)| on(volume.head))
    }
}
