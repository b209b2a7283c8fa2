//! Groups of volumes and their limits, against a count of all.

use super::Rng;
use super::verbs::{apply, create};
use crate::{GROUP, POOL_NODE, SnapOptions, Tree, TreeError};
use cow_format::entry::NodeKind;
use std::collections::BTreeMap;

fn set(tree: &mut Tree, name: &str, key: &str, value: Option<&str>) -> Result<(), TreeError> {
    let changes = [(key.to_owned(), value.map(str::to_owned))];
    let records = tree.plan_set_props(name, &changes)?;
    apply(tree, Ok(records));
    Ok(())
}

/// Takes snapshots of these volumes at once.
fn take(tree: &mut Tree, volumes: &[&str], name: &str, kind: NodeKind) -> Result<(), TreeError> {
    let targets: Vec<(&str, &str)> = volumes.iter().map(|volume| (*volume, name)).collect();
    let options = SnapOptions { kind, ..SnapOptions::default() };
    let records = tree.plan_snapshot(&targets, &options, 10)?;
    apply(tree, Ok(records));
    Ok(())
}

#[test]
fn what_is_no_group_or_limit_is_refused_and_named() {
    let mut tree = Tree::default();
    create(&mut tree, "v");
    for (name, key, value, text) in [
        ("v", GROUP, "", "group: \"\" is no name of 1 to 120 letters"),
        ("v", GROUP, "a b", "group: \"a b\" is no name of 1 to 120 letters"),
        ("", "limit:web", "many", "limit:web: \"many\" is not a number from 1 to 1048576"),
    ] {
        assert_eq!(set(&mut tree, name, key, Some(value)).unwrap_err().to_string(), text);
    }
}

#[test]
fn a_group_has_no_more_snapshots_than_its_limit() {
    let mut tree = Tree::default();
    for name in ["a", "b", "c"] {
        create(&mut tree, name);
    }
    set(&mut tree, "a", GROUP, Some("web")).unwrap();
    set(&mut tree, "b", GROUP, Some("web")).unwrap();
    take(&mut tree, &["a", "b"], "one", NodeKind::User).unwrap();
    set(&mut tree, "", "limit:web", Some("3")).unwrap();
    let error = take(&mut tree, &["a", "b", "c"], "two", NodeKind::User).unwrap_err();
    assert_eq!(
        error,
        TreeError::Limit("group web may have 3 snapshots, and 2 more are too many".into())
    );
    take(&mut tree, &["a", "c"], "two", NodeKind::User).unwrap();
    assert!(take(&mut tree, &["b"], "three", NodeKind::User).is_err());
    // Neither automatic ones nor undo snapshots count, until one is given a name.
    take(&mut tree, &["b"], "auto", NodeKind::Auto).unwrap();
    let plan = tree.plan_rollback(&[("b", "one")], false, 100, |_| false);
    apply(&mut tree, plan);
    assert!(matches!(tree.plan_rename("b@undo.1", "mine"), Err(TreeError::Limit(_))));
    // A volume that goes takes its snapshots along.
    let plan = tree.plan_delete(&["a"], true);
    apply(&mut tree, plan);
    take(&mut tree, &["b"], "three", NodeKind::User).unwrap();
    let plan = tree.plan_rename("b@undo.1", "mine");
    apply(&mut tree, plan);
    assert!(take(&mut tree, &["b"], "four", NodeKind::User).is_err());
    set(&mut tree, "b", GROUP, None).unwrap();
    take(&mut tree, &["b"], "four", NodeKind::User).unwrap();
}

