//! The verbs: what they refuse, what their records do.

use super::new_volume;
use crate::{
    LIMIT, Limits, MAX_TARGETS, MAX_UNDO, NewVolume, POOL_NODE, PropEdit, ROLLBACK_SLOTS,
    SnapOptions, Tree, TreeError, UNDO_EXPIRY_NS,
};
use cow_format::entry::{Consistency, NodeKind, NodeState};
use cow_format::record::{Record, Replaced};
use cow_format::wire::{Reader, Writer};
use cow_format::{FamilyId, FrameSeq, Gen, NodeId, VolumeId};

const SIZE: u64 = 1 << 20;

/// Applies a plan; each record goes through its bytes first.
pub(super) fn apply(tree: &mut Tree, plan: Result<Vec<Record>, TreeError>) -> Vec<Record> {
    let records = plan.expect("a plan");
    for record in &records {
        let mut w = Writer::default();
        record.encode(&mut w);
        assert!(w.bytes.len() < 60_000, "a record that fits no frame");
        assert_eq!(Record::decode(&mut Reader::new(&w.bytes)).as_ref(), Ok(record));
        tree.apply(record, FrameSeq(42)).expect("a planned record applies");
    }
    records
}

fn plan_create(tree: &Tree, name: &str, size: u64) -> Result<Vec<Record>, TreeError> {
    tree.plan_create_volumes(&[new_volume(name, size)], 5)
}

pub(super) fn create(tree: &mut Tree, name: &str) {
    let plan = plan_create(tree, name, SIZE);
    apply(tree, plan);
}

pub(super) fn snap(tree: &mut Tree, volume: &str, name: &str) -> NodeId {
    let plan = tree.plan_snapshot(&[(volume, name)], &SnapOptions::default(), 10);
    apply(tree, plan);
    tree.resolve(&format!("{volume}@{name}")).unwrap()
}

fn delete(tree: &mut Tree, names: &[&str], recursive: bool) {
    let plan = tree.plan_delete(names, recursive);
    apply(tree, plan);
}

fn rollback(tree: &mut Tree, volume: &str, name: &str) -> Vec<Record> {
    let plan = tree.plan_rollback(&[(volume, name)], false, 100, |_| false);
    apply(tree, plan)
}

fn undos(tree: &Tree, volume: &str) -> Vec<String> {
    let id = tree.volume_by_name(volume).unwrap();
    let undos = &tree.volume(id).unwrap().undos;
    undos.iter().map(|&id| tree.node(id).unwrap().entry.name.to_string()).collect()
}

fn busy(result: Result<Vec<Record>, TreeError>) -> String {
    match result {
        Err(TreeError::Busy(text)) => text,
        other => panic!("not refused as busy: {other:?}"),
    }
}

#[test]
fn the_heads_node_becomes_the_snapshot() {
    let mut tree = Tree::default();
    create(&mut tree, "v");
    let first = tree.resolve("v").unwrap();
    let options = SnapOptions {
        kind: NodeKind::Auto,
        consistency: Consistency::Frozen,
        freeze_ms: 1200,
        expiry_ns: 99,
        props: vec![("k".into(), "x".into())],
        ..SnapOptions::default()
    };
    let plan = tree.plan_snapshot(&[("v", "a")], &options, 10);
    apply(&mut tree, plan);
    let node = tree.node(first).unwrap();
    assert_eq!(tree.resolve("v@a"), Ok(first));
    let entry = &node.entry;
    assert_eq!((entry.kind, entry.consistency), (NodeKind::Auto, Consistency::Frozen));
    assert_eq!(entry.freeze_ms, 1200);
    assert_eq!(tree.node(tree.resolve("v").unwrap()).unwrap().entry.freeze_ms, 0);
    assert_eq!((entry.expiry_ns, entry.created_ns, entry.stands_on), (99, 10, 42));
    assert_eq!((entry.group, entry.name.as_str()), (0, "a"));
    assert_eq!(node.props().unwrap().map["k"], "x");
    let head = tree.node(tree.resolve("v").unwrap()).unwrap();
    assert_eq!((head.entry.parent, head.entry.label_gen), (first, Gen(2)));
    assert_eq!((head.entry.family, head.entry.created_ns), (FamilyId(first.0), 5));
    assert_eq!(head.entry.size_bytes, SIZE);
    assert_eq!(tree.full_name(first).as_deref(), Some("v@a"));
    assert_eq!(tree.unique(first), None, "no fold has seen it");
    assert_eq!(tree.referenced(first), None);
}

