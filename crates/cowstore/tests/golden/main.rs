//! Golden images: pools that earlier versions wrote, which open, read and check for ever.
//! `tests/golden/README.md` says what is kept there and how a further one is made.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod holds;
#[path = "../story/image.rs"]
mod image;
mod packed;
mod read;

use cow_check::{Options, Structure};
use cow_format::superblock::VERSION;
use cow_sim::corruption::specimen::Specimen;
use cow_sim::sim::Stop;
use cowstore::{OpenOptions, Pool};
use image::Image;
use read::contents;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The most that an image takes, packed.
const MOST: u64 = 1 << 20;

fn read_only(path: &Path) -> Pool {
    Pool::open(path, &OpenOptions { read_only: true, ..OpenOptions::default() }).unwrap()
}

fn writable(path: &Path) -> Pool {
    Pool::open(path, &OpenOptions::default()).unwrap()
}

/// The lines that were kept with the image.
fn kept(name: &str) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(packed::hashes(name)).unwrap();
    let lines = text.lines().map(|line| line.split_once(' ').expect("a name and what it is"));
    lines.map(|(name, line)| (name.to_owned(), line.to_owned())).collect()
}

/// What is wrong with the pool is what its folds had noted, and no more: no corruption at all but
/// in images of a pool that had met damage before.
fn assert_checks(path: &Path, name: &str, when: &str) {
    let mut image = Image(File::open(path).unwrap());
    let report = cow_check::check(&mut image, &Options::default()).unwrap();
    let noted = |kind| name.ends_with("-scarred") && kind == Structure::KnownDamage;
    let wrong: Vec<_> = report.findings.iter().filter(|finding| !noted(finding.kind)).collect();
    assert!(wrong.is_empty(), "{name}, {when}: {wrong:?}");
}

fn bytes(path: &Path) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path).unwrap()).unwrap();
    hasher.finalize()
}

#[test]
fn every_golden_image_reads_as_it_did_when_it_was_made() {
    for name in packed::names() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pool.cow");
        packed::unpack(&name, &path);
        assert!(packed::image(&name).metadata().unwrap().len() < MOST, "{name}");
        let before = bytes(&path);
        assert_checks(&path, &name, "as it was kept");
        let pool = read_only(&path);
        assert_eq!(contents(&pool), kept(&name), "{name}");
        pool.close().unwrap();
        assert_eq!(before, bytes(&path), "{name}: opened for reading, and written to");
    }
}

#[test]
fn every_golden_image_can_be_written_to() {
    for name in packed::names() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pool.cow");
        packed::unpack(&name, &path);
        // What expires may go by itself now.
        let mut stays = kept(&name);
        stays.retain(|_, line| line.contains(" expiry 0 "));
        assert!(stays.len() >= 2, "{name}: {stays:?}");
        let pool = writable(&path);
        let compare = |pool: &Pool, stays: &BTreeMap<String, String>, when: &str| {
            let mut found = contents(pool);
            found.retain(|name, _| stays.contains_key(name));
            assert_eq!(&found, stays, "{name}, {when}");
        };
        compare(&pool, &stays, "recovered");
        pool.snapshot(&["a@now"], cowstore::SnapshotOptions::default()).unwrap();
        stays.remove("a");
        let volume = pool.volume("a").unwrap();
        let data: Vec<u8> = (0..300_000u32).map(|i| (i / 5) as u8 | 1).collect();
        volume.write_at(&data, 4096).unwrap();
        volume.flush().unwrap();
        pool.wait_reclaim().unwrap();
        pool.checkpoint().unwrap();
        compare(&pool, &stays, "written to");
        drop(volume);
        pool.close().unwrap();
        assert_checks(&path, &name, "written to");
        let pool = read_only(&path);
        compare(&pool, &stays, "opened again");
        let mut back = vec![0; data.len()];
        pool.open_export("a", false).unwrap().read_at(&mut back, 4096).unwrap();
        assert!(back == data, "{name}");
        pool.close().unwrap();
    }
}

type Make = fn() -> Result<Specimen, Stop>;

/// Makes the golden images of the format version that this code writes. An image that is there stays
/// as it is.
#[test]
#[ignore = "makes files in the source tree, once for each format version"]
fn make() {
    let made: [(&str, Make); 5] = [
        ("whole", Specimen::grown),
        ("scarred", Specimen::scarred),
        ("cut", Specimen::cut),
        ("rare", Specimen::rare),
        ("overflow-scarred", Specimen::overflown),
    ];
    for (kind, specimen) in made {
        let name = format!("v{VERSION}-{kind}");
        if packed::image(&name).exists() {
            println!("{name} stays as it is");
            continue;
        }
        let disk = specimen().unwrap().disk;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pool.cow");
        let file = File::create_new(&path).unwrap();
        for block in disk.occupied() {
            file.write_all_at(&disk.peek(block), block * 4096).unwrap();
        }
        file.set_len(disk.blocks() * 4096).unwrap();
        packed::pack(&path, &name);
        let pool = read_only(&path);
        let lines = contents(&pool);
        pool.close().unwrap();
        let text: String = lines.iter().map(|(name, line)| format!("{name} {line}\n")).collect();
        std::fs::write(packed::hashes(&name), text).unwrap();
        println!("{}", packed::image(&name).display());
    }
}
