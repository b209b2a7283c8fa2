//! Whether undo snapshots are deleted for want of space: the property `undo-for-space` of the pool.

use crate::error::{TreeError, invalid};
use crate::tree::{POOL_NODE, Tree};
use cow_format::NodeId;

/// `off`, or the mark from which on undo snapshots go.
pub const UNDO_FOR_SPACE: &str = "undo-for-space";
/// Marks of a pool that fills up, in percent, the highest first.
pub const SPACE_MARKS: [u8; 3] = [95, 90, 80];

const OFF: &str = "off";

/// Checks what is to be set on the pool.
pub(crate) fn check_undo_for_space(key: &str, value: Option<&String>) -> Result<(), TreeError> {
    match value {
        Some(value) if key == UNDO_FOR_SPACE && value != OFF && parse(value).is_none() => {
            invalid(format!("{UNDO_FOR_SPACE}: {value:?} is none of {OFF}, 80, 90 and 95"))
        }
        _ => Ok(()),
    }
}

fn parse(value: &str) -> Option<u8> {
    SPACE_MARKS.into_iter().find(|mark| mark.to_string() == value)
}

impl Tree {
    /// The mark, in percent, from which on undo snapshots are deleted for want of space; none if
    /// they never are.
    ///
    /// # Errors
    /// `NotLoaded` for the pool's properties.
    pub fn undo_for_space(&self) -> Result<Option<u8>, TreeError> {
        let Some(pool) = self.node(POOL_NODE) else { return Ok(None) };
        let props = pool.props.as_deref().ok_or(TreeError::NotLoaded(POOL_NODE))?;
        Ok(props.map.get(UNDO_FOR_SPACE).and_then(|value| parse(value)))
    }

    /// Undo snapshots that are not held, of all volumes: those of the oldest rollbacks first,
    /// whatever the clock said then.
    pub fn undos_by_age(&self) -> Vec<NodeId> {
        let undos = self.volumes().flat_map(|(_, volume)| volume.undos.iter());
        let nodes = undos.filter_map(|&id| self.node(id)).filter(|node| node.entry.holds == 0);
        let mut found: Vec<_> = nodes.map(|node| (node.entry.stands_on, node.entry.id)).collect();
        found.sort_unstable();
        found.into_iter().map(|(_, id)| id).collect()
    }
}