#[test]
fn groups_of_any_size_share_an_id_and_records_fit_frames() {
    let mut tree = Tree::default();
    let names: Vec<String> = (0..1024).map(|i| format!("{i:0>120}")).collect();
    names.iter().for_each(|name| create(&mut tree, name));
    let snap_name = "s".repeat(128);
    let targets: Vec<(&str, &str)> =
        names.iter().map(|n| (n.as_str(), snap_name.as_str())).collect();
    let plan = tree.plan_snapshot(&targets, &SnapOptions::default(), 1);
    let records = apply(&mut tree, plan);
    assert!(records.len() > 1);
    assert!(names.iter().all(|n| {
        let id = tree.resolve(&format!("{n}@{snap_name}")).unwrap();
        tree.node(id).unwrap().entry.group == 1
    }));
    let plan = tree.plan_rollback(&targets, false, 2, |_| false);
    assert!(apply(&mut tree, plan).len() > 1);
    assert!(names.iter().all(|n| tree.resolve(&format!("{n}@undo.1")).is_ok()));
    assert_eq!(tree.counters().last_group, 1);
    let plan = tree.plan_delete(&names.iter().map(String::as_str).collect::<Vec<_>>(), true);
    apply(&mut tree, plan);
    assert_eq!(tree.counts().volumes, 0);
}

#[test]
fn a_group_has_1024_targets_and_no_more() {
    let mut tree = Tree::default();
    let names: Vec<String> = (0..=MAX_TARGETS).map(|i| format!("v{i}")).collect();
    names.iter().for_each(|name| create(&mut tree, name));
    let all: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "s")).collect();
    let refused = |plan: Result<Vec<Record>, TreeError>| match plan {
        Err(TreeError::Limit(text)) => assert_eq!(text, "targets: 1025, at most 1024 at once"),
        other => panic!("{:?}", other.map(|records| records.len())),
    };
    refused(tree.plan_snapshot(&all, &SnapOptions::default(), 1));
    let plan = tree.plan_snapshot(&all[..MAX_TARGETS], &SnapOptions::default(), 1);
    apply(&mut tree, plan);
    snap(&mut tree, &names[MAX_TARGETS], "s");
    refused(tree.plan_rollback(&all, false, 2, |_| false));
    let plan = tree.plan_rollback(&all[..MAX_TARGETS], false, 2, |_| false);
    apply(&mut tree, plan);
    for plan in [
        tree.plan_snapshot(&[], &SnapOptions::default(), 3),
        tree.plan_rollback(&[], false, 3, |_| false),
    ] {
        assert!(matches!(plan, Err(TreeError::Invalid(_))));
    }
}

#[test]
fn names_are_checked_and_come_back_at_once() {
    let mut tree = Tree::default();
    for bad in ["", ".a", "-a", "a/b", "a@b", "a b", "ä", "undo.1", &"x".repeat(129)] {
        let plan = plan_create(&tree, bad, SIZE);
        assert!(matches!(plan, Err(TreeError::Invalid(_))), "{bad:?}");
    }
    for bad in [0, (4 << 50) + 1, u64::MAX] {
        assert!(matches!(plan_create(&tree, "v", bad), Err(TreeError::Invalid(_))));
    }
    create(&mut tree, "v");
    assert_eq!(plan_create(&tree, "v", SIZE), Err(TreeError::Exists("v".into())));
    snap(&mut tree, "v", "a");
    let taken = tree.plan_snapshot(&[("v", "a")], &SnapOptions::default(), 0);
    assert_eq!(taken, Err(TreeError::Exists("v@a".into())));
    let twice = tree.plan_snapshot(&[("v", "b"), ("v", "c")], &SnapOptions::default(), 0);
    assert!(matches!(twice, Err(TreeError::Invalid(_))));
    delete(&mut tree, &["v@a", "v@a"], false);
    assert_eq!(tree.resolve("v@a"), Err(TreeError::NotFound("v@a".into())));
    snap(&mut tree, "v", "a");
    delete(&mut tree, &["v"], true);
    create(&mut tree, "v");
    assert_eq!(tree.counts().deleting, 3);
    assert!(tree.resolve("v@a").is_err() && tree.resolve("w").is_err());
    assert_eq!(tree.volume_by_name("v"), Some(VolumeId(2)), "ids are never reused");
    // Volume ids are a scope of names: none may reach into that of the volumes.
    assert_eq!(tree.snapshot_by_name(VolumeId(0), "v"), None);
}

