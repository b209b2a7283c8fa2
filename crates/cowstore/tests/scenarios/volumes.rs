//! Reading and writing.

use super::{Backend, Place, block_on, pattern};
use cowstore::{Error, Extent, Op, Request, Response, SnapshotOptions, Volume, VolumeChange};
use std::sync::mpsc;
use std::thread;

const MIB: u64 = 1 << 20;

fn read(volume: &Volume, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xee; len];
    volume.read_at(&mut bytes, offset).unwrap();
    bytes
}

pub fn any_alignment(backend: &dyn Backend) {
    let place = Place::new();
    let pool = place.pool(backend);
    pool.create_volume("v", 64 * MIB, &[]).unwrap();
    let volume = pool.volume("v").unwrap();
    assert_eq!((volume.size_bytes(), volume.is_read_only()), (64 * MIB, false));
    let mut model = vec![0; 32 << 10];
    let ranges = [(0, 1), (4095, 2), (4096, 4096), (1, 4095), (8191, 4098), (12_288, 512)];
    for (seed, (offset, len)) in ranges.into_iter().enumerate() {
        let bytes = pattern(seed as u64, len);
        volume.write_at(&bytes, offset as u64).unwrap();
        model[offset..offset + len].copy_from_slice(&bytes);
        assert!(read(&volume, 0, model.len()) == model, "after {offset}+{len}");
    }
    for (offset, len) in [(0, 0), (1, 1), (4095, 2), (4097, 8000), (8190, 3)] {
        assert!(read(&volume, offset as u64, len) == model[offset..offset + len]);
    }
    volume.flush().unwrap();
    pool.close().unwrap();
}

pub fn large_and_crooked(backend: &dyn Backend) {
    let place = Place::new();
    let pool = place.pool(backend);
    pool.create_volume("v", 64 * MIB, &[]).unwrap();
    let volume = pool.volume("v").unwrap();
    let bytes = pattern(1, (20 << 20) + 12_345);
    volume.write_at(&bytes, 3 * MIB - 777).unwrap();
    volume.flush().unwrap();
    assert!(read(&volume, 3 * MIB - 777, bytes.len()) == bytes);
    assert!(read(&volume, 3 * MIB - 777 - 4096, 4096).iter().all(|&b| b == 0));
    pool.close().unwrap();
}

pub fn async_form(backend: &dyn Backend) {
    let place = Place::new();
    let pool = place.pool(backend);
    block_on(async {
        pool.create_volume("v", 64 * MIB, &[]).unwrap();
        let volume = pool.volume("v").unwrap();
        let bytes = pattern(2, (5 << 20) + 1);
        volume.write_at_async(&bytes, 4097).await.unwrap();
        volume.flush_async().await.unwrap();
        let mut back = vec![0; bytes.len()];
        volume.read_at_async(&mut back, 4097).await.unwrap();
        assert!(back == bytes);
        volume.write_zeroes_async(0, MIB).await.unwrap();
        volume.discard_async(MIB, MIB).await.unwrap();
        volume.read_at_async(&mut back[..8192], MIB - 4096).await.unwrap();
        assert!(back[..8192].iter().all(|&b| b == 0));
        let extents = volume.extents_async(0, 2 * MIB).await.unwrap();
        assert_eq!(extents, [Extent { len: 2 * MIB, mapped: false }]);
        assert!(volume.read_at_async(&mut back, 64 * MIB).await.is_err());
        // Begun, and dropped half-way: harmless.
        let mut abandoned = Box::pin(volume.write_at_async(&bytes, 8 * MIB));
        let waker = std::task::Waker::noop();
        let _ = abandoned.as_mut().poll(&mut std::task::Context::from_waker(waker));
        drop(abandoned);
        pool.execute(cowstore::Op::Checkpoint).await.unwrap();
    });
    pool.close().unwrap();
}

pub fn callbacks(backend: &dyn Backend) {
    let place = Place::new();
    let pool = place.pool(backend);
    pool.create_volume("v", 64 * MIB, &[]).unwrap();
    let volume = pool.volume("v").unwrap();
    let (sender, answers) = mpsc::channel();
    for index in 0..200u64 {
        let (sender, bytes) = (sender.clone(), pattern(index, 10_000));
        let (offset, len) = (index * 20_000 + 1, bytes.len() as u64);
        let mut data = volume.buffer(bytes.len());
        data[..bytes.len()].copy_from_slice(&bytes);
        let request = Request::Write { offset, len, data, fua: index % 50 == 0 };
        volume.submit(request, move |result| {
            assert!(matches!(result, Ok(Response::Done)), "{result:?}");
            sender.send(index).unwrap();
        });
    }
    for _ in 0..200 {
        answers.recv().unwrap();
    }
    let (sender, answers) = mpsc::channel();
    for index in 0..200u64 {
        let sender = sender.clone();
        let request = Request::Read { offset: index * 20_000 + 1, len: 10_000 };
        volume.submit(request, move |result| {
            let Ok(Response::Data { buf, skip }) = result else { panic!("{result:?}") };
            sender.send(buf[skip..skip + 10_000] == pattern(index, 10_000)).unwrap();
        });
    }
    assert!((0..200).all(|_| answers.recv().unwrap()));
    pool.close().unwrap();
}

