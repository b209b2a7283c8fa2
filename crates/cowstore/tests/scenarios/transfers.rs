//! Import and export.

use super::{Backend, Place, pattern};
use cowstore::transfer::{
    ExportFile, ExportOptions, IMPORTING, ImportOptions, Progress, Transferred, Watch, export,
    import,
};
use cowstore::{Error, Pool, SnapshotOptions};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::thread;

const MIB: u64 = 1 << 20;

fn options(volume: &str) -> ImportOptions {
    ImportOptions { volume: volume.into(), label: "disk.img".into(), ..ImportOptions::default() }
}

fn take(pool: &Pool, file: &File, options: &ImportOptions) -> Result<Transferred, Error> {
    let mut last = Progress::default();
    let mut progress = |told: Progress| {
        assert!(told.done_bytes >= last.done_bytes);
        last = told;
    };
    import(pool, file, options, &mut Watch { progress: &mut progress, cancelled: &|| false })
}

fn give(pool: &Pool, name: &str, file: &File) -> Result<Transferred, Error> {
    let mut watch = Watch { progress: &mut |_| {}, cancelled: &|| false };
    export(pool, file, &ExportOptions { name: name.into() }, &mut watch)
}

fn give_bytes(pool: &Pool, name: &str, path: &Path) -> Vec<u8> {
    let out = ExportFile::create(path, true).unwrap();
    give(pool, name, &out.file()).unwrap();
    out.commit().unwrap();
    fs::read(path).unwrap()
}

fn names(pool: &Pool) -> Vec<String> {
    pool.list(false).unwrap().into_iter().filter(|n| n.live).map(|n| n.name).collect()
}

/// A sparse image with data here and there.
fn image(path: &Path, len: u64) -> File {
    let file = File::options().read(true).write(true).create_new(true).open(path).unwrap();
    file.set_len(len).unwrap();
    for (seed, at) in (0..len.saturating_sub(300_000)).step_by(3_333_333).enumerate() {
        file.write_all_at(&pattern(seed as u64, 200_000), at).unwrap();
    }
    file.write_all_at(b"end", len - 3).unwrap();
    file
}

pub fn there_and_back(backend: &dyn Backend) {
    let place = Place::new();
    let pool = place.pool(backend);
    let file = image(&place.path("in"), 50 * MIB + 512);
    let moved = take(&pool, &file, &options("v")).unwrap();
    assert_eq!(moved.bytes, 50 * MIB + 512);
    assert!(moved.data_bytes < 8 * MIB, "{}", moved.data_bytes);
    assert_eq!(names(&pool), ["v"]);
    assert_eq!(pool.props("v").unwrap().props, [], "the mark is gone");
    let node = &pool.list(true).unwrap()[0];
    assert_eq!(node.size_bytes, 50 * MIB + 512);
    assert!(node.referenced_bytes.unwrap() < 8 * MIB);
    let out = place.path("out");
    assert!(give_bytes(&pool, "v", &out) == fs::read(place.path("in")).unwrap());
    assert!(fs::metadata(&out).unwrap().blocks() * 512 < 8 * MIB, "holes are kept");
    let again = take(&pool, &file, &options("v"));
    assert!(matches!(again, Err(Error::Exists(_))), "{again:?}");
    assert_eq!(names(&pool), ["v"], "it is not the failed import's to delete");
    pool.close().unwrap();
}

pub fn lengths_to_the_byte(backend: &dyn Backend) {
    let place = Place::new();
    let pool = place.pool(backend);
    for len in [512, 4096, 4608, MIB + 512, 3 * MIB - 512] {
        let name = format!("v{len}");
        let path = place.path(&name);
        let file = image(&path, len);
        take(&pool, &file, &options(&name)).unwrap();
        assert!(give_bytes(&pool, &name, &place.path("out")) == fs::read(&path).unwrap(), "{len}");
    }
    // Larger than the image, if asked for.
    let file = File::open(place.path("v4608")).unwrap();
    let larger = ImportOptions { size_bytes: Some(8 * MIB), ..options("larger") };
    take(&pool, &file, &larger).unwrap();
    let bytes = give_bytes(&pool, "larger", &place.path("out"));
    assert_eq!(bytes.len() as u64, 8 * MIB);
    assert!(bytes[..4608] == fs::read(place.path("v4608")).unwrap());
    pool.close().unwrap();
}