#[test]
fn delete_lists_snapshots_and_holds() {
    let mut tree = Tree::default();
    create(&mut tree, "v");
    snap(&mut tree, "v", "a");
    snap(&mut tree, "v", "b");
    assert_eq!(busy(tree.plan_delete(&["v"], false)), "v has snapshots: v@a, v@b");
    assert_eq!(busy(tree.plan_delete(&["v", "v@a"], false)), "v has snapshots: v@b");
    let head = tree.resolve("v").unwrap();
    assert_eq!(busy(tree.plan_delete_nodes(&[head])), "v has snapshots: v@a, v@b");
    for tag in ["t2", "t1"] {
        let plan = tree.plan_hold("v@a", tag, true);
        apply(&mut tree, plan);
    }
    assert!(matches!(tree.plan_hold("v@a", "t1", true), Err(TreeError::Exists(_))));
    assert!(matches!(tree.plan_hold("v@a", "t3", false), Err(TreeError::NotFound(_))));
    assert!(matches!(tree.plan_hold("v@a", "a b", true), Err(TreeError::Invalid(_))));
    assert_eq!(busy(tree.plan_delete(&["v@a"], false)), "v@a is held by t1, t2");
    assert_eq!(busy(tree.plan_delete(&["v"], true)), "v@a is held by t1, t2");
    for tag in ["t2", "t1"] {
        let plan = tree.plan_hold("v@a", tag, false);
        apply(&mut tree, plan);
    }
    delete(&mut tree, &["v", "v@a", "v@b"], false);
    assert_eq!(tree.counts().volumes, 0);
}

#[test]
fn clones_stay_when_their_origin_goes() {
    let mut tree = Tree::default();
    create(&mut tree, "v");
    let a = snap(&mut tree, "v", "a");
    let plan = tree.plan_clone(("v", "a"), "c", &[("k".into(), "x".into())], 3);
    apply(&mut tree, plan);
    let clone = tree.resolve("c").unwrap();
    assert_eq!(tree.origin_name(clone).as_deref(), Some("v@a"));
    assert_eq!(tree.node(clone).unwrap().entry.family, FamilyId(1));
    assert_eq!(tree.children(a).len(), 2);
    delete(&mut tree, &["v@a"], false);
    assert!(tree.node(a).unwrap().is_branch_point());
    assert!(tree.walkable().is_empty(), "a branch point waits");
    assert_eq!(tree.origin_name(clone), None);
    snap(&mut tree, "c", "x");
    delete(&mut tree, &["v"], false);
    assert!(tree.resolve("c").is_ok() && tree.resolve("c@x").is_ok());
    assert!(matches!(tree.plan_clone(("c", "y"), "d", &[], 3), Err(TreeError::NotFound(_))));
    assert!(matches!(tree.plan_clone(("c", "x"), "c", &[], 3), Err(TreeError::Exists(_))));
}

#[test]
fn rollback_keeps_the_newest_three_undo_snapshots() {
    let mut tree = Tree::default();
    create(&mut tree, "v");
    let a = snap(&mut tree, "v", "a");
    let replaced = tree.resolve("v").unwrap();
    rollback(&mut tree, "v", "a");
    let undo = tree.node(replaced).unwrap();
    assert_eq!(tree.resolve("v@undo.1"), Ok(replaced));
    assert_eq!((undo.entry.kind, undo.entry.expiry_ns), (NodeKind::Undo, 100 + UNDO_EXPIRY_NS));
    let head = tree.node(tree.resolve("v").unwrap()).unwrap();
    assert_eq!((head.entry.parent, head.entry.origin, head.entry.rollback_gen), (a, a, 1));
    for n in 2..6 {
        let records = rollback(&mut tree, "v", "a");
        assert_eq!(records.len(), if n > MAX_UNDO { 2 } else { 1 });
    }
    assert_eq!(undos(&tree, "v"), ["undo.3", "undo.4", "undo.5"]);
    // A held one is not pruned, and neither is the target.
    let plan = tree.plan_hold("v@undo.3", "t", true);
    apply(&mut tree, plan);
    rollback(&mut tree, "v", "undo.4");
    assert_eq!(undos(&tree, "v"), ["undo.3", "undo.4", "undo.6"]);
    // Nothing is kept of what is discarded, or was unchanged.
    for (discard, unchanged) in [(true, false), (false, true)] {
        let old = tree.resolve("v").unwrap();
        let plan = tree.plan_rollback(&[("v", "a")], discard, 9, |_| unchanged);
        let records = apply(&mut tree, plan);
        let Record::Rollback { members, .. } = &records[0] else { panic!("{records:?}") };
        assert_eq!((records.len(), &members[0].replaced), (1, &Replaced::Discarded));
        assert_eq!(undos(&tree, "v").len(), 3);
        assert_eq!(tree.node(old).unwrap().entry.state, NodeState::Deleting);
    }
    let twice = tree.plan_rollback(&[("v", "a"), ("v", "a")], false, 1, |_| false);
    assert!(matches!(twice, Err(TreeError::Invalid(_))));
}

