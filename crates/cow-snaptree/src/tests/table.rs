//! The node table, and input that nobody should trust.

use super::{Rng, new_volume};
use crate::{Counters, MAX_NODES, Props, Row, SnapOptions, Tree, TreeError};
use cow_format::entry::{Consistency, Count, ENTRY_LEN, NodeEntry, NodeKind, NodeState};
use cow_format::record::{PropChange, Record, Replaced, RollbackMember, SnapMember};
use cow_format::table::{is_overflow, overflow_of};
use cow_format::wire::Reader;
use cow_format::{Buf, FamilyId, FrameSeq, Gen, NodeId, Phys, VolumeId};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// The tree that table pages hold, whatever order they are read in.
pub(crate) fn read(pages: &BTreeMap<u32, Buf>, counters: Counters) -> Tree {
    let mut rng = Rng(counters.last_node.0);
    let all = pages.iter().map(|(page, buf)| (*page, buf));
    let mut shuffled: Vec<_> = all.filter(|(page, _)| !is_overflow(*page)).collect();
    for at in 1..shuffled.len() {
        shuffled.swap(at, rng.below(at + 1));
    }
    let entries = shuffled.into_iter().flat_map(|(page, buf)| {
        let overflow = pages.get(&overflow_of(page)).map(|buf| &buf[..]);
        cow_format::table::entries(page, buf, overflow, Phys(1))
    });
    let entries = entries.map(|(slot, entry)| (slot, entry.expect("an entry")));
    Tree::from_entries(entries, counters).expect("the table of a fold")
}

/// The pages that a fold writes.
pub(crate) fn write(tree: &Tree, pages: &mut BTreeMap<u32, Buf>) {
    for page in tree.dirty_pages() {
        let (buf, used) = tree.encode_page(page);
        if used > 0 || pages.contains_key(&page) {
            pages.insert(page, buf);
        }
    }
}

type Plan = fn(&Tree) -> Result<Vec<Record>, TreeError>;
type Entries = Vec<(u32, NodeEntry)>;

/// A tree with a bit of everything, as entries.
fn entries() -> (Entries, Counters) {
    let mut tree = Tree::default();
    let plans: [Plan; 6] = [
        |t: &Tree| t.plan_create_volumes(&[new_volume("v", 4096)], 1),
        |t: &Tree| t.plan_snapshot(&[("v", "a")], &SnapOptions::default(), 2),
        |t: &Tree| t.plan_clone(("v", "a"), "c", &[], 3),
        |t: &Tree| t.plan_rollback(&[("v", "a")], false, 4, |_| false),
        |t: &Tree| t.plan_snapshot(&[("c", "a"), ("v", "b")], &SnapOptions::default(), 5),
        |t: &Tree| t.plan_delete(&["v@a", "c@a"], false),
    ];
    for plan in plans {
        for record in plan(&tree).unwrap() {
            tree.apply(&record, FrameSeq(3)).unwrap();
        }
    }
    tree.assign_slots(64).unwrap();
    let all = tree.iter().map(|node| (node.slot.unwrap(), node.entry.clone())).collect();
    (all, tree.counters())
}

#[test]
fn a_table_that_cannot_be_is_refused() {
    let (good, mut counters) = entries();
    // One that nothing has yet.
    counters.last_gen.0 += 1;
    let id = |name: &str| good.iter().position(|(_, e)| e.name == name).unwrap();
    let check = |says: &str, change: &dyn Fn(&mut Entries)| {
        let mut bad = good.clone();
        change(&mut bad);
        let result = Tree::from_entries(bad.into_iter(), counters);
        let Err(TreeError::Corrupt(text)) = &result else { panic!("{says}: {result:?}") };
        assert!(text.contains(says), "{text:?} does not say {says:?}");
    };
    assert!(Tree::from_entries(good.clone().into_iter(), counters).is_ok());
    check("node 1 twice", &|e| e[1].1.id = e[0].1.id);
    check("slot 0 twice", &|e| e[1].0 = e[0].0);
    check("a table has 1048576 at most", &|e| e[1].0 = MAX_NODES);
    check("unknown parent 99", &|e| e[1].1.parent = NodeId(99));
    check("cannot stand below", &|e| e[1].1.parent = e[1].1.id);
    check("cannot stand below", &|e| e[0].1.parent = e[1].1.id);
    check("cannot stand below", &|e| {
        // Younger than that head.
        e[id("c")].1.label_gen = counters.last_gen;
        e[id("c")].1.parent = e[id("v")].1.id;
    });
    check("cannot stand below", &|e| e[1].1.label_gen = e[0].1.label_gen);
    check("never given out", &|e| e[1].1.label_gen = Gen(counters.last_gen.0 + 1));
    check("never given out", &|e| e[1].1.id = NodeId(counters.last_node.0 + 1));
    check("gen, volume or family is 0", &|e| e[0].1.label_gen = Gen(0));
    check("its root is younger", &|e| e[0].1.root.birth = Gen(e[0].1.label_gen.0 + 1));
    check("4 PiB", &|e| e[0].1.size_bytes = (4 << 50) + 1);
    check("cannot stand below", &|e| e[1].1.family = FamilyId(77));
    check(": kind", &|e| e[1].1.kind = NodeKind::Pool);
    check("cannot stand below", &|e| e[id("b")].1.kind = NodeKind::Head);
    check("two heads", &|e| e[id("c")].1.volume = e[id("v")].1.volume);
    check(": name", &|e| e[id("b")].1.name = "a/b".into());
    check("snapshot name undo.1 twice", &|e| e[id("b")].1.name = "undo.1".into());
    check("volume name v twice", &|e| {
        e.iter_mut().filter(|e| e.1.name == "c").for_each(|e| e.1.name = "v".into());
    });
    check("belongs to no volume", &|e| {
        e.iter_mut().filter(|e| e.1.name == "v").for_each(|e| e.1.state = NodeState::Deleting);
    });
}

