//! The scenarios on the real engine.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod scenarios;

use cowstore::{
    CreateOptions, DeleteOptions, DiffOptions, Error, OpenOptions, Pool, PoolInfo, RollbackOptions,
    SnapshotOptions,
};
use scenarios::Backend;
use std::path::Path;

struct Real;

impl Backend for Real {
    fn create(&self, path: &Path, options: &CreateOptions) -> Result<Pool, Error> {
        Pool::create(path, options)
    }

    fn open(&self, path: &Path, options: &OpenOptions) -> Result<Pool, Error> {
        Pool::open(path, options)
    }
}

scenarios::tests!(Real);

/// Writes, reads and folds in a pool opened so, and returns what it then says of itself.
fn used(open: OpenOptions) -> PoolInfo {
    let dir = tempfile::tempdir().unwrap();
    let options = CreateOptions { open, ..CreateOptions::with_size(256 << 20) };
    let pool = Pool::create(dir.path().join("pool.cow"), &options).unwrap();
    pool.create_volume("v", 64 << 20, &[]).unwrap();
    let volume = pool.volume("v").unwrap();
    let bytes: Vec<u8> = (0..3_000_000u32).map(|i| (i / 7) as u8).collect();
    for round in 0..20 {
        volume.write_at(&bytes, round * bytes.len() as u64).unwrap();
    }
    pool.checkpoint().unwrap();
    let mut back = vec![0; bytes.len()];
    for round in 0..20 {
        volume.read_at(&mut back, round * bytes.len() as u64).unwrap();
        assert!(back == bytes);
    }
    let info = pool.info(false).unwrap();
    pool.close().unwrap();
    info
}

/// The buffers of all that the engine does come from the driver, and are the fixed ones.
#[test]
fn the_device_is_read_and_written_through_fixed_buffers() {
    let info = used(OpenOptions::default());
    if !info.fixed_buffers {
        assert!(!info.notes.is_empty(), "it says why not");
        assert_eq!(info.fixed_transfers, 0);
        eprintln!("skipped: {:?}", info.notes);
        return;
    }
    assert_eq!((info.driver.as_str(), info.notes.as_slice()), ("io_uring", [].as_slice()));
    // 20 rounds of three pieces and a bit, each way, frames and map nodes; less where only a part
    // of the arena may be registered.
    assert!(info.fixed_transfers >= 64, "{}", info.fixed_transfers);
}

/// With next to no arena, and with none, everything is the same.
#[test]
fn without_room_for_buffers_everything_works() {
    for buffer_bytes in [0, 2 << 20] {
        let mut open = OpenOptions::default();
        open.driver_options.buffer_bytes = buffer_bytes;
        let info = used(open);
        assert!(buffer_bytes > 0 || !info.fixed_buffers);
    }
}

/// What is compared stays until the iterator is gone, over many pages of the engine's answer.
#[test]
fn what_is_compared_cannot_be_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let options = CreateOptions::with_size(256 << 20);
    let pool = Pool::create(dir.path().join("pool.cow"), &options).unwrap();
    pool.create_volume("v", 1 << 30, &[]).unwrap();
    pool.snapshot(&["v@a"], SnapshotOptions::default()).unwrap();
    let volume = pool.volume("v").unwrap();
    for index in 0..10_000 {
        volume.write_at(&[1; 4096], index * 8192).unwrap();
    }
    let mut changes = pool.diff("v@a", "v", DiffOptions::default()).unwrap();
    let first = changes.next().unwrap().unwrap();
    assert_eq!((first.offset, first.len), (0, 4096));
    let busy = pool.delete(&["v@a"], DeleteOptions::default());
    assert!(matches!(busy, Err(Error::Busy(_))), "{busy:?}");
    // A fold in the middle changes nothing.
    pool.checkpoint().unwrap();
    assert_eq!(changes.by_ref().filter(|change| change.is_ok()).count(), 9_999);
    drop(changes);
    // Equal bytes once more: a change, unless bytes are compared.
    pool.snapshot(&["v@b"], SnapshotOptions::default()).unwrap();
    volume.write_at(&[1; 4096], 0).unwrap();
    volume.write_at(&[2; 4096], 8192).unwrap();
    for (exact, want) in [(false, vec![0, 8192]), (true, vec![8192])] {
        let changes = pool.diff("v@b", "v", DiffOptions { exact }).unwrap();
        let found: Vec<u64> = changes.map(|change| change.unwrap().offset).collect();
        assert_eq!(found, want);
    }
    // A volume that was rolled back meanwhile is another one.
    let mut changes = pool.diff("v@a", "v", DiffOptions::default()).unwrap();
    let force = RollbackOptions { force: true, ..RollbackOptions::default() };
    pool.rollback(&["v@a"], force).unwrap();
    let last = changes.by_ref().last();
    assert!(matches!(last, Some(Err(Error::Stale(_)))), "{last:?}");
    assert!(changes.next().is_none());
    drop(changes);
    pool.delete(&["v@a"], DeleteOptions::default()).unwrap();
    pool.close().unwrap();
}
