//! Which volumes belong to which group, by their property `group`: kept beside the tree, so that a
//! limit of a group can be checked without reading the properties of all volumes. Clones share it
//! until one of them changes.

use crate::node::Node;
use crate::props::GROUP;
use cow_format::VolumeId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What is known of one volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Membership {
    /// It is in no group.
    None,
    /// It is in this one.
    In(String),
    /// It may be in one: its properties have not been read.
    Unknown,
}

/// What a head says.
pub(crate) fn membership(head: &Node) -> Membership {
    match &head.props {
        Some(props) => match props.map.get(GROUP) {
            Some(group) => Membership::In(group.clone()),
            None => Membership::None,
        },
        None if head.entry.policy => Membership::Unknown,
        None => Membership::None,
    }
}

#[derive(Clone, Debug, Default)]
struct Index {
    /// Without those that are in no group.
    volumes: BTreeMap<VolumeId, Membership>,
    members: BTreeMap<String, BTreeSet<VolumeId>>,
    unknown: BTreeSet<VolumeId>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Groups(Arc<Index>);

impl Groups {
    /// The group of a volume, if it is known to be in one.
    pub(crate) fn of(&self, volume: VolumeId) -> Option<&str> {
        match self.0.volumes.get(&volume) {
            Some(Membership::In(group)) => Some(group),
            _ => None,
        }
    }

    /// Volumes that are known to be in a group.
    pub(crate) fn members(&self, group: &str) -> impl Iterator<Item = VolumeId> {
        self.0.members.get(group).into_iter().flatten().copied()
    }

    /// Volumes that may be in any.
    pub(crate) fn unknown(&self) -> impl Iterator<Item = VolumeId> {
        self.0.unknown.iter().copied()
    }

    /// What is known of a volume from now on.
    pub(crate) fn set(&mut self, volume: VolumeId, membership: Membership) {
        let known = self.0.volumes.get(&volume).unwrap_or(&Membership::None);
        if *known == membership {
            return;
        }
        let index = Arc::make_mut(&mut self.0);
        match index.volumes.remove(&volume) {
            Some(Membership::In(group)) => {
                if let Some(members) = index.members.get_mut(&group) {
                    members.remove(&volume);
                    if members.is_empty() {
                        index.members.remove(&group);
                    }
                }
            }
            Some(Membership::Unknown) => drop(index.unknown.remove(&volume)),
            Some(Membership::None) | None => {}
        }
        match &membership {
            Membership::None => return,
            Membership::In(group) => {
                index.members.entry(group.clone()).or_default().insert(volume);
            }
            Membership::Unknown => drop(index.unknown.insert(volume)),
        }
        index.volumes.insert(volume, membership);
    }
}
