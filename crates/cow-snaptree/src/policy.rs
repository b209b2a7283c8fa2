//! Properties of volumes that the engine itself obeys. They are checked when they are set, and
//! obeyed where a change is planned, so that nobody comes in between.
//!
//! | property | value | meaning |
//! |---|---|---|
//! | `limit` | 1 to 1,048,576 | most snapshots of kind user that the volume has at once |
//! | `keep` | see `retention.rs` | which snapshots are kept; the others may be deleted |
//!
//! A flag in the node entry says whether a volume may have one of those that are looked for without
//! being asked ([`POLICIES`]), so that nobody need read the properties of all volumes for them.

use crate::error::{TreeError, invalid};
use crate::props::Props;
use crate::retention::{KEEP, Keep};
use crate::table::MAX_NODES;
use crate::tree::Tree;
use cow_format::VolumeId;
use cow_format::entry::NodeKind;

/// Most snapshots of kind user of a volume; undo snapshots and those that programs take for
/// themselves do not count.
pub const LIMIT: &str = "limit";

/// Properties that [`cow_format::entry::NodeEntry::policy`] stands for.
const POLICIES: [&str; 1] = [KEEP];

/// Whether a property is one of those that the flag stands for.
pub(crate) fn is_policy(key: &str) -> bool {
    POLICIES.contains(&key)
}

/// Whether there is one.
pub(crate) fn has_policy(props: &Props) -> bool {
    POLICIES.iter().any(|key| props.map.contains_key(*key))
}

/// Checks what is to be set on a volume.
pub(crate) fn check_policies<'a>(
    changes: impl Iterator<Item = (&'a String, Option<&'a String>)>,
) -> Result<(), TreeError> {
    for (key, value) in changes {
        let Some(value) = value else { continue };
        if key == LIMIT && parse_limit(value).is_none() {
            return invalid(format!("{LIMIT}: {value:?} is not a number from 1 to {MAX_NODES}"));
        }
        if key == KEEP
            && let Err(what) = Keep::parse(value)
        {
            return invalid(format!("{KEEP}: {what}"));
        }
    }
    Ok(())
}

fn parse_limit(value: &str) -> Option<usize> {
    let plain = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    value.parse().ok().filter(|limit| plain && (1..=MAX_NODES as usize).contains(limit))
}

impl Tree {
    /// Refuses when the volume has as many snapshots as its `limit` allows.
    pub(crate) fn check_snapshot_limit(&self, id: VolumeId) -> Result<(), TreeError> {
        let Some(volume) = self.volume(id) else { return Ok(()) };
        let Some(head) = self.node(volume.head) else { return Ok(()) };
        let props = head.props.as_ref().ok_or(TreeError::NotLoaded(volume.head))?;
        // What an older program let pass as a value is no limit.
        let Some(limit) = props.map.get(LIMIT).and_then(|value| parse_limit(value)) else {
            return Ok(());
        };
        let is_user = |id| self.node(id).is_some_and(|node| node.entry.kind == NodeKind::User);
        let count = volume.snapshots.iter().filter(|id| is_user(**id)).take(limit).count();
        if count < limit {
            return Ok(());
        }
        let name = &volume.name;
        Err(TreeError::Limit(format!("volume {name} has {limit} snapshots, which is its limit")))
    }
}