#[test]
fn a_second_undo_is_redo() {
    let mut tree = Tree::default();
    create(&mut tree, "v");
    snap(&mut tree, "v", "a");
    assert!(matches!(tree.plan_undo("v", 1), Err(TreeError::NotFound(_))));
    rollback(&mut tree, "v", "a");
    let undo = tree.resolve("v@undo.1").unwrap();
    let back = tree.resolve("v").unwrap();
    for parent in [undo, back] {
        let plan = tree.plan_undo("v", 7);
        apply(&mut tree, plan);
        let head = tree.node(tree.resolve("v").unwrap()).unwrap();
        assert_eq!(head.entry.parent, parent);
    }
    // Who names an undo snapshot keeps it.
    let plan = tree.plan_rename("v@undo.1", "mine");
    apply(&mut tree, plan);
    let mine = tree.node(tree.resolve("v@mine").unwrap()).unwrap();
    assert_eq!((mine.entry.kind, mine.entry.expiry_ns), (NodeKind::User, 0));
    let volume = tree.volume_by_name("v").unwrap();
    assert!(tree.volume(volume).unwrap().snapshots.contains(mine.entry.id));
    assert_eq!(undos(&tree, "v"), ["undo.2", "undo.3"]);
    assert!(tree.resolve("v@undo.1").is_err());
}

#[test]
fn properties_and_holds_follow_the_volume() {
    let mut tree = Tree::default();
    create(&mut tree, "v");
    let set = |tree: &mut Tree, name: &str, value: &str| {
        let plan = tree.plan_set_props(name, &[("k".into(), Some(value.into()))]);
        apply(tree, plan);
    };
    set(&mut tree, "v", "1");
    let plan = tree.plan_hold("v", "t", true);
    apply(&mut tree, plan);
    let a = snap(&mut tree, "v", "a");
    assert!(tree.node(a).unwrap().props().unwrap().is_empty());
    assert_eq!(tree.node(a).unwrap().entry.holds, 0);
    set(&mut tree, "v", "2");
    rollback(&mut tree, "v", "a");
    let head = tree.node(tree.resolve("v").unwrap()).unwrap();
    assert_eq!(head.props().unwrap().map["k"], "2");
    assert_eq!(head.entry.holds, 1);
    assert_eq!(busy(tree.plan_delete(&["v"], true)), "v is held by t");
    assert_eq!(tree.dirty_props().into_iter().collect::<Vec<_>>(), [head.entry.id]);
    // The pool has properties too, in a node that is not part of the tree.
    assert!(tree.node(POOL_NODE).is_none());
    set(&mut tree, "", "p");
    assert_eq!(tree.node(POOL_NODE).unwrap().props().unwrap().map["k"], "p");
    assert_eq!(tree.counts().snapshots, 2);
    assert!(!tree.unrooted().contains(&POOL_NODE) && tree.walkable().is_empty());
    assert!(tree.plan_delete_nodes(&[POOL_NODE]).is_err());
    // 4 KiB in all.
    let long = |n: usize| vec![("k".to_owned(), Some("x".repeat(n)))];
    assert!(tree.plan_set_props("v@a", &long(4087)).is_ok());
    assert!(matches!(tree.plan_set_props("v@a", &long(4088)), Err(TreeError::Limit(_))));
    assert!(matches!(tree.plan_set_props("v", &long(4087)), Err(TreeError::Limit(_))));
    let bad = [(String::new(), None)];
    assert!(matches!(tree.plan_set_props("v", &bad), Err(TreeError::Invalid(_))));
}