#[test]
fn rows_and_properties_round_trip_and_refuse_rubbish() {
    let mut row = Row::empty();
    row.add(Gen(7), Count { data: 5, map: u64::from(u32::MAX) + 9 });
    row.add(Gen(3), Count { data: 1, map: 0 });
    let bytes = row.encode();
    assert_eq!(bytes.len(), 36);
    assert_eq!(Row::decode(&bytes), Ok(row));
    assert!(Row::decode(&bytes[..35]).is_err());
    assert!(Row::decode(&[&bytes[12..], &bytes[..12]].concat()).is_err());
    let mut props = Props::default();
    props.map.insert("a".into(), "ä".into());
    props.holds.insert("t".into());
    let bytes = props.encode();
    assert_eq!(bytes.len(), props.encoded_len());
    assert_eq!(Props::decode(&bytes), Ok(props));
    for cut in 1..bytes.len() {
        assert!(Props::decode(&bytes[..cut]).is_err());
    }
    assert_eq!(Props::decode(&[]), Ok(Props::default()));
    assert!(Props::default().encode().is_empty());
    assert!(Props::decode(&[&bytes[..], &[0]].concat()).is_err());
}

/// Small numbers meet; large ones find the edges.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0..12u64, 1 => any::<u64>(), 1 => Just(u64::MAX)]
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![6 => "[ab]", 1 => "undo\\.[1-4]", 1 => ".{0,4}"]
}

fn changes() -> impl Strategy<Value = Vec<PropChange>> {
    prop::collection::vec(("[ab]", prop::option::of("x{0,9}")), 0..3)
}

fn gens() -> impl Strategy<Value = Gen> {
    number().prop_map(|n| Gen(n as u32))
}

prop_compose! {
    fn snap_member()(volume in number(), new_head in number(), name in name()) -> SnapMember {
        SnapMember { volume: VolumeId(volume), new_head: NodeId(new_head), name }
    }
}

prop_compose! {
    fn rollback_member()(v in number(), new in number(), target in number(), name in name(),
                         keep in any::<bool>(), rollback_gen in number()) -> RollbackMember {
        let replaced =
            if keep { Replaced::Kept { name, expiry_ns: 1 } } else { Replaced::Discarded };
        let (volume, new_head, target) = (VolumeId(v), NodeId(new), NodeId(target));
        RollbackMember { volume, new_head, target, replaced, rollback_gen }
    }
}

fn record() -> impl Strategy<Value = Record> {
    prop_oneof![
        (gens(), number(), number(), name(), changes()).prop_map(
            |(label_gen, v, n, name, props)| {
                let (volume, node) = (VolumeId(v), NodeId(n));
                Record::VolCreate {
                    label_gen,
                    volume,
                    node,
                    size_bytes: 512,
                    time_ns: 0,
                    name,
                    props,
                }
            }
        ),
        (gens(), number(), number(), number(), name()).prop_map(|(label_gen, v, n, p, name)| {
            let (volume, node, parent) = (VolumeId(v), NodeId(n), NodeId(p));
            let props = Vec::new();
            Record::Clone { label_gen, volume, node, parent, time_ns: 0, name, props }
        }),
        (gens(), prop::collection::vec(snap_member(), 1..3), changes(), number()).prop_map(
            |(label_gen, members, props, group)| Record::SnapCreate {
                label_gen,
                time_ns: 1,
                group,
                kind: NodeKind::User,
                consistency: Consistency::Crash,
                freeze_ms: 0,
                expiry_ns: 0,
                members,
                props,
            }
        ),
        (gens(), prop::collection::vec(rollback_member(), 1..3))
            .prop_map(|(label_gen, members)| Record::Rollback { label_gen, time_ns: 0, members }),
        (number(), number())
            .prop_map(|(v, size_bytes)| Record::VolResize { volume: VolumeId(v), size_bytes }),
        prop::collection::vec(number().prop_map(NodeId), 0..4)
            .prop_map(|nodes| Record::NodeDelete { nodes }),
        (number(), name()).prop_map(|(n, name)| Record::Rename { node: NodeId(n), name }),
        (number(), changes()).prop_map(|(n, props)| Record::SetProps { node: NodeId(n), props }),
        (number(), any::<bool>(), "[ab]").prop_map(|(n, set, tag)| Record::Hold {
            node: NodeId(n),
            set,
            tag
        }),
    ]
}