pub fn holes_and_extents(backend: &dyn Backend) {
    let place = Place::new();
    let pool = place.pool(backend);
    pool.create_volume("v", 64 * MIB, &[]).unwrap();
    let volume = pool.volume("v").unwrap();
    volume.write_at(&pattern(3, 64 << 10), MIB).unwrap();
    let extent = |len, mapped| Extent { len, mapped };
    let want = [extent(MIB, false), extent(64 << 10, true), extent(MIB, false)];
    assert_eq!(volume.extents(0, 2 * MIB + (64 << 10)).unwrap(), want);
    volume.discard(MIB + 4096, 8192).unwrap();
    volume.write_zeroes(MIB + (60 << 10), 4096).unwrap();
    let want = [(4096, true), (8192, false), (48 << 10, true), (4096, false)];
    let want: Vec<_> = want.into_iter().map(|(len, mapped)| extent(len, mapped)).collect();
    assert_eq!(volume.extents(MIB, 64 << 10).unwrap(), want);
    assert!(read(&volume, MIB + 4096, 8192).iter().all(|&b| b == 0));
    // Zeros that are written make holes, too.
    volume.write_at(&[0; 4096], MIB).unwrap();
    assert_eq!(volume.extents(MIB, 4096).unwrap(), [extent(4096, false)]);
    assert_eq!(volume.extents(5, 0).unwrap(), []);
    pool.close().unwrap();
}

pub fn outside_is_refused(backend: &dyn Backend) {
    let place = Place::new();
    let pool = place.pool(backend);
    pool.create_volume("v", MIB, &[]).unwrap();
    let volume = pool.volume("v").unwrap();
    let mut buf = [0; 2];
    for offset in [MIB - 1, MIB, u64::MAX - 1, u64::MAX] {
        assert!(matches!(volume.read_at(&mut buf, offset), Err(Error::Invalid(_))));
        assert!(matches!(volume.write_at(&buf, offset), Err(Error::Invalid(_))));
        assert!(matches!(volume.discard(offset, 2), Err(Error::Invalid(_))));
    }
    // The size of an open volume follows.
    pool.resize("v", 2 * MIB, false).unwrap();
    assert_eq!(volume.size_bytes(), 2 * MIB);
    volume.write_at(b"ab", MIB).unwrap();
    pool.rename("v", "w").unwrap();
    assert_eq!(volume.name(), "w");
    volume.write_at(b"ab", MIB).unwrap();
    pool.close().unwrap();
}

pub fn changes_are_told(backend: &dyn Backend) {
    let place = Place::new();
    let pool = place.pool(backend);
    let (sender, told) = mpsc::channel();
    pool.on_change(move |change| sender.send(change.clone()).unwrap());
    pool.create_volume("v", MIB, &[]).unwrap();
    pool.snapshot(&["v@a"], SnapshotOptions::default()).unwrap();
    let (volume, snapshot) = (pool.volume("v").unwrap(), pool.open_snapshot("v@a").unwrap());
    // By either way in, and before the answer.
    pool.resize("v", 2 * MIB, false).unwrap();
    let resized = |size_bytes| VolumeChange::Resized { volume: "v".into(), size_bytes };
    assert_eq!(told.try_recv(), Ok(resized(2 * MIB)));
    let op = Op::Resize { volume: "v".into(), size_bytes: 3 * MIB, shrink: false };
    block_on(pool.execute(op)).unwrap();
    assert_eq!(told.try_recv(), Ok(resized(3 * MIB)));
    assert_eq!((volume.size_bytes(), snapshot.size_bytes()), (3 * MIB, MIB));
    let renamed = |from: &str, to: &str| VolumeChange::Renamed { from: from.into(), to: to.into() };
    pool.rename("v@a", "v@b").unwrap();
    assert_eq!(told.try_recv(), Ok(renamed("v@a", "v@b")));
    let op = Op::Rename { name: "v".into(), to: "w".into() };
    block_on(pool.execute(op)).unwrap();
    assert_eq!(told.try_recv(), Ok(renamed("v", "w")));
    assert_eq!((volume.name(), snapshot.name()), ("w".into(), "w@b".into()));
    // What was refused has changed nothing.
    assert!(pool.resize("v", MIB, false).is_err() && pool.rename("v", "x").is_err());
    assert!(told.try_recv().is_err());
    drop((volume, snapshot));
    pool.close().unwrap();
}

pub fn ends_with_its_pool(backend: &dyn Backend) {
    let place = Place::new();
    let pool = place.pool(backend);
    pool.create_volume("v", MIB, &[]).unwrap();
    let volume = pool.volume("v").unwrap();
    pool.close().unwrap();
    assert!(matches!(volume.write_at(b"x", 0), Err(Error::Poisoned(_))));
    drop(volume);
    let pool = place.reopen(backend);
    let volume = pool.volume("v").unwrap();
    drop(pool);
    assert!(matches!(volume.flush(), Err(Error::Poisoned(_))));
}

pub fn many_threads(backend: &dyn Backend) {
    let place = Place::new();
    let pool = place.pool(backend);
    pool.create_volume("v", 64 * MIB, &[]).unwrap();
    let volume = pool.volume("v").unwrap();
    thread::scope(|scope| {
        for id in 0..4u64 {
            let volume = volume.clone();
            scope.spawn(move || {
                for round in 0..20u64 {
                    let offset = (round * 4 + id) * 50_000 + 3;
                    let bytes = pattern(offset, 50_000);
                    volume.write_at(&bytes, offset).unwrap();
                    assert!(read(&volume, offset, bytes.len()) == bytes);
                }
                volume.flush().unwrap();
            });
        }
    });
    for slot in 0..80 {
        let offset = slot * 50_000 + 3;
        assert!(read(&volume, offset, 50_000) == pattern(offset, 50_000), "slot {slot}");
    }
    pool.close().unwrap();
}