#[test]
fn renames_and_sizes() {
    let mut tree = Tree::default();
    create(&mut tree, "v");
    create(&mut tree, "w");
    let a = snap(&mut tree, "v", "a");
    snap(&mut tree, "v", "b");
    assert_eq!(tree.plan_rename("v", "w"), Err(TreeError::Exists("w".into())));
    assert_eq!(tree.plan_rename("v@a", "b"), Err(TreeError::Exists("v@b".into())));
    assert!(matches!(tree.plan_rename("v@a", "undo.9"), Err(TreeError::Invalid(_))));
    for (name, to) in [("v", "x"), ("x@a", "c")] {
        let plan = tree.plan_rename(name, to);
        apply(&mut tree, plan);
    }
    assert_eq!(tree.resolve("x@c"), Ok(a));
    assert!(tree.resolve("v").is_err() && tree.resolve("x@a").is_err());
    assert!(matches!(tree.plan_resize("x", 512, false), Err(TreeError::Invalid(_))));
    let plan = tree.plan_resize("x", 512, true);
    apply(&mut tree, plan);
    let head = tree.resolve("x").unwrap();
    assert_eq!(tree.node(head).unwrap().entry.size_bytes, 512);
    assert_eq!(tree.node(a).unwrap().entry.size_bytes, SIZE);
    let plan = tree.plan_rollback(&[("x", "c")], true, 0, |_| false);
    apply(&mut tree, plan);
    let head = tree.resolve("x").unwrap();
    assert_eq!(tree.node(head).unwrap().entry.size_bytes, SIZE, "the size of the target");
}

#[test]
fn limits_and_room() {
    let mut tree = Tree::default();
    tree.set_limits(Limits { volumes: 2 });
    create(&mut tree, "v");
    create(&mut tree, "w");
    assert!(matches!(plan_create(&tree, "x", SIZE), Err(TreeError::Limit(_))));
    snap(&mut tree, "v", "a");
    rollback(&mut tree, "v", "a");
    tree.set_limits(Limits::default());
    // v: head, a, undo.1; w: head. The last 64 slots serve rollbacks only.
    tree.set_total_slots(4 + ROLLBACK_SLOTS);
    let full = Err(TreeError::NoSlots);
    assert_eq!(plan_create(&tree, "x", SIZE), full);
    assert_eq!(tree.plan_snapshot(&[("v", "b")], &SnapOptions::default(), 0), full);
    assert_eq!(tree.plan_clone(("v", "a"), "x", &[], 0), full);
    assert_eq!(tree.plan_set_props("", &[]), full);
    rollback(&mut tree, "v", "a");
    assert_eq!(tree.free_slots(), ROLLBACK_SLOTS - 1);
    tree.set_total_slots(6 + ROLLBACK_SLOTS);
    snap(&mut tree, "v", "b");
    assert_eq!(tree.assign_slots(3), Err(crate::NoSlots));
    assert_eq!(tree.assign_slots(6), Ok(()));
    let slots: Vec<_> = tree.iter().map(|node| node.slot.unwrap()).collect();
    assert_eq!(slots, [0, 1, 2, 3, 4, 5]);
    // Generations run out long before they wrap.
    tree.counters.last_gen = Gen(Gen::CREATE_LIMIT - 2);
    tree.set_total_slots(u32::MAX);
    snap(&mut tree, "v", "c");
    let late = tree.plan_snapshot(&[("v", "d")], &SnapOptions::default(), 0);
    assert!(matches!(late, Err(TreeError::Limit(_))));
}

#[test]
fn a_clone_of_the_tree_shares_and_then_differs() {
    let mut tree = Tree::default();
    create(&mut tree, "v");
    for i in 0..300 {
        snap(&mut tree, "v", &format!("s{i}"));
    }
    let copy = tree.clone();
    snap(&mut tree, "v", "x");
    delete(&mut tree, &["v@s7"], false);
    let own = |node: &&crate::Node| {
        copy.node(node.entry.id).is_none_or(|other| !std::ptr::eq(*node, other))
    };
    assert_eq!(tree.iter().filter(own).count(), 3, "old head, new head, s7");
    assert!(copy.resolve("v@s7").is_ok() && copy.resolve("v@x").is_err());
}

fn set(tree: &mut Tree, name: &str, key: &str, value: &str) -> Result<Vec<Record>, TreeError> {
    tree.plan_set_props(name, &[(key.to_owned(), Some(value.to_owned()))])
}

