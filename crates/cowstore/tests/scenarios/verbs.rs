//! What is done to a pool as a whole.

use super::{Backend, Place, pattern};
use cowstore::{
    Change, DeleteOptions, DiffOptions, Error, Export, NodeKind, Pool, RollbackOptions,
    SnapshotOptions,
};

const MIB: u64 = 1 << 20;

fn snapshot(pool: &Pool, names: &[&str]) {
    let nodes = pool.snapshot(names, SnapshotOptions::default()).unwrap();
    assert_eq!(nodes.len(), names.len());
}

fn text(export: &Export) -> String {
    let mut bytes = [0; 8];
    export.read_at(&mut bytes, 4093).unwrap();
    String::from_utf8_lossy(&bytes).trim_end_matches('\0').into()
}

fn write(pool: &Pool, volume: &str, text: &str) {
    let volume = pool.volume(volume).unwrap();
    volume.write_at(&[0; 8], 4093).unwrap();
    volume.write_at(text.as_bytes(), 4093).unwrap();
}

fn read(pool: &Pool, name: &str) -> String {
    text(&pool.open_export(name, false).unwrap())
}

fn names(pool: &Pool) -> Vec<String> {
    let mut names: Vec<_> =
        pool.list(false).unwrap().into_iter().filter(|n| n.live).map(|n| n.name).collect();
    names.sort();
    names
}

pub fn snapshots_stay(backend: &dyn Backend) {
    let place = Place::new();
    let pool = place.pool(backend);
    for volume in ["a", "b"] {
        pool.create_volume(volume, 16 * MIB, &[]).unwrap();
    }
    for round in 0..5 {
        write(&pool, "a", &format!("a{round}"));
        write(&pool, "b", &format!("b{round}"));
        snapshot(&pool, &[&format!("a@s{round}"), &format!("b@s{round}")]);
    }
    for round in 0..5 {
        assert_eq!(read(&pool, &format!("a@s{round}")), format!("a{round}"));
        assert_eq!(text(&pool.open_snapshot(&format!("b@s{round}")).unwrap()), format!("b{round}"));
    }
    let snapshot = pool.open_snapshot("a@s0").unwrap();
    assert!(snapshot.is_read_only());
    let list = pool.list(true).unwrap();
    assert_eq!(list.len(), 12);
    let node = list.iter().find(|node| node.name == "a@s3").unwrap();
    assert_eq!((node.kind, node.size_bytes), (NodeKind::User, 16 * MIB));
    pool.close().unwrap();
    let pool = place.reopen(backend);
    assert_eq!(read(&pool, "a@s2"), "a2");
    pool.close().unwrap();
}

pub fn rollback_and_undo(backend: &dyn Backend) {
    let place = Place::new();
    let pool = place.pool(backend);
    pool.create_volume("v", 16 * MIB, &[]).unwrap();
    write(&pool, "v", "good");
    snapshot(&pool, &["v@good"]);
    write(&pool, "v", "later");
    snapshot(&pool, &["v@later"]);
    write(&pool, "v", "bad");
    {
        let _writer = pool.volume("v").unwrap();
        let refused = pool.rollback(&["v@good"], RollbackOptions::default());
        assert!(matches!(refused, Err(Error::Busy(_))), "{refused:?}");
    }
    let kept = pool.rollback(&["v@good"], RollbackOptions::default()).unwrap();
    let kept = kept[0].clone().expect("something was replaced");
    assert!(kept.name.starts_with("v@undo."), "{}", kept.name);
    assert_eq!((read(&pool, "v"), read(&pool, "v@later")), ("good".into(), "later".into()));
    assert_eq!(read(&pool, &kept.name), "bad");
    write(&pool, "v", "other");
    pool.undo("v", false).unwrap();
    assert_eq!(read(&pool, "v"), "bad");
    pool.undo("v", false).unwrap();
    assert_eq!(read(&pool, "v"), "other", "a second undo is a redo");
    pool.close().unwrap();
}

pub fn clones(backend: &dyn Backend) {
    let place = Place::new();
    let pool = place.pool(backend);
    pool.create_volume("v", 16 * MIB, &[]).unwrap();
    write(&pool, "v", "base");
    snapshot(&pool, &["v@s"]);
    let props = [("purpose".to_owned(), "test".to_owned())];
    pool.clone_volume("v@s", "c", &props).unwrap();
    assert_eq!(read(&pool, "c"), "base");
    write(&pool, "c", "clone");
    assert_eq!((read(&pool, "v"), read(&pool, "v@s")), ("base".into(), "base".into()));
    assert_eq!(pool.props("c").unwrap().props, props);
    let again = pool.clone_volume("v@s", "c", &[]);
    assert!(matches!(again, Err(Error::Exists(_))), "{again:?}");
    pool.close().unwrap();
}

