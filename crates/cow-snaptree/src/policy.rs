//! Properties of volumes that the engine itself obeys. They are checked when they are set, and
//! obeyed where a change is planned, so that nobody comes in between.
//!
//! | property | value | meaning |
//! |---|---|---|
//! | `limit` | 1 to 1,048,576 | most snapshots of kind user that the volume has at once |
//! | `budget` | a size, `10G` | most data that the volume and its snapshots hold (`charge.rs`) |
//! | `reserve` | a size, or `full` | how much of the volume finds room in any case (decision 18) |
//! | `keep` | see `retention.rs` | which snapshots are kept; the others may be deleted |
//! | `group` | a name | the group that the volume belongs to |
//! | `roots` | `on` or `off` | see `seals.rs`: content roots of snapshots are computed unasked; of the pool too |
//! | `limit:NAME`, of the pool | 1 to 1,048,576 | most snapshots of kind user that the volumes of a group have at once, all together |
//! | `undo-for-space`, of the pool | `off`, 80, 90 or 95 | see `undo_space.rs`: how full the pool is when undo snapshots go |
//!
//! A flag in the node entry says whether a volume may have one of `keep`, `group`, `budget` and `reserve`,
//! so that nobody need read the properties of all volumes to find them.

use crate::error::{TreeError, invalid};
use crate::name::valid_name;
use crate::props::{GROUP, KEEP};
use crate::retention::Keep;
use crate::space::{BUDGET, RESERVE, Reserve, parse_budget};
use crate::table::MAX_NODES;
use crate::tree::{POOL_NODE, Tree};
use crate::undo_space::check_undo_for_space;
use cow_format::entry::NodeKind;
use cow_format::record::PropChange;
use cow_format::{NodeId, VolumeId, mutant};
use std::collections::{BTreeMap, BTreeSet};

/// Most snapshots of kind user of a volume; undo snapshots and those that programs take for
/// themselves do not count.
pub const LIMIT: &str = "limit";

/// Before the name of a group: the pool's property that limits it.
const GROUP_LIMIT: &str = "limit:";
/// Longest name of a group, in bytes: its limit is a property too.
const MAX_GROUP: usize = 120;

/// Checks what is to be set on a volume.
pub(crate) fn check_policies<'a>(
    changes: impl Iterator<Item = (&'a String, Option<&'a String>)>,
) -> Result<(), TreeError> {
    for (key, value) in changes {
        let Some(value) = value else { continue };
        if key == LIMIT && parse_limit(value).is_none() {
            return invalid(format!("{LIMIT}: {value:?} is not a number from 1 to {MAX_NODES}"));
        }
        if key == BUDGET && parse_budget(value).is_none() {
            return invalid(format!(
                "{BUDGET}: {value:?} is no size: bytes, or a number with K, M, G or T"
            ));
        }
        if key == RESERVE && Reserve::parse(value).is_none() {
            return invalid(format!(
                "{RESERVE}: {value:?} is neither \"full\" nor a size: bytes, or a number with K, M, G or T"
            ));
        }
        if key == GROUP && (!valid_name(value) || value.len() > MAX_GROUP) {
            return invalid(format!("{GROUP}: {value:?} is no name of 1 to {MAX_GROUP} letters"));
        }
        if key == KEEP
            && let Err(what) = Keep::parse(value)
        {
            return invalid(format!("{KEEP}: {what}"));
        }
    }
    Ok(())
}

/// Checks what is to be set on the pool.
pub(crate) fn check_pool_policies(changes: &[PropChange]) -> Result<(), TreeError> {
    for (key, value) in changes {
        check_undo_for_space(key, value.as_ref())?;
        let limit = value.as_ref().filter(|_| key.starts_with(GROUP_LIMIT));
        if let Some(value) = limit.filter(|value| parse_limit(value).is_none()) {
            return invalid(format!("{key}: {value:?} is not a number from 1 to {MAX_NODES}"));
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
        let props = head.props.as_deref().ok_or(TreeError::NotLoaded(volume.head))?;
        // What an older program let pass as a value is no limit.
        let Some(limit) = props.map.get(LIMIT).and_then(|value| parse_limit(value)) else {
            return Ok(());
        };
        let is_user = |id| {
            let kind = self.node(id).map(|node| node.entry.kind);
            kind == Some(NodeKind::User) || mutant::is("limitauto")
        };
        let count = volume.snapshots.iter().filter(|id| is_user(*id)).take(limit).count();
        if count < limit {
            return Ok(());
        }
        let name = &volume.name;
        Err(TreeError::Limit(format!("volume {name} has {limit} snapshots, which is its limit")))
    }

    /// The limit of a group, if it has one.
    fn group_limit(&self, group: &str) -> Result<Option<usize>, TreeError> {
        let Some(pool) = self.node(POOL_NODE) else { return Ok(None) };
        let props = pool.props.as_deref().ok_or(TreeError::NotLoaded(POOL_NODE))?;
        let value = props.map.get(&format!("{GROUP_LIMIT}{group}"));
        Ok(value.and_then(|value| parse_limit(value)))
    }

    /// Heads whose properties must be read before the limits of the groups of these volumes can be
    /// checked: none but after opening.
    ///
    /// # Errors
    /// `NotLoaded` for the pool's properties.
    pub fn unknown_members(&self, volumes: &[VolumeId]) -> Result<Vec<NodeId>, TreeError> {
        for &volume in volumes {
            if let Some(group) = self.groups.of(volume)
                && self.group_limit(group)?.is_some()
            {
                return Ok(self.groups.unknown().filter_map(|id| self.head(id)).collect());
            }
        }
        Ok(Vec::new())
    }

    /// Refuses when one more snapshot of each of these volumes would be more than the limit of a
    /// group allows. `unlimited` are volumes whose properties cannot be read.
    pub(crate) fn check_group_limits(
        &self,
        volumes: &BTreeSet<VolumeId>,
        unlimited: &BTreeSet<VolumeId>,
    ) -> Result<(), TreeError> {
        let mut wanted: BTreeMap<&str, usize> = BTreeMap::new();
        for group in volumes.difference(unlimited).filter_map(|&id| self.groups.of(id)) {
            let more = wanted.entry(group).or_default();
            *more = if mutant::is("grouponce") { 1 } else { *more + 1 };
        }
        for (group, more) in wanted {
            let Some(limit) = self.group_limit(group)? else { continue };
            if let Some(unread) = self.groups.unknown().find(|id| !unlimited.contains(id))
                && let Some(head) = self.head(unread)
            {
                return Err(TreeError::NotLoaded(head));
            }
            let is_user =
                |id: &NodeId| self.node(*id).is_some_and(|n| n.entry.kind == NodeKind::User);
            let members = self.groups.members(group).filter_map(|id| self.volume(id));
            let snapshots = members.flat_map(|volume| volume.snapshots.iter());
            let count = snapshots.filter(is_user).take(limit).count();
            if count + more > limit {
                let text = format!("group {group} may have {limit} snapshots, and {more} more");
                return Err(TreeError::Limit(format!("{text} are too many")));
            }
        }
        Ok(())
    }
}
