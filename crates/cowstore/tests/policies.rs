//! What the engine decides in the commit itself: limits that hold in every race, and changes of
//! properties that come with a verb or not at all.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cowstore::{
    CreateOptions, Error, NewVolume, Pool, PropEdit, RollbackOptions, SnapshotOptions, Stats,
};
use std::thread;

fn pool(dir: &tempfile::TempDir) -> Pool {
    Pool::create(dir.path().join("pool.cow"), &CreateOptions::with_size(256 << 20)).unwrap()
}

fn new(name: &str, limit: &str) -> NewVolume {
    let props = vec![("limit".to_owned(), limit.to_owned())];
    NewVolume { name: name.to_owned(), size_bytes: 1 << 30, props }
}

fn edit(name: &str, value: &str) -> PropEdit {
    let changes = vec![("counter".to_owned(), Some(value.to_owned()))];
    PropEdit { name: name.to_owned(), changes }
}

fn counter(pool: &Pool, name: &str) -> Option<String> {
    let props = pool.props(name).unwrap().props;
    props.into_iter().find(|(key, _)| key == "counter").map(|(_, value)| value)
}

#[test]
fn a_limit_of_a_group_holds_against_a_hundred_at_once_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(&dir);
    let member = |i: usize| {
        let props = vec![("group".to_owned(), "web".to_owned())];
        NewVolume { name: format!("v{i}"), size_bytes: 1 << 20, props }
    };
    let limit = [("limit:web".to_owned(), Some("5".to_owned()))];
    pool.create_volumes((0..10).map(member).collect(), Vec::new()).unwrap();
    pool.set_props("", &limit).unwrap();
    let take =
        |pool: &Pool, name: String| pool.snapshot(&[name], SnapshotOptions::default()).is_ok();
    let taken = thread::scope(|scope| {
        let (pool, take) = (&pool, &take);
        let threads: Vec<_> = (0..100)
            .map(|i| scope.spawn(move || take(pool, format!("v{}@s{i}", i % 10))))
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).filter(|ok| *ok).count()
    });
    assert_eq!(taken, 5);
    let path = pool.path().to_owned();
    pool.close().unwrap();
    let pool = Pool::open(&path, &cowstore::OpenOptions::default()).unwrap();
    assert!(!take(&pool, "v3@more".into()), "nothing was forgotten");
    let one = pool.list(false).unwrap().into_iter().find(|n| n.name.contains('@')).unwrap();
    pool.delete(&[one.name], cowstore::DeleteOptions::default()).unwrap();
    assert!(take(&pool, "v3@more".into()) && !take(&pool, "v4@more".into()));
    pool.close().unwrap();
}

/// Frames and flushes that `act` costs.
fn cost(pool: &Pool, act: impl FnOnce()) -> (u64, u64) {
    let stats = || -> Stats { pool.info(false).unwrap().stats };
    let before = stats();
    act();
    let after = stats();
    (after.frames - before.frames, after.device_flushes - before.device_flushes)
}

#[test]
fn a_limit_holds_against_a_hundred_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(&dir);
    pool.create_volumes(vec![new("a", "5"), new("b", "7")], Vec::new()).unwrap();
    let results: Vec<Result<_, Error>> = thread::scope(|scope| {
        let take = |i: usize| {
            let names = [format!("a@s{i}"), format!("b@s{i}")];
            let pool = &pool;
            scope.spawn(move || pool.snapshot(&names, SnapshotOptions::default()))
        };
        let threads: Vec<_> = (0..100).map(take).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let refused =
        |r: &&Result<_, Error>| matches!(r, Err(Error::Limit(t)) if t.contains("volume a"));
    assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 5);
    assert_eq!(results.iter().filter(refused).count(), 95);
    // Of the groups that were refused nothing is there, on neither volume.
    let snapshots = pool.list(false).unwrap().into_iter().filter(|n| n.name.contains('@')).count();
    assert_eq!(snapshots, 10);
    pool.close().unwrap();
}

#[test]
fn edits_come_with_the_verb_in_one_frame_and_one_flush() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(&dir);
    let created = cost(&pool, || {
        let volumes = vec![new("a", "2"), new("b", "2")];
        pool.create_volumes(volumes, vec![edit("", "1")]).unwrap();
    });
    assert_eq!((created, counter(&pool, "").as_deref()), ((1, 1), Some("1")));
    let taken = cost(&pool, || {
        let options = SnapshotOptions {
            edits: vec![edit("", "2"), edit("a", "x")],
            ..SnapshotOptions::default()
        };
        pool.snapshot(&["a@1", "b@1"], options).unwrap();
    });
    assert_eq!(taken, (1, 1));
    assert_eq!(counter(&pool, "a").as_deref(), Some("x"));
    assert_eq!(counter(&pool, "a@1"), None, "an edit of the volume is none of the snapshot");
    let back = cost(&pool, || {
        let edits = vec![edit("", "3"), edit("a", "y")];
        pool.rollback(&["a@1", "b@1"], RollbackOptions { edits, ..Default::default() }).unwrap();
    });
    assert_eq!(back, (1, 1));
    // What is refused leaves the properties alone.
    let edits = vec![edit("", "4")];
    let options = SnapshotOptions { edits: edits.clone(), ..SnapshotOptions::default() };
    assert!(matches!(pool.snapshot(&["a@1"], options), Err(Error::Exists(_))));
    let options = RollbackOptions { edits: edits.clone(), ..Default::default() };
    assert!(matches!(pool.rollback(&["a@none"], options), Err(Error::NotFound(_))));
    let taken = pool.create_volumes(vec![new("c", "1"), new("a", "1")], edits);
    assert!(matches!(taken, Err(Error::Exists(_))));
    // Not closed, so that it is replayed.
    drop(pool);
    let pool = Pool::open(dir.path().join("pool.cow"), &Default::default()).unwrap();
    assert_eq!(counter(&pool, "").as_deref(), Some("3"));
    assert_eq!(counter(&pool, "a").as_deref(), Some("y"));
    assert!(matches!(pool.props("c"), Err(Error::NotFound(_))));
    pool.close().unwrap();
}
