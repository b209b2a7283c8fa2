//! The tree of snapshots, without an engine.

use crate::Rng;
use crate::step::Step;
use cow_format::record::Record;
use cow_format::{FrameSeq, Gen, NodeId};
use cow_snaptree::{NewVolume, SnapOptions, Tree, TreeError};
use std::hint::black_box;

const VOLUME: &str = "vol";

fn apply(tree: &mut Tree, records: Result<Vec<Record>, TreeError>) {
    let applied = records
        .and_then(|records| records.iter().try_for_each(|record| tree.apply(record, FrameSeq(1))));
    assert!(applied.is_ok(), "the tree refuses: {applied:?}");
}

/// A head below `ancestors` snapshots, all of them folded.
fn head(ancestors: u64) -> (Tree, NodeId) {
    let mut tree = Tree::default();
    let new = NewVolume { name: VOLUME.into(), size_bytes: 1 << 40, props: Vec::new() };
    let records = tree.plan_create_volumes(&[new], 1);
    apply(&mut tree, records);
    for index in 0..ancestors {
        let name = index.to_string();
        let records = tree.plan_snapshot(&[(VOLUME, &name)], &SnapOptions::default(), 1);
        apply(&mut tree, records);
    }
    for node in tree.unrooted() {
        tree.root_for_fold(node);
    }
    let head = tree.volume_by_name(VOLUME).and_then(|volume| tree.head(volume));
    match head {
        Some(head) => (tree, head),
        None => panic!("no head"),
    }
}

/// The fold replaces a block that was born on behalf of any of `ancestors` snapshots: free or not,
/// and counted.
pub fn kill_classify(ancestors: u64) -> impl Step {
    let (mut tree, head) = head(ancestors);
    let youngest = u64::from(tree.parent_gen(head).0);
    let mut rng = Rng(3);
    let births: Vec<Gen> = (0..4096).map(|_| Gen(1 + rng.below(youngest) as u32)).collect();
    move |call| {
        let birth = births[call as usize % births.len()];
        black_box(tree.kill(head, false, black_box(birth), call << 8));
    }
}