#[test]
fn the_limit_of_a_volume_counts_user_snapshots_alone() {
    let mut tree = Tree::default();
    create(&mut tree, "v");
    create(&mut tree, "w");
    for bad in ["", "0", "-1", "+1", " 1", "1.5", "many", "1048577", "99999999999999999999"] {
        let refused = set(&mut tree, "v", LIMIT, bad);
        assert!(matches!(refused, Err(TreeError::Invalid(text)) if text.contains(LIMIT)), "{bad}");
    }
    let plan = set(&mut tree, "v", LIMIT, "2");
    apply(&mut tree, plan);
    snap(&mut tree, "v", "a");
    let auto = SnapOptions { kind: NodeKind::Auto, ..SnapOptions::default() };
    let plan = tree.plan_snapshot(&[("v", "auto")], &auto, 0);
    apply(&mut tree, plan);
    rollback(&mut tree, "v", "a");
    snap(&mut tree, "v", "b");
    // One of a group over its limit refuses the group.
    let more = tree.plan_snapshot(&[("w", "a"), ("v", "c")], &SnapOptions::default(), 0);
    assert!(matches!(more, Err(TreeError::Limit(text)) if text.contains("volume v")));
    assert!(tree.plan_snapshot(&[("v", "c")], &auto, 0).is_ok(), "programs are not counted");
    assert!(matches!(tree.plan_rename("v@undo.1", "c"), Err(TreeError::Limit(_))));
    rollback(&mut tree, "v", "a");
    delete(&mut tree, &["v@a"], false);
    snap(&mut tree, "v", "c");
    // A snapshot may call a property of its own so; the pool too.
    assert!(set(&mut tree, "v@b", LIMIT, "many").is_ok());
    assert!(set(&mut tree, "", LIMIT, "many").is_ok());
    let named = NewVolume { props: vec![(LIMIT.into(), "x".into())], ..new_volume("y", SIZE) };
    assert!(matches!(tree.plan_create_volumes(&[named], 0), Err(TreeError::Invalid(_))));
    let plan = tree.plan_set_props("v", &[(LIMIT.to_owned(), None)]);
    apply(&mut tree, plan);
    snap(&mut tree, "v", "d");
}

#[test]
fn several_volumes_come_together_or_not_at_all() {
    let mut tree = Tree::default();
    create(&mut tree, "v");
    let both = [new_volume("a", SIZE), new_volume("b", 2 * SIZE)];
    let plan = tree.plan_create_volumes(&both, 7);
    assert_eq!(apply(&mut tree, plan).len(), 2);
    for (name, size) in [("a", SIZE), ("b", 2 * SIZE)] {
        let head = tree.node(tree.resolve(name).unwrap()).unwrap();
        assert_eq!((head.entry.size_bytes, head.entry.created_ns), (size, 7));
    }
    let twice = [new_volume("c", SIZE), new_volume("c", SIZE)];
    assert!(matches!(tree.plan_create_volumes(&twice, 0), Err(TreeError::Invalid(_))));
    let taken = [new_volume("c", SIZE), new_volume("v", SIZE)];
    assert_eq!(tree.plan_create_volumes(&taken, 0), Err(TreeError::Exists("v".into())));
    assert!(matches!(tree.plan_create_volumes(&[], 0), Err(TreeError::Invalid(_))));
}

#[test]
fn edits_stand_before_what_replaces_the_head() {
    let mut tree = Tree::default();
    create(&mut tree, "v");
    let edit = |name: &str, key: &str| PropEdit {
        name: name.to_owned(),
        changes: vec![(key.to_owned(), Some("1".to_owned()))],
    };
    let mut plan = tree.plan_edits(&[edit("", "counter"), edit("v", "mark")]).unwrap();
    plan.extend(tree.plan_snapshot(&[("v", "a")], &SnapOptions::default(), 0).unwrap());
    apply(&mut tree, Ok(plan));
    let props = |tree: &Tree, id: NodeId| tree.node(id).unwrap().props().unwrap().map.clone();
    let (head, snapshot) = (tree.resolve("v").unwrap(), tree.resolve("v@a").unwrap());
    assert!(props(&tree, head).contains_key("mark") && props(&tree, snapshot).is_empty());
    assert!(props(&tree, POOL_NODE).contains_key("counter"));
    let twice = tree.plan_edits(&[edit("v", "x"), edit("v", "y")]);
    assert!(matches!(twice, Err(TreeError::Invalid(_))));
    assert!(matches!(tree.plan_edits(&[edit("nobody", "x")]), Err(TreeError::NotFound(_))));
}