pub fn into_a_volume(backend: &dyn Backend) {
    let place = Place::new();
    let pool = place.pool(backend);
    pool.create_volume("v", 20 * MIB, &[]).unwrap();
    let old = pattern(9, 20 << 20);
    pool.volume("v").unwrap().write_at(&old, 0).unwrap();
    let file = image(&place.path("in"), 10 * MIB + 4096);
    take(&pool, &file, &ImportOptions { into: true, ..options("v") }).unwrap();
    let bytes = give_bytes(&pool, "v", &place.path("out"));
    let (front, rest) = bytes.split_at((10 << 20) + 4096);
    assert!(front == fs::read(place.path("in")).unwrap(), "zeros overwrite, too");
    assert!(rest == &old[front.len()..], "what lies behind stays");
    let result = take(&pool, &file, &ImportOptions { into: true, ..options("w") });
    assert!(matches!(result, Err(Error::NotFound(_))), "{result:?}");
    pool.close().unwrap();
}

pub fn larger_than_the_volume(backend: &dyn Backend) {
    let place = Place::new();
    let pool = place.pool(backend);
    pool.create_volume("v", MIB, &[]).unwrap();
    pool.volume("v").unwrap().write_at(b"old", 0).unwrap();
    let file = image(&place.path("in"), 2 * MIB);
    let result = take(&pool, &file, &ImportOptions { into: true, ..options("v") });
    assert!(matches!(result, Err(Error::Invalid(_))), "{result:?}");
    let mut bytes = [0; 3];
    pool.volume("v").unwrap().read_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"old", "nothing was written");
    let small = ImportOptions { size_bytes: Some(MIB), ..options("w") };
    assert!(matches!(take(&pool, &file, &small), Err(Error::Invalid(_))));
    assert_eq!(names(&pool), ["v"]);
    pool.close().unwrap();
}

pub fn other_formats(backend: &dyn Backend) {
    let place = Place::new();
    let pool = place.pool(backend);
    let mut content = vec![0; 8192];
    content[..4].copy_from_slice(b"QFI\xfb");
    fs::write(place.path("q"), &content).unwrap();
    let file = File::open(place.path("q")).unwrap();
    let result = take(&pool, &file, &options("v"));
    let Err(Error::Unsupported(text)) = result else { panic!("{result:?}") };
    assert!(text.contains("qemu-img convert -O raw disk.img disk.img.raw"), "{text}");
    assert_eq!(names(&pool), [""; 0]);
    take(&pool, &file, &ImportOptions { raw: true, ..options("v") }).unwrap();
    assert!(give_bytes(&pool, "v", &place.path("out")) == content, "if one insists");
    let directory = File::open(place.dir.path()).unwrap();
    assert!(matches!(take(&pool, &directory, &options("w")), Err(Error::Invalid(_))));
    pool.close().unwrap();
}

fn pipe() -> (File, File) {
    let (reader, writer) = io::pipe().unwrap();
    (OwnedFd::from(reader).into(), OwnedFd::from(writer).into())
}