#[test]
fn what_was_not_read_yet_is_asked_for() {
    let mut tree = Tree::default();
    for name in ["a", "b", "none"] {
        create(&mut tree, name);
    }
    set(&mut tree, "a", GROUP, Some("web")).unwrap();
    set(&mut tree, "b", GROUP, Some("web")).unwrap();
    set(&mut tree, "", "limit:web", Some("1")).unwrap();
    take(&mut tree, &["a"], "s", NodeKind::User).unwrap();
    tree.assign_slots(64).unwrap();
    // As after opening: a checkpoint has it all, and nothing is in memory.
    let stored = |node: &crate::Node| {
        let mut entry = node.entry.clone();
        let payload = node.props().map_or_else(Vec::new, crate::Props::encode);
        entry.props.len = payload.len() as u32;
        (node.slot.unwrap(), entry, payload)
    };
    let all: Vec<_> = tree.iter().map(stored).collect();
    let entries = all.iter().map(|(slot, entry, _)| (*slot, entry.clone()));
    let mut tree = Tree::from_entries(entries, tree.counters()).unwrap();
    let mut asked = Vec::new();
    let refused = loop {
        match tree.plan_snapshot(&[("b", "s")], &SnapOptions::default(), 1) {
            Err(TreeError::NotLoaded(id)) => {
                let (.., payload) = all.iter().find(|(_, entry, _)| entry.id == id).unwrap();
                tree.load_props(id, payload).unwrap();
                asked.push(id);
            }
            other => break other,
        }
    };
    assert!(matches!(refused, Err(TreeError::Limit(_))), "{refused:?}");
    let head = |name| tree.resolve(name).unwrap();
    assert_eq!(asked, [head("b"), POOL_NODE, head("a")], "and of no other volume");
}

#[test]
fn random_groups_hold_their_limits() {
    const VOLUMES: [&str; 5] = ["v0", "v1", "v2", "v3", "v4"];
    const GROUPS: [&str; 2] = ["x", "y"];
    let mut refusals = 0;
    for seed in 0..40 {
        let mut rng = Rng(seed);
        let mut tree = Tree::default();
        let mut groups: BTreeMap<&str, &str> = BTreeMap::new();
        VOLUMES.iter().for_each(|name| create(&mut tree, name));
        set(&mut tree, "", "limit:x", Some("4")).unwrap();
        set(&mut tree, "", "limit:y", Some("7")).unwrap();
        for step in 0..150 {
            let volume = rng.pick(&VOLUMES).unwrap();
            match rng.below(10) {
                0 => {
                    let group = rng.pick(&GROUPS).filter(|_| rng.chance(70));
                    set(&mut tree, volume, GROUP, group).unwrap();
                    groups.remove(volume);
                    groups.extend(group.map(|group| (volume, group)));
                }
                1..3 => {
                    let snapshots = tree.snapshots_of(tree.volume_by_name(volume).unwrap());
                    if let Some(id) = rng.pick(&snapshots) {
                        let plan = tree.plan_delete_nodes(&[id]);
                        apply(&mut tree, plan);
                    }
                }
                _ => {
                    let mut targets = vec![volume];
                    targets
                        .extend(VOLUMES.iter().filter(|name| **name != volume && rng.chance(20)));
                    let count = |group: &str, names: &mut dyn Iterator<Item = &str>| -> usize {
                        let members = names.filter(|name| groups.get(name) == Some(&group));
                        members.count()
                    };
                    let fits = [("x", 4), ("y", 7)].into_iter().all(|(group, limit)| {
                        let more = count(group, &mut targets.iter().copied());
                        let have: usize = VOLUMES
                            .iter()
                            .filter(|name| groups.get(*name) == Some(&group))
                            .map(|name| tree.snapshots_of(tree.volume_by_name(name).unwrap()).len())
                            .sum();
                        more == 0 || have + more <= limit
                    });
                    let name = format!("s{step}");
                    let taken = take(&mut tree, &targets, &name, NodeKind::User);
                    assert_eq!(taken.is_ok(), fits, "seed {seed}, step {step}: {taken:?}");
                    refusals += usize::from(!fits);
                }
            }
        }
    }
    assert!(refusals > 500, "{refusals} are too few to mean anything");
}
