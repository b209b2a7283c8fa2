//! What limits allow, and what a prune lets go: as the documents of the properties say it, and not as
//! the engine computes it.

use super::{Refusal, State, Volume};
use crate::cmd::Target;
use std::collections::BTreeMap;

/// When a snapshot expires that is past its time in every history.
pub const LONG_AGO_NS: u64 = 1;
/// When one expires that is not.
pub const FAR_AHEAD_NS: u64 = u64::MAX / 2;

impl State {
    /// What a prune of these volumes, or of all, lets go: `VOL@SNAP`, sorted. Nobody has any of them
    /// open.
    #[must_use]
    pub fn pruned(&self, volumes: &[String]) -> Vec<String> {
        let asked = |name: &String| volumes.is_empty() || volumes.contains(name);
        let mut gone = Vec::new();
        for (name, volume) in self.volumes.iter().filter(|(name, _)| asked(name)) {
            gone.extend(volume.pruned().map(|snap| format!("{name}@{snap}")));
        }
        gone.sort();
        gone
    }

    pub(super) fn prune(&mut self, volumes: &[String]) -> Result<(), Refusal> {
        if volumes.iter().any(|name| !self.volumes.contains_key(name)) {
            return Err(Refusal::NotFound);
        }
        *self = self.without(&self.pruned(volumes));
        Ok(())
    }

    /// Whether one more snapshot of kind user of each of these volumes is allowed.
    pub(super) fn check_limits(&self, targets: &[Target]) -> Result<(), Refusal> {
        let number = |text: Option<&String>| text.and_then(|text| text.parse::<usize>().ok());
        let mut groups: BTreeMap<&String, usize> = BTreeMap::new();
        for (name, _) in targets {
            let volume = self.volumes.get(name).ok_or(Refusal::NotFound)?;
            let limit = number(volume.head.props.get("limit"));
            if limit.is_some_and(|limit| volume.users() + 1 > limit) {
                return Err(Refusal::Limit);
            }
            if let Some(group) = volume.head.props.get("group") {
                *groups.entry(group).or_default() += 1;
            }
        }
        for (group, more) in groups {
            let limit = number(self.props.get(&format!("limit:{group}")));
            let members =
                self.volumes.values().filter(|v| v.head.props.get("group") == Some(group));
            let count: usize = members.map(Volume::users).sum();
            if limit.is_some_and(|limit| count + more > limit) {
                return Err(Refusal::Limit);
            }
        }
        Ok(())
    }
}

impl Volume {
    /// Snapshots of kind user.
    fn users(&self) -> usize {
        self.snaps.values().filter(|snap| !snap.how.auto).count()
    }

    fn pruned(&self) -> impl Iterator<Item = &String> {
        // Those with a time of their own go by that alone.
        let ruled: Vec<&String> =
            self.taken.iter().filter(|name| self.snaps[*name].how.expiry_ns == 0).collect();
        let goes = move |name: &&String| {
            let snap = &self.snaps[*name];
            if !snap.holds.is_empty() {
                return false;
            }
            if snap.how.expiry_ns != 0 {
                return snap.how.expiry_ns == LONG_AGO_NS;
            }
            let newer = ruled.iter().rev().position(|other| other == name).unwrap_or_default();
            self.head.props.get("keep").is_some_and(|rules| !keeps(rules, newer))
        };
        self.taken.iter().filter(goes)
    }
}

/// Whether rules keep a snapshot that has so many newer ones. In a history all are taken within one
/// hour, so that any rule but `last` keeps the newest and no other.
fn keeps(rules: &str, newer: usize) -> bool {
    rules.split(',').any(|rule| match rule.strip_prefix("last=") {
        Some(count) => count.parse().is_ok_and(|count: usize| newer < count),
        None => newer == 0,
    })
}
