//! What damage leaves of the figures, and where the mark of it goes.

use crate::{SnapOptions, Tree, TreeError};
use cow_format::entry::Count;
use cow_format::record::Record;
use cow_format::{FrameSeq, NodeId};

pub(super) fn apply(tree: &mut Tree, plan: Result<Vec<Record>, TreeError>) {
    for record in plan.unwrap() {
        tree.apply(&record, FrameSeq(1)).unwrap();
    }
}

/// A volume with snapshots `a`, `b` and `c`, all seen by a fold, a block of each born and dead.
pub(super) fn tree() -> (Tree, Vec<NodeId>) {
    let mut tree = Tree::default();
    let plan = tree.plan_create_volumes(&[super::new_volume("v", 1 << 20)], 1);
    apply(&mut tree, plan);
    for name in ["a", "b", "c"] {
        let plan = tree.plan_snapshot(&[("v", name)], &SnapOptions::default(), 2);
        apply(&mut tree, plan);
    }
    let ids = tree.unrooted();
    for (at, &id) in ids.iter().enumerate() {
        tree.root_for_fold(id);
        if let Some(above) = at.checked_sub(1).map(|at| ids[at]) {
            let birth = tree.node(above).unwrap().entry.label_gen;
            assert!(!tree.kill(id, false, birth, 1));
        }
        tree.note_born(id, false, 1);
    }
    (tree, ids)
}

fn exact(tree: &Tree, id: NodeId) -> bool {
    let size = tree.set_size(&[id]);
    let unique = tree.unique(id).unwrap();
    assert_eq!((size.freed, size.exact), unique, "two answers to one question");
    size.exact
}

#[test]
fn sizes_that_need_a_damaged_node_are_not_exact() {
    let (mut tree, ids) = tree();
    assert!(ids.iter().all(|&id| exact(&tree, id)));
    tree.note_inexact(ids[2]);
    let told: Vec<bool> = ids.iter().map(|&id| exact(&tree, id)).collect();
    assert_eq!(told, [true, false, false, true], "itself, and the one whose deaths its row counts");
    assert!(!tree.set_size(&[ids[0], ids[1]]).exact && tree.set_size(&[ids[3]]).exact);
}

#[test]
fn a_splice_passes_the_mark_on() {
    let (mut tree, ids) = tree();
    tree.note_inexact(ids[1]);
    let plan = tree.plan_delete(&["v@b"], false);
    apply(&mut tree, plan);
    tree.begin_walk(ids[1]);
    let birth = tree.node(ids[1]).unwrap().entry.label_gen;
    tree.note_walk_freed(ids[1], false, [birth]);
    tree.finish_walk(ids[1]);
    let told: Vec<bool> = [0, 2, 3].iter().map(|&at| exact(&tree, ids[at])).collect();
    assert_eq!(told, [false, false, true], "what it knew wrongly its child knows now");
}

#[test]
fn what_is_held_stays_held_when_its_tags_are_lost() {
    let (mut tree, ids) = tree();
    let plan = tree.plan_hold("v@a", "backup", true);
    apply(&mut tree, plan);
    // As after a fold, and read anew: only the count is known.
    let payload = tree.props_payload(ids[0]);
    let blob =
        cow_format::blob::BlobRef { phys: cow_format::Phys(9), crc: 1, len: payload.len() as u32 };
    tree.set_props_blob(ids[0], blob);
    tree.unload_props(ids[0]);
    tree.lose_props(ids[0]);
    let node = tree.node(ids[0]).unwrap();
    assert_eq!(node.entry.holds, 1);
    assert!(node.props().unwrap().holds.contains("damaged"));
    assert!(matches!(tree.plan_delete(&["v@a"], false), Err(TreeError::Busy(_))));
    let plan = tree.plan_hold("v@a", "damaged", false);
    apply(&mut tree, plan);
    assert!(tree.plan_delete(&["v@a"], false).is_ok());
}

/// What was held since the properties were stored is known, and no hold is made up.
#[test]
fn a_hold_that_was_set_meanwhile_is_not_lost() {
    let (mut tree, ids) = tree();
    let plan = tree.plan_hold("v@a", "backup", true);
    let blob = cow_format::blob::BlobRef { phys: cow_format::Phys(9), crc: 1, len: 4 };
    tree.set_props_blob(ids[0], blob);
    tree.unload_props(ids[0]);
    // As in a replay, which reads no properties.
    apply(&mut tree, plan);
    tree.lose_props(ids[0]);
    let node = tree.node(ids[0]).unwrap();
    assert_eq!(node.entry.holds, 1);
    assert!(node.props().unwrap().holds.contains("backup"));
}

#[test]
fn a_lost_row_is_what_was_counted_since() {
    let (mut tree, ids) = tree();
    let payload = tree.row_payload(ids[3]);
    let blob =
        cow_format::blob::BlobRef { phys: cow_format::Phys(9), crc: 1, len: payload.len() as u32 };
    tree.set_row_blob(ids[3], blob);
    tree.unload_row(ids[3]);
    let birth = tree.node(ids[0]).unwrap().entry.label_gen;
    tree.kill(ids[3], false, birth, 2);
    tree.lose_row(ids[3]);
    let cells: Vec<_> = tree.node(ids[3]).unwrap().row().cells().collect();
    assert_eq!(cells, [(birth, Count { data: 1, map: 0 })]);
    assert!(tree.node(ids[3]).unwrap().entry.inexact);
}
