//! What an opening asks: which volumes and snapshots have a property. It is told all of them and no
//! other, and looks at no snapshot whose name says that it is none.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod pool;

use cow_engine::{Op, Reply};
use pool::{MIB, Pool};
use std::collections::BTreeSet;

const MARK: &str = "cow.importing";

fn marked(pool: &mut Pool, prefix: &str) -> Vec<String> {
    match pool.must(Op::ListMarked { prop: MARK.into(), prefix: prefix.into() }) {
        Reply::List(nodes) => nodes.into_iter().map(|node| node.name).collect::<BTreeSet<_>>(),
        other => panic!("{other:?}"),
    }
    .into_iter()
    .collect()
}

/// Volumes and snapshots with and without the mark, and with another property.
fn some_marked() -> Pool {
    let mut pool = Pool::new(false);
    for (name, key) in [("a", MARK), ("b", "other"), ("c", ""), ("d", MARK)] {
        let props: &[(&str, &str)] = if key.is_empty() { &[] } else { &[(key, "1")] };
        let export = pool.volume(name, MIB, props);
        pool.write(export, 0, 1).unwrap();
        pool.must(Op::CloseExport { export });
        for snapshot in ["export-1", "export-2", "exp", "my-export-1"] {
            pool.snapshot(name, snapshot).unwrap();
        }
    }
    for name in ["a@export-1", "a@my-export-1", "b@export-2", "c@exp"] {
        pool.set(name, MARK, Some("")).unwrap();
    }
    pool.set("c@export-1", "other", Some("")).unwrap();
    pool
}

#[test]
fn all_that_has_the_mark_is_told_and_no_other() {
    let mut pool = some_marked();
    for round in 0..2 {
        let found = marked(&mut pool, "export-");
        assert_eq!(found, ["a", "a@export-1", "b@export-2", "d"], "round {round}");
        let found = marked(&mut pool, "exp");
        assert_eq!(found, ["a", "a@export-1", "b@export-2", "c@exp", "d"]);
        assert_eq!(marked(&mut pool, "none"), ["a", "d"]);
        // Once more from the disk alone.
        pool.must(Op::Checkpoint);
        pool.restart();
    }
    pool.delete("a@export-1");
    pool.delete("d");
    pool.set("b@export-2", MARK, None).unwrap();
    assert_eq!(marked(&mut pool, "export-"), ["a"]);
    pool.check();
}

/// Each snapshot that is looked at costs reads, of its properties and of what its sizes are made of.
#[test]
fn no_snapshot_is_looked_at_whose_name_does_not_begin_so() {
    let reads = |with_props: bool| {
        let mut pool = some_marked();
        for n in 0..50 {
            let name = format!("daily-{n}");
            pool.snapshot("c", &name).unwrap();
            if with_props {
                pool.set(&format!("c@{name}"), "description", Some("of that day")).unwrap();
            }
        }
        pool.must(Op::Checkpoint);
        pool.restart();
        let before = pool.world.disk().counts().read.ops;
        marked(&mut pool, "export-");
        pool.world.disk().counts().read.ops - before
    };
    let (without, with) = (reads(false), reads(true));
    assert!(with <= without + 2, "{with} reads, {without} where the others have no properties");
    assert!(without > 4, "what is asked for is read");
}