pub fn deletes_and_holds(backend: &dyn Backend) {
    let place = Place::new();
    let pool = place.pool(backend);
    pool.create_volume("v", 16 * MIB, &[]).unwrap();
    write(&pool, "v", "x");
    snapshot(&pool, &["v@s"]);
    snapshot(&pool, &["v@t"]);
    pool.hold("v@s", "backup").unwrap();
    assert_eq!(pool.props("v@s").unwrap().holds, ["backup"]);
    let held = pool.delete(&["v@s"], DeleteOptions::default());
    assert!(matches!(held, Err(Error::Busy(_))), "{held:?}");
    pool.release("v@s", "backup").unwrap();
    let open = pool.open_snapshot("v@s").unwrap();
    let busy = pool.delete(&["v@s"], DeleteOptions::default());
    assert!(matches!(busy, Err(Error::Busy(_))), "{busy:?}");
    drop(open);
    let dry = DeleteOptions { dry_run: true, ..DeleteOptions::default() };
    pool.delete(&["v@s"], dry).unwrap();
    assert_eq!(names(&pool), ["v", "v@s", "v@t"]);
    pool.delete(&["v@s"], DeleteOptions::default()).unwrap();
    let whole = pool.delete(&["v"], DeleteOptions::default());
    assert!(matches!(whole, Err(Error::Busy(_))), "it has a snapshot: {whole:?}");
    pool.delete(&["v"], DeleteOptions { recursive: true, dry_run: false }).unwrap();
    pool.wait_reclaim().unwrap();
    assert_eq!(names(&pool), [""; 0]);
    let gone = pool.delete(&["v"], DeleteOptions::default());
    assert!(matches!(gone, Err(Error::NotFound(_))), "{gone:?}");
    pool.close().unwrap();
}

pub fn names_and_sizes(backend: &dyn Backend) {
    let place = Place::new();
    let pool = place.pool(backend);
    pool.create_volume("v", 16 * MIB, &[]).unwrap();
    snapshot(&pool, &["v@s"]);
    pool.rename("v@s", "v@t").unwrap();
    pool.rename("v@t", "u").unwrap();
    assert_eq!(names(&pool), ["v", "v@u"]);
    assert!(matches!(pool.rename("v@u", "w@u"), Err(Error::Invalid(_))));
    pool.resize("v", 32 * MIB, false).unwrap();
    let info = pool.info(true).unwrap();
    assert!(["io_uring", "threads"].contains(&info.driver.as_str()));
    assert_eq!(info.path, place.path("pool.cow").display().to_string());
    let set = pool.set_size(&["v@u"]).unwrap();
    assert!(set.exact);
    pool.checkpoint().unwrap();
    pool.close().unwrap();
}

pub fn properties(backend: &dyn Backend) {
    let place = Place::new();
    let pool = place.pool(backend);
    let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
    pool.create_volume("v", 16 * MIB, &[pair("a", "1")]).unwrap();
    let set = |k: &str, v: &str| (k.to_owned(), Some(v.to_owned()));
    pool.set_props("v", &[set("b", "2"), set("c", "ü\n\"")]).unwrap();
    pool.set_props("v", &[("a".into(), None)]).unwrap();
    let mut props = pool.props("v").unwrap().props;
    props.sort();
    assert_eq!(props, [pair("b", "2"), pair("c", "ü\n\"")]);
    pool.set_props("", &[set("owner", "me")]).unwrap();
    assert_eq!(pool.props("").unwrap().props, [pair("owner", "me")]);
    pool.close().unwrap();
    let pool = place.reopen(backend);
    assert_eq!(pool.props("").unwrap().props, [pair("owner", "me")]);
    pool.close().unwrap();
}

pub fn diffs(backend: &dyn Backend) {
    let place = Place::new();
    let pool = place.pool(backend);
    pool.create_volume("v", 16 * MIB, &[]).unwrap();
    snapshot(&pool, &["v@a"]);
    let volume = pool.volume("v").unwrap();
    for block in [1, 5, 6, 700] {
        volume.write_at(&pattern(block, 4096), block * 4096).unwrap();
    }
    snapshot(&pool, &["v@b"]);
    for (from, to) in [("v@a", "v@b"), ("v@b", "v@a"), ("v@a", "v")] {
        let changes = pool.diff(from, to, DiffOptions::default()).unwrap();
        let changes: Vec<_> = changes
            .map(|change| change.unwrap())
            .map(|Change { offset, len }| (offset / 4096, len / 4096))
            .collect();
        assert_eq!(changes, [(1, 1), (5, 2), (700, 1)], "{from} {to}");
    }
    assert!(pool.diff("v@b", "v", DiffOptions::default()).unwrap().next().is_none());
    let unknown = pool.diff("v@a", "v@c", DiffOptions::default()).err();
    assert!(matches!(unknown, Some(Error::NotFound(_))), "{unknown:?}");
    pool.close().unwrap();
}

pub fn bad_names(backend: &dyn Backend) {
    let place = Place::new();
    let pool = place.pool(backend);
    pool.create_volume("v", 16 * MIB, &[]).unwrap();
    for name in ["v", "@s", "v@", ""] {
        let result = pool.snapshot(&[name], SnapshotOptions::default());
        assert!(matches!(result, Err(Error::Invalid(_))), "{name}: {result:?}");
    }
    assert!(matches!(pool.volume("v@s"), Err(Error::Invalid(_))));
    assert!(matches!(pool.open_snapshot("v"), Err(Error::Invalid(_))));
    assert!(matches!(pool.volume("w"), Err(Error::NotFound(_))));
    assert!(matches!(pool.open_snapshot("v@s"), Err(Error::NotFound(_))));
    pool.close().unwrap();
}