pub fn streams(backend: &dyn Backend) {
    let place = Place::new();
    let pool = place.pool(backend);
    let mut want = pattern(4, (7 << 20) + 512);
    want[1 << 20..5 << 20].fill(0);
    let (reader, mut writer) = pipe();
    let sent = want.clone();
    let thread = thread::spawn(move || writer.write_all(&sent).unwrap());
    take(&pool, &reader, &options("v")).unwrap();
    thread.join().unwrap();
    assert_eq!(pool.list(false).unwrap()[0].size_bytes, want.len() as u64);
    let (mut reader, writer) = pipe();
    let thread = thread::spawn(move || {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        bytes
    });
    give(&pool, "v", &writer).unwrap();
    drop(writer);
    assert!(thread.join().unwrap() == want);
    // Too long for what it is to fill: known only at the end.
    let (reader, mut writer) = pipe();
    let thread = thread::spawn(move || while writer.write_all(&[1; 4096]).is_ok() {});
    let limited = ImportOptions { size_bytes: Some(MIB), ..options("w") };
    assert!(matches!(take(&pool, &reader, &limited), Err(Error::Invalid(_))));
    drop(reader);
    thread.join().unwrap();
    assert_eq!(names(&pool), ["v"]);
    pool.close().unwrap();
}

pub fn failures_leave_nothing(backend: &dyn Backend) {
    let place = Place::new();
    let pool = place.pool(backend);
    let file = image(&place.path("in"), 20 * MIB);
    for patience in [0, 3] {
        let asked = std::cell::Cell::new(0);
        let cancelled = || asked.replace(asked.get() + 1) >= patience;
        let mut watch = Watch { progress: &mut |_| {}, cancelled: &cancelled };
        let result = import(&pool, &file, &options("v"), &mut watch);
        assert!(matches!(result, Err(Error::Io { .. })), "{result:?}");
        assert_eq!(names(&pool), [""; 0]);
    }
    take(&pool, &file, &options("v")).unwrap();
    // A full file below the export.
    let full = File::options().write(true).open("/dev/full").unwrap();
    let result = give(&pool, "v", &full);
    assert!(matches!(result, Err(Error::NoSpace(_))), "{result:?}");
    pool.close().unwrap();
}

pub fn unfinished_is_deleted_at_open(backend: &dyn Backend) {
    let place = Place::new();
    let pool = place.pool(backend);
    let mark = [(IMPORTING.to_owned(), "1".to_owned())];
    pool.create_volume("whole", MIB, &[]).unwrap();
    pool.create_volume("half", MIB, &mark).unwrap();
    // Of an export that was cut short, and a snapshot that somebody took.
    let options = SnapshotOptions { props: mark.to_vec(), ..SnapshotOptions::default() };
    pool.snapshot(&["whole@export.1.2"], options).unwrap();
    pool.snapshot(&["whole@export.mine"], SnapshotOptions::default()).unwrap();
    drop(pool);
    let pool = place.reopen(backend);
    let mut left = names(&pool);
    left.sort();
    assert_eq!(left, ["whole", "whole@export.mine"]);
    pool.close().unwrap();
}

pub fn of_a_volume_in_use(backend: &dyn Backend) {
    let place = Place::new();
    let pool = place.pool(backend);
    pool.create_volume("v", 8 * MIB, &[]).unwrap();
    let volume = pool.volume("v").unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let bytes = thread::scope(|scope| {
        scope.spawn(|| {
            let mut round = 0u64;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                round += 1;
                // Descending: a torn image would have a newer end than beginning.
                for at in (0..8).rev() {
                    volume.write_at(&round.to_le_bytes(), at * MIB).unwrap();
                }
            }
        });
        thread::sleep(std::time::Duration::from_millis(50));
        let bytes = give_bytes(&pool, "v", &place.path("out"));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        bytes
    });
    let round = |at: usize| u64::from_le_bytes(bytes[at << 20..][..8].try_into().unwrap());
    let rounds: Vec<_> = (0..8).map(round).collect();
    assert!(rounds.is_sorted() && rounds[7] - rounds[0] <= 1, "of one instant: {rounds:?}");
    assert_eq!(names(&pool), ["v"], "no snapshot is left");
    pool.close().unwrap();
}
