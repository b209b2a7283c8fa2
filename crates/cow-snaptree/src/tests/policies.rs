//! Limits, rules and times in random histories, against a model that asks of each snapshot by
//! itself what the documents say.

use super::retention::{HOUR, should_be_kept, text_of};
use super::sim::Sim;
use crate::{KEEP, SnapOptions, Tree, TreeError};
use cow_format::NodeId;
use cow_format::entry::NodeKind;
use std::collections::BTreeSet;

/// When things happen: a few snapshots in each hour.
fn at(step: u64) -> u64 {
    step * (HOUR / 3)
}

fn prop(sim: &Sim, name: &str, key: &str) -> Option<String> {
    let mut tree = sim.tree.clone();
    let id = if name.is_empty() { crate::POOL_NODE } else { tree.resolve(name).unwrap() };
    tree.node(id)?;
    sim.load_props(&mut tree, id);
    tree.node(id)?.props()?.map.get(key).cloned()
}

fn users(tree: &Tree, volume: &str) -> usize {
    let own = format!("{volume}@");
    let kind = |kind| move |id: &NodeId| tree.node(*id).unwrap().entry.kind == kind;
    let snapshots = tree.iter().filter(|node| node.is_snapshot()).map(|node| node.entry.id);
    let users = snapshots.filter(kind(NodeKind::User));
    users.filter(|id| tree.full_name(*id).unwrap().starts_with(&own)).count()
}

/// Whether one more snapshot of kind user of the volume is allowed.
fn is_allowed(sim: &Sim, volume: &str) -> bool {
    let number = |text: Option<String>| text.map_or(usize::MAX, |text| text.parse().unwrap());
    if users(&sim.tree, volume) >= number(prop(sim, volume, "limit")) {
        return false;
    }
    let Some(group) = prop(sim, volume, "group") else { return true };
    let names = sim.tree.volumes().map(|(_, volume)| volume.name.clone());
    let members = names.filter(|name| prop(sim, name, "group").as_ref() == Some(&group));
    let count: usize = members.map(|name| users(&sim.tree, &name)).sum();
    count < number(prop(sim, "", &format!("limit:{group}")))
}

/// A snapshot of some kind, for some time; refused exactly when a limit says so.
pub(super) fn snapshot(sim: &mut Sim, volume: &str, step: u64) {
    let auto = sim.rng.chance(20);
    let kind = if auto { NodeKind::Auto } else { NodeKind::User };
    let expiry_ns = if sim.rng.chance(25) { at(step + sim.rng.below(30) as u64) } else { 0 };
    let options = SnapOptions { kind, expiry_ns, ..SnapOptions::default() };
    let name = format!("s{step}");
    let targets = [(volume, name.as_str())];
    let allowed = auto || is_allowed(sim, volume);
    // What the groups of volumes are is known after their properties were read.
    let plan = |tree: &Tree| {
        let id = tree.volume_by_name(volume).unwrap();
        let unknown = tree.unknown_members(&[id])?;
        match unknown.first() {
            Some(&head) => Err(TreeError::NotLoaded(head)),
            None => tree.plan_snapshot(&targets, &options, at(step)),
        }
    };
    match sim.run(plan) {
        Ok(_) => assert!(allowed, "{volume} is over its limit"),
        Err(TreeError::Limit(_)) => assert!(!allowed, "{volume} is not over its limit"),
        Err(error) => panic!("{error}"),
    }
}

/// Sets or removes a policy.
pub(super) fn set(sim: &mut Sim, volume: &str) {
    let number = 1 + sim.rng.below(6);
    let (name, key, value) = match sim.rng.below(6) {
        0 => (volume, "limit", number.to_string()),
        1 => (volume, "group", "g".to_owned()),
        2 => ("", "limit:g", number.to_string()),
        _ => {
            let rules = [(sim.rng.below(3), number), (3, 1 + sim.rng.below(2))];
            (volume, KEEP, text_of(&rules[..1 + sim.rng.below(2)]))
        }
    };
    let value = (!sim.rng.chance(20)).then_some(value);
    sim.run(|tree| tree.plan_set_props(name, &[(key.to_owned(), value.clone())])).unwrap();
}

/// What a rule of its volume, or its time, lets go.
fn goes(sim: &Sim, id: NodeId, step: u64) -> bool {
    let tree = &sim.tree;
    let entry = &tree.node(id).unwrap().entry;
    if entry.holds > 0 {
        return false;
    }
    if entry.expiry_ns != 0 {
        return entry.expiry_ns <= at(step);
    }
    let rules = prop(sim, &tree.volume(entry.volume).unwrap().name, KEEP);
    let Some(rules) = rules.filter(|_| entry.kind != NodeKind::Undo) else { return false };
    let names = ["last", "hourly", "daily", "weekly"];
    let rule = |text: &str| {
        let (name, count) = text.split_once('=').unwrap();
        (names.iter().position(|known| *known == name).unwrap(), count.parse().unwrap())
    };
    let rules: Vec<(usize, usize)> = rules.split(',').map(rule).collect();
    // Ids go up, so this is the order in which they were taken.
    let ruled: Vec<_> = tree
        .iter()
        .filter(|node| node.is_snapshot() && node.entry.volume == entry.volume)
        .filter(|node| node.entry.kind != NodeKind::Undo && node.entry.expiry_ns == 0)
        .collect();
    let mut order: Vec<(NodeId, u64)> =
        ruled.iter().map(|node| (node.entry.id, node.entry.created_ns)).collect();
    order.sort();
    let created: Vec<u64> = order.iter().map(|(_, created)| *created).collect();
    let own = order.iter().position(|(other, _)| *other == id).unwrap();
    !should_be_kept(&rules, &created, own)
}

/// Deletes what rules and times let go, as the engine plans it: of each volume by itself, and only
/// what the model lets go too.
pub(super) fn prune(sim: &mut Sim, step: u64) {
    let volumes: Vec<_> = sim.tree.volumes().map(|(id, _)| id).collect();
    for volume in volumes {
        let all: BTreeSet<NodeId> = sim.tree.snapshots_of(volume).into_iter().collect();
        let should: BTreeSet<NodeId> =
            all.iter().copied().filter(|&id| goes(sim, id, step)).collect();
        let has_expired = |tree: &Tree, id: &NodeId| {
            let entry = &tree.node(*id).unwrap().entry;
            (1..=at(step)).contains(&entry.expiry_ns) && entry.holds == 0
        };
        let pruned = std::cell::RefCell::new(BTreeSet::new());
        sim.run(|tree| {
            let mut found: BTreeSet<NodeId> = tree.not_kept(volume)?.into_iter().collect();
            found.extend(all.iter().filter(|id| has_expired(tree, id)));
            pruned.replace(found.clone());
            tree.plan_delete_nodes(&found.into_iter().collect::<Vec<_>>())
        })
        .unwrap();
        assert_eq!(pruned.into_inner(), should, "what a prune of {volume} deletes");
        sim.pruned += should.len() as u64;
    }
}