/// What must hold of any tree: it is one that its own table gives again, and its names agree.
fn consistent(tree: &Tree) -> Result<(), TestCaseError> {
    let mut copy = tree.clone();
    copy.assign_slots(1 << 20).unwrap();
    let mut pages = BTreeMap::new();
    write(&copy, &mut pages);
    let again = read(&pages, copy.counters());
    prop_assert_eq!(again.counts(), tree.counts());
    for (node, other) in copy.iter().zip(again.iter()) {
        prop_assert_eq!(&node.entry, &other.entry);
        prop_assert_eq!((&node.children, node.slot), (&other.children, other.slot));
        prop_assert_eq!(tree.full_name(node.entry.id), again.full_name(node.entry.id));
        if let Some(name) = tree.full_name(node.entry.id) {
            prop_assert_eq!(tree.resolve(&name), Ok(node.entry.id));
        }
    }
    prop_assert!(tree.volumes().eq(again.volumes()));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_journal_brings_the_tree_down(records in prop::collection::vec(record(), 1..40)) {
        let mut tree = Tree::default();
        // A foundation, so that not every record misses.
        for record in tree.plan_create_volumes(&[new_volume("v", 512)], 0).unwrap() {
            tree.apply(&record, FrameSeq(1)).unwrap();
        }
        for record in &records {
            let before = tree.clone();
            if tree.apply(record, FrameSeq(2)).is_err() {
                prop_assert!(tree.iter().eq(before.iter()), "an error changed the tree");
                prop_assert_eq!(tree.counters(), before.counters());
            }
            consistent(&tree)?;
        }
        // Whatever the journal made of it, what is planned now can be applied.
        let volumes: Vec<String> = tree.volumes().map(|(_, v)| v.name.clone()).collect();
        for volume in &volumes {
            let target = [(volume.as_str(), "z")];
            for plan in [
                tree.plan_snapshot(&target, &SnapOptions::default(), 1),
                tree.plan_undo(volume, 1),
                tree.plan_rollback(&target, false, 1, |_| false),
                tree.plan_create_volumes(&[new_volume("zz", 512)], 1),
                tree.plan_hold(volume, "z", true),
                tree.plan_delete(&[volume], true),
            ] {
                let mut tree = tree.clone();
                for record in plan.iter().flatten() {
                    prop_assert_eq!(tree.apply(record, FrameSeq(3)), Ok(()));
                }
            }
        }
    }

    #[test]
    fn no_bytes_bring_the_tree_down(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut r = Reader::new(&bytes);
        let mut tree = Tree::default();
        while let Ok(record) = Record::decode(&mut r) {
            let _ = tree.apply(&record, FrameSeq(1));
        }
        let _ = (Row::decode(&bytes), Props::decode(&bytes));
    }

    #[test]
    fn no_table_brings_the_tree_down(
        flips in prop::collection::vec((0..8usize, 0..ENTRY_LEN, any::<u8>()), 1..6),
    ) {
        let (good, counters) = entries();
        let mut bad = Vec::new();
        for (at, (slot, entry)) in good.iter().enumerate() {
            let mut bytes = entry.encode();
            for (_, offset, byte) in flips.iter().filter(|flip| flip.0 == at) {
                bytes[*offset] = *byte;
            }
            let overflow = entry.encode_overflow();
            let overflow = overflow.as_ref().map_or(&[][..], |bytes| bytes);
            if let Ok(Some(entry)) = NodeEntry::decode(&bytes, overflow, Phys(1)) {
                bad.push((*slot, entry));
            }
        }
        if let Ok(mut tree) = Tree::from_entries(bad.into_iter(), counters) {
            let ids: Vec<NodeId> = tree.iter().map(|node| node.entry.id).collect();
            for &id in &ids {
                let _ = (tree.unique(id), tree.set_size(&[id]), tree.full_name(id));
                let _ = tree.owner(id, Gen(2));
            }
            let _ = (tree.set_size(&ids), tree.counts(), tree.walkable(), tree.trimmable());
            let _ = tree.apply(&Record::NodeDelete { nodes: ids }, FrameSeq(1));
        }
    }
}
